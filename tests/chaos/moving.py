"""Logins that move a session to another shard: what callers do, and what the oracle says of it.

A move ends one session and creates another, which goes on where that one was. So the oracle takes it apart: the old
session has a story that ends, the new one a story that begins, and between the two nothing that was acknowledged is
lost. Two servers share no transaction, so a move that failed may have been there for a moment, as a copy that its
caller never heard of; that is gone once the call has ended, unless it said that its outcome is unknown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

import pgsession
from tests.chaos.history import Call
from tests.chaos.verdict import Row, Violation

TRIED = {
    "moved": "sessions moved to another shard",
    "carried": "writes of before that moves had to carry over",
}
NOT_DONE = ("error", "refused", "conflict", "none")


class Logins:
    """The calls of one process. `finish` waits for the end of a call and notes it."""

    def __init__(
        self, process: Any, manager: Any, finish: Callable[[Call, Awaitable[Any], Callable[..., None]], Any]
    ) -> None:
        self._process = process
        self._manager = manager
        self._finish = finish

    async def log_in(self, who: str) -> None:
        """Give a session that others use, too, to a user of another shard."""
        known = self._process.choose()
        if known is None:
            return
        if self._process.random.random() < 0.3:
            await self._modify(who, known.key)
            return
        read = self._process.begin("get", who, session=known.key)
        session = await self._finish(read, self._manager.get_session(known.key), self._saw)
        if session is not None:
            await self._move(who, session)

    async def visit(self, who: str) -> None:
        """Be a visitor, whom no other process knows, and log in."""
        wrote = {who: self._process.number()}
        call = self._process.begin("create", who, wrote=wrote)
        work = self._manager.create_session(None, wrote)
        session = await self._finish(call, work, self._visited)
        if session is not None and self._process.random.random() < 0.9:
            await self._move(who, session)

    async def _move(self, who: str, session: pgsession.Session) -> None:
        call = self._begin(who, str(session.id))
        assert call.wrote is not None
        session.update(call.wrote)
        save = self._process.random.choice([self._manager.rotate_session, self._manager.update_session])
        await self._finish(call, save(session, user_id=call.user), self._moved)

    async def _modify(self, who: str, key: str) -> None:
        call = self._begin(who, key)
        assert call.wrote is not None
        wrote = call.wrote
        work = self._manager.modify_session(key, lambda session: session.update(wrote), user_id=call.user)
        await self._finish(call, work, self._moved)

    def _begin(self, who: str, session: str) -> Call:
        """Choose a user who logs in at this node, and whose sessions are in another shard."""
        home = self._manager.shard_of_session(session)
        user = self._process.own_user()
        while self._manager.shard_of_user(user) == home:
            user = self._process.own_user()
        call: Call = self._process.begin(
            "move", who, session=session, user=user, wrote={who: self._process.number()}
        )
        call.evicts = self._process.task.policy == "evict"
        return call

    def _saw(self, call: Call, session: pgsession.Session | None) -> None:
        if session is None:
            self._process.end(call, "none")
        else:
            self._process.end(
                call, version=session.version, content=_content(session), from_cache=session.from_cache
            )

    def _visited(self, call: Call, session: pgsession.Session) -> None:
        call.session = str(session.id)
        self._process.end(call, version=session.version, content=_content(session))

    def _moved(self, call: Call, session: pgsession.Session) -> None:
        self._process.end(call, version=session.version, content=_content(session), became=str(session.id))
        self._process.learn(
            call.became, session.user_id or "", session.group_id or "", session.version, tell=True
        )
        if self._process.random.random() < 0.5:  # some are asked for again: they are to stay gone
            self._process.forget(call.session)


def _content(session: pgsession.Session) -> dict[str, Any]:
    content = {key: value for key in session if (value := session.get(key)) is not None}
    content.pop("expiring", None)
    return content


def parts(calls: list[Call]) -> list[Call]:
    """Put what moves did to each of their two sessions in the place of the moves."""
    copies = _copies(calls)
    apart: list[Call] = []
    for call in calls:
        if call.kind != "move":
            apart.append(call)
            continue
        # What a login sets never is in the session of before.
        apart.append(
            _part(call, kind="update", user="", outcome="none" if call.outcome == "none" else "error")
        )
        if call.outcome == "ok":
            apart.append(_part(call, kind="delete", user="", wrote=None))
            apart.append(
                _part(call, kind="create", session=call.became, version=call.version, content=call.content)
            )
        elif call.outcome != "refused":
            if call.outcome not in NOT_DONE:
                apart.append(_part(call, kind="delete", user="", wrote=None))
            apart.append(_part(call, kind="create", session="", outcome="unknown"))
        apart += [
            _part(call, kind="delete", user="", wrote=None, session=copy, outcome="unknown")
            for copy in copies[_mark(call)]
        ]
    return apart


def _part(call: Call, **changes: Any) -> Call:
    evicts = call.evicts and changes["kind"] == "create"
    return msgspec.structs.replace(call, **{"version": 0, "content": None, "evicts": evicts, **changes})


def _mark(call: Call) -> tuple[str, int]:
    """What shows that a session is what this move has made: a caller writes every number once."""
    assert call.wrote is not None
    return call.who, call.wrote[call.who]


def _copies(calls: list[Call]) -> dict[tuple[str, int], set[str]]:
    """The sessions that show what a move has written, and that no call has said to have made."""
    marks = {_mark(call): call for call in calls if call.kind == "move"}
    made = _made(calls)
    copies: dict[tuple[str, int], set[str]] = defaultdict(set)
    for call in calls if marks else ():
        if call.session not in made:
            for item in (call.content or {}).items():
                if isinstance(item[1], int) and item in marks and call.session != marks[item].session:
                    copies[item].add(call.session)
    return copies


def _made(calls: list[Call]) -> set[str]:
    """The sessions that calls have said to have made."""
    return {
        call.became or call.session
        for call in calls
        if call.kind in ("create", "move") and call.outcome == "ok"
    }


def violations(
    calls: list[Call], rows: dict[str, Row], max_staleness: int, tried: dict[str, int]
) -> Iterator[Violation]:
    """A session is moved once, with all that was acknowledged; one that was not moved leaves no copy."""
    moves = [call for call in calls if call.kind == "move"]
    of_old: dict[str, list[Call]] = {call.session: [] for call in moves}
    for call in calls:
        if call.session in of_old:
            of_old[call.session].append(call)
    moved: dict[str, Call] = {}
    for move in moves:
        if move.outcome != "ok":
            continue
        tried["moved"] += 1
        twin = moved.setdefault(move.session, move)
        if twin is not move:
            yield Violation("earned", "two logins of one session", [twin, move])
        yield from _carried(move, of_old[move.session], tried)
        yield from _ended_before(move, of_old[move.session])
    yield from _left_behind(calls, rows, max_staleness)


def _carried(move: Call, before: list[Call], tried: dict[str, int]) -> Iterator[Violation]:
    """What was written into the old session is in the new one, or something newer: numbers grow."""
    assert move.content is not None
    for write in before:
        if write.outcome != "ok" or not write.wrote or write.kind not in ("create", "update", "sql_set"):
            continue
        if write.kind == "sql_set" and write.ended > move.began:
            continue  # plain SQL writes into a session that has ended, too
        for name in {write.who, "count"} & write.wrote.keys():
            tried["carried"] += 1
            value = move.content.get(name)
            if value is None or value < write.wrote[name]:
                text = f"the login has {name}={value}, and {write.wrote[name]} was written before"
                yield Violation("lost", text, [write, move])


def _ended_before(move: Call, before: list[Call]) -> Iterator[Violation]:
    for call in before:
        ended = call.kind in ("delete", "sql_delete", "get") and call.outcome in ("ok", "none")
        if ended and (call.kind != "get" or call.outcome == "none") and call.ended < move.began:
            yield Violation("resurrected", "ended, and moved", [call, move])
            return


def _left_behind(calls: list[Call], rows: dict[str, Row], max_staleness: int) -> Iterator[Violation]:
    """What a move that was not done has made is gone with its end, and on all nodes soon after."""
    failed = {_mark(call): call for call in calls if call.kind == "move" and call.outcome in NOT_DONE}
    if not failed:
        return
    made = _made(calls)  # some of them of a copy that others had found in a list
    for key, row in rows.items():
        for item in row.content.items():
            if isinstance(item[1], int) and item in failed and row.live and key not in made:
                yield Violation("undone", f"a login that failed has left session {key}", [failed[item]])
    for call in calls:
        for item in (call.content or {}).items():
            move = failed.get(item) if isinstance(item[1], int) else None
            late = move is not None and call.began > move.ended + max_staleness
            if move is not None and late and call.session not in made and call.kind != "move":
                yield Violation("undone", "a login that failed, and its session is there", [move, call])
