"""Whatever a codec does in the middle of a call, to the very session, no value goes under another name.

As in test_reentrancy.py, whose code runs in the middle; here it is each of the four hooks that runs it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from pgsession._core.hit import session_of
from pgsession._core.session import Session
from pgsession.codec import Codec

from .conftest import saved
from .test_reentrancy import (
    NAMES,
    SEEDS,
    Finalized,
    Made,
    Meanwhile,
    Shared,
    Tagged,
    collected_often,
    meanwhile,
    some_step,
)

HOOKS = ("to_plain", "from_plain", "seal", "open")


class Acting(Codec):
    """Each hook named runs what runs in the middle, and tells one attribute's bytes from another's."""

    def __init__(self, hooks: tuple[str, ...]) -> None:
        self.hooks = hooks

    def act(self, hook: str) -> None:
        if hook in self.hooks:
            meanwhile()

    def to_plain(self, value: object) -> object:
        self.act("to_plain")
        return value

    def from_plain(self, value: object) -> object:
        self.act("from_plain")
        return value

    def seal(self, session_id: UUID, key: str, data: bytes) -> bytes:
        self.act("seal")
        return session_id.bytes + key.encode() + b"\0" + data

    def open(self, session_id: UUID, key: str, data: bytes) -> bytes:
        self.act("open")
        where, _, plain = data.partition(key.encode() + b"\0")
        assert where == session_id.bytes
        return plain


def check(session: Session) -> None:
    """Every stored value is the one of its attribute."""
    before, meanwhile.session = meanwhile.session, None
    other = session_of(session_cache[session.id.bytes], session._record, from_cache=True)
    for key in other:
        value = other[key]
        assert (value[0] if isinstance(value, list) else value["key"]) == key
    meanwhile.session = before


session_cache: dict[bytes, Any] = {}


@pytest.fixture(autouse=True)
def _nothing_runs_later() -> Iterator[None]:
    yield
    meanwhile.session = None
    session_cache.clear()


@pytest.fixture
def make_acting(make_cache: Callable[..., Any], make_record: Callable[..., Any]) -> Callable[..., Session]:
    def make(*hooks: str) -> Session:
        cache = make_cache(codec=Acting(hooks), max_attribute_length=10_000)
        session = session_of(cache, make_record(version=7), from_cache=False)
        session_cache[session.id.bytes] = cache
        session.update({name: {"key": name, "n": 0} for name in NAMES})
        made = session_of(cache, saved(session)._record, from_cache=True)
        meanwhile.numbers, meanwhile.session, meanwhile.ran = count(), made, 0
        return made

    return make


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_may_change_and_save_the_session(make_acting: Callable[..., Session], hook: str) -> None:
    session = make_acting(hook)
    for name in NAMES:
        assert session[name]["key"] == name
        assert session.get(name, type=Tagged).key == name
        session[name]["n"] = 1
        saved(session)
        check(session)
        assert session.attribute(name).value == {"key": name, "n": 1}
        session.get(name, type=Made).n = 2
        assert session.is_modified
        session[f"new {name}"] = ["new " + name]
        session[name] = {"key": name, "n": 3}
        assert session.get(name, type=Shared) == Shared(name, 3)
        saved(session)
        check(session)
        assert session[name] == {"key": name, "n": 3}
        assert session.pop(f"new {name}") == ["new " + name]
    saved(session)
    check(session)
    assert meanwhile.ran >= len(NAMES)
    assert all(session[name]["n"] == 3 for name in NAMES)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_may_take_away_what_it_is_asked_about(make_acting: Callable[..., Session], hook: str) -> None:
    session = make_acting(hook)

    class Deleting(Meanwhile):
        def act(self, session: Session) -> None:
            session.clear()
            saved(session)
            self.session = None

    deleting = Deleting(session)
    acting = session_cache[session.id.bytes].codec
    acting.act = lambda name: deleting() if name == hook else None
    if hook == "seal":
        session[NAMES[3]] = {"key": NAMES[3], "n": 4}
        assert dict(session) == {NAMES[3]: {"key": NAMES[3], "n": 4}}
    else:
        with pytest.raises(KeyError):
            session[NAMES[1]]
    assert deleting.ran == 1 and session.get(NAMES[2], type=Tagged) is None
    saved(session)
    check(session)
    assert set(session) <= {NAMES[3]}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_anything_in_a_hook_of_anything(make_acting: Callable[..., Session], seed: int) -> None:
    generator = random.Random(seed)
    session = make_acting(*HOOKS)
    with collected_often():
        for _ in range(100):
            Finalized()
            some_step(session, generator.choice(NAMES), generator)
    assert meanwhile.ran > 100
    meanwhile.session = None
    saved(session)
    check(session)
