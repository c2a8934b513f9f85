"""Servers that can be crashed, restarted and frozen: a primary with its synchronous standby, or such as stand apart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psycopg
from psycopg import sql

from pgsession.embedded import EmbeddedServer

PATIENCE = 60.0
"""Seconds that any step of a cluster may take before the run gives up."""

SETTINGS: dict[str, str | int] = {
    "max_connections": 200,
    "shared_buffers": "32MB",
    "checkpoint_timeout": "15min",
}
REPLICATION: dict[str, str | int] = {
    "cluster_name": "chaos",  # what the standby's receiver is called, for synchronous_standby_names
    "wal_level": "replica",
    "max_wal_senders": 8,
    "wal_keep_size": "256MB",
    "wal_retrieve_retry_interval": "100ms",
}


class Machines:
    """Two servers. Each keeps its socket and its port through everything, so that what leads to it need not change."""

    def __init__(self, *, programs: str | None = None, settings: dict[str, str | int] | None = None) -> None:
        self._programs = programs
        self._settings = SETTINGS | (settings or {})
        self._home = Path(tempfile.mkdtemp(prefix="pgsession-cluster-", dir="/tmp"))
        os.chmod(self._home, 0o755)  # the servers' account has to get to its own folder below
        self.servers: list[EmbeddedServer] = []
        self._primary = 0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        for name in ("a", "b"):
            self._new_server(name).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.servers:
            with suppress(Exception):
                server.stop("immediate")
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def primary(self) -> EmbeddedServer:
        return self.servers[self._primary]

    def kill(self, server: EmbeddedServer) -> None:
        """SIGKILL to all of its processes, as when its machine dies."""
        for pid in [server.pid, *(pid for pid, _ in _children(server.pid))]:
            _signal(pid, signal.SIGKILL)

    def stop(self, server: EmbeddedServer) -> None:
        """Stop it at once, without a checkpoint; `restart` of the server brings it back."""
        server.run("pg_ctl", "-D", server.folder, "-m", "immediate", "-w", "stop")

    @contextmanager
    def silent(self, server: EmbeddedServer) -> Iterator[None]:
        """A server stays connected and answers nothing: neither on connections that are there nor on new ones."""
        postmaster = server.pid
        os.kill(postmaster, signal.SIGSTOP)  # first: it makes no more of the others
        pids = [pid for pid, _ in _children(postmaster)]
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in [*pids, postmaster]:
                _signal(pid, signal.SIGCONT)

    def backends(self, name: str = "%", server: EmbeddedServer | None = None) -> list[int]:
        """The client backends of the primary, or of another server, by `application_name`."""
        rows = self._ask(
            server or self.primary,
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            " AND application_name LIKE %s",
            (name,),
        )
        return [row[0] for row in rows]

    def terminate(self, pids: list[int], server: EmbeddedServer | None = None) -> None:
        """`pg_terminate_backend`: the proper end, with a message to the client."""
        query = "SELECT count(pg_terminate_backend(p)) FROM unnest(%s::int[]) p"
        self._ask(server or self.primary, query, (pids,))

    def logs(self) -> str:
        """The ends of both servers' logs."""
        texts = [
            f"--- {server.folder.name}\n{server.log.read_text(errors='replace')[-4000:]}"
            for server in self.servers
            if hasattr(server, "folder") and server.log.exists()
        ]
        return "\n".join(texts)

    def _new_server(self, name: str) -> EmbeddedServer:
        folder = self._home / name
        server = EmbeddedServer(folder, settings=self._settings, programs=self._programs)
        self.servers.append(server)
        return server

    def _ask(
        self, server: EmbeddedServer, query: Any, parameters: tuple[Any, ...] | None = None
    ) -> list[Any]:
        with psycopg.connect(
            server.conninfo, autocommit=True, connect_timeout=5, application_name="control"
        ) as connection:
            # Nothing of ours waits for a standby.
            connection.execute("SET synchronous_commit = local")
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []


class Cluster(Machines):
    """One of the two is the primary; every acknowledged commit is on both disks (`synchronous_standby_names`)."""

    def __init__(self, *, programs: str | None = None, settings: dict[str, str | int] | None = None) -> None:
        super().__init__(programs=programs, settings=REPLICATION | (settings or {}))

    def _start(self) -> None:
        first = self._new_server("a")
        first.start()
        second = self._new_server("b")
        self._copy(first, self._home / "b")
        second.start()
        self._replicate(first)

    @property
    def standby(self) -> EmbeddedServer:
        return self.servers[1 - self._primary]

    # What can happen to the primary

    def restart(self, mode: Literal["fast", "immediate"]) -> None:
        """Restart the primary, properly or by a crash."""
        self.primary.restart(mode)
        self._wait_for_standby()

    def kill_backend(self, pid: int) -> None:
        """SIGKILL to one backend: the postmaster ends all others and recovers, without a restart of its own."""
        started = self._started()
        os.kill(pid, signal.SIGKILL)
        _until(lambda: self._recovered_since(started), "the crash recovery")
        self._wait_for_standby()

    def fail_over(self) -> EmbeddedServer:
        """The primary dies at once, and the standby takes over. Returns the dead one, to `rebuild`."""
        old, new = self.primary, self.standby
        self.stop(old)
        self.promote(new)
        return old

    def promote(self, server: EmbeddedServer) -> None:
        """Make the standby a primary; the old one may be alive."""
        server.run("pg_ctl", "-D", server.folder, "-w", "-t", str(int(PATIENCE)), "promote")
        self._primary = self.servers.index(server)
        # Until there is a standby again, nothing waits for one: the file that came with the copy says otherwise.
        self._set(server, "synchronous_standby_names", "")

    def rebuild(self, server: EmbeddedServer) -> None:
        """Make a server that is down the standby of the present primary, from a fresh copy."""
        log = self._home / f"{server.folder.name}.log"
        with log.open("a") as kept:
            kept.write(server.log.read_text(errors="replace"))
        for entry in server.folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._copy(self.primary, server.folder)
        server.restart()
        self._replicate(self.primary)

    @contextmanager
    def frozen_standby(self) -> Iterator[None]:
        """The standby takes nothing: acknowledgements wait, while what is committed can be read."""
        pids = [pid for pid, title in _children(self.standby.pid) if "walreceiver" in title]
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                _signal(pid, signal.SIGCONT)

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """Somebody with psql, whose transaction holds what it locks for the block, and then ends without a trace."""
        connection = psycopg.connect(self.primary.conninfo, connect_timeout=5, application_name="psql")
        with connection:
            connection.execute("SET LOCAL lock_timeout = '2s'")
            try:
                yield connection
            finally:
                connection.rollback()

    # How it is made

    def _copy(self, source: EmbeddedServer, folder: Path) -> None:
        """A base backup, made by the servers' account, that starts as a standby of its source."""
        if not folder.exists():
            folder.mkdir(mode=0o700)
            owner = source.folder.stat()
            if os.geteuid() == 0:
                os.chown(folder, owner.st_uid, owner.st_gid)
        arguments = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync", "-d"]
        source.run("pg_basebackup", "-D", folder, *arguments, source.conninfo)
        for leftover in ("log", "postmaster.opts"):
            (folder / leftover).unlink(missing_ok=True)

    def _replicate(self, primary: EmbeddedServer) -> None:
        _until(lambda: self._streaming(primary), "the standby to stream")
        self._set(primary, "synchronous_standby_names", "chaos")
        self._wait_for_standby()

    def _streaming(self, primary: EmbeddedServer, state: str = "") -> bool:
        query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = 'chaos'"
        return bool(self._ask(primary, query + state)[0][0])

    def _wait_for_standby(self) -> None:
        _until(
            lambda: self._streaming(self.primary, " AND sync_state = 'sync'"),
            "the standby to be synchronous",
        )

    def _set(self, server: EmbeddedServer, name: str, value: str) -> None:
        command = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
        self._ask(server, command)
        self._ask(server, "SELECT pg_reload_conf()")

    def _started(self) -> Any:
        """A crash recovery starts the checkpointer anew."""
        query = "SELECT backend_start FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
        return self._ask(self.primary, query)

    def _recovered_since(self, started: Any) -> bool:
        return bool(self._started() != started)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _until(condition: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except psycopg.OperationalError:
            pass
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.05)


def _children(pid: int) -> list[tuple[int, str]]:
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    lines = (line.strip().split(None, 1) for line in listed.stdout.splitlines())
    return [(int(line[0]), line[1]) for line in lines if len(line) == 2]
