"""Whatever runs in the middle of a call on a session, no value goes under another name and nothing freed is used.

Each value says which attribute it belongs to. What runs in the middle (a key's hash, a Struct's `__post_init__`, an
enum's `_missing_`, a time zone that is asked while a value is encoded, a finalizer, another thread) changes and saves
the same session, with keys that sort before all others, so that every attribute moves to another place.
"""

from __future__ import annotations

import enum
import gc
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import count
from typing import Any
from uuid import UUID

import msgspec
import pytest

from pgsession._core.cache import Cache
from pgsession._core.reader import Reader
from pgsession._core.session import Session

from .conftest import saved

MakeSession = Callable[..., Session]
MakeCache = Callable[..., Cache]
MakeRecord = Callable[..., Any]

NAMES = [f"m{number}" for number in range(12)]
SEEDS = int(os.environ.get("PGSESSION_SEEDS", "20"))
ROUNDS = int(os.environ.get("PGSESSION_ROUNDS", "3000"))  # of two threads; a million take half a minute


def stored(*names: str) -> dict[str, bytes]:
    return {name: b'{"key":"%s","n":0}' % name.encode() for name in names}


def check(session: Session) -> None:
    """Every stored value is the one of its attribute."""
    for key, _, _, text in session._record.attributes():
        value = msgspec.json.decode(text)
        assert (value[0] if isinstance(value, list) else value["key"]) == key


class Meanwhile:
    """What runs in the middle: changes the session and saves it, but not while it is at it already."""

    def __init__(self, session: Session | None = None) -> None:
        self.session = session
        self.numbers = count()
        self.busy = False
        self.ran = 0

    def __call__(self) -> None:
        if self.session is None or self.busy:
            return
        self.busy = True
        try:
            self.ran += 1
            self.act(self.session)
        finally:
            self.busy = False

    def act(self, session: Session) -> None:
        name = f"a{next(self.numbers)}"
        session[name] = {"key": name}
        old = next((key for key in session if key < name and key.startswith("a")), None)
        if old is not None:
            del session[old]
        saved(session)
        gone = [bytes([number]) * 500 for number in range(20)]  # takes what was freed
        del gone


meanwhile = Meanwhile()


@pytest.fixture(autouse=True)
def _nothing_runs_later() -> Iterator[None]:
    yield
    meanwhile.session = None


class Tagged(msgspec.Struct):
    key: str
    n: int = 0

    def __post_init__(self) -> None:
        meanwhile()


class Shared(msgspec.Struct, frozen=True):
    key: str
    n: int = 0

    def __post_init__(self) -> None:
        meanwhile()


class Made(msgspec.Struct):
    key: str
    n: int = 0
    extra: dict[str, int] = msgspec.field(default_factory=lambda: meanwhile() or {})  # type: ignore[func-returns-value]


class Asked(enum.Enum):
    KNOWN = "known"

    @classmethod
    def _missing_(cls, value: object) -> Asked:
        meanwhile()
        return cls.KNOWN


class Chosen(msgspec.Struct):
    key: str
    n: int = 0
    asked: Asked = Asked.KNOWN


class Compared(type(msgspec.Struct)):  # type: ignore[misc]
    """Of types whose hash and comparison run code."""

    def __hash__(cls) -> int:
        meanwhile()
        return 1

    def __eq__(cls, other: object) -> bool:
        meanwhile()
        return cls is other


class Odd(msgspec.Struct, metaclass=Compared):
    key: str
    n: int = 0


class Name(str):
    """A key whose hash and comparison run code."""

    def __hash__(self) -> int:
        meanwhile()
        return str.__hash__(self)

    def __eq__(self, other: object) -> bool:
        meanwhile()
        return str.__eq__(self, other)

    def encode(self, *args: Any) -> bytes:  # type: ignore[override]
        meanwhile()
        return str.encode(self, *args)

    def __str__(self) -> str:
        meanwhile()
        return str.__str__(self)


class Zone(tzinfo):
    """Asked while a value that holds a time is encoded."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        meanwhile()
        return timedelta(0)


class Finalized:
    """Part of a cycle, so that the collector finds it, wherever that runs."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        meanwhile()


@contextmanager
def collected_often() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(3, 1, 1)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@pytest.fixture
def session(make_session: MakeSession) -> Session:
    made = make_session(**stored(*NAMES))
    meanwhile.session = made
    meanwhile.numbers = count()
    return made


@pytest.mark.parametrize("kind", [Tagged, Made, Odd])
def test_a_value_whose_decoding_saves_the_session_keeps_its_name(session: Session, kind: type) -> None:
    for name in NAMES:
        value = session.get(name, type=kind)
        assert value.key == name
        value.n = 7
        saved(session)
        check(session)
    assert [session[name]["n"] for name in NAMES] == [7] * len(NAMES)
    assert meanwhile.ran >= len(NAMES)


@pytest.mark.parametrize("kind", [Shared, Chosen])
def test_a_value_that_is_shared_is_shared_under_its_name(session: Session, kind: type) -> None:
    meanwhile.session = None
    for name in NAMES:
        session[name] = {"key": name, "asked": "unknown"}
    saved(session)
    meanwhile.session = session
    for name in NAMES:
        assert session.get(name, type=kind).key == name
        saved(session)
    assert [session.get(name, type=kind).key for name in NAMES] == NAMES
    assert [session[name]["key"] for name in NAMES] == NAMES


def test_every_way_to_name_an_attribute_may_run_code(session: Session) -> None:
    for name in NAMES:
        key = Name(name)
        assert key in session
        assert session[key]["key"] == session.get(key)["key"] == session.get(key, type=Tagged).key == name
        assert session.attribute(key).value["key"] == name
        session[key]["n"] = 1
        saved(session)
        assert session.setdefault(key)["n"] == 1
        session[key] = {"key": name, "n": 2}
        session.set(key, {"key": name, "n": 3})
        session.update({key: {"key": name, "n": 4}})
        saved(session)
        assert session.pop(key) == {"key": name, "n": 4}
        saved(session)
        assert key not in session and session.get(key) is None and session.pop(key, 5) == 5
        for act in (lambda key=key: session[key], lambda key=key: session.__delitem__(key)):
            with pytest.raises(KeyError):
                act()
    check(session)
    assert not set(NAMES) & set(session)


def test_a_record_has_plain_keys(make_session: MakeSession) -> None:
    session = make_session(**{Name(name): text for name, text in stored(*NAMES).items()})
    meanwhile.session = session
    assert all(type(key) is str for key in session)
    for name in NAMES:
        session[name]["n"] = 1
    saved(session)
    check(session)


def test_encoding_may_save_the_session(session: Session) -> None:
    for name in NAMES:
        session[name]["when"] = datetime(2030, 1, 1, tzinfo=Zone())
        session.get(name, type=Tagged)
        session[f"new {name}"] = ["new " + name, datetime(2030, 1, 1, tzinfo=Zone())]
        saved(session)
        check(session)
        session[name]["when"] = [datetime(2031, 1, 1, tzinfo=Zone())]
        assert session.get(name, type=dict[str, Any])["key"] == name
    saved(session)
    saved(session)
    check(session)


def test_a_value_that_was_set_is_read_as_types_that_run_code(session: Session) -> None:
    for name in NAMES:
        session[name] = {"key": name, "n": 1}
        for kind in (Tagged, Odd, Tagged, Odd):
            session.get(name, type=kind).n = 1
            session[name] = {"key": name, "n": 1}
        assert session.get(name, type=Odd).key == name
        saved(session)
    check(session)


def test_finalizers_may_save_the_session(session: Session) -> None:
    generator = random.Random(1)
    with collected_often():
        for _ in range(400):
            Finalized()
            name = generator.choice(NAMES)
            some_step(session, name, generator)
        saved(session)
    check(session)
    assert meanwhile.ran > 100


def some_step(session: Session, name: str, generator: random.Random, kind: type[str] = str) -> None:
    key = kind(name)
    choice = generator.randrange(9)
    if choice == 0:
        session[key] = {"key": name, "n": choice}
    elif choice == 1:
        session.pop(key, None)
    elif choice == 2:
        session.setdefault(key, {"key": name})["n"] = generator.getrandbits(20)
    elif choice == 3:
        saved(session)
    elif choice == 4:
        assert all(session.get(other, {"key": other})["key"] == other for other in session)
    elif choice == 5 and len(session):
        other, value = session.popitem()
        assert value["key"] == other
    elif choice == 6 and key in session:
        assert session.attribute(key).value["key"] == name
    elif key in session:
        value = session.get(key, type=generator.choice([Tagged, Shared, Odd, Made, Any]))
        assert (value["key"] if isinstance(value, dict) else value.key) == name
        if isinstance(value, dict):
            value["n"] = generator.getrandbits(20)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_anything_in_the_middle_of_anything(make_session: MakeSession, seed: int) -> None:
    generator = random.Random(seed)
    session = make_session(**stored(*NAMES))
    meanwhile.session = session
    with collected_often():
        for _ in range(150):
            Finalized()
            name = generator.choice(NAMES)
            some_step(session, name, generator, Name if generator.random() < 0.3 else str)
            if generator.random() < 0.05:
                session[name] = {"key": name, "when": datetime(2030, 1, 1, tzinfo=Zone())}
    assert meanwhile.ran > 100
    meanwhile.session = None
    saved(session)
    check(session)


def test_the_attribute_is_found_while_others_are_saved_each_time(session: Session) -> None:
    """Comparing the types that it was read as saves the session; `attribute` once began anew each time."""
    session.get("m3", type=Odd)
    found = session.attribute("m3")
    assert (found.value, found.version) == ({"key": "m3", "n": 0}, 7)
    assert meanwhile.ran


def test_an_attribute_that_each_decoding_saves_anew_is_an_error(make_session: MakeSession) -> None:
    session = make_session(a=b'{"key":"a","n":0}')

    class Endless(msgspec.Struct):
        key: str
        n: int

        def __post_init__(self) -> None:
            if self.n < 100_000:
                session["a"] = {"key": "a", "n": self.n + 1}
                saved(session)

    with pytest.raises(RuntimeError, match="'a'"):
        session.get("a", type=Endless)
    check(session)


def test_two_threads_on_one_session(make_session: MakeSession) -> None:
    """One reads as Structs and changes them, the other adds attributes that shift their places, and both save."""
    session = make_session(**stored(*NAMES))
    failures: list[BaseException] = []
    barrier = threading.Barrier(2)

    def run(step: Callable[[int], None]) -> None:
        try:
            for number in range(ROUNDS):
                step(number)
                if number % 500 == 0:
                    barrier.wait(60)
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    def read(number: int) -> None:
        name = NAMES[number % len(NAMES)]
        value = session.get(name, type=Plain)
        if value is not None:
            assert value.key == name
            value.n = number
        if number % 7 == 0:
            attempt(session)

    def add(number: int) -> None:
        name = f"a{number % 40}"
        if number % 3:
            session[name] = {"key": name, "n": number}
        else:
            session.pop(name, None)
        attempt(session)
        if number % 100 == 0:
            check(session)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=[step]) for step in (read, add)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    real = [error for error in failures if not isinstance(error, threading.BrokenBarrierError)]
    assert not real, real
    check(session)
    for name in NAMES:
        value = session.get(name, type=Plain)  # it may be pending, and then it is the object that was changed
        assert value is not None and value.key == name


class Plain(msgspec.Struct):
    key: str
    n: int = 0

    def __post_init__(self) -> None:
        pass  # Python code, in which threads take turns


def attempt(session: Session) -> None:
    """Save, unless what is to be saved is changed by the other thread in two ways at this very moment."""
    try:
        saved(session)
    except ValueError as error:
        if "two ways" not in str(error):
            raise


def test_a_reader_may_be_made_anew_while_an_id_is_read(
    make_cache: MakeCache, make_record: MakeRecord
) -> None:
    class Sub(UUID):
        pass

    class Manager(Reader):
        def _check_open(self) -> None:
            pass

        def _load(self, *args: object) -> None:
            return None

    def full() -> Cache:
        cache = make_cache()
        cache.put(make_record())
        return cache

    manager = Manager(full())
    own = UUID(int=0)

    class Number(UUID):
        def __getattribute__(self, name: str) -> Any:
            if name == "int":
                try:
                    manager.__init__(full())  # type: ignore[misc]
                except TypeError:
                    pass
            return object.__getattribute__(self, name)

    odd = Number(int=0)
    for _ in range(50):
        for read in (manager.get_session, manager.get_cached_session):
            found = read(odd)
            assert found is None or found.id == own
    assert UTC is not None
