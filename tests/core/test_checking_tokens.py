"""The record checks the tokens of its session, at every hit: which are good, which no more, and what is asked again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.reader import AsyncReader, Reader
from pgsession._core.record import Record
from pgsession.opened import Opened

KEY = uuid.UUID(int=5)
SECOND = 1_000_000
NEW, OLD, OLDER = 30, 20, 10
GRACE = 30 * SECOND

Make = Callable[..., Any]


class Knowing:
    """A manager as far as a token needs one: "20/3" is of generation 20 and version 3."""

    _opened = Opened

    def _check_open(self) -> None:
        pass

    def _verify_token(self, token: str) -> tuple[bytes, int, int] | None:
        generation, slash, version = token.partition("/")
        return (KEY.bytes, int(generation), int(version)) if slash else None

    def _load(self, *arguments: object) -> object:
        return Opened(None, ("loaded", *arguments))  # type: ignore[arg-type]

    _load_by_token = _load

    def _load_session_by_token(self, *arguments: object) -> object:
        return ("loaded", *arguments)


class Threads(Knowing, Reader):
    pass


class Loops(Knowing, AsyncReader):
    pass


def finished(found: Any) -> Any:
    """What an awaitable has already, or the thing itself."""
    try:
        found.send(None)
    except AttributeError:
        return found
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


@pytest.fixture(params=[Threads, Loops])
def node(request: pytest.FixtureRequest, make_cache: Make, make_record: Make) -> Any:
    """A node that knows the session at version 5, rotated just now, with tokens of before good for 10 seconds."""
    cache: Cache = make_cache(rotation_grace=GRACE)
    now = cache.clock.database_now()
    cache.put(
        make_record(
            KEY.bytes,
            version=5,
            generation=NEW,
            previous_generation=OLD,
            previous_until=now + 10 * SECOND,
            rotated_at=now,
        )
    )
    return request.param(cache)


def opens(node: Any, token: Any) -> str:
    """The state that every door agrees on."""
    before = node._refused_tokens
    opened = finished(node.open_token(token))
    state: Any = opened.state
    if isinstance(state, tuple):
        assert finished(node.get_session_by_token(token)) == state
        assert node.get_cached_session_by_token(token) is None
        assert node._refused_tokens == before
        return "loaded"
    session, cached = finished(node.get_session_by_token(token)), node.get_cached_session_by_token(token)
    good = state in ("current", "previous")
    for one in (opened.session, session, cached):
        assert (one is not None) == good
        assert one is None or (one.id == KEY and one._by_older_token == (state == "previous"))
    assert node._refused_tokens == before + (0 if good or not token else 3)
    return str(state)


class Hostile(str):
    """Text whose methods are somebody else's."""

    def fail(self, *arguments: object) -> Any:
        raise RuntimeError("not to be asked")

    __eq__ = __ne__ = __hash__ = __len__ = __str__ = __bool__ = encode = fail  # type: ignore[assignment]


class Nothing:
    """No text, whose methods are somebody else's."""

    __eq__ = __ne__ = __hash__ = __len__ = __bool__ = Hostile.fail  # type: ignore[assignment]

    @property
    def __class__(self) -> Any:
        raise RuntimeError("not to be asked")


def test_a_token_is_not_asked_what_it_is(node: Any) -> None:
    """What comes from outside is a token that nobody signed, whatever its class says; an empty one is none at all."""
    refused = node._refused_tokens
    for token in (
        Hostile("nothing"),
        Hostile("x" * 88),
        Nothing(),
        b"nothing",
        bytearray(b""),
        7,
        [],
        1.5,
        True,
    ):
        assert finished(node.open_token(token)).state == "forged"
        assert finished(node.get_session_by_token(token)) is None
        assert node.get_cached_session_by_token(token) is None
        refused += 3
        assert node._refused_tokens == refused
    for token in (Hostile(""), "", None):
        assert finished(node.open_token(token)).state == "forged"
        assert node._refused_tokens == refused
    assert finished(node.open_token(Hostile(f"{NEW}/5"))).state == "current"


def test_the_states_of_a_token(node: Any) -> None:
    clock: Clock = node._cache.clock
    assert opens(node, f"{NEW}/5") == opens(node, f"{NEW}/1") == "current"
    assert opens(node, f"{OLD}/4") == opens(node, f"{OLD}/0") == "previous"
    assert opens(node, f"{OLDER}/2") == "superseded"
    assert opens(node, "nothing") == opens(node, None) == opens(node, 7) == "forged"
    clock.advance(10 * SECOND)
    assert opens(node, f"{NEW}/5") == "current"
    assert opens(node, f"{OLD}/4") == opens(node, f"{OLDER}/2") == "superseded"
    clock.advance(20 * SECOND)
    assert opens(node, f"{NEW}/5") == "current"
    assert opens(node, f"{OLD}/4") == opens(node, f"{OLDER}/2") == "ended"


def test_a_version_that_is_not_reached_is_read_again(node: Any) -> None:
    """Whatever the generation: it may be of a rotation that was not heard of yet."""
    for generation in (NEW, OLDER, 40):
        assert opens(node, f"{generation}/6") == "loaded"
        assert finished(node.open_token(f"{generation}/4", min_version=6)).state[0] == "loaded"
        assert finished(node.open_token(f"{generation}/4", refresh=True)).state[0] == "loaded"
    node._cache.set_floor(KEY, 6)
    assert opens(node, f"{NEW}/6") == "current"
    assert opens(node, f"{OLDER}/6") == opens(node, "40/6") == "superseded"
    assert opens(node, "40/7") == "loaded"


def test_what_may_still_be_good_is_not_refused(node: Any) -> None:
    clock: Clock = node._cache.clock
    clock.set_offset(clock.offset, 3 * SECOND)
    clock.advance(13 * SECOND - 1)
    assert opens(node, f"{OLD}/4") == "previous"
    clock.advance(1)
    assert opens(node, f"{OLD}/4") == "superseded"


def test_out_of_sync_nothing_is_refused_from_memory(node: Any) -> None:
    node._cache.in_sync_until = 0
    for generation in (NEW, OLD, OLDER):
        assert opens(node, f"{generation}/1") == "loaded"


def test_a_refused_token_is_no_access(node: Any) -> None:
    cache = node._cache
    cache.clock.advance(SECOND)
    for token in (f"{OLDER}/1", f"{OLDER}/9", "forged"):
        finished(node.open_token(token))
    assert cache.stats()["pending_accesses"] == cache.stats()["hits"] == 0
    finished(node.open_token(f"{OLD}/1", touch=False))
    assert cache.stats()["pending_accesses"] == 0
    finished(node.open_token(f"{OLD}/1"))
    assert cache.stats()["pending_accesses"] == 1


def test_a_session_that_is_used_again_is_not_of_an_older_token(node: Any) -> None:
    for _ in range(200):
        assert finished(node.get_session_by_token(f"{OLD}/4"))._by_older_token
        assert not finished(node.get_session_by_token(f"{NEW}/4"))._by_older_token
        session = finished(node.get_session_by_token(f"{OLD}/4"))
        session["a"] = [1]
        del session


def test_whoever_did_not_rotate_it_is_not_of_the_current_token_any_more(
    make_cache: Make, make_record: Make
) -> None:
    cache = make_cache()
    cache.put(make_record(KEY.bytes, version=5, generation=OLD))
    node = Threads(cache)
    mine, other = node.get_session(KEY), node.get_session(KEY)
    assert mine is not None and other is not None
    same, rotated = (
        make_record(KEY.bytes, version=6, generation=OLD),
        make_record(KEY.bytes, version=7, generation=NEW),
    )
    for session in (mine, other):
        session._saved(None, same, 0)
        assert not session._by_older_token
    mine._saved(None, rotated, 0, rotated=True)
    other._saved(None, rotated, 0)
    assert not mine._by_older_token and other._by_older_token
    mine._saved(None, make_record(KEY.bytes, version=8, generation=NEW), 0)
    assert not mine._by_older_token


@pytest.mark.parametrize("rotated_first", [True, False])
def test_a_rotation_keeps_its_token_in_whatever_order_saves_are_told(
    make_cache: Make, make_record: Make, rotated_first: bool
) -> None:
    """Two threads have one object: one rotates it, one saves it, and what was done first is told last."""
    cache = make_cache()
    cache.put(make_record(KEY.bytes, version=5, generation=OLD))
    session = Threads(cache).get_session(KEY)
    assert session is not None
    session["a"] = 1
    first = session._changes()
    session["b"] = 2
    second = session._changes()
    told_last = make_record(
        KEY.bytes, version=6, generation=NEW if rotated_first else OLD, attributes={"a": b"1"}
    )
    told_first = make_record(KEY.bytes, version=7, generation=NEW, attributes={"a": b"1", "b": b"2"})
    session._saved(second, told_first, 0, rotated=not rotated_first)
    session._saved(first, told_last, 0, rotated=rotated_first)
    assert session.version == 7 and not session._by_older_token


def test_changes_keep_what_says_which_tokens_are_good(make_record: Make) -> None:
    names = ("generation", "owner_since", "previous_generation", "previous_until", "rotated_at")
    identity = dict(zip(names, range(11, 16), strict=True))
    record: Record = make_record(KEY.bytes, version=5, attributes={"a": b"1"}, **identity)
    for sets, group in (([("a", b"2", None)], None), ([("b", b"2", None)], None), ([], "g")):
        changed = record.changed(
            version=6, updated_at=1, last_accessed=1, expires_at=record.expires_at, inactivity=0,
            group_id=group, sets=sets, deletes=[],
        )  # fmt: skip
        assert {name: getattr(changed, name) for name in names} == identity


def test_a_token_may_come_by_name(make_cache: Make) -> None:
    for manager in (Threads(make_cache()), Loops(make_cache())):
        with pytest.raises(TypeError, match="argument"):
            manager.open_token()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"^touch: "):
            manager.open_token("x", touch=1)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^touch: "):
            manager.get_cached_session_by_token("x", touch=1)  # type: ignore[arg-type]
        assert manager.get_cached_session_by_token(token="forged") is None


async def test_an_opened_token_is_awaited(make_cache: Make) -> None:
    manager = Loops(make_cache())
    assert await manager.open_token("forged") == Opened(None, "forged")
    assert await asyncio.create_task(manager.open_token("forged")) == (None, "forged")
