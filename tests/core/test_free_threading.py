"""The compiled core under threads that start each round together.

They pass on any build; they are for the free-threaded ones, where `make free-threading` runs them: there nothing but
the core's own locks keeps the threads apart.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
from collections.abc import Callable

import pytest

from pgsession._core.arena import Arena
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record

from .conftest import HOUR, MINUTE, START

THREADS = 4
ROUNDS = 30
STEPS = 150
ARENA = 4 << 20
KEYS = [number.to_bytes(16, "big") for number in range(60)]

Step = Callable[[random.Random], None]


def record(number: int, version: int, attributes: int = 3) -> Record:
    return Record(
        KEYS[number],
        version,
        f"user {number % 7}",
        f"group {number % 3}" if number % 4 else None,
        START,
        START,
        START,
        START + 24 * HOUR,
        True,
        [(f"key {place}", version, None, str(version).encode()) for place in range(attributes)],
    )


def cache(capacity: int = 40, clock: Clock | None = None) -> Cache:
    return Cache(
        capacity,
        clock or Clock(manual=START),
        access_interval=10 * MINUTE,
        lifetime=0,
        max_attribute_length=1000,
    )


def together(*jobs: Callable[[random.Random], None], rounds: int = ROUNDS) -> None:
    """Run each job in a thread of its own, again and again, all of them starting each round at once."""
    seed = random.randrange(2**32)
    barrier = threading.Barrier(len(jobs))
    failures: list[BaseException] = []

    def run(place: int, job: Step) -> None:
        generator = random.Random(seed + place)
        try:
            for _ in range(rounds):
                barrier.wait(60)
                job(generator)
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(jobs)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # of no use without the GIL
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    real = [error for error in failures if not isinstance(error, threading.BrokenBarrierError)]
    if real:
        print("seed", seed)
        raise real[0]


def check(subject: Cache) -> None:
    """What must hold whenever nobody is inside."""
    keys, versions = subject.versions()
    stats = subject.stats()
    assert len(keys) == len(set(keys)) == len(subject) == stats["size"] <= subject.capacity
    for key, version in zip(keys, versions, strict=True):
        found = subject.get(key, touch=False)
        assert found is not None and found.key == key and found.version == version == subject.version(key)
    assert stats["inserts"] >= stats["size"]
    by_user = sum(subject.discard_user(f"user {number}") for number in range(7))
    assert by_user == stats["size"] and len(subject) == 0
    taken = subject.take_accesses(1000)
    assert len({key for key, _ in taken}) == len(taken) == stats["pending_accesses"]


def steps(subject: Cache, generator: random.Random) -> None:
    """Every entry point, at random."""
    number = generator.randrange(len(KEYS))
    key = KEYS[number]
    choice = generator.randrange(24)
    if choice < 10:
        found = subject.get(key)
        assert found is None or (found.key == key and found.user_id == f"user {number % 7}")
        assert found is None or {item[3] for item in found.attributes()} == {str(found.version).encode()}
    elif choice < 16:
        made = record(number, generator.randrange(1, 100))
        subject.put(made)
        subject.restore_accesses([(made.key, START + generator.randrange(1000))])
    elif choice == 16:
        subject.discard(key)
    elif choice == 17:
        subject.discard_older(key, generator.randrange(1, 100))
    elif choice == 18:
        taken = subject.take_accesses(20)
        generator.choice([subject.confirm_accesses, subject.restore_accesses])(taken)
    elif choice == 19:
        keys, versions = subject.versions()
        assert len(keys) == len(versions) == len(set(keys))
    elif choice == 20:
        for found_key, _ in subject.accesses_of_user("user 1"):
            assert KEYS.index(found_key) % 7 == 1
        subject.set_floor(key, 5)
    elif choice == 21:
        rare = generator.randrange(4)
        if rare == 0:
            subject.clear()
        elif rare == 1:
            subject.discard_user("user 2")
        elif rare == 2:
            subject.discard_group("group 1")
        else:
            subject.expire(10)
    elif choice == 22:
        stats = subject.stats()
        assert 0 <= stats["size"] <= subject.capacity
        subject.in_sync_until = START + HOUR
        subject.put_absence(key, 5, START + generator.randrange(HOUR))
        subject.is_absent(KEYS[generator.randrange(len(KEYS))], generator.randrange(10))
    else:
        assert 0 <= len(subject) <= subject.capacity and 0 <= subject.version(key) < 100


def test_the_gil_is_off() -> None:
    """Importing a module of the core that is not declared would turn it on again, for everybody."""
    if not hasattr(sys, "_is_gil_enabled"):
        pytest.skip("a Python without the choice")
    import sysconfig

    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("an ordinary build")
    assert not sys._is_gil_enabled()


def test_everything_on_one_cache() -> None:
    subject = cache()

    def job(generator: random.Random) -> None:
        for _ in range(STEPS):
            steps(subject, generator)

    together(*[job] * THREADS)
    check(subject)


def test_everything_on_several_caches() -> None:
    """One clock, and the same records in all of them."""
    clock = Clock(manual=START)
    subjects = [cache(clock=clock) for _ in range(2)]
    shared = [record(number, 50) for number in range(len(KEYS))]

    def job(generator: random.Random) -> None:
        for _ in range(STEPS):
            steps(generator.choice(subjects), generator)
            generator.choice(subjects).put(generator.choice(shared))

    together(*[job] * THREADS)
    for subject in subjects:
        check(subject)


@pytest.mark.skipif(sys.platform != "linux", reason="there are arenas on Linux only")
def test_everything_on_caches_that_share() -> None:
    """Two mappings of one arena, each with a cache: what one was told of a session, none answers older (C2)."""
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), ARENA)
        Arena.create(file.fileno(), ARENA).close()
        arenas = [Arena.attach(file.fileno()) for _ in range(2)]
    subjects = [cache(capacity=20) for _ in arenas]
    for subject, arena in zip(subjects, arenas, strict=True):
        subject.share(arena)
        subject.tie()
    number = arenas[0].take(0, True)
    assert subjects[0].new_epoch(number, False) and subjects[0].prove(number, START + HOUR, START)
    told = [0] * THREADS  # of the first sessions, which only rise; all others come and go

    def job(generator: random.Random) -> None:
        for _ in range(STEPS):
            subject, rising = generator.choice(subjects), generator.randrange(THREADS)
            other = generator.randrange(THREADS, len(KEYS))
            least = told[rising]
            found = subject.get(KEYS[rising])
            assert least == 0 if found is None else least <= found.version
            choice = generator.randrange(8)
            if choice < 2:
                subject.put(record(rising, least + 1))
                told[rising] = least + 1
            elif choice < 4:
                subject.put(record(other, generator.randrange(1, 100)))
            elif choice == 4:
                subject.discard(KEYS[other])
            elif choice == 5:
                subject.discard_user("user 5")
            elif choice == 6:
                found = subject.get(KEYS[other])
                assert found is None or {item[3] for item in found.attributes()} == {
                    str(found.version).encode()
                }
            else:
                generator.choice([subject.versions, subject.mark_used, subject.lock_news, subject.stats])()

    together(*[job] * THREADS)
    for subject in subjects:
        subject.unshare()
        assert subject.shared is None and len(subject) == 0


def test_a_cache_never_goes_back() -> None:
    """Versions seen of one session only rise (C2), while others of them are put in all the time."""
    subject = cache()
    records = [record(3, version) for version in range(1, 200)]

    def put(generator: random.Random) -> None:
        for made in generator.sample(records, 100):
            subject.put(made)

    def look(generator: random.Random) -> None:
        newest = 0
        for _ in range(200):
            found = subject.get(KEYS[3])
            version = 0 if found is None else found.version
            assert version >= newest
            newest = version

    together(put, put, look, look)


@pytest.mark.skipif(sys.platform != "linux", reason="there are arenas on Linux only")
def test_two_caches_on_one_arena_never_go_back() -> None:
    """Those of two processes, here in one: what any call has returned no later one is behind (C2, for a host)."""
    file = os.memfd_create("arena")
    os.ftruncate(file, 4 << 20)
    Arena.create(file, 4 << 20).close()
    subjects = [cache(capacity=20) for _ in range(2)]
    for subject in subjects:
        subject.share(Arena.attach(file))
        subject.tie()
    os.close(file)
    leader = subjects[0]
    assert leader.shared is not None
    number = leader.shared.take(0, True)
    assert leader.new_epoch(number, False) and leader.prove(number, START + HOUR, START)
    versions = [0] * len(KEYS)
    returned = [0] * len(KEYS)
    hits: list[bool] = []

    def job(generator: random.Random) -> None:
        for _ in range(STEPS):
            subject = generator.choice(subjects)
            place = generator.randrange(len(KEYS))
            choice = generator.randrange(10)
            if choice < 6:
                least = returned[place]
                found = subject.get(KEYS[place])
                assert found is None or found.version >= least
                hits.append(found is not None)
            elif choice < 9:
                assert subject.begin()
                versions[place] += 1
                subject.put(record(place, versions[place]))
                subject.end()
                returned[place] = max(returned[place], versions[place])
            else:
                subject.mark_used()
                subject.stats()
                assert not subject.shared.poisoned  # type: ignore[union-attr]

    together(*[job] * THREADS)
    assert leader.shared.counters()["inserts"] > 0 and leader.shared.counters()["resets"] == 0
    assert sum(hits) > ROUNDS


def test_a_hit_keeps_its_record() -> None:
    """One slot, in which each put replaces what the others are just being given."""
    subject = cache(capacity=1)

    def put(generator: random.Random) -> None:
        for _ in range(STEPS):
            subject.put(record(generator.randrange(4), 1, attributes=1))

    def look(generator: random.Random) -> None:
        for _ in range(STEPS * 2):
            number = generator.randrange(4)
            found = subject.get(KEYS[number])
            assert found is None or found.attributes() == [("key 0", 1, None, b"1")]

    together(put, put, look, look)
    assert len(subject) == 1
    assert subject.stats()["inserts"] == 2 * ROUNDS * STEPS


def test_each_is_dropped_once() -> None:
    """Of several that discard the same session, one is told that it did."""
    subject = cache(capacity=len(KEYS))
    dropped: list[int] = []
    jobs = [
        lambda _: dropped.append(sum(subject.discard(key) for key in KEYS)),
        lambda _: dropped.append(sum(subject.discard_user(f"user {number}") for number in range(7))),
        lambda _: dropped.append(sum(subject.discard_group(f"group {number}") for number in range(3))),
        lambda _: dropped.append(subject.clear()),
    ]
    for _ in range(ROUNDS):
        for number in range(len(KEYS)):
            assert subject.put(record(number, 1))
        dropped.clear()
        together(*jobs, rounds=1)
        assert sum(dropped) == len(KEYS)
        assert len(subject) == 0


def test_an_expired_session_leaves_once() -> None:
    clock = Clock(manual=START)
    subject = cache(capacity=len(KEYS), clock=clock)

    def look(generator: random.Random) -> None:
        for key in KEYS:
            assert subject.get(key) is None

    def sweep(generator: random.Random) -> None:
        while len(subject):
            subject.expire(7)

    for number in range(len(KEYS)):
        subject.put(record(number, 1))
    clock.advance(25 * HOUR)
    together(look, look, sweep, rounds=1)
    assert subject.stats()["expirations"] == len(KEYS)
    assert len(subject) == 0


def test_no_access_is_taken_twice() -> None:
    """Every access is in the hands of one taker; what is not confirmed is not lost (C11)."""
    clock = Clock(manual=START + 1)
    subject = cache(capacity=20, clock=clock)
    for number in range(len(KEYS)):
        subject.put(made := record(number, 1))
        subject.restore_accesses([(made.key, START + 5)])
    taken: list[list[tuple[bytes, int]]] = []

    def take(generator: random.Random) -> None:
        while found := subject.take_accesses(3):
            taken.append(found)

    together(*[take] * THREADS, rounds=1)
    keys = [key for found in taken for key, _ in found]
    assert sorted(keys) == KEYS
    together(*[lambda _: [subject.restore_accesses(found) for found in taken]] * THREADS, rounds=1)
    assert subject.stats()["pending_accesses"] == len(KEYS)


def test_shared_tables_of_keys() -> None:
    """More shapes and keys than their tables hold, from all threads: they are cleared while others read them."""

    def make(generator: random.Random) -> None:
        for _ in range(STEPS):
            names = [f"name {generator.randrange(300)}" for _ in range(3)]
            made = record(1, 1).changed(
                version=2,
                updated_at=START,
                last_accessed=START,
                expires_at=START + HOUR,
                inactivity=0,
                group_id=None,
                sets=[(name, b"1", None) for name in set(names)],
                deletes=["key 0"],
            )
            assert [item[0] for item in made.attributes()] == sorted({"key 1", "key 2", *names})

    together(*[make] * THREADS)
