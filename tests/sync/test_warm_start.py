# Generated from tests/aio/test_warm_start.py by tools/async_to_sync.py: never edit.

"""What one manager had in memory is in the next one's before it is asked for."""

from __future__ import annotations

import logging
import os
import stat
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pgsession
from pgsession._concurrency import Event, sleep
from pgsession._sync import warm_start
from pgsession._sync.store import Store
from pgsession._warm_file import read_ids, write_ids
from tests.crew import Crew
from tests.fault_proxy import FaultProxy
from tests.leftovers import Leftovers
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import create_many, eventually

GUARD = 10  # seconds; what hangs does so for ever


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The lines about warm starts and their files, with their levels."""
    return [
        (line.levelname, line.getMessage())
        for line in caplog.records
        if "warm start" in line.message or "could not be left" in line.message
    ]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ids")


def left(manager: pgsession.SessionManager, path: str) -> list[uuid.UUID]:
    """The ids in the file of this closed or open manager's database."""
    with open(path, "rb") as file:
        identity = file.read(40)[8:]
    keys = read_ids(path, identity, 10**6)
    return [uuid.UUID(bytes=keys[at : at + 16]) for at in range(0, len(keys), 16)]


def leave(open_manager: OpenAsyncManager, path: Any, count: int = 600) -> list[uuid.UUID]:
    """Have a manager that has read so many sessions in this order leave their ids; the last one comes first."""
    manager = open_manager(warm=path, max_sessions=0)
    ids = [session.id for session in create_many(manager, count)]
    for session_id in ids:
        assert manager.get_session(session_id) is not None
    manager.close()
    return ids[::-1]


def test_all_is_in_memory_as_open_returns_and_nothing_was_accessed(
    open_manager: OpenAsyncManager, path: str, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgsession")
    ids = leave(open_manager, Path(path))
    status = os.stat(path)
    assert stat.S_IMODE(status.st_mode) == 0o600 and status.st_size == 52 + 16 * 600
    tables.run("UPDATE {sessions} SET last_accessed = last_accessed - interval '1 hour'")
    accessed = tables.run("SELECT id, last_accessed FROM {sessions} ORDER BY id")
    caplog.clear()
    manager = open_manager(warm=path)
    assert [level for level, _ in said(caplog)] == ["INFO"]
    assert "600 sessions of 600 that " + path in said(caplog)[0][1]
    stats = manager.stats()
    assert (stats.warmed_sessions, stats.cached_sessions, stats.fills) == (600, 600, 600)
    assert (stats.hits, stats.misses, stats.pending_accesses) == (0, 0, 0)
    assert all(manager.get_cached_session(session_id, touch=False) is not None for session_id in ids)
    manager.close()
    assert tables.run("SELECT id, last_accessed FROM {sessions} ORDER BY id") == accessed


def test_the_order_of_use_goes_on_for_who_has_less_room(open_manager: OpenAsyncManager, path: str) -> None:
    ids = leave(open_manager, path)
    manager = open_manager(warm=path, cache_size=300, max_sessions=0)
    there = [session_id for session_id in ids if manager.get_cached_session(session_id, touch=False)]
    assert there == ids[:300], "a look has the order turned round"
    for session_id in reversed(ids[:300]):
        manager.get_cached_session(session_id, touch=False)
    for session_id in ids[300:310]:
        assert manager.get_session(session_id) is not None
    manager.close()
    assert left(manager, path) == [*reversed(ids[300:310]), *ids[:290]]


def test_what_has_changed_or_ended_meanwhile_is_as_the_database_has_it(
    open_manager: OpenAsyncManager, path: str, tables: Tables
) -> None:
    ids = leave(open_manager, path, 20)
    other = open_manager()
    changed = other.get_session(ids[0])
    assert changed is not None
    changed["n"] = 1
    other.update_session(changed)
    other.delete_session(ids[1])
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() - interval '1 s' WHERE id = %s", ids[2])
    manager = open_manager(warm=path)
    assert manager.stats().warmed_sessions == 18
    warm = manager.get_cached_session(ids[0])
    assert warm is not None and warm["n"] == 1
    assert [manager.get_cached_session(session_id) for session_id in ids[1:3]] == [None, None]
    before = manager.stats()
    assert manager.get_session(ids[1]) is None and manager.get_session(ids[2]) is None
    assert manager.stats().negative_hits == before.negative_hits, "nobody had asked for them"
    warm["n"] = 2
    other.delete_session(ids[3])
    manager.update_session(warm)

    def heard() -> bool:
        return manager.get_cached_session(ids[3]) is None

    eventually(heard)


class Held:
    """Holds up the statements that read sessions, from the one of this number on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.reached, self.go_on = Event(), Event()
        read_many, asked = Store.read_many, []

        def held(store: Store, keys: Any, deadline: float) -> Any:
            asked.append(len(keys))
            if len(asked) >= number:
                self.reached.set()
                self.go_on.wait(GUARD)
            return read_many(store, keys, deadline)

        monkeypatch.setattr(Store, "read_many", held)


def test_in_the_background_it_takes_nothing_from_who_asks(
    open_manager: OpenAsyncManager, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = leave(open_manager, path)
    held = Held(monkeypatch, 2)
    manager = open_manager(warm=path, warm_mode="background", cache_size=400)
    assert held.reached.wait(GUARD)
    assert manager.stats().warmed_sessions == 256, "and it is open"
    for session_id in ids[500:560]:
        assert manager.get_session(session_id) is not None
    held.go_on.set()

    def full() -> bool:
        return manager.stats().cached_sessions == 400

    eventually(full)
    stats = manager.stats()
    assert (stats.warmed_sessions, stats.evictions) == (340, 0)
    manager.close()
    assert left(manager, path)[:60] == ids[559:499:-1]
    assert left(manager, path)[60:400] == ids[:340]


@pytest.mark.parametrize("mode", ["before_ready", "background"])
def test_a_close_in_the_middle_ends_it_and_leaves_what_was_still_to_be_read(
    open_manager: OpenAsyncManager, dsn: str, schema: str, path: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, mode: Any,
) -> None:  # fmt: skip
    ids = leave(open_manager, path)
    held = Held(monkeypatch, 2)
    caplog.clear()
    with Leftovers(dsn) as nothing:
        config = pgsession.Config(warm=path, warm_mode=mode, schema_name=schema)
        manager = pgsession.SessionManager(nothing.conninfo, config)

        def use() -> type[Exception] | None:
            try:
                manager.open()
            except pgsession.ManagerClosedError as error:
                return type(error)
            return None

        with Crew() as crew:
            crew.start(use)
            assert held.reached.wait(GUARD)
            began = time.monotonic()
            crew.start(manager.close)
            sleep(0)
            held.go_on.set()
            told, _ = crew.join()
        assert time.monotonic() - began < GUARD
        assert told is (pgsession.ManagerClosedError if mode == "before_ready" else None)
    assert sorted(left(manager, path)) == sorted(ids)
    assert [level for level, _ in said(caplog)] == []


def test_an_outage_in_the_middle_lets_open_return_with_what_was_read(
    open_manager: OpenAsyncManager, dsn: str, path: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    ids = leave(open_manager, path)
    held = Held(monkeypatch, 2)
    with FaultProxy(dsn) as way:
        caplog.clear()
        with Crew() as crew:

            def open_warm() -> pgsession.SessionManager:
                return open_manager(way.conninfo, warm=path, operation_timeout=1)

            crew.start(open_warm)
            assert held.reached.wait(GUARD)
            way.refuse()
            way.cut()
            held.go_on.set()
            (manager,) = crew.join()
        assert manager.stats().warmed_sessions == 256
        assert [level for level, _ in said(caplog)] == ["WARNING"]
        assert "256 sessions of 600" in said(caplog)[0][1]
        way.forward()

        def served() -> bool:
            return manager.get_cached_session(ids[0]) is not None

        eventually(served, "the node to be in sync again")
        assert manager.get_session(ids[-1]) is not None
        manager.close()
    assert len(left(manager, path)) == 600


def test_a_file_of_other_tables_is_not_used(
    open_manager: OpenAsyncManager, path: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    leave(open_manager, path, 20)
    manager = open_manager(warm=path, table_prefix="other_")
    assert manager.stats().warmed_sessions == 0
    assert "another database" in caplog.text and [level for level, _ in said(caplog)] == ["WARNING"]


def folder(path: str) -> None:
    os.mkdir(path)


def link(path: str) -> None:
    os.symlink("/dev/zero", path)


def rubbish(path: str) -> None:
    Path(path).write_bytes(os.urandom(5000))


def huge(path: str) -> None:
    write_ids(path, bytes(32), bytes(160))
    os.truncate(path, 1 << 42)


def nowhere(path: str) -> None:
    os.rmdir(os.path.dirname(path))


@pytest.mark.parametrize("make", [folder, link, rubbish, huge, nowhere])
def test_a_file_that_cannot_be_used_is_one_warning_at_open(
    open_manager: OpenAsyncManager, path: str, make: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    make(path)
    manager = open_manager(warm=path)
    assert [level for level, _ in said(caplog)] == ["WARNING"] and path in said(caplog)[0][1]
    manager.create_session("u")
    manager.close()
    could = make not in (folder, nowhere)
    assert [level for level, _ in said(caplog)][1:] == ([] if could else ["WARNING"])
    assert not could or len(left(manager, path)) == 1


def test_processes_of_a_host_share_one_file(open_manager: OpenAsyncManager, path: str) -> None:
    """All close at once, and all open at once."""
    ids = leave(open_manager, path, 100)
    with Crew() as crew:
        for _ in range(4):

            def open_warm() -> pgsession.SessionManager:
                return open_manager(warm=path)

            crew.start(open_warm)
        managers = crew.join()
    assert [manager.stats().warmed_sessions for manager in managers] == [100] * 4
    with Crew() as crew:
        for manager in managers:
            crew.start(manager.close)
    assert left(managers[0], path) == ids and os.listdir(os.path.dirname(path)) == ["ids"]


def test_without_a_path_nothing_is_read_or_left(
    open_manager: OpenAsyncManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_start, "in_own_thread", None)
    monkeypatch.chdir(tmp_path)
    manager = open_manager()
    manager.create_session("u")
    manager.close()
    assert os.listdir(tmp_path) == []
