"""After a crash a version number can be given out twice: what was cached before it is worth nothing then."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgsession
from tests.fault.nodes import Node, until
from tests.versions import changes

Server = Any


@pytest.fixture
def server(own_server: Callable[..., Server]) -> Server:
    return own_server()


def open_node(kind: str, server: Server, **fields: Any) -> Node:
    fields = {"create_schema_if_missing": True, "max_staleness": 2, **fields}
    return Node(kind, server.conninfo, pgsession.Config(**fields))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_drops_everything(kind: str, server: Server, mode: str) -> None:
    with open_node(kind, server) as node:
        session = node.create_session("u", {"n": 0})
        node.from_memory(session.id)
        server.restart(mode)
        node.until_in_sync()
        read = node.get_session(session.id)
        assert read["n"] == 0 and not read.from_cache
        assert node.from_memory(session.id)["n"] == 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_killed_backend_drops_everything(kind: str, server: Server) -> None:
    """The server recovers without a restart: its start time stays the same."""
    with open_node(kind, server) as node:
        session = node.create_session("u", {"n": 0})
        node.from_memory(session.id)
        before = node.stats().resyncs
        with psycopg.connect(server.conninfo) as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):
                victim.execute("SELECT 1")
        _until_resynced(node, before)
        assert not node.get_session(session.id).from_cache
        assert node.from_memory(session.id)["n"] == 0


def test_a_lost_commit_is_not_served_again(kind: str, own_server: Callable[..., Server]) -> None:
    """Version 2 is read, lost in a crash, and given out again with other contents."""
    server = own_server(settings={"wal_writer_delay": "10s"})
    with open_node(kind, server, notify_before_flush=False, synchronous_commit=False) as node:
        session = node.create_session("u", {"n": "before"})
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute("CHECKPOINT")  # the session itself is safe
        session["n"] = "lost"
        node.update_session(session)
        assert node.from_memory(session.id)["n"] == "lost" and changes(session) == 1
        server.restart("immediate")
        node.until_in_sync()
        read = node.get_session(session.id)
        assert (changes(read), read["n"]) == (0, "before")
        # A token of the lost version: read from the database, and then from memory again.
        assert node.get_session(session.id, min_version=session.version).version == read.version
        assert node.get_session(session.id, min_version=session.version).from_cache
        read["n"] = "again"
        node.update_session(read)
        assert (changes(read), node.from_memory(session.id)["n"]) == (1, "again")


class Lost:
    """A session that is held at a version which the server has lost, and was then saved once more by somebody else.

    The session is at that version again, with other contents.
    """

    def __init__(self, node: Node, *, listed: bool = False) -> None:
        self.node = node
        session = node.create_session("u", {"n": "before", "list": ["before"], "other": 0})
        self.id, self.first = session.id, session.version
        self.listed = listed
        self.expected: dict[str, Any] = {"n": "again", "list": ["again"], "other": 0}

    def change(self) -> None:
        """In what will be lost."""
        session = self.node.get_session(self.id)
        session.update({"n": "lost", "list": ["lost"], "new": "lost"})
        self.node.update_session(session)
        listed = (one for one in self.node.list_user_sessions("u") if one.id == self.id)
        self.held = next(listed) if self.listed else self.node.from_memory(self.id)
        self.values = self.held["list"]  # an object that was read of it
        assert self.held.version == self.first + 1

    def change_again(self) -> None:
        read = self.node.get_session(self.id)
        assert (read.version, read["n"]) == (self.first, "before")
        read.update({"n": "again", "list": ["again"]})
        self.node.update_session(read)
        assert read.version == self.held.version
        assert read.attribute("n").version == self.held.attribute("n").version

    def agrees(self, session: Any, **changed: Any) -> None:
        """The caller, this node's memory and the database have the same."""
        self.expected |= changed
        assert dict(session) == self.expected
        assert dict(self.node.from_memory(self.id)) == self.expected
        fresh = self.node.get_session(self.id, refresh=True)
        assert dict(fresh) == self.expected and fresh.version == session.version


def test_what_is_based_on_a_lost_commit_is_saved_as_what_the_database_holds(
    kind: str, own_server: Callable[..., Server]
) -> None:
    """It was cached, and served in sync, as contents that never existed: the number of the version was the same."""
    server = own_server(settings={"wal_writer_delay": "10s"})
    config = {"notify_before_flush": False, "synchronous_commit": False, "max_sessions": 0}
    with open_node(kind, server, **config) as node:
        cases = [Lost(node, listed=number < 2) for number in range(8)]
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute("CHECKPOINT")  # the sessions themselves are safe
        for case in cases:
            case.change()
        server.restart("immediate")
        node.until_in_sync()
        for case in cases:
            case.change_again()

        for case in cases[1:3]:
            case.held["mine"] = 2
            node.update_session(case.held)
            case.agrees(case.held, mine=2)
            case.held["list"].append("after")
            node.update_session(case.held, check="session")
            case.agrees(case.held, list=["again", "after"])
        _no_check_passes(node, cases[3], lambda session: session.set("n", "mine"), ("n",))
        _no_check_passes(node, cases[4], lambda session: session.pop("n"), ("n",))
        _no_check_passes(node, cases[5], lambda session: cases[5].values.append("mine"), ("list",))
        _no_check_passes(node, cases[0], lambda session: None, ())
        _nothing_changed(node, cases[6])
        _pending_meanwhile(node, cases[7])


def _no_check_passes(node: Node, case: Lost, change: Callable[[Any], object], keys: tuple[str, ...]) -> None:
    """It says nothing that the version is the one that is held."""
    change(case.held)
    with pytest.raises(pgsession.SessionVersionConflict, match="before the server was restarted"):
        node.update_session(case.held, check="session", group_id="g")
    if keys:
        with pytest.raises(pgsession.AttributeVersionConflict) as refused:
            node.update_session(case.held, check="attributes")
        assert refused.value.keys == keys
    # Whoever tries again, as modify_session does, gets what is there.
    saved = node.modify_session(case.id, lambda session: session.set("n", "after"), check="session")
    case.agrees(saved, n="after")


def _nothing_changed(node: Node, case: Lost) -> None:
    with pytest.raises(pgsession.SessionVersionConflict):
        node.update_session(case.held, check="session")
    node.update_session(case.held)
    case.agrees(case.held)
    assert case.held["list"] == ["again"]


def _pending_meanwhile(node: Node, case: Lost) -> None:
    """While a session is saved, more is changed in it: the next check must not take that as based on what came back."""
    case.held["mine"] = 1
    taken = case.held._changes()
    case.held["n"] = "pending"
    case.held._saved(taken, node.get_session(case.id, refresh=True)._record, 0)
    with pytest.raises(pgsession.AttributeVersionConflict) as refused:
        node.update_session(case.held, check="attributes")
    assert refused.value.keys == ("n",)


def test_a_cold_copy_that_is_put_back(kind: str, server: Server, tmp_path: Path) -> None:
    """The copy has the row that marks its incarnation, in an unlogged table that a proper stop keeps."""
    with open_node(kind, server) as node:
        session = node.create_session("u", {"n": "copied"})
        server.run("pg_ctl", "-D", server.folder, "-m", "fast", "-w", "stop")
        copy = server.folder.with_name(server.folder.name + ".copy")
        shutil.copytree(server.folder, copy, copy_function=_copy_with_owner)
        _own_folders(server.folder, copy)
        server.restart()
        node.until_in_sync()
        session = node.get_session(session.id)
        session["n"] = "later"
        node.update_session(session)
        node.from_memory(session.id)
        server.run("pg_ctl", "-D", server.folder, "-m", "fast", "-w", "stop")
        shutil.rmtree(server.folder)
        copy.rename(server.folder)
        server.restart()
        node.until_in_sync()
        read = node.get_session(session.id)
        assert (changes(read), read["n"]) == (0, "copied")
        read["n"] = "anew"
        assert changes(node.update_session(read)) == 1
        assert node.from_memory(session.id)["n"] == "anew"


def _until_resynced(node: Node, before: int) -> None:
    until(lambda: node.stats().resyncs > before and node.in_sync, "a resync")


def _copy_with_owner(source: str, target: str) -> None:
    shutil.copy2(source, target)
    status = os.stat(source)
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid)


def _own_folders(source: Path, target: Path) -> None:
    """copytree makes the folders as whoever we are."""
    if os.geteuid() == 0:
        for folder, _, _ in os.walk(source):
            status = os.stat(folder)
            os.chown(target / Path(folder).relative_to(source), status.st_uid, status.st_gid)
