"""What callers do with sessions that change hands: log in, rotate, replace one by another of the same id, show tokens
to any node, save what they have held.

These sessions are for nothing else. Each login is of a user of its own, and every write says in the attribute "owner"
whose session its caller takes it to be, so that a write which crosses owners shows for ever.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

import pgsession
from tests.chaos.history import Call, dump

GRACE = 1.0
"""Seconds for which the token of before a rotation is still good, where it is at all."""

PATIENCE = (0.1, 2.5)
"""Seconds for which calls wait for all nodes, where they do."""

MOST_TOKENS = 150
MOST_HELD = 30
MARK = "token"
"""What a message to the other processes begins with that tells of a token."""


def patience(chance: random.Random, call: Call) -> dict[str, Any]:
    """What makes a call wait for all nodes, now and then."""
    if chance.random() < 0.5:
        return {}
    wait = chance.choice(PATIENCE)
    call.wait = int(wait * 1e6)
    return {"wait": wait}


class Token(msgspec.Struct, array_like=True):
    """A token that an acknowledged call has given."""

    mark: str
    session: str
    generation: int
    text: str


class Hands:
    """The calls of one process. `finish` waits for the end of a call and notes it."""

    def __init__(
        self, process: Any, manager: Any, finish: Callable[[Call, Awaitable[Any], Callable[..., None]], Any]
    ) -> None:
        self._process = process
        self._manager = manager
        self._finish = finish
        self._random: random.Random = process.random
        self._lock = threading.Lock()
        self._tokens: list[Token] = []
        self._held: list[pgsession.Session] = []

    def hear(self, message: list[Any]) -> None:
        """Another process tells of a token."""
        self._keep(msgspec.convert(message, Token))

    def _keep(self, token: Token) -> None:
        with self._lock:
            self._tokens.append(token)
            del self._tokens[:-MOST_TOKENS]

    def _give(self, session: pgsession.Session) -> None:
        text = self._manager.token(session)
        if text is not None:
            token = Token(MARK, str(session.id), session._record.generation, text)
            self._keep(token)
            self._process.peers.tell(dump(msgspec.to_builtins(token)))

    def _token(self, *, newest: bool = False) -> Token | None:
        """One of the latest, or any."""
        with self._lock:
            latest = self._tokens[-8:] if newest or self._random.random() < 0.5 else self._tokens
            return self._random.choice(latest) if latest else None

    def _new_user(self, who: str, session: str) -> str:
        """Who has had no session yet; where sessions are in shards, one of this one's, so that it keeps its id."""
        shard_of_user = getattr(self._manager, "shard_of_user", None)
        while True:
            user = f"owner {who} {self._process.number()}"
            if shard_of_user is None or shard_of_user(user) == self._manager.shard_of_session(session):
                return user

    def _hold(self, session: pgsession.Session) -> None:
        with self._lock:
            self._held.append(session)
            if len(self._held) > MOST_HELD:
                del self._held[self._random.randrange(MOST_HELD)]

    # The calls

    async def begin(self, who: str) -> None:
        """A session of a new user."""
        user = f"owner {who} {self._process.number()}"
        call = self._process.begin("begin", who, user=user)
        await self._finish(call, self._manager.create_session(user, {"owner": user}), self._began)

    def _began(self, call: Call, session: pgsession.Session) -> None:
        call.session = str(session.id)
        self._end(call, session, gave=session._record.generation)
        self._give(session)
        self._hold(session)

    async def open(self, who: str) -> None:
        """A token is shown, which may be current, of before, or ended."""
        session = await self._open(who, self._token())
        if session is not None and self._random.random() < 0.3:
            self._hold(session)

    async def _open(self, who: str, token: Token | None) -> pgsession.Session | None:
        if token is None:
            await self.begin(who)
            return None
        call = self._process.begin("open", who, session=token.session, generation=token.generation)
        opened = await self._finish(call, self._manager.open_token(token.text), self._opened)
        return None if opened is None else opened.session

    def _opened(self, call: Call, opened: pgsession.Opened) -> None:
        call.state = opened.state
        if opened.session is None:
            self._process.end(call, "none")
            return
        gives = self._manager.token(opened.session) is not None
        self._end(call, opened.session, gives=gives, from_cache=opened.session.from_cache)

    async def rotate(self, who: str) -> None:
        """With grace or without."""
        grace = self._random.choice([0, GRACE])
        await self._rotate(who, "", grace=grace)

    async def bind(self, who: str) -> None:
        """A login of another user; now and then of the one who has it."""
        await self._rotate(who, "same" if self._random.random() < 0.2 else "another")

    async def replace(self, who: str) -> None:
        """Another user's session takes the place of one, with its id."""
        token = self._token(newest=True)
        if token is None:
            return
        user = self._new_user(who, token.session)
        call = self._process.begin("replace", who, session=token.session, user=user)
        work = self._manager.create_session(
            user, {"owner": user}, session_id=token.session, if_exists="replace"
        )
        await self._finish(call, work, self._began)

    async def _rotate(self, who: str, user: str, *, grace: float = 0) -> None:
        session = await self._open(who, self._token(newest=True))
        if session is None or session._by_older_token:
            return
        options: dict[str, Any] = {"grace": grace}
        if user:
            user = str(session.user_id) if user == "same" else self._new_user(who, str(session.id))
            options = {"user_id": user}
            session["owner"] = user
        call = self._process.begin("rotate", who, session=str(session.id), user=user, grace=int(grace * 1e6))
        call.generation = session._record.generation
        work = self._manager.rotate_session(session, **options, **patience(self._random, call))
        await self._finish(call, work, lambda call, _: self._rotated(call, session))

    def _rotated(self, call: Call, session: pgsession.Session) -> None:
        gives = self._manager.token(session) is not None
        self._end(call, session, gives=gives, gave=session._record.generation if gives else 0)
        self._give(session)

    async def save(self, who: str) -> None:
        """What is held, perhaps since another user had it."""
        with self._lock:
            held = self._held.pop(self._random.randrange(len(self._held))) if self._held else None
        if held is None:
            return
        held["owner"] = str(held.user_id)
        call = self._process.begin("save", who, session=str(held.id), user=str(held.user_id))
        call.floor, call.wrote = held.version, {"owner": call.user}
        saved = await self._finish(call, self._manager.update_session(held), self._saved)
        if saved is not None or self._random.random() < 0.5:
            self._hold(held)

    def _saved(self, call: Call, session: pgsession.Session) -> None:
        self._end(call, session)
        self._give(session)

    def _end(self, call: Call, session: pgsession.Session, **fields: Any) -> None:
        content = {"owner": session["owner"], "user": session.user_id}
        self._process.end(call, version=session.version, content=content, **fields)
