"""From a signed token to the session, beside verifying a token that carries the session itself."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from . import ours
from .loops import loop, random, shuffled
from .race import Race, Round
from .stage import Stage
from .test_get import node

CLAIMS = {"sid": "f81d4fae7dec11d0a76500a0c91e6bf6", "sub": "4711", "role": "admin", "iss": "benchmark"}
KEY = b"benchmark" * 4
COUNT = 1000  # sessions that are asked for again and again
READS = 5000

race = Race(
    "token",
    "From a token to the session, 1,000 of them asked for again and again",
    baseline="pgsession, token seen before",
)


@race.contender("pgsession, UUID instead of a token")
def _uuid(stage: Stage) -> Iterator[Round]:
    sessions = stage.once(node)
    ids = ours.cached_ids(sessions)[-COUNT:]
    yield loop(sessions.get_session, lambda: [UUID(bytes=key) for key in random.choices(ids, k=READS)])


@race.contender("pgsession, token seen before")
def _seen(stage: Stage) -> Iterator[Round]:
    sessions = stage.once(node)
    tokens = [_token(sessions, key) for key in ours.cached_ids(sessions)[-COUNT:]]
    for token in tokens:
        sessions.get_session_by_token(token)
    yield loop(
        sessions.get_session_by_token, lambda: [_fresh(token) for token in random.choices(tokens, k=READS)]
    )


@race.contender("pgsession, token seen for the first time")
def _first(stage: Stage) -> Iterator[Round]:
    sessions = stage.once(node)
    unseen = iter([_token(sessions, key) for key in ours.cached_ids(sessions)[: -COUNT or None]])
    rounds = race.rounds + 1
    share = (len(ours.cached_ids(sessions)) - COUNT) // rounds
    yield loop(sessions.get_session_by_token, lambda: [next(unseen) for _ in range(share)])


@race.contender("hmac.digest, then by UUID")
def _digest(stage: Stage) -> Iterator[Round]:
    sessions = stage.once(node)
    ids = ours.cached_ids(sessions)
    message = b"s" + bytes(33)

    def verify(session_id: UUID) -> None:
        hmac.digest(KEY, message, "sha256")
        sessions.get_session(session_id)

    yield loop(verify, lambda: shuffled(ids, lambda key: UUID(bytes=key), COUNT))


@race.contender("PyJWT decode, HS256")
def _pyjwt(stage: Stage) -> Iterator[Round]:
    import jwt

    token = jwt.encode({**CLAIMS, "exp": int(time.time()) + 86400}, KEY, algorithm="HS256")
    yield loop(
        lambda token: jwt.decode(token, KEY, algorithms=["HS256"]),
        lambda: [_fresh(token) for _ in range(COUNT)],
    )


@race.contender("itsdangerous loads, with time")
def _itsdangerous(stage: Stage) -> Iterator[Round]:
    from itsdangerous import URLSafeTimedSerializer

    serializer = URLSafeTimedSerializer(KEY)
    token = serializer.dumps(CLAIMS)
    yield loop(lambda token: serializer.loads(token, 86400), lambda: [_fresh(token) for _ in range(COUNT)])


def _token(sessions: Any, key: bytes) -> str:
    token: str = sessions.token(sessions.get_session(key))
    return token


def _fresh(token: str) -> str:
    """The same text in an object of its own, as it comes out of a cookie."""
    return token.encode().decode()


test_token = race.test()
