"""The page for who is on call, worked through from its top to its end on a server of its own, beside a live node."""

from __future__ import annotations

import configparser
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import pgsession
from pgsession.embedded import EmbeddedServer
from tests.docs.terminal import Terminal
from tests.fault.nodes import until
from tests.fault.pgbouncer import PgBouncer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the page's commands are for a POSIX shell")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operate.md"
KEYS = [bytes(range(number, number + 32)).hex() for number in (1, 2)]


class Place:
    """The server that the page is tried on, under the names that the page has."""

    def __init__(self, server: EmbeddedServer, programs: Path, folder: Path) -> None:
        self.over_tcp = make_conninfo(
            server.conninfo, dbname="app"
        )  # asks for passwords, the socket does not
        self.conninfo = make_conninfo(self.over_tcp, host=str(server.folder.parent))
        self._programs, self._folder = programs, folder
        with psycopg.connect(self.conninfo, dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE app")

    def terminal(self, **variables: str) -> Terminal:
        known = conninfo_to_dict(self.conninfo)
        variables |= {"PGHOST": str(known["host"]), "PGPORT": str(known["port"])}
        return Terminal(PAGE, self._programs, self._folder, variables)

    def as_role(self, role: str) -> str:
        return make_conninfo(self.conninfo, user=role)

    def node(self, role: str, **options: Any) -> pgsession.SessionManager:
        return pgsession.SessionManager(self.as_role(role), pgsession.Config(schema_name="web"), **options)

    def ask(self, query: str) -> Any:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            cursor = connection.execute(query)  # type: ignore[call-overload]
            return cursor.fetchone()[0] if cursor.description else None


@pytest.fixture
def place(own_server: Callable[..., Any], programs: Path, tmp_path: Path) -> Place:
    return Place(own_server(tcp=True), programs, tmp_path)


def from_memory(node: pgsession.SessionManager, session_id: Any) -> None:
    def so() -> bool:
        read = node.get_session(session_id)
        return read is not None and read.from_cache

    until(so, "the node to answer from memory")


def test_the_page_from_its_top_to_its_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = place.terminal()
    list(terminal.section("Set up"))
    with place.node("app", signer=signers(terminal, monkeypatch, f"{KEYS[0]}")[0]) as node:
        kept = node.create_session("ann", {"n": 1})
        from_memory(node, kept.id)
        list(terminal.section("Upgrade"))
        downgrades(place, terminal, node)
        restores(place, terminal, node, kept)
        kept = node.create_session("ann")
        from_memory(node, kept.id)
        rotates_the_secret(place, terminal, node, kept)
        vacuums(place, terminal)
        assert place.ask("SELECT count(*) FROM pg_class WHERE relname IN ('sessions', 'session_attributes')"
                         " AND 'autovacuum_vacuum_scale_factor=0.02' = ANY (reloptions)") == 2  # fmt: skip
        assert node.check_health().healthy
        rotates_the_password(place, terminal, node, kept)
    list(terminal.section("Uninstall"))
    assert place.ask("SELECT count(*) FROM pg_class WHERE relname LIKE 'session%'") == 0
    assert place.ask("SELECT count(*) FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres'") == 0
    assert terminal.left == ["PgBouncer"]  # below


def downgrades(place: Place, terminal: Terminal, node: pgsession.SessionManager) -> None:
    """Tables of a newer version that serves this one, then of one that does not."""
    place.ask("UPDATE web.session_schema_version SET version = 2")
    (printed,) = terminal.section("Downgrade")
    assert printed.startswith("2|1\n")
    place.node("app").close()
    place.ask("UPDATE web.session_schema_version SET serves_from = 2")
    (commands,) = terminal.blocks("Downgrade", "sh")
    with pytest.raises(AssertionError, match=r"2\|2\npgsession: .* serves no version .* less than 2"):
        terminal.run(commands)
    place.ask("UPDATE web.session_schema_version SET version = 1, serves_from = 1")


def restores(
    place: Place, terminal: Terminal, node: pgsession.SessionManager, kept: pgsession.Session
) -> None:
    """What the page says of what was done since the dump: a log-out, a login, a rotation, a lock."""
    tokens = [token_of(node, kept.id)]
    list(terminal.section("Back up"))
    node.rotate_session(kept, grace=0)
    tokens.append(token_of(node, kept.id))
    later = node.create_session("later")
    with node.lock("r") as lock:
        before = lock.token
    ended = node.create_session("ann")
    assert node.delete_session(ended.id)
    steps = terminal.section("Restore")
    next(steps)
    until(lambda: node.get_session(later.id) is None, "the node to drop what came after the dump")
    old, new = (node.open_token(token) for token in tokens)
    assert old.state == "current" and new.state != "current", (old, new)
    with node.lock("r") as lock:
        assert lock.token > before + 999_999
    assert node.check_health().ready
    next(steps)
    until(lambda: node.get_session(kept.id) is None, "the sessions to end")
    assert node.count_sessions() == 0


def vacuums(place: Place, terminal: Terminal) -> None:
    """Who keeps dead rows is found, be it a reader with a snapshot or a writer; ended as the page says, all goes on."""
    steps = terminal.section("Vacuum and bloat")
    assert "hot_percent" in next(steps)
    with (
        psycopg.connect(place.as_role("app"), application_name="reports") as reader,
        psycopg.connect(place.as_role("sessions_owner"), application_name="forgotten") as writer,
    ):
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")
        writer.execute("SELECT pg_current_xact_id()")
        printed = next(steps)
        for name in ("reports", "forgotten"):
            (pid,) = re.findall(rf"^ *(\d+) \|.*\b{name}\b", printed, re.MULTILINE)
            place.ask(f"SELECT pg_terminate_backend({pid})")
        list(steps)
        for ended in (reader, writer):
            with pytest.raises(psycopg.OperationalError):
                ended.execute("SELECT 1")


def rotates_the_secret(
    place: Place, terminal: Terminal, node: pgsession.SessionManager, kept: pgsession.Session
) -> None:
    secret = "SELECT encode(secret, 'hex') FROM web.session_incarnation"
    old, losses = place.ask(secret), node.stats().listener_losses
    list(terminal.section("Rotate the secret of the channels"))
    assert place.ask(secret) != old
    until(lambda: node.stats().listener_losses > losses, "the listener to connect again")
    from_memory(node, kept.id)


def token_of(node: pgsession.SessionManager, session_id: Any) -> str:
    read = node.get_session(session_id)
    token = node.token(read) if read is not None else None
    assert token is not None
    return token


def rotates_the_password(
    place: Place, terminal: Terminal, node: pgsession.SessionManager, kept: pgsession.Session
) -> None:
    """Two roles take turns; then a function reads the password anew, where it is asked for."""
    steps = terminal.section("Rotate the service's password")
    next(steps)
    passwords = ["first"]
    place.ask("ALTER ROLE app_b PASSWORD 'first'")
    known = pgsession.Config(schema_name="web")
    with pgsession.SessionManager(
        lambda: make_conninfo(place.over_tcp, user="app_b", password=passwords[0]), known
    ) as other:
        assert other.get_session(kept.id) is not None
        node.close()
        connected = "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'"
        until(lambda: place.ask(connected.format("app")) == 0, "the old node to be gone")
        list(steps)
        passwords[0] = "second"
        place.ask("ALTER ROLE app_b PASSWORD 'second'")
        assert (
            place.ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app_b'")
            > 0
        )
        until(lambda: other.check_health().healthy, "the node to connect with the new password")
        from_memory(other, kept.id)
        assert other.create_session("bob").user_id == "bob"


def signers(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, *lists: str) -> list[pgsession.Signer]:
    """What the page's lines make of each `SESSION_KEYS`."""
    (lines,) = terminal.blocks("Rotate the keys of tokens", "python")
    made = []
    for given in lists:
        monkeypatch.setenv("SESSION_KEYS", given)
        known: dict[str, Any] = {}
        exec(lines, known)
        made.append(known["signer"])
    return made


def test_the_keys_of_tokens_are_changed_in_three_deploys(
    dsn: str, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes of one deploy and of the next refuse no token of each other's."""
    terminal = Terminal(PAGE, tmp_path, tmp_path, {})
    table = re.findall(r"^\| \d \| `(.*?)` \|", terminal.text("Rotate the keys of tokens"), re.MULTILINE)
    named = {"old": KEYS[0], "new": KEYS[1]}
    lists = [",".join(named[name] for name in given.split(",")) for given in ["old", *table]]
    made = signers(terminal, monkeypatch, *lists)
    assert len(made) == 4
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    with ExitStack() as running:
        nodes = [
            running.enter_context(pgsession.SessionManager(dsn, config, signer=signer)) for signer in made
        ]
        session = nodes[0].create_session("ann")
        for before, after in pairwise(nodes):
            for signing, asked in ((before, after), (after, before)):
                assert asked.open_token(token_of(signing, session.id)).state == "current"
        assert nodes[3].open_token(token_of(nodes[0], session.id)).state == "forged"


def test_through_pgbouncer(place: Place) -> None:
    """The page's settings, and its variables; without the second one the cause is named."""
    terminal = place.terminal()
    place.ask("CREATE ROLE app_b LOGIN; CREATE SCHEMA web AUTHORIZATION app_b")
    config = pgsession.Config(schema_name="web", create_schema_if_missing=True)
    with pgsession.SessionManager(place.as_role("app_b"), config):
        pass
    (given,) = terminal.blocks("PgBouncer", "ini")
    ini = configparser.ConfigParser()
    ini.read_string(given)
    assert ini["databases"]["app"] == "host=db.example.com"
    with PgBouncer(place.as_role("app_b"), **ini["pgbouncer"]) as bouncer:
        direct = place.as_role("app_b")
        variables = {"PGSESSION_DATABASE": bouncer.conninfo, "PGSESSION_LISTENER_CONNINFO": direct}
        steps = place.terminal(**variables).section("PgBouncer")
        assert re.search(r"^well +pooler ", next(steps), re.MULTILINE)
        config = pgsession.Config(schema_name="web", listener_conninfo=direct)
        with pgsession.SessionManager(bouncer.conninfo, config) as node:
            from_memory(node, node.create_session("ann").id)
        del variables["PGSESSION_LISTENER_CONNINFO"]
        alone = place.terminal(**variables)
        alone.run('export PGSESSION_DATABASE=""')
        with pytest.raises(AssertionError, match=r"PROBLEM +pooler "):
            alone.run("pgsession doctor")
