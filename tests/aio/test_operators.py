"""What operators do with the tables by PostgreSQL's own means."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import pgsession
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import create_many


async def test_both_tables_are_truncated_in_one_statement(
    manager: pgsession.AsyncSessionManager, tables: Tables
) -> None:
    session = await manager.create_session("ann", {"n": 1})
    tables.run("TRUNCATE {sessions}, {session_attributes}")
    assert await manager.get_session(session.id, refresh=True) is None
    session = await manager.create_session("ann", {"n": 1})
    tables.run("TRUNCATE {session_attributes}, {session_locks}, {sessions}")
    assert await manager.get_session(session.id, refresh=True) is None
    assert tables.one("SELECT count(*) FROM {session_attributes}") == 0


async def test_a_dump_of_the_rows_alone_brings_the_attributes_back(
    manager: pgsession.AsyncSessionManager,
    tables: Tables,
    dump: Callable[..., str],
    load: Callable[..., None],
) -> None:
    sessions = await create_many(manager, 3)
    for n, session in enumerate(sessions):
        session["n"] = n
        await manager.update_session(session)
    script = dump(tables.dsn, "--data-only", f"--table={tables.schema}.session*")
    tables.run("DELETE FROM {sessions}")
    load(tables.dsn, script)
    for n, session in enumerate(sessions):
        read = await manager.get_session(session.id, refresh=True)
        assert read is not None and read["n"] == n and read.version > session.version


@pytest.mark.parametrize("table", ["sessions", "session_attributes", "session_locks"])
async def test_disabled_triggers_are_seen(open_manager: OpenAsyncManager, tables: Tables, table: str) -> None:
    await open_manager()
    tables.run("ALTER TABLE {%s} DISABLE TRIGGER USER" % table)  # type: ignore[arg-type]  # noqa: UP031
    with pytest.raises(pgsession.SchemaError, match=r"would not hear of changes: trigger pgsession_\d_"):
        await open_manager(create_schema_if_missing=False)
    await open_manager()  # mends them
    await open_manager(create_schema_if_missing=False)
