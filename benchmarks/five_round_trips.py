"""Sessions in PostgreSQL the plain way, as go-pg-session and most libraries write them: a transaction of five round
trips a change, on a pool of 20 connections, each commit flushed by itself. Statements with parameters get prepared.

Its tables have no triggers and no foreign keys; nobody listens to its notifications. All that would make it slower.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg
import psycopg_pool

from .service import ATTRIBUTES, SESSIONS, THREE, Service
from .stage import Stage

CONNECTIONS = 20

_TABLES = """
CREATE TABLE sessions (id uuid PRIMARY KEY, user_id text NOT NULL, version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
    last_accessed timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL DEFAULT now() + interval '30 days') WITH (fillfactor = 80);
CREATE INDEX ON sessions (user_id);
CREATE TABLE attributes (session_id uuid, key text, value text NOT NULL, version bigint NOT NULL DEFAULT 1,
    expires_at timestamptz, PRIMARY KEY (session_id, key)) WITH (fillfactor = 80)
"""
_LOCK = "SELECT version FROM sessions WHERE id = %s FOR UPDATE"
SET = (
    "INSERT INTO attributes (session_id, key, value) VALUES (%s, %s, %s) ON CONFLICT (session_id, key)"
    " DO UPDATE SET value = excluded.value, version = attributes.version + 1"
)
SAVED = (
    "WITH saved AS (UPDATE sessions SET version = version + 1, updated_at = now(), last_accessed = now()"
    " WHERE id = %s RETURNING id, version)"
)
TELL = "SELECT version, pg_notify('session_updates', id || ':' || version) FROM saved"
_SAVE = f"{SAVED} {TELL}"
_INSERT = "INSERT INTO sessions (id, user_id) VALUES (%s, %s)"
_INSERT_ATTRIBUTES = (
    "INSERT INTO attributes (session_id, key, value) SELECT %s, * FROM unnest(%s::text[], %s::text[])"
)
_NOTIFY = "SELECT pg_notify('session_updates', %s)"
_READ = (
    "SELECT user_id, version, created_at, updated_at, last_accessed, expires_at FROM sessions"
    " WHERE id = %s AND expires_at > now()"
)
_READ_TOGETHER = (
    "SELECT user_id, version, created_at, updated_at, last_accessed, expires_at,"
    " (SELECT json_object_agg(key, value::json)::text FROM attributes WHERE session_id = sessions.id)"
    " FROM sessions WHERE id = %s AND expires_at > now()"
)
_READ_ATTRIBUTES = "SELECT key, value, version, expires_at FROM attributes WHERE session_id = %s"


@contextmanager
def threads(stage: Stage) -> Iterator[Service]:
    """Callers are threads."""
    database = stage.new_database()
    ids = populate(database)
    with psycopg_pool.ConnectionPool(
        database, kwargs={"autocommit": True}, min_size=CONNECTIONS, max_size=CONNECTIONS
    ) as pool:
        pool.wait()

        def read(session_id: uuid.UUID) -> tuple[Any, dict[str, Any]]:
            with pool.connection() as connection:
                row = connection.execute(_READ, (session_id,)).fetchone()
                return row, _decoded(connection.execute(_READ_ATTRIBUTES, (session_id,)).fetchall())

        def change(session_id: uuid.UUID) -> None:
            with pool.connection() as connection:
                connection.execute("BEGIN")
                connection.execute(_LOCK, (session_id,))
                connection.execute(SET, (session_id, "cart", '["book","another"]'))
                connection.execute(_SAVE, (session_id,))
                connection.execute("COMMIT")

        def create() -> None:
            session_id, keys, values = _new()
            with pool.connection() as connection:
                connection.execute("BEGIN")
                connection.execute(_INSERT, (session_id, str(session_id)))
                connection.execute(_INSERT_ATTRIBUTES, (session_id, keys, values))
                connection.execute(_NOTIFY, (str(session_id),))
                connection.execute("COMMIT")

        yield Service(ids, read, change, create)


@contextmanager
def tasks(stage: Stage, *, read_together: bool = False, database: str | None = None) -> Iterator[Service]:
    """Callers are tasks of one event loop; they read by two statements, or by one."""
    database = database or stage.new_database()
    ids = populate(database)

    async def opened() -> psycopg_pool.AsyncConnectionPool[Any]:
        pool: psycopg_pool.AsyncConnectionPool[Any] = psycopg_pool.AsyncConnectionPool(
            database, kwargs={"autocommit": True}, min_size=CONNECTIONS, max_size=CONNECTIONS, open=False
        )
        await pool.open(wait=True)
        return pool

    pool = stage.loop.run(opened())

    async def read(session_id: uuid.UUID) -> tuple[Any, dict[str, Any]]:
        async with pool.connection() as connection:
            row = await (await connection.execute(_READ, (session_id,))).fetchone()
            rows = await (await connection.execute(_READ_ATTRIBUTES, (session_id,))).fetchall()
            return row, _decoded(rows)

    async def read_at_once(session_id: uuid.UUID) -> tuple[Any, dict[str, Any]]:
        async with pool.connection() as connection:
            row = await (await connection.execute(_READ_TOGETHER, (session_id,))).fetchone()
            assert row is not None
            return row, msgspec.json.decode(row[-1])

    async def change(session_id: uuid.UUID) -> None:
        async with pool.connection() as connection:
            await connection.execute("BEGIN")
            await connection.execute(_LOCK, (session_id,))
            await connection.execute(SET, (session_id, "cart", '["book","another"]'))
            await connection.execute(_SAVE, (session_id,))
            await connection.execute("COMMIT")

    async def create() -> None:
        session_id, keys, values = _new()
        async with pool.connection() as connection:
            await connection.execute("BEGIN")
            await connection.execute(_INSERT, (session_id, str(session_id)))
            await connection.execute(_INSERT_ATTRIBUTES, (session_id, keys, values))
            await connection.execute(_NOTIFY, (str(session_id),))
            await connection.execute("COMMIT")

    try:
        yield Service(ids, read_at_once if read_together else read, change, create)
    finally:
        stage.loop.run(pool.close())


def populate(database: str) -> list[uuid.UUID]:
    """Makes the tables and fills them; returns the ids of the sessions."""
    ids = [uuid.uuid4() for _ in range(SESSIONS)]
    with psycopg.connect(database) as connection:
        connection.execute(_TABLES)
        with connection.cursor() as cursor:
            cursor.executemany(_INSERT, [(session_id, str(session_id)) for session_id in ids])
            keys, values = _encoded(ATTRIBUTES)
            cursor.executemany(_INSERT_ATTRIBUTES, [(session_id, keys, values) for session_id in ids])
    return ids


def _new() -> tuple[uuid.UUID, list[str], list[str]]:
    return uuid.uuid4(), *_encoded(THREE)


def _encoded(attributes: dict[str, Any]) -> tuple[list[str], list[str]]:
    return list(attributes), [msgspec.json.encode(value).decode() for value in attributes.values()]


def _decoded(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    return {key: msgspec.json.decode(value) for key, value, *_ in rows}
