"""Session ids: what is one is read as `uuid` reads it; all else is a TypeError or a ValueError."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.key import to_bytes, to_uuid
from pgsession._core.reader import Reader

from . import fuzz, mutated

CANONICAL = re.compile("-".join(f"[0-9a-fA-F]{{{count}}}" for count in (8, 4, 4, 4, 12)))


class Identity(UUID):
    pass


class Text(str):
    pass


class Raw(bytes):
    pass


class Number(int):
    def to_bytes(self, *_: Any) -> bytes:  # type: ignore[override]
        return b"short"


class Swindler:
    def to_bytes(self, *_: Any) -> bytes:
        return b""


class Loader(Reader):
    """A manager that finds nothing in memory, and answers with the key that it would ask the database for."""

    def _load(self, key: bytes, *_: Any) -> bytes:
        return key


LIMITS = {"access_interval": 0, "lifetime": 0, "max_attribute_length": 1}
LOADER = Loader(Cache(1, Clock(manual=0), **LIMITS))
GONE = object()

ids = st.uuids()
slots = st.one_of(
    st.integers(-(2**200), 2**200),
    st.integers(0, 2**130).map(Number),
    st.sampled_from(
        [2**128 - 1, 2**128, -1, -(2**128), 2**64, True, None, 1.5, "7", b"x" * 16, Swindler(), GONE]
    ),
)


def tampered(kind: type[UUID], value: object) -> UUID:
    """A UUID whose int is another one, or no int, or not there."""
    identity = kind(int=5)
    if value is GONE:
        object.__delattr__(identity, "int")
    else:
        object.__setattr__(identity, "int", value)
    return identity


texts = mutated(ids.map(str) | ids.map(lambda one: str(one).upper()), "0123456789abcdefABCDEFgG-{}:")
session_ids = st.one_of(
    ids,
    ids.map(lambda one: Identity(int=one.int)),
    texts,
    texts.map(Text),
    ids.map(lambda one: one.hex),
    ids.map(lambda one: one.urn),
    st.binary(min_size=14, max_size=18),
    st.binary(min_size=15, max_size=17).map(Raw),
    st.binary(min_size=16, max_size=16).map(bytearray),
    st.builds(tampered, st.sampled_from([UUID, Identity]), slots),
    st.none() | st.integers() | st.floats() | st.tuples(st.text()),
)


def meant(session_id: Any) -> bytes | None:
    """The key that it stands for, None where it stands for none."""
    if isinstance(session_id, UUID):
        number = getattr(session_id, "int", None)
        in_range = isinstance(number, int) and 0 <= number < 2**128
        return int.to_bytes(number, 16, "big") if in_range else None  # type: ignore[arg-type]
    if isinstance(session_id, str):
        return UUID(str(session_id)).bytes if CANONICAL.fullmatch(session_id) else None
    if isinstance(session_id, bytes):
        return bytes(session_id) if len(session_id) == 16 else None
    return None


@fuzz
@given(session_ids)
@example("\u0661" * 36)
@example("0" * 8 + "-0000-0000-0000-" + "0" * 11 + "\ud800")
def test_an_id_is_read_as_uuid_reads_it_or_refused(session_id: Any) -> None:
    expected = meant(session_id)
    for read in (to_bytes, lambda one: to_uuid(one).bytes, LOADER.get_session):
        try:
            key = read(session_id)
        except (TypeError, ValueError):
            key = None
        assert key == expected
