"""PgBouncer in transaction mode, in front of a server, for as long as a `with` block lasts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.fault.nodes import until
from tests.programs import needs_program


class PgBouncer:
    """`conninfo` leads to the server through it. Skips the test where there is no PgBouncer.

    Settings are those of the section `[pgbouncer]`, over those that the tests need.
    """

    def __init__(self, conninfo: str, **settings: str) -> None:
        self._given = settings
        self._program = needs_program("pgbouncer")
        self._server = conninfo_to_dict(conninfo)
        with psycopg.connect(conninfo) as connection:
            self._server |= {"host": connection.info.host, "port": connection.info.port}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.conninfo = make_conninfo("", host="127.0.0.1", port=self._port, dbname="pooled", user="anybody")

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="pgsession-bouncer-", dir="/tmp"))
        target = " ".join(
            f"{name}={self._server[name]}"
            for name in ("host", "port", "dbname", "user", "password")
            if self._server.get(name)
        )
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self._port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": 4,
            "ignore_startup_parameters": "extra_float_digits",
            **self._given,
        }
        lines = ["[databases]", f"pooled = {target}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        file = self._folder / "pgbouncer.ini"
        file.write_text("\n".join(lines) + "\n")
        account: dict[str, Any] = {}
        if (
            sys.platform != "win32" and os.geteuid() == 0
        ):  # it refuses to run as root; the socket of a server is its account's alone
            import pwd

            host = str(self._server["host"])
            uid = os.stat(host).st_uid if host.startswith("/") else pwd.getpwnam("nobody").pw_uid
            for path in (self._folder, file):
                os.chown(path, uid, -1)
            account = {"user": uid, "group": pwd.getpwuid(uid).pw_gid, "extra_groups": []}
        self._log = (self._folder / "log").open("w+")
        self._process = subprocess.Popen(
            [self._program, str(file)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            **account,
        )
        try:
            until(self._answers, "pgbouncer to start", timeout=10)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            self._log.seek(0)
            raise RuntimeError(f"pgbouncer ended: {self._log.read()}")
        try:
            with psycopg.connect(self.conninfo, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)
