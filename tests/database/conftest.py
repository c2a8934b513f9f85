"""A schema of pgsession for each test, and short ways to use its statements."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgsession import schema as schema_module
from pgsession._database.script import Parameter, Row, Script, step
from pgsession._database.statements import Statements, write_arguments
from pgsession._protocol import events
from pgsession._protocol.operations import Flag, new_generation
from tests.roles import Roles, made

HOUR = 3_600_000_000
DAY = 24 * HOUR


def run(connection: psycopg.Connection[Any], script: Script) -> Row | None:
    """The row that a script answers with."""
    with connection.lock:
        return connection.wait(script.run(connection.pgconn))


def unfinished(script: Script) -> Script:
    """The script without its commits: its first transaction stays open."""
    return Script(script.steps[: script.answer + 1], script.answer)


def with_answer_of(script: Script, place: int, statement: str, *parameters: Parameter) -> Script:
    """The script with one more statement at that place, whose row is the answer."""
    return Script((*script.steps[:place], step(statement, *parameters), *script.steps[place:]), place)


class Ear:
    """A listening connection of a node."""

    def __init__(
        self, connection: psycopg.Connection[Any], statements: Statements, label: str = "events"
    ) -> None:
        self._connection = connection
        row = connection.execute(statements.listen, (label, True)).fetchone()
        assert row is not None
        self.channel = row[0]

    def payloads(self) -> list[str]:
        """All that was committed before this call and not yet taken: a notification of our own ends the wait."""
        marker = secrets.token_hex(8)
        self._connection.execute("SELECT pg_notify(%s, %s)", (self.channel, marker))
        heard: list[str] = []
        for notification in self._connection.notifies(timeout=60):
            if notification.payload == marker:
                return heard
            heard.append(notification.payload)
        raise AssertionError("the marker never came back")

    def items(self) -> list[events.Item]:
        parsed = [events.parse(payload) for payload in self.payloads()]
        assert not any(event.malformed for event in parsed)
        return [item for event in parsed for item in event.items]


class Database:
    """One schema of ours, and connections to it."""

    def __init__(self, dsn: str, schema: str, prefix: str) -> None:
        self.dsn = dsn
        self.statements = Statements(schema, prefix)
        self.schema = schema
        self.prefix = prefix
        self.node = secrets.token_hex(8)
        self._connections: list[psycopg.Connection[Any]] = []
        self.connection = self.connect()
        schema_module.create(self.connection, schema, prefix)
        self.incarnation = self.run(self.statements.incarnate())[0]

    def connect(self, **settings: str) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self.dsn, autocommit=True)
        for name, value in ({"search_path": self.schema} | settings).items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        self._connections.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def ear(self) -> Ear:
        return Ear(self.connect(), self.statements)

    def run(self, script: Script, connection: psycopg.Connection[Any] | None = None) -> Any:
        return run(connection or self.connection, script)

    def execute(self, query: Any, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(query, parameters or None)
        return cursor.fetchall() if cursor.description is not None else []

    def now(self) -> int:
        return int(self.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")[0][0])

    def script(self, /, **batch: Any) -> Script:
        """The group commit of these rows, each with its i in front."""
        options = {name: batch.pop(name) for name in ("commit", "lock_timeout", "mark") if name in batch}
        mark = options.pop("mark", str(uuid.uuid4()))
        limits = {(limit, policy == "evict") for *_, limit, policy in batch.get("create", [])} or {(0, True)}
        ((limit, evicts),) = limits
        arguments = write_arguments(
            batch.get("wait", False),
            [item[1:-3] for item in batch.get("create", [])],
            [item[1:] for item in batch.get("update", [])],
            [item[1] for item in batch.get("delete", [])],
            accesses=[one for *_, touches, _, _ in batch.get("create", []) for one in touches],
            max_sessions=limit,
            evicts=evicts,
        )
        return self.statements.write(self.node, mark, arguments, **options)

    def write(self, connection: psycopg.Connection[Any] | None = None, /, **batch: Any) -> dict[str, Any]:
        """The answer: a create as [i, "ok", created], an update as [i, "ok", version, updated, snapshot or None], or as
        it was refused."""
        decoded: dict[str, Any] = json.loads(self.run(self.script(**batch), connection)[0])
        assert decoded.pop("incarnation") == self.incarnation
        absent: dict[str, Any] = {"updated_at": 0, "created_at": 0}
        for name in (
            "turned_away", "replaced", "written", "versions", "snapshots", "refused", "delete", "evicted", "displaced"
        ):  # fmt: skip
            absent[name] = []
        decoded = absent | decoded
        snapshots = {i: json.loads(snapshot) for i, snapshot in decoded["snapshots"]}
        decoded["update"] = decoded["refused"] + [
            [i, "ok", version, decoded["updated_at"], snapshots.get(i)]
            for i, version in zip(decoded["written"], decoded["versions"], strict=True)
        ]
        turned_away = {number for number, *_ in decoded["turned_away"]}
        decoded["create"] = decoded["turned_away"] + [
            [number, "ok", decoded["created_at"]]
            for number in range(1, len(batch.get("create", [])) + 1)
            if number not in turned_away
        ]
        for kind in ("create", "update", "delete"):
            for item in decoded[kind]:
                item[0] = batch[kind][item[0] - 1][0]
        for kind in ("create", "update", "delete"):
            decoded[kind].sort(key=lambda item: item[0])
        return decoded

    def new(self, user: str = "ann", attributes: dict[str, Any] | None = None, **options: Any) -> list[Any]:
        """A create item with i = 0."""
        values = [[key, json.dumps(value), None] for key, value in (attributes or {}).items()]
        return [
            options.get("i", 0),
            options.get("id", uuid.uuid4().hex),
            options.get("generation", new_generation()),
            user,
            options.get("group"),
            options.get("expires", time.time_ns() // 1000 + 30 * DAY),
            options.get("inactivity", DAY),
            options.get("values", values),
            options.get("if_exists"),
            options.get("touches", []),
            options.get("limit", 0),
            options.get("policy", "evict"),
        ]

    def create(self, user: str = "ann", attributes: dict[str, Any] | None = None, **options: Any) -> str:
        """A session at version 1, not one of the clock's microseconds, for the sake of who reads the tests; its id."""
        item = self.new(user, attributes, **options)
        answer = self.write(create=[item])["create"]
        assert answer[0][1] == "ok", answer
        session = str(item[1])
        table, other = (
            sql.Identifier(self.prefix + name).as_string().replace("%", "%%")
            for name in ("sessions", "session_attributes")
        )
        self.execute("SET pgsession.own = 'on'")
        self.execute(f"UPDATE {table} SET version = 1, owner_since = 1 WHERE id = %s", session)
        self.execute(f"UPDATE {other} SET version = 1 WHERE session_id = %s", session)
        self.execute("RESET pgsession.own")
        return session

    def change(
        self, session: str, base: int, sets: dict[str, Any] | None = None, **options: Any
    ) -> list[Any]:
        """An update item; `bases` are the versions of the attributes (default: of the session)."""
        bases = options.get("bases", {})
        values = [
            [key, json.dumps(value), options.get("attribute_expires"), bases.get(key, base)]
            for key, value in (sets or {}).items()
        ]
        flags = Flag.NOTIFY if options.get("notify", True) else Flag(0)
        if options.get("check"):
            flags |= Flag.CHECK_SESSION if options["check"] == "session" else Flag.CHECK_ATTRIBUTES
        if "group" in options:
            flags |= Flag.CHANGE_GROUP
        if "inactivity" in options:
            flags |= Flag.CHANGE_INACTIVITY
        if options.get("notify_on_conflict"):
            flags |= Flag.NOTIFY_ON_CONFLICT
        return [
            options.get("i", 0),
            session,
            base,
            options.get("owner_since", 1),
            int(flags),
            options.get("expires"),
            options.get("group"),
            options.get("values", values),
            [[key, bases.get(key, base)] for key in options.get("deletes", ())],
            options.get("incarnation", self.incarnation),
            options.get("rotation"),
            options.get("inactivity"),
        ]

    def update(self, session: str, base: int, sets: dict[str, Any] | None = None, **options: Any) -> Any:
        """The answer to one update, without its i."""
        connection = options.pop("connection", None)
        return self.write(connection, update=[self.change(session, base, sets, **options)])["update"][0][1:]

    def read(self, session: str) -> list[Any] | None:
        """The decoded snapshot."""
        rows = self.execute(self.statements.read, session)
        assert len(rows) == 1 and rows[0][0] == self.incarnation
        return json.loads(rows[0][2]) if rows[0][2] is not None else None

    def attributes(self, session: str) -> dict[str, Any]:
        snapshot = self.read(session)
        assert snapshot is not None
        return {key: value for key, _version, _expires, value in snapshot[9]}

    def version(self, session: str) -> int:
        return int(self.execute(f'SELECT version FROM "{self.prefix}sessions" WHERE id = %s', session)[0][0])

    def fill(
        self,
        sessions: int,
        users: int = 1,
        group: str | None = None,
        attributes: int = 1,
        analyze: bool = True,
    ) -> None:
        """Many sessions at once, unannounced, with analysed tables."""
        self.execute("SET pgsession.own = 'on'")
        self.execute(
            f'INSERT INTO "{self.prefix}sessions" (version, owner_since, user_id, group_id, expires_at)'
            " SELECT 1, 1, %s || g %% %s, %s, now() + interval '30 days' FROM generate_series(1, %s) g",
            "user",
            users,
            group,
            sessions,
        )
        self.execute(
            f'INSERT INTO "{self.prefix}session_attributes" (session_id, version, key, value)'
            f" SELECT id, 1, 'key' || k, '\"value\"' FROM \"{self.prefix}sessions\", generate_series(1, %s) k"
            " ON CONFLICT DO NOTHING",
            attributes,
        )
        self.execute("RESET pgsession.own")
        if analyze:
            self.execute(f'VACUUM ANALYZE "{self.prefix}sessions", "{self.prefix}session_attributes"')


@pytest.fixture
def open_database(dsn: str, schema: str) -> Iterator[Callable[..., Database]]:
    """Makes the tables under a prefix of the test's choice."""
    made: list[Database] = []

    def make(prefix: str = "", dsn: str = dsn) -> Database:
        made.append(Database(dsn, schema, prefix))
        return made[-1]

    yield make
    for database in made:
        database.close()


@pytest.fixture
def database(open_database: Callable[..., Database]) -> Database:
    """The tables, in a schema of the test's own."""
    return open_database("app_")


@pytest.fixture
def roles(dsn: str, schema: str) -> Iterator[Roles]:
    """An owner, a service, an operator and a stranger; the schema is the owner's."""
    with made(dsn, schema) as roles:
        yield roles
