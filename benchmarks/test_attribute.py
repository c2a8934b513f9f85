"""Reading an attribute of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import urandom
from typing import Any
from uuid import UUID, uuid4

import msgspec

from pgsession._core.hit import session_of
from pgsession._core.record import Record

from . import ours, redis_py
from .loops import fresh_bytes, keeping_loop, loop, random, shuffled
from .race import Race, Round
from .service import ATTRIBUTES
from .stage import Stage
from .test_get import node

COUNT = 200  # few enough to stay in the processor's cache, and to leave the garbage collector out of it

decoded = Race(
    "attribute", "Read a text of a session at hand that somebody has read before", baseline="dict[key]"
)
first = Race(
    "decode", "Read an attribute for the first time", baseline="msgspec.json.decode, dict", rounds=50
)
both = Race(
    "get-attribute",
    "Get a session from memory and read a text, 10,000 of them, random order",
    baseline="dicts",
)
identity = Race("id", "Read the id of a session at hand", baseline="get_session(UUID), a hit")
READS = 20_000
REDIS_CACHE = "redis-py with its client-side cache"


class Preferences(msgspec.Struct, frozen=True):
    """The attribute of this name."""

    language: str
    beta: bool


@decoded.contender("dict[key]")
def _dict(stage: Stage) -> Iterator[Round]:
    sessions = [dict(ATTRIBUTES) for _ in range(COUNT)]
    yield loop(lambda session: session["role"], lambda: random.choices(sessions, k=READS))


@decoded.contender("session[key]")
def _session(stage: Stage) -> Iterator[Round]:
    manager = stage.once(node)
    sessions = [manager.get_session(key) for key in ours.cached_ids(manager)[:COUNT]]
    yield loop(lambda session: session["role"], lambda: random.choices(sessions, k=READS))


@decoded.contender("session.get(key)")
def _get(stage: Stage) -> Iterator[Round]:
    manager = stage.once(node)
    sessions = [manager.get_session(key) for key in ours.cached_ids(manager)[:COUNT]]
    yield loop(lambda session: session.get("role"), lambda: random.choices(sessions, k=READS))


def _fresh_sessions(manager: Any) -> Callable[[], Sequence[Any]]:
    """Sessions on records that nobody has read an attribute of."""
    attributes = [(name, 1, None, msgspec.json.encode(value)) for name, value in sorted(ATTRIBUTES.items())]

    def make() -> Sequence[Any]:
        ends = manager._clock.database_now() + 10**12
        records = [
            Record(uuid4().bytes, 1, str(i), None, 0, 0, 0, ends, None, attributes) for i in range(COUNT)
        ]
        return [session_of(manager._cache, record, from_cache=True) for record in records]

    return make


def _copies(name: str) -> Callable[[], Sequence[bytes]]:
    """The JSON of an attribute, many times."""
    text = msgspec.json.encode(ATTRIBUTES[name])
    return lambda: [bytes(bytearray(text)) for _ in range(COUNT)]


def _enter(kind: str, name: str) -> None:
    """Enters msgspec and a session for an attribute that is read without a type."""

    @first.contender(f"msgspec.json.decode, {kind}")
    def _decode(stage: Stage) -> Iterator[Round]:
        yield keeping_loop(lambda value: msgspec.json.decode(value), _copies(name))

    @first.contender(f"session[key], {kind}")
    def _first(stage: Stage) -> Iterator[Round]:
        yield keeping_loop(lambda session: session[name], _fresh_sessions(stage.once(node)))


_enter("dict", "preferences")
_enter("str", "role")
_enter("int", "visits")


@first.contender("msgspec.json.Decoder, Struct")
def _decode_struct(stage: Stage) -> Iterator[Round]:
    decode = msgspec.json.Decoder(Preferences).decode
    yield keeping_loop(lambda value: decode(value), _copies("preferences"))


@first.contender("session.get(key, type=Struct)")
def _first_struct(stage: Stage) -> Iterator[Round]:
    sessions = _fresh_sessions(stage.once(node))
    yield keeping_loop(lambda session: session.get("preferences", type=Preferences), sessions)


@identity.contender("get_session(UUID), a hit")
def _hit(stage: Stage) -> Iterator[Round]:
    manager = stage.once(node)
    ids = ours.cached_ids(manager)[:COUNT]
    yield loop(manager.get_session, lambda: [UUID(bytes=key) for key in random.choices(ids, k=READS)])


@identity.contender("session.id")
def _id(stage: Stage) -> Iterator[Round]:
    manager = stage.once(node)
    sessions = [manager.get_session(key) for key in ours.cached_ids(manager)[:COUNT]]
    yield loop(lambda session: session.id, lambda: random.choices(sessions, k=READS))


@identity.contender("session.id, for the first time")
def _first_id(stage: Stage) -> Iterator[Round]:
    yield loop(lambda session: session.id, _fresh_sessions(stage.once(node)))


@both.contender("dicts")
def _dicts(stage: Stage) -> Iterator[Round]:
    sessions = {urandom(16): dict(ATTRIBUTES) for _ in range(10_000)}
    ids = list(sessions)
    yield loop(lambda key: sessions[key]["role"], lambda: shuffled(ids, fresh_bytes))


@both.contender("pgsession")
def _pgsession(stage: Stage) -> Iterator[Round]:
    manager: Any = stage.once(node)
    ids = ours.cached_ids(manager)
    yield loop(lambda key: manager.get_session(key)["role"], lambda: shuffled(ids, fresh_bytes))


@both.contender(REDIS_CACHE)
def _redis(stage: Stage) -> Iterator[Round]:
    decode = msgspec.json.decode
    with redis_py.caching(stage, 10_000) as (ids, get):
        yield loop(lambda key: decode(get(key)[b"role"]), lambda: shuffled(ids, fresh_bytes, 2000))


test_attribute = decoded.test()
test_decode = first.test()
test_id = identity.test()
test_get_attribute = both.test()
