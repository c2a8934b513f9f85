"""Counts the instructions of a server process for one write: `python -m benchmarks.server_instructions`.

The whole server runs under callgrind, without flushes. A connection makes FEW writes of a kind, and another one
MANY: the difference is free of what happens once. Unlike times they do not depend on what else the machine does.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo

from pgsession import schema
from pgsession._database.script import Script
from pgsession._database.statements import Statements, write_arguments
from pgsession._protocol.operations import Flag
from pgsession.embedded import EmbeddedServer, _find_programs

FEW, MANY = 100, 300
SESSIONS = 2048
LOCKS = 100
NODE = "0123456789abcdef"
HOUR = 3_600_000_000
GUARD = 120.0  # seconds
STATEMENTS = Statements()

Write = Callable[["Caller"], None]


class Caller:
    """A connection, and sessions to change on it."""

    def __init__(self, conninfo: str) -> None:
        self.connection = psycopg.connect(conninfo, autocommit=True)
        self.pid = self.connection.info.backend_pid
        self._incarnation = str(self.run(STATEMENTS.incarnate())[0])
        self._versions: list[tuple[str, int, int]] = []
        self._owner = uuid4().hex
        self._locks = cycle(f"resource {number}" for number in range(LOCKS))

    def run(self, script: Script) -> Any:
        return self.connection.wait(script.run(self.connection.pgconn, prepares=True))

    def create(self) -> None:
        ends = int(time.time() * 1e6) + HOUR
        values = [(f"key {number}", f'["value",{number}]', None) for number in range(5)]
        rows = [
            (uuid4().hex, number, f"user {number}", None, ends, HOUR, values, None)
            for number in range(SESSIONS)
        ]
        self.run(STATEMENTS.write(NODE, "mark", write_arguments(False, create=rows)))

    def update(self) -> None:
        """One attribute of one session."""
        if not self._versions:
            found = self.connection.execute("SELECT id, version, owner_since FROM sessions ORDER BY id")
            self._versions = [(row[0].hex, row[1], row[2]) for row in found]
        key, version, owner_since = self._versions.pop(0)
        values = [("key 1", f'["value",{version}]', None, 0)]
        row = (
            key,
            version,
            owner_since,
            int(Flag.NOTIFY),
            None,
            None,
            values,
            [],
            self._incarnation,
            None,
            None,
        )
        arguments = write_arguments(False, update=[row])
        answer = json.loads(self.run(STATEMENTS.write(NODE, "mark", arguments, lock_timeout=100))[0])
        self._versions.append((key, answer["versions"][0], owner_since))

    def lock(self) -> None:
        """A lock, and its release."""
        resource = next(self._locks)
        assert self.run(STATEMENTS.acquire(resource, self._owner, HOUR, None))[0]
        assert self.run(STATEMENTS.release(NODE, resource, self._owner))[0]


@contextmanager
def counted_server(folder: Path) -> Iterator[str]:
    """A conninfo; each server process leaves `cg.<pid>` in the folder when it ends."""
    data = folder / "data"
    with EmbeddedServer(folder=data) as server:
        account = server._account
    settings = {
        "unix_socket_directories": folder,
        "listen_addresses": "",
        "fsync": "off",
        "autovacuum": "off",
    }
    command = [
        *("valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={folder}/cg.%p"),
        *(str(_find_programs() / "postgres"), "-D", str(data)),
        *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
    ]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **account)
    conninfo = make_conninfo(host=str(folder), user="postgres", dbname="postgres")
    try:
        _awaited(lambda: psycopg.connect(conninfo).close() is None)
        yield conninfo
    finally:
        running.terminate()
        running.wait()


def instructions(folder: Path, conninfo: str, write: Write, times: int) -> int:
    """What a new server process computes for as many writes."""
    caller = Caller(conninfo)
    for _ in range(times):
        write(caller)
    caller.connection.close()
    return _awaited(partial(_total, folder / f"cg.{caller.pid}"))


def _total(path: Path) -> int:
    totals = [line for line in path.read_text().splitlines() if line.startswith("totals:")]
    return int(totals[0].split()[1]) if totals else 0


def _awaited(done: Callable[[], Any]) -> Any:
    end = time.monotonic() + GUARD
    while True:
        try:
            if answer := done():
                return answer
        except (OSError, psycopg.OperationalError):
            pass
        if time.monotonic() > end:
            raise TimeoutError("the server under callgrind does not answer")
        time.sleep(0.1)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="pgsession-callgrind-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        with counted_server(folder) as conninfo:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                schema.create(connection)
            caller = Caller(conninfo)
            caller.create()
            caller.connection.execute("VACUUM ANALYZE")
            caller.connection.close()
            for what, write in (("an update alone", Caller.update), ("a lock and its release", Caller.lock)):
                few, many = (instructions(folder, conninfo, write, times) for times in (FEW, MANY))
                print(f"{what}: {(many - few) / (MANY - FEW):,.0f} instructions of its server process")


if __name__ == "__main__":
    main()
