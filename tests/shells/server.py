"""A server that answers the library's statements out of memory, and fails as a history says."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from pgsession._database.columns import Accesses, Creates, Deletes, Updates
from pgsession._protocol import events
from pgsession._protocol.operations import Flag

from .wire import BIGINT, BOOLEAN, BYTES, FLOAT, TEXT, UUID, Connection, Cut, Failure, Rows, Step

START = 1_700_000_000_000_000
_FUNCTION = re.compile(r'"session_(\w+)_1"\(')
_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,{}]+)')
_TRUE = ("t", "true", "1")  # as text, and in binary
_UPDATES, _CREATES, _ACCESSES = len(Updates._fields), len(Creates._fields), len(Accesses._fields)
_NOT_STAMPED = ("write", "listen", "send")  # all others' answers end with the incarnation and the xmax


class Commit(NamedTuple):
    """A version of a session that became true; `marker` is what its writer put into it, None for its end."""

    at: float
    key: str
    version: int
    marker: int | None


class Fate(NamedTuple):
    """What becomes of a unit: seconds before and after it, and where it is cut, or fails with which SQLSTATE."""

    before: float = 0.0
    after: float = 0.0
    cut_at: int | None = None
    fails_at: int | None = None
    sqlstate: str = ""


class Session:
    """A row, with its attributes."""

    def __init__(self, key: str, user: str, now: int, expires: int, generation: int) -> None:
        self.key, self.user, self.generation = key, user, generation
        self.version = 1
        self.created = self.updated = now
        self.expires = expires
        self.attributes: dict[str, tuple[int, str]] = {}

    def snapshot(self) -> str:
        attributes = [
            [key, version, None, json.loads(value)] for key, (version, value) in self.attributes.items()
        ]
        return json.dumps(
            [str(uuid.UUID(self.key)), self.version, self.user, None, self.created, self.updated, self.updated,
             self.expires, None, sorted(attributes), self.generation, self.created, None]
        )  # fmt: skip


class Server:
    """`now` gives its time in microseconds; `fate_of` decides what becomes of a connection's unit."""

    def __init__(self, now: Callable[[], int], fate_of: Callable[[Connection, list[Step]], Fate]) -> None:
        self.now = now
        self.fate_of = fate_of
        self.sessions: dict[str, Session] = {}
        self.commits: list[Commit] = []
        self.durable: Counter[int] = Counter()  # how often the commit of a marker was made durable
        self.received: Counter[int] = Counter()
        self.held: set[str] = set()  # sessions whose rows somebody has locked
        self.released = asyncio.Event()
        self.incarnation = str(uuid.uuid4())
        self.xid = 100  # of the last transaction that has notified: they complete in the order of their ids
        self.beacon = 0
        self.up = True
        self.cuts = 0
        self.connections: set[Connection] = set()
        self.listening: dict[str, set[Connection]] = {}
        self.units = 0
        self._pids = 100

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client has come."""
        if not self.up:
            writer.transport.abort()
            return
        self._pids += 1
        connection = Connection(self._pids, reader, writer, self._answer_unit)
        self.connections.add(connection)
        try:
            await connection.serve()
        finally:
            self.connections.discard(connection)
            for ears in self.listening.values():
                ears.discard(connection)

    # What histories do

    def cut(self, which: Callable[[Connection], bool] = lambda connection: True) -> None:
        """End connections."""
        self.cuts += 1
        for connection in [one for one in self.connections if which(one)]:
            connection.cut()

    def restart(self) -> None:
        """Another life of the same tables."""
        self.incarnation = str(uuid.uuid4())
        self.cut()

    def hold(self, key: str) -> None:
        """Lock a row."""
        self.held.add(key)

    def release(self) -> None:
        """Give all rows back."""
        self.held.clear()
        self.released.set()
        self.released = asyncio.Event()

    def plain_sql(self, key: str, marker: int) -> None:
        """Another node's write."""
        session = self.sessions.get(key)
        if session is not None and key not in self.held:
            self._change(session, {"n": str(marker)}, (), marker)
            self._notify("0" * 16, f"u{key}:{session.version}")

    # Units

    async def _answer_unit(self, connection: Connection, steps: list[Step]) -> None:
        self.units += 1
        fate = self.fate_of(connection, steps)
        for step in steps:
            for marker in _markers(step):
                self.received[marker] += 1
        if fate.before:
            await asyncio.sleep(fate.before)
        connection.failed = connection.failed and connection.in_transaction
        for number, step in enumerate(steps):
            if fate.cut_at == number:
                self.cuts += 1
                raise Cut
            try:
                if fate.fails_at == number:
                    raise Failure(fate.sqlstate)
                connection.row_answer(await self._answer(connection, step))
            except Failure as failure:
                connection.error_answer(failure)
                connection.failed = connection.in_transaction
                connection.state.pop("staged", None)
                break
        if fate.after:
            await asyncio.sleep(fate.after)
        if fate.cut_at is not None:
            raise Cut

    async def _answer(self, connection: Connection, step: Step) -> Rows:
        statement = step.statement
        if statement.startswith("BEGIN"):
            connection.in_transaction = True
            return Rows()
        if statement.startswith("ROLLBACK"):
            connection.in_transaction = connection.failed = False
            connection.state.pop("staged", None)
            return Rows()
        if connection.failed:
            raise Failure("25P02", "the transaction is aborted")
        if statement.startswith("COMMIT"):
            self._commit(connection)
            connection.in_transaction = statement.endswith("CHAIN")
            return Rows()
        if statement.startswith("SET LOCAL statement_timeout"):
            connection.state["limit"] = int(statement.rpartition("=")[2]) / 1000
            return Rows()
        found = _FUNCTION.search(statement)
        if found:
            stamp = (self.incarnation, self._xmax())
            answer: Rows = await getattr(self, f"_call_{found[1]}")(connection, *step.parameters)
            if found[1] in _NOT_STAMPED:
                return answer
            return Rows((*answer.types, TEXT, TEXT), [(*row, *stamp) for row in answer.rows])
        return self._query(connection, statement, step.parameters)

    def _query(self, connection: Connection, statement: str, parameters: tuple[str | None, ...]) -> Rows:
        if "pg_backend_pid" in statement and "pg_settings" not in statement:
            in_recovery = (BOOLEAN,) * ("recovery" in statement)
            return Rows((*in_recovery, BIGINT), [(*[False] * len(in_recovery), connection.pid)])
        if "NOT pg_catalog.pg_is_in_recovery" in statement:
            return Rows((BOOLEAN,), [(True,)])
        if "pgsession.batch" in statement:
            return Rows((TEXT,), [(connection.state.get("mark"),)])
        if "queue_usage" in statement:
            return self._stamped(FLOAT, 0.0)
        if "c(id, version, generation)" in statement:
            cached = zip(*map(_elements, parameters), strict=True)
            differing = [k for k, v, g in cached if self._identity(k) != (int(v), int(g))]
            return self._stamped(BYTES, bytes.fromhex("".join(differing)) or None)
        if "json_build_array" in statement and "string_agg" not in statement:
            session = self.sessions.get(parameters[0] or "")
            return self._stamped(TEXT, session.snapshot() if session else None)
        if "WITH ORDINALITY" in statement:
            asked = [self.sessions[key] for key in _elements(parameters[0]) if key in self.sessions]
            return self._stamped(TEXT, f"[{','.join(session.snapshot() for session in asked)}]")
        if "json_build_array" in statement:
            mine = [session.snapshot() for session in self.sessions.values() if session.user == parameters[0]]
            return self._stamped(TEXT, f"[{','.join(mine)}]")
        if "session_incarnation" in statement:
            return Rows((TEXT,), [(self.incarnation,)])
        return Rows()

    def _stamped(self, kind: int, value: Any) -> Rows:
        return Rows((TEXT, BIGINT, kind, TEXT), [(self.incarnation, self.now(), value, self._xmax())])

    def _xmax(self) -> str:
        return str(self.xid + 1)

    def _identity(self, key: str) -> tuple[int, int]:
        session = self.sessions.get(key)
        return (session.version, session.generation) if session else (0, 0)

    # Functions

    async def _call_incarnate(self, connection: Connection) -> Rows:
        return Rows((TEXT, BOOLEAN), [(self.incarnation, False)])

    async def _call_listen(self, connection: Connection, label: str, begins: str) -> Rows:
        ears = self.listening.setdefault(label, set())
        (ears.add if begins in _TRUE else ears.discard)(connection)
        return Rows((TEXT,), [(label,)])

    async def _call_register(self, connection: Connection, node: str, serves_for: str) -> Rows:
        return Rows((BIGINT, BIGINT), [(1, int(serves_for))])

    async def _call_acknowledge(self, connection: Connection, node: str, xid: str, of: str) -> Rows:
        return Rows((TEXT,), [("",)])

    async def _call_unregister(self, connection: Connection, node: str) -> Rows:
        return Rows((TEXT,), [("",)])

    async def _call_send_beacon(self, connection: Connection, node: str, since: str, insists: str) -> Rows:
        began = self.beacon >= int(since)
        if insists in _TRUE or not began:

            def send() -> None:
                self._notify(node)
                self.beacon = self.xid

            self._staged(connection).append(send)
        return Rows((BIGINT, BOOLEAN), [(self.now(), True)])

    async def _call_send(self, connection: Connection, node: str, items: str) -> Rows:
        self._notify(node, items)
        return Rows((TEXT,), [("",)])

    async def _call_write_accesses(self, connection: Connection, *parameters: str) -> Rows:
        return Rows((BYTES,), [(None,)])

    async def _call_cleanup(self, connection: Connection, *parameters: str) -> Rows:
        return Rows((UUID, BIGINT, BOOLEAN), [(None, 0, False)])

    async def _call_delete_many(
        self, connection: Connection, node: str, scope: str, user: str, keep: str | None, after: str,
        size: str, waiting: str,
    ) -> Rows:  # fmt: skip
        mine = [session for session in self.sessions.values() if session.user == user and session.key != keep]
        if waiting in _TRUE and any(session.key in self.held for session in mine):
            raise Failure("55P03", "the lock timeout was over")
        free = [session for session in mine if session.key not in self.held]

        def end() -> None:
            for session in free:
                self._end(session, node)

        self._staged(connection).append(end)
        ended = bytes.fromhex("".join(session.key for session in free)) or None
        return Rows((UUID, BIGINT, BIGINT, BYTES), [(None, len(free), len(mine) - len(free), ended)])

    async def _call_write(self, connection: Connection, node: str, mark: str, *rest: str | None) -> Rows:
        waiting = rest[0] in _TRUE
        updates = Updates(*rest[1 : 1 + _UPDATES])
        creates = Creates(*rest[3 + _UPDATES : 3 + _UPDATES + _CREATES])
        deletes = Deletes(*rest[3 + _UPDATES + _CREATES + _ACCESSES :])
        staged = self._staged(connection)
        staged.append(lambda: connection.state.update(mark=mark))
        keys = _elements(updates.ids) + _elements(deletes.deletes)
        if waiting:
            await self._wait_for(connection, keys)
        answer: dict[str, Any] = {
            "incarnation": self.incarnation,
            "xmax": self.xid + 1,
            "updated_at": self.now(),
        }
        self._create(creates, answer, staged)
        self._update(updates, node, answer, staged)
        self._delete(deletes, node, answer, staged)
        return Rows((TEXT,), [(json.dumps(answer),)])

    async def _wait_for(self, connection: Connection, keys: list[str]) -> None:
        limit = connection.state.get("limit", 60.0)
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self.held & set(keys):
                    await self.released.wait()
        if self.held & set(keys):
            raise Failure("57014", "canceling statement due to statement timeout")

    def _create(self, creates: Creates, answer: dict[str, Any], staged: list[Callable[[], None]]) -> None:
        if creates.new_ids is None:
            return
        now = self.now()
        answer["created_at"] = now
        users, expiries = _elements(creates.new_user_ids), _elements(creates.new_expiries)
        attributes = _attributes(creates.new_ends, creates.new_keys, creates.new_values)
        generations = _elements(creates.new_generations)
        for key, user, expires, generation, sets in zip(
            _elements(creates.new_ids), users, expiries, generations, attributes, strict=True
        ):
            session = Session(key, user, now, int(expires), int(generation))
            session.version = now - 1  # versions begin at the database's clock
            staged.append(lambda session=session, sets=sets: self._change(session, sets, (), _marker(sets)))  # type: ignore[misc]

    def _update(
        self, updates: Updates, node: str, answer: dict[str, Any], staged: list[Callable[[], None]]
    ) -> None:
        for name in ("written", "versions", "snapshots", "refused"):
            answer[name] = []
        attributes = _attributes(updates.set_ends, updates.set_keys, updates.set_values)
        ids, incarnations = _elements(updates.ids), _elements(updates.incarnations)
        rows = zip(
            ids,
            _elements(updates.bases),
            incarnations if len(incarnations) > 1 else incarnations * len(ids),
            _elements(updates.flags),
            attributes,
            strict=True,
        )
        for number, (key, base, incarnation, flags, sets) in enumerate(rows, 1):
            session = self.sessions.get(key)
            based_on_this = (
                session is not None and incarnation == self.incarnation and int(base) == session.version
            )
            if session is None:
                answer["refused"].append([number, "gone"])
            elif key in self.held:
                answer["refused"].append([number, "locked"])
            elif int(flags) & Flag.CHECK_SESSION and not based_on_this:
                answer["refused"].append([number, "session", session.version])
            else:
                answer["written"].append(number)
                answer["versions"].append(session.version + 1)
                if not based_on_this:
                    answer["snapshots"].append([number, self._after(session, sets)])
                staged.append(lambda session=session, sets=sets: self._save(session, sets, node))  # type: ignore[misc]

    def _after(self, session: Session, sets: dict[str, str]) -> str:
        """What a session is after a write that is only staged yet."""
        after = Session(session.key, session.user, session.created, session.expires, session.generation)
        after.version = session.version + 1
        after.updated = self.now()
        after.attributes = {
            **session.attributes,
            **{key: (after.version, value) for key, value in sets.items()},
        }
        return after.snapshot()

    def _delete(
        self, deletes: Deletes, node: str, answer: dict[str, Any], staged: list[Callable[[], None]]
    ) -> None:
        answer["delete"] = []
        for number, key in enumerate(_elements(deletes.deletes), 1):
            session = self.sessions.get(key)
            status = "gone" if session is None else "locked" if key in self.held else "ok"
            answer["delete"].append([number, status])
            if status == "ok":
                staged.append(lambda session=session: self._end(session, node))  # type: ignore[misc]

    # Transactions

    def _staged(self, connection: Connection) -> list[Callable[[], None]]:
        staged: list[Callable[[], None]] = connection.state.setdefault("staged", [])
        return staged

    def _commit(self, connection: Connection) -> None:
        before = len(self.commits)
        for change in connection.state.pop("staged", ()):
            change()
        new = [commit.marker for commit in self.commits[before:] if commit.marker is not None]
        if new:
            connection.state["fresh"] = new
        else:  # the second commit makes the first one durable
            self.durable.update(connection.state.pop("fresh", ()))

    def _save(self, session: Session, sets: dict[str, str], node: str) -> None:
        self._change(session, sets, (), _marker(sets))
        self._notify(node, f"u{session.key}:{session.version}")

    def _change(
        self, session: Session, sets: dict[str, str], drops: tuple[str, ...], marker: int | None
    ) -> None:
        session.version += 1
        session.updated = self.now()
        session.attributes |= {key: (session.version, value) for key, value in sets.items()}
        self.sessions[session.key] = session
        self.commits.append(Commit(self.now() / 1e6, session.key, session.version, marker))

    def _end(self, session: Session, node: str) -> None:
        if self.sessions.pop(session.key, None) is not None:
            self.commits.append(Commit(self.now() / 1e6, session.key, session.version + 1, None))
            self._notify(node, f"d{session.key}")

    def _notify(self, node: str, items: str = "") -> None:
        self.xid += 1
        for connection in list(self.listening.get(events.EVENTS, ())):
            connection.notify(events.EVENTS, events.payload(node, self.xid, items))


def _elements(array: str | None) -> list[str]:
    return [
        re.sub(r"\\(.)", r"\1", quoted) if quoted or not plain else plain
        for quoted, plain in _ELEMENT.findall(array or "")
    ]


def _attributes(ends: str | None, keys: str | None, values: str | None) -> Iterator[dict[str, str]]:
    start = 0
    pairs = list(zip(_elements(keys), _elements(values), strict=True))
    for end in map(int, _elements(ends)):
        yield dict(pairs[start:end])
        start = end


def _marker(sets: dict[str, str]) -> int | None:
    return int(sets["n"]) if "n" in sets else None


def _markers(step: Step) -> Iterator[int]:
    if "session_write_1" in step.statement:
        rest = step.parameters[2:]
        for array in (
            Updates(*rest[1 : 1 + _UPDATES]).set_values,
            Creates(*rest[3 + _UPDATES : 3 + _UPDATES + _CREATES]).new_values,
        ):
            yield from map(int, _elements(array))
