"""Values go through the codec both ways, are compared before they are sealed, and are bound to where they are."""

from __future__ import annotations

import gc
import hashlib
import hmac
import json
import weakref
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

import msgspec
import pytest

from pgsession._core.cache import Cache
from pgsession._core.hit import session_of
from pgsession._core.record import Record
from pgsession._core.session import Session
from pgsession.codec import Codec
from pgsession.errors import AttributeCodecError, AttributeTooLargeError, AttributeTypeError

from .conftest import saved

MakeCache = Callable[..., Cache]
MakeRecord = Callable[..., Record]
MakeSession = Callable[..., Session]

WHEN = datetime(2030, 1, 1, tzinfo=UTC)


class Tagged(Codec):
    """Datetimes, and complex numbers, as what they are."""

    def to_plain(self, value: object) -> object:
        if isinstance(value, datetime):
            return {"$time": value.isoformat()}
        if isinstance(value, complex):
            return {"$complex": [value.real, value.imag]}
        if isinstance(value, dict):
            return {key: self.to_plain(part) for key, part in value.items()}
        return [self.to_plain(part) for part in value] if isinstance(value, list) else value

    def from_plain(self, value: Any) -> object:
        if isinstance(value, dict):
            if "$time" in value:
                return datetime.fromisoformat(value["$time"])
            if "$complex" in value:
                return complex(*value["$complex"])
            return {key: self.from_plain(part) for key, part in value.items()}
        return [self.from_plain(part) for part in value] if isinstance(value, list) else value


class Sealing(Codec):
    """No cipher, but as random and as bound as one; it counts what it is asked for."""

    def __init__(self) -> None:
        self.nonces = count(1)
        self.calls: list[str] = []

    def _mark(self, nonce: bytes, session_id: UUID, key: str, data: bytes) -> bytes:
        return hmac.digest(nonce, session_id.bytes + key.encode() + b"\0" + data, hashlib.sha256)

    def seal(self, session_id: UUID, key: str, data: bytes) -> bytes:
        self.calls.append("seal")
        nonce = next(self.nonces).to_bytes(8, "big")
        return nonce + self._mark(nonce, session_id, key, data) + data[::-1]

    def open(self, session_id: UUID, key: str, data: bytes) -> bytes:
        self.calls.append("open")
        nonce, mark, plain = data[:8], data[8:40], data[40:][::-1]
        if not hmac.compare_digest(mark, self._mark(nonce, session_id, key, plain)):
            raise ValueError(f"forged: {plain!r}")
        return plain


class Both(Tagged, Sealing):
    pass


@pytest.fixture
def make_with(make_cache: MakeCache, make_record: MakeRecord) -> Callable[..., Session]:
    def make(codec: Codec, *, key: bytes = bytes(16), limit: int = 1000, **attributes: Any) -> Session:
        cache = make_cache(codec=codec, max_attribute_length=limit)
        return session_of(cache, make_record(key, version=7, attributes=attributes), from_cache=False)

    return make


def others(make_with: Callable[..., Session], session: Session, codec: Codec) -> Session:
    """As another node reads it."""
    stored = {key: text for key, _, _, text in session._record.attributes()}
    return make_with(codec, key=session.id.bytes, **stored)


# ---- values ----


@pytest.mark.parametrize("make_codec", [Tagged, Both])
def test_values_of_tagged_types_are_read_as_what_they_are(
    make_with: Callable[..., Session], make_codec: Callable[[], Codec]
) -> None:
    codec = make_codec()
    session = make_with(codec)
    values = {"when": WHEN, "number": 2j, "many": [WHEN, {"a": 1j}], "plain": "text", "none": None, "int": 5}
    session.update(values)
    for reader in (saved(session), others(make_with, session, codec), session):
        for _ in range(2):
            assert dict(reader) == values
            assert {key: reader.get(key, type=Any) for key in reader} == values
        assert not reader.is_modified


@pytest.mark.parametrize("make_codec", [Tagged, Both])
def test_nested_changes_of_tagged_values_are_found(
    make_with: Callable[..., Session], make_codec: Callable[[], Codec]
) -> None:
    codec = make_codec()
    session = make_with(codec)
    session["many"] = [WHEN]
    saved(session)
    session["many"].append(2j)
    assert session.is_modified
    saved(session)
    reader = others(make_with, session, codec)
    assert reader["many"] == [WHEN, 2j] and not reader.is_modified
    reader["many"].pop(0)
    assert saved(reader)["many"] == [2j] and not reader.is_modified
    reader["many"] = [3]
    reader["many"].append(WHEN)
    assert saved(reader)["many"] == [3, WHEN]


def test_a_type_is_decoded_from_what_is_stored(make_with: Callable[..., Session]) -> None:
    class Shout(Codec):
        def from_plain(self, value: object) -> object:
            return value.upper() if isinstance(value, str) else value

    for typed_first in (True, False):
        session = make_with(Shout(), a=b'"text"')
        if typed_first:
            assert session.get("a", type=str) == "text"
        assert session["a"] == session["a"] == session.get("a") == "TEXT"
        assert session.get("a", type=str) == "text" and session.get("a", type=Any) == "TEXT"
    session = make_with(Tagged(), when=b'{"$time":"2030-01-01T00:00:00+00:00"}')
    assert session.get("when", type=dict[str, str]) == {"$time": "2030-01-01T00:00:00+00:00"}
    session["when"] = WHEN
    assert session.get("when", type=dict[str, str]) == {"$time": "2030-01-01T00:00:00+00:00"}
    with pytest.raises(AttributeTypeError, match="'when'"):
        session.get("when", type=int)


def test_only_what_is_plain_is_shared(make_cache: MakeCache, make_record: MakeRecord) -> None:
    cache = make_cache(codec=Both())
    first = session_of(cache, make_record(), from_cache=False)
    first.update(text="a text", when=WHEN, number=10**6, pair={"first": "a"})
    record = saved(first)._record
    one, two = (session_of(cache, record, from_cache=True) for _ in range(2))
    for session in (one, two):
        assert session["when"] == WHEN and session.get("pair", type=Pair) == Pair("a")
    assert one["text"] is two["text"] and one["number"] is two["number"]
    assert one.get("text", type=str) is two.get("text", type=str)
    assert one["when"] is one["when"] is not two["when"]
    assert one.get("pair", type=Pair) is one.get("pair", type=Pair) is not two.get("pair", type=Pair)


class Pair(msgspec.Struct, frozen=True):
    first: str


def test_what_a_codec_gives_is_checked_as_any_value(make_with: Callable[..., Session]) -> None:
    class Odd(Codec):
        def to_plain(self, value: object) -> object:
            return object() if value == "object" else {1: 0, "1": 1} if value == "keys" else float("nan")

    session = make_with(Odd())
    for value, error in (("object", TypeError), ("keys", ValueError), ("nan", ValueError)):
        with pytest.raises(
            AttributeCodecError, match=r"attribute 'a': the codec's to_plain\(\) ret"
        ) as failed:
            session["a"] = value
        assert type(failed.value.__cause__) is error and str(failed.value).count("attribute") == 1
    assert not session.is_modified


def test_a_codec_that_leaves_a_value_as_it_is_is_not_to_blame(make_with: Callable[..., Session]) -> None:
    session = make_with(Tagged())
    with pytest.raises(TypeError, match="attribute 'a': a value that JSON can hold is needed"):
        session["a"] = object()
    with pytest.raises(AttributeTooLargeError):
        session["a"] = [WHEN] * 100


def test_what_is_read_has_to_be_what_can_be_written(make_with: Callable[..., Session]) -> None:
    """A value that a caller may change is compared at save with what it was."""

    class OneWay(Codec):
        def from_plain(self, value: object) -> object:
            return object() if value == [1] else value

    session = make_with(OneWay(), a=b"[1]", b=b"[2]")
    with pytest.raises(
        AttributeCodecError, match=r"attribute 'a': the codec's to_plain\(\) .* from_plain\(\)"
    ):
        session["a"]
    assert session["b"] == [2] and session._changes() is None


# ---- bytes ----


def test_what_is_stored_is_a_json_string_of_what_was_sealed(make_with: Callable[..., Session]) -> None:
    codec = Sealing()
    session = make_with(codec)
    session["a"] = {"secret": 1}
    ((key, _, _, text),) = saved(session)._record.attributes()
    assert key == "a" and b"secret" not in text
    data = b64decode(json.loads(text), validate=True)
    assert codec.open(session.id, "a", data) == b'{"secret":1}'
    spaced = make_with(codec, a=b' "' + text[1:-1].replace(b"/", b"\\/") + b'"')
    assert spaced["a"] == {"secret": 1}


def test_changes_are_compared_before_they_are_sealed(make_with: Callable[..., Session]) -> None:
    codec = Sealing()
    session = make_with(codec)
    session.update(list=[1], text="a", number=5)
    saved(session)
    assert codec.calls == ["seal"] * 3, "what is checked when it is set is what is sent"
    reader = others(make_with, session, codec)
    codec.calls.clear()
    assert dict(reader) == {"list": [1], "text": "a", "number": 5} and not reader.is_modified
    assert reader["list"] == [1] and reader["text"] == "a" and reader._changes() is None
    assert codec.calls == ["open"] * 3
    reader["list"].append(2)
    assert reader.is_modified and codec.calls == ["open"] * 3, "to look is not to seal"
    first, again = reader._changes(), reader._changes()
    assert first is not None and again is not None and first.sets == again.sets
    assert [item[0] for item in first.sets] == ["list"] and codec.calls.count("seal") == 1
    reader["list"].append(3)
    assert saved(reader)["list"] == [1, 2, 3] and codec.calls.count("seal") == 2


def test_what_was_sealed_is_of_no_use_elsewhere(make_with: Callable[..., Session]) -> None:
    codec = Sealing()
    session = make_with(codec)
    session.update(role="reader", other="admin")
    stored = {key: text for key, _, _, text in saved(session)._record.attributes()}
    swapped = make_with(codec, role=stored["other"], other=stored["other"])
    assert swapped["other"] == "admin"
    with pytest.raises(AttributeCodecError, match="'role'") as refused:
        swapped["role"]
    assert refused.value.key == "role" and "admin" not in str(refused.value)
    assert isinstance(refused.value.__cause__, ValueError)
    elsewhere = make_with(codec, key=UUID(int=5).bytes, **stored)
    for key in stored:
        with pytest.raises(AttributeCodecError, match=f"'{key}'"):
            elsewhere[key]


@pytest.mark.parametrize(
    "stored", [b'"admin"', b'"YWRtaW4="', b'""', b'"\\u00e9"', b"5", b"null", b'["a"]', b"{}", b"1e400"]
)
def test_what_cannot_be_opened_is_an_error_at_that_read_and_is_left_alone(
    make_with: Callable[..., Session], stored: bytes
) -> None:
    codec = Sealing()
    session = make_with(codec, bad=stored)
    session["good"] = [1]
    bad: list[Callable[[], object]] = [
        lambda: session["bad"],
        lambda: session.get("bad"),
        lambda: session.get("bad", type=str),
        lambda: session.attribute("bad"),
        lambda: session.pop("bad"),
        lambda: session.setdefault("bad", 1),
        lambda: dict(session),
    ]
    for _ in range(2):
        for read in bad:
            with pytest.raises((AttributeCodecError, AttributeTypeError), match="'bad'"):
                read()
        assert session["good"] == [1] and "bad" in session and len(session) == 2
        saved(session)
        assert {key: text for key, _, _, text in session._record.attributes()}["bad"] == stored
        session["good"] = [1]
    session["bad"] = "mended"
    assert saved(session)["bad"] == "mended"
    session = make_with(codec, bad=stored)
    del session["bad"]
    assert dict(saved(session)) == {}


def test_lengths_count_after_sealing(make_with: Callable[..., Session]) -> None:
    session = make_with(Sealing(), limit=70)
    session["a"] = "x" * 8  # 10 bytes of JSON, 50 sealed, 68 as Base64, 70 as a JSON string
    with pytest.raises(AttributeTooLargeError) as refused:
        session["a"] = "x" * 12
    assert (refused.value.key, refused.value.length, refused.value.limit) == ("a", 74, 70)
    assert saved(session)["a"] == "x" * 8
    session["a"] = ["x"]
    session["a"].append("y" * 10)
    with pytest.raises(AttributeTooLargeError, match="'a'"):
        session._changes()
    assert session["a"] == ["x", "y" * 10]

    class Packed(Codec):
        def seal(self, session_id: UUID, key: str, data: bytes) -> bytes:
            return len(data).to_bytes(2, "big") + data[:3]

        def open(self, session_id: UUID, key: str, data: bytes) -> bytes:
            return data[2:4] + data[3:4] * (int.from_bytes(data[:2], "big") - 3) + b'"'

    session = make_with(Packed(), limit=70)
    session["a"] = "x" * 1000
    assert saved(session)["a"] == "x" * 1000


# ---- errors ----


@pytest.mark.parametrize("hook", ["to_plain", "seal"])
def test_a_codec_that_fails_loses_nothing(make_with: Callable[..., Session], hook: str) -> None:
    codec = Both()
    session = make_with(codec)
    session["a"] = [1]
    session["a"].append("secret")

    def fail(*args: object) -> bytes:
        raise OSError("secret")

    setattr(codec, hook, fail)
    for act in (session._changes, lambda: session.__setitem__("b", 1)):
        with pytest.raises(AttributeCodecError, match=f"the codec's {hook}") as failed:
            act()
        assert "secret" not in str(failed.value) and isinstance(failed.value.__cause__, OSError)
    delattr(codec, hook)
    assert dict(saved(session)) == {"a": [1, "secret"]}


def test_a_codec_that_cannot_read_is_an_error_by_the_attributes_name(
    make_with: Callable[..., Session],
) -> None:
    class Failing(Codec):
        def from_plain(self, value: object) -> object:
            raise LookupError("secret")

    session = make_with(Failing(), a=b"1")
    with pytest.raises(AttributeCodecError, match=r"'a': the codec's from_plain\(\) raised LookupError"):
        session["a"]
    assert session.get("a", type=int) == 1


def test_a_codec_has_to_give_bytes(make_with: Callable[..., Session]) -> None:
    class Text(Codec):
        def seal(self, session_id: UUID, key: str, data: bytes) -> Any:
            return data.decode()

        def open(self, session_id: UUID, key: str, data: bytes) -> Any:
            return data.decode()

    with pytest.raises(AttributeCodecError, match=r"'a': the codec's seal\(\) must return bytes, not str"):
        make_with(Text())["a"] = 1
    with pytest.raises(AttributeCodecError, match=r"'a': the codec's open\(\) must return bytes, not str"):
        make_with(Text(), a=b'"YWI="')["a"]


def test_a_codec_that_refers_to_its_cache_is_collected(make_cache: MakeCache) -> None:
    codec = Tagged()
    codec.cache = make_cache(codec=codec)  # type: ignore[attr-defined]
    gone = weakref.ref(codec)
    del codec
    gc.collect()
    assert gone() is None
