"""Sessions in Redis with redis-py, as services write them by hand: a hash of encoded attributes, or one blob.

With hiredis where it is installed. One connection a caller: a pool that is smaller than the callers slows it down.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import msgspec

from .race import Missing
from .service import ATTRIBUTES, SESSIONS, THREE, Service
from .stage import Stage

LIFETIME = 30 * 86400

_encode, _decode = msgspec.json.encode, msgspec.json.decode


@contextmanager
def threads(stage: Stage, url: str | None = None) -> Iterator[Service]:
    """HGETALL and HSET, callers are threads."""
    import redis

    client = _answering(redis.Redis.from_url(url or stage.redis, max_connections=1000))
    ids = _populate(client)

    def read(key: bytes) -> dict[Any, Any]:
        return {name: _decode(value) for name, value in client.hgetall(key).items()}

    def change(key: bytes) -> None:
        session = read(key)
        session[b"cart"] = ["book", "another"]
        client.hset(key, b"cart", _encode(session[b"cart"]))

    def create() -> None:
        _queue_new(client.pipeline()).execute()

    yield Service(ids, read, change, create)
    client.close()


@contextmanager
def tasks(stage: Stage, url: str | None = None, *, blob: bool = False) -> Iterator[Service]:
    """HGETALL and HSET, or GET and SET of one blob; callers are tasks of one event loop."""
    import redis
    import redis.asyncio

    with _answering(redis.Redis.from_url(url or stage.redis)) as plain:
        ids = _populate(plain, blob=blob)
    client: Any = redis.asyncio.Redis.from_url(url or stage.redis, max_connections=1000)

    async def read(key: bytes) -> dict[bytes, Any]:
        return {name: _decode(value) for name, value in (await client.hgetall(key)).items()}

    async def change(key: bytes) -> None:
        session = await read(key)
        session[b"cart"] = ["book", "another"]
        await client.hset(key, b"cart", _encode(session[b"cart"]))

    async def read_blob(key: bytes) -> dict[str, Any]:
        session: dict[str, Any] = _decode(await client.get(key))
        return session

    async def change_blob(key: bytes) -> None:
        session = await read_blob(key)
        session["cart"] = ["book", "another"]
        await client.set(key, _encode(session), ex=LIFETIME)

    async def create() -> None:
        await _queue_new(client.pipeline()).execute()

    yield Service(ids, read_blob if blob else read, change_blob if blob else change, create)
    stage.loop.run(client.aclose())


@contextmanager
def caching(stage: Stage, count: int) -> Iterator[tuple[list[bytes], Callable[[bytes], dict[bytes, bytes]]]]:
    """The keys of hashes that redis-py's client-side cache holds (Redis tells of changes: RESP3), and what reads one.

    redis-py asks for Redis 7.4; since 6.0 it tracks keys as well, and what a hit takes does not depend on the server.
    """
    import redis
    from redis.cache import CacheConfig
    from redis.connection import CacheProxyConnection

    with (
        _answering(redis.Redis.from_url(stage.redis)) as plain,
        mock.patch.object(CacheProxyConnection, "MIN_ALLOWED_VERSION", "6.0.0"),
        redis.Redis.from_url(stage.redis, protocol=3, cache_config=CacheConfig(max_size=count)) as client,
    ):
        get: Any = client.hgetall
        ids = [key for _ in range(0, count, SESSIONS) for key in _populate(plain)][:count]
        for key in ids:
            get(key)
        asked = _calls(plain)
        for key in ids:
            get(key)
        assert _calls(plain) == asked, "it reads from this process's memory"
        yield ids, get


def _calls(client: Any) -> int:
    """How many HGETALL Redis has answered."""
    calls: int = client.info("commandstats")["cmdstat_hgetall"]["calls"]
    return calls


def durable(opener: Callable[..., Any], **options: Any) -> Callable[[Stage], Any]:
    """The same on a Redis that flushes to disk before it answers (`appendfsync always`)."""
    return lambda stage: opener(stage, stage.durable_redis, **options)


def _answering(client: Any) -> Any:
    import redis

    try:
        client.ping()
    except redis.RedisError as error:
        raise Missing(f"Redis does not answer: {error}") from error
    return client


def _populate(client: Any, *, blob: bool = False) -> list[bytes]:
    ids = [_new_key() for _ in range(SESSIONS)]
    with client.pipeline() as pipeline:
        for key in ids:
            if blob:
                pipeline.set(key, _encode(ATTRIBUTES), ex=LIFETIME)
            else:
                _queue(pipeline, key, ATTRIBUTES)
        pipeline.execute()
    return ids


def _queue_new(pipeline: Any) -> Any:
    key = _new_key()
    _queue(pipeline, key, THREE)
    pipeline.sadd(b"user:" + key, key)  # the list of a user's sessions
    return pipeline


def _queue(pipeline: Any, key: bytes, attributes: dict[str, Any]) -> None:
    pipeline.hset(key, mapping={name: _encode(value) for name, value in attributes.items()})
    pipeline.expire(key, LIFETIME)


def _new_key() -> bytes:
    return b"pgsession-benchmark:" + uuid.uuid4().hex.encode()
