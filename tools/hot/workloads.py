"""What `make check-hot` counts the instructions of. Run under callgrind by `instructions.py`, not by hand.

Around each piece of work the process asks for its parent's id, at which callgrind writes down what it has counted
since; nothing else here does so. All that could differ from run to run is fixed: hashes, the cache's seeds, the clock.
"""

from __future__ import annotations

import gc
import os
import random
import secrets
import sys
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from tempfile import TemporaryFile
from typing import Any
from uuid import UUID

from msgspec import Struct

numbers = random.Random(1)
secrets.randbits = numbers.getrandbits  # type: ignore[assignment]  # before the cache takes it
secrets.token_bytes = numbers.randbytes  # type: ignore[assignment]  # and the arena

from pgsession._core.arena import Arena  # noqa: E402
from pgsession._core.cache import Cache  # noqa: E402
from pgsession._core.clock import Clock  # noqa: E402
from pgsession._core.hit import session_of  # noqa: E402
from pgsession._core.reader import AsyncReader, Reader  # noqa: E402
from pgsession._core.record import Record  # noqa: E402
from pgsession._core.session import Session  # noqa: E402
from pgsession._core.token import open_session_token  # noqa: E402
from pgsession.contrib.asgi import SessionMiddleware  # noqa: E402
from pgsession.tokens import Signer  # noqa: E402

from .writes import Writes, gathered  # noqa: E402

HOUR = 3_600_000_000
NOW = 1_700_000_000_000_000
CLOCK = Clock(manual=NOW)
ARENA = 8 << 20  # bytes; nothing leaves it
SIGNER = Signer(bytes(32))

Work = Callable[[], object]


class Settings(Struct, frozen=True):
    theme: str
    size: int


class TokenReader(Reader):
    """A manager as far as a hit by token needs one."""

    def _verify_token(self, token: str) -> tuple[bytes, int, int] | None:
        return open_session_token(SIGNER._session_keys, token)


def record(key: bytes) -> Record:
    values = [(f"attribute{i}", 1, None, b'"' + b"x" * 98 + b'"') for i in range(5)]
    return Record(key, 1, key.hex(), None, NOW, NOW, NOW, NOW + 24 * HOUR, 48 * HOUR, values)


def empty(capacity: int) -> Cache:
    cache = Cache(
        capacity, CLOCK, max_attribute_length=16384,
        access_interval=HOUR, lifetime=48 * HOUR,
    )  # fmt: skip
    cache.in_sync_until = NOW + HOUR
    return cache


def filled(count: int) -> tuple[Cache, list[bytes]]:
    """A full cache, and its keys in any order."""
    cache = empty(count)
    keys = [numbers.randbytes(16) for _ in range(count)]
    for key in keys:
        cache.put(record(key))
    numbers.shuffle(keys)
    return cache, keys


def sharing(count: int, capacity: int) -> tuple[Cache, list[bytes]]:
    """A cache that shares an arena of so many sessions, the only process of its host, and their keys in any order."""
    cache = empty(capacity)
    cache.in_sync_until = 0
    with TemporaryFile() as file:
        os.ftruncate(file.fileno(), ARENA)
        arena = Arena.create(file.fileno(), ARENA)
    cache.share(arena)
    cache.tie()
    number = arena.take(0, True)
    assert cache.new_epoch(number, False) and cache.prove(number, NOW + HOUR, NOW)
    keys = [numbers.randbytes(16) for _ in range(count)]
    for key in keys:
        cache.put(record(key))
    numbers.shuffle(keys)
    return cache, keys


def sessions(count: int) -> list[Session]:
    cache, keys = filled(count)
    records = [entry for key in keys if (entry := cache.get(key)) is not None]
    return [session_of(cache, entry, from_cache=True) for entry in records]


def calling(function: Callable[..., object], arguments: Sequence[object]) -> Work:
    def work() -> None:
        for argument in arguments:
            function(argument)

    return work


def get_by_uuid(count: int) -> Work:
    cache, keys = filled(count)
    return calling(Reader(cache).get_session, [UUID(bytes=key) for key in keys])


def get_shared(count: int) -> Work:
    cache, keys = sharing(count, count)
    return calling(Reader(cache).get_session, [UUID(bytes=key) for key in keys])


def get_from_arena(count: int) -> Work:
    cache, keys = sharing(count, 1)
    work = calling(Reader(cache).get_session, [UUID(bytes=key) for key in keys])

    def checked() -> None:
        before = cache.stats()["shared_hits"]
        work()
        assert cache.stats()["shared_hits"] >= before + count - 1

    return checked


def get_by_bytes(count: int) -> Work:
    cache, keys = filled(count)
    return calling(Reader(cache).get_session, keys)


def get_by_text(count: int) -> Work:
    cache, keys = filled(count)
    return calling(Reader(cache).get_session, [str(UUID(bytes=key)) for key in keys])


def get_cached(count: int) -> Work:
    cache, keys = filled(count)
    return calling(AsyncReader(cache).get_cached_session, [UUID(bytes=key) for key in keys])


def awaited(count: int) -> Work:
    cache, keys = filled(count)
    get, ids = AsyncReader(cache).get_session, [UUID(bytes=key) for key in keys]

    async def waiting() -> None:
        for session_id in ids:
            await get(session_id)

    def work() -> None:
        try:
            waiting().send(None)
        except StopIteration:
            return
        raise AssertionError("a hit does not wait")

    return work


def get_by_token(count: int) -> Work:
    cache, keys = filled(count)
    reader = TokenReader(cache)
    tokens = [SIGNER._session_token(key, 0, 0) for key in keys[: count // 2]] * 2
    for token in tokens:
        reader.get_session_by_token(token)
    return calling(reader.get_session_by_token, tokens)


class WebReader(AsyncReader):
    """A manager as far as a request that changes nothing needs one."""

    def _verify_token(self, token: str) -> tuple[bytes, int, int] | None:
        return open_session_token(SIGNER._session_keys, token)


def request(count: int, *, reading: bool) -> Work:
    """Requests of an ASGI application, each with the cookie of a visitor who was here before."""
    cache, keys = filled(64)
    tokens = [SIGNER._session_token(key, 0, 0) for key in keys[:16]]
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
    body = {"type": "http.response.body", "body": b"done"}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if reading:
            scope["session"]["attribute3"]
        await send(start)
        await send(body)

    async def ignore(message: Any) -> None:
        pass

    manager: Any = WebReader(cache)
    app: Any = SessionMiddleware(application, manager=manager)

    def answer(number: int) -> None:
        headers = [(b"host", b"example.org"), (b"accept", b"text/html")]
        headers.append((b"cookie", f"theme=dark; __Host-session={tokens[number % 16]}".encode()))
        try:
            app({"type": "http", "headers": headers}, ignore, ignore).send(None)
        except StopIteration:
            return
        raise AssertionError("a hit does not wait")

    for number in range(64):
        answer(number)
    return calling(answer, range(count))


def first_id(count: int) -> Work:
    return calling(attrgetter("id"), sessions(count))


def id_again(count: int) -> Work:
    made = sessions(count)
    for session in made:
        assert session.id == session.id
    return calling(attrgetter("id"), made)


def read_again(count: int) -> Work:
    (session,) = sessions(1)
    assert session["attribute3"]

    def work() -> None:
        for _ in range(count):
            session["attribute3"]

    return work


def get_again(count: int) -> Work:
    (session,) = sessions(1)
    assert session["attribute3"]
    return calling(session.get, ["attribute3"] * count)


def first_decode(count: int) -> Work:
    fresh = sessions(count)

    def work() -> None:
        for session in fresh:
            session["attribute3"]

    return work


def first_read_as_struct(count: int) -> Work:
    cache = empty(1)
    text = b'{"theme":"dark","size":12}'
    attributes = [("settings", 1, None, text)]
    records = [
        Record(bytes(16), 1, "u", None, NOW, NOW, NOW, NOW + HOUR, 48 * HOUR, attributes)
        for _ in range(count)
    ]
    fresh = [session_of(cache, one, from_cache=True) for one in records]

    def work() -> None:
        for session in fresh:
            session.get("settings", type=Settings)

    return work


def set_one(count: int) -> Work:
    fresh = sessions(count)

    def work() -> None:
        for session in fresh:
            session["attribute3"] = "value"

    return work


def put_and_evict(count: int) -> Work:
    cache, _ = filled(64)
    records = [record(numbers.randbytes(16)) for _ in range(count)]

    def work() -> None:
        while records:
            cache.put(records.pop())

    return work


def discard(count: int) -> Work:
    cache, keys = filled(count)
    return calling(cache.discard, keys)


def discard_user(count: int) -> Work:
    cache, keys = filled(count)
    return calling(cache.discard_user, [key.hex() for key in keys])


def create(count: int, *, callers: int) -> Work:
    """Calls at the same moment, so many at a time: they share a batch."""
    writes = Writes()
    return in_groups(writes, callers, range(count), lambda _: writes.create())


def update(count: int, *, callers: int) -> Work:
    writes = Writes()
    return in_groups(writes, callers, writes.created(count), writes.update)


def in_groups(writes: Writes, callers: int, arguments: Sequence[Any], call: Callable[[Any], Any]) -> Work:
    async def each() -> None:
        for first in range(0, len(arguments), callers):
            await gathered([call(argument) for argument in arguments[first : first + callers]])

    def work() -> None:
        writes.run(each())

    return work


WORKLOADS: dict[str, Callable[[int], Work]] = {
    "get_session(UUID)": get_by_uuid,
    "get_session(bytes)": get_by_bytes,
    "get_session(str)": get_by_text,
    "get_cached_session(UUID)": get_cached,
    "await get_session(UUID)": awaited,
    "get_session_by_token, seen before": get_by_token,
    "ASGI, the session left alone": partial(request, reading=False),
    "ASGI, one value read": partial(request, reading=True),
    "session.id, the first of its record": first_id,
    "session.id": id_again,
    "session[key], decoded before": read_again,
    "session.get(key), decoded before": get_again,
    "session[key], first decode of a str": first_decode,
    "session.get(key, type=Struct), first": first_read_as_struct,
    "session[key] = str": set_one,
    "put, evicting": put_and_evict,
    "discard": discard,
    "discard_user": discard_user,
    "create_session, 64 in a batch": partial(create, callers=64),
    "update_session, 64 in a batch": partial(update, callers=64),
    "update_session, alone": partial(update, callers=1),
    "get_session(UUID), shared": get_shared,
    "get_session(UUID), from the arena": get_from_arena,
}


def main() -> None:
    few, many = map(int, sys.argv[1:])
    gc.disable()
    for name, prepare in WORKLOADS.items():
        prepare(few)()  # what is imported or made once
        for count in (few, many):
            work = prepare(count)
            os.getppid()
            work()
            os.getppid()
        print(name)


if __name__ == "__main__":
    main()
