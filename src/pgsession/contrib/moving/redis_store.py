"""Sessions that Flask-Session and starsessions keep in Redis."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

import msgspec
import redis

from pgsession.contrib.moving.mover import Contents, LeftBehind, OldSession, Values

try:
    from flask.json.tag import TaggedJSONSerializer
except ImportError:

    def _tag(value: object) -> object:
        return value
else:
    _tag = TaggedJSONSerializer().tag

__all__ = ["RedisStore", "of_flask_session", "of_starsessions"]

_T = TypeVar("_T")
Decoded = tuple[Values, int | None]

_BATCH = 500
_ENDLESS = 36_500 * 24 * 3_600_000  # milliseconds; what lasts for longer has no end
_PERMANENT = "_permanent"  # what Flask-Session does
_METADATA = "__metadata__"  # what starsessions keeps beside the values


class RedisStore:
    """Reads the keys of a Redis that have a prefix.

    Args:
        url: Where it is: `redis://...`.
        prefix: What the keys begin with.
        decode: Returns the values of a session, and for how long browsers keep its cookie, as `Contents.max_age`.
        user_key: The key of the value that says who is logged in; None: there is none.
    """

    errors: tuple[type[Exception], ...] = (redis.RedisError,)

    def __init__(
        self, url: str, prefix: str, decode: Callable[[bytes], Decoded], user_key: str | None
    ) -> None:
        self._client = redis.Redis.from_url(url, decode_responses=False)
        self._prefix = prefix
        self._decode = decode
        self._user_key = user_key

    def batches(self) -> Iterator[list[OldSession]]:
        """Yield the live sessions."""
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", self._prefix) + "*"
        names = self._client.scan_iter(match=pattern, count=_BATCH)
        while batch := list(islice(names, _BATCH)):
            yield self._read(batch)

    def _read(self, names: list[bytes]) -> list[OldSession]:
        with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.get(name)
                pipeline.pttl(name)
            answers = pipeline.execute(raise_on_error=False)
        now = datetime.now(UTC)
        found = []
        for name, raw, left in zip(names, map(_read, answers[::2]), map(_read, answers[1::2]), strict=True):
            if isinstance(raw, bytes):  # else it has ended meanwhile, or is something else than a session
                key = name.decode(errors="replace").removeprefix(self._prefix)
                ends = now + timedelta(milliseconds=left) if 0 <= left <= _ENDLESS else None
                found.append(OldSession(key, raw, ends))
        return found

    def contents(self, old: OldSession) -> Contents:
        """Return what is in a session."""
        values, max_age = self._decode(old.raw)
        user = None if self._user_key is None else values.get(self._user_key)
        if isinstance(user, bool) or not isinstance(user, str | int | None):
            raise LeftBehind(f"{self._user_key!r} is not the id of a user: {type(user).__name__}")
        return Contents(None if user is None else str(user), values, max_age)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


def _read(answer: _T) -> _T:
    """Return an answer of Redis; raise what it could not answer: that is not a session that has ended."""
    if isinstance(answer, Exception) and not str(answer).startswith("WRONGTYPE"):
        raise answer
    return answer


def of_flask_session(raw: bytes, *, unpickle: bool, max_age: int) -> Decoded:
    """Decode a session of Flask-Session, which makes JSON, MessagePack, or before 0.7 a pickle.

    What JSON has not is tagged, as `pgsession.contrib.flask` does it, where Flask is installed.

    Args:
        raw: What is stored.
        unpickle: True: a pickle may be loaded, which lets who has written it run anything here.
        max_age: For how many seconds browsers keep the cookie of a session that is permanent.
    """
    # The first byte of a map in MessagePack is 0x80 to 0x8f, 0xde or 0xdf, 0x80 only of an empty one; of a pickle 0x80.
    if raw[:1] == b"\x80" and len(raw) > 1:
        if not unpickle:
            raise LeftBehind(
                "it is a pickle, which may run anything when it is loaded: --unpickle trusts all of them"
            )
        values = _as_values(pickle.loads, raw)
    else:
        values = _as_values(json.loads if raw[:1] == b"{" else msgspec.msgpack.decode, raw)
    is_permanent = values.pop(_PERMANENT, False)
    return _as_values(_tagged, values), max_age if is_permanent else 0


def _tagged(values: Values) -> Values:
    return {key: _tag(value) for key, value in values.items()}


def of_starsessions(raw: bytes) -> Decoded:
    """Decode a session of starsessions, by its serializer for JSON."""
    values = _as_values(json.loads, raw)
    metadata = values.pop(_METADATA, None)
    lifetime = metadata.get("lifetime") if isinstance(metadata, dict) else None
    return values, lifetime if isinstance(lifetime, int) and lifetime >= 0 else None


def _as_values(decode: Callable[[_T], object], raw: _T) -> Values:
    try:
        values = decode(raw)
    except Exception as error:
        raise LeftBehind(f"it cannot be decoded: {type(error).__name__}") from None
    if not isinstance(values, dict):
        raise LeftBehind(f"it is no dict of values: {type(values).__name__}")
    return values
