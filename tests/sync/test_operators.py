# Generated from tests/aio/test_operators.py by tools/async_to_sync.py: never edit.

"""What operators do with the tables by PostgreSQL's own means."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import pgsession
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import create_many


def test_both_tables_are_truncated_in_one_statement(
    manager: pgsession.SessionManager, tables: Tables
) -> None:
    session = manager.create_session("ann", {"n": 1})
    tables.run("TRUNCATE {sessions}, {session_attributes}")
    assert manager.get_session(session.id, refresh=True) is None
    session = manager.create_session("ann", {"n": 1})
    tables.run("TRUNCATE {session_attributes}, {session_locks}, {sessions}")
    assert manager.get_session(session.id, refresh=True) is None
    assert tables.one("SELECT count(*) FROM {session_attributes}") == 0


def test_a_dump_of_the_rows_alone_brings_the_attributes_back(
    manager: pgsession.SessionManager,
    tables: Tables,
    dump: Callable[..., str],
    load: Callable[..., None],
) -> None:
    sessions = create_many(manager, 3)
    for n, session in enumerate(sessions):
        session["n"] = n
        manager.update_session(session)
    script = dump(tables.dsn, "--data-only", f"--table={tables.schema}.session*")
    tables.run("DELETE FROM {sessions}")
    load(tables.dsn, script)
    for n, session in enumerate(sessions):
        read = manager.get_session(session.id, refresh=True)
        assert read is not None and read["n"] == n and read.version > session.version


@pytest.mark.parametrize("table", ["sessions", "session_attributes", "session_locks"])
def test_disabled_triggers_are_seen(open_manager: OpenAsyncManager, tables: Tables, table: str) -> None:
    open_manager()
    tables.run("ALTER TABLE {%s} DISABLE TRIGGER USER" % table)  # type: ignore[arg-type]  # noqa: UP031
    with pytest.raises(pgsession.SchemaError, match=r"would not hear of changes: trigger pgsession_\d_"):
        open_manager(create_schema_if_missing=False)
    open_manager()  # mends them
    open_manager(create_schema_if_missing=False)
