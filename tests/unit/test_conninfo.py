"""What the listener's connection, and the pool's, are opened with."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import pgsession
from pgsession._database import conninfo as conninfos
from pgsession._database.conninfo import listener_parameters, pool_parameters, server_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "PGHOST",
        "PGHOSTADDR",
        "PGCONNECT_TIMEOUT",
        "PGTARGETSESSIONATTRS",
        "PGOPTIONS",
        "PGSERVICE",
    ):
        monkeypatch.delenv(name, raising=False)


def test_a_dead_peer_is_noticed_by_default() -> None:
    parameters = listener_parameters("postgresql://app@db/app", connect_timeout=5)
    assert (parameters["host"], parameters["user"], parameters["dbname"]) == ("db", "app", "app")
    assert parameters["keepalives"] == 1
    assert parameters["keepalives_idle"] == 5
    assert parameters["tcp_user_timeout"] == 10_000
    assert parameters["connect_timeout"] == 5
    assert parameters["client_encoding"] == "utf8"
    assert "target_session_attrs" not in parameters


def test_the_conninfo_comes_first() -> None:
    given = {
        "keepalives_idle": "60",
        "tcp_user_timeout": "0",
        "connect_timeout": "3",
        "application_name": "app",
    }
    text = " ".join(f"{name}={value}" for name, value in given.items())
    parameters = listener_parameters(text, connect_timeout=5)
    assert given.items() <= parameters.items()


def test_the_environment_comes_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "7")
    monkeypatch.setenv("PGHOST", "a,b")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    parameters = listener_parameters("", connect_timeout=5)
    assert "connect_timeout" not in parameters
    assert "target_session_attrs" not in parameters


@pytest.mark.parametrize("conninfo", ["host=a,b", "hostaddr=10.0.0.1,10.0.0.2", "postgresql://a,b/app"])
def test_of_several_hosts_the_primary_is_wanted(conninfo: str) -> None:
    assert listener_parameters(conninfo, connect_timeout=5)["target_session_attrs"] == "primary"
    asked = conninfo + ("?" if "//" in conninfo else " ") + "target_session_attrs=any"
    assert listener_parameters(asked, connect_timeout=5)["target_session_attrs"] == "any"


def test_the_servers_end_is_set_where_the_options_do_not() -> None:
    assert "'tcp_user_timeout'" in server_settings("")
    assert "'idle_session_timeout'" in server_settings("")
    ours = server_settings("options='-c tcp_user_timeout=1000'")
    assert "'tcp_user_timeout'" not in ours
    assert "'tcp_keepalives_idle'" in ours


def test_a_pool_notices_a_dead_peer_too() -> None:
    """A read that waits for a machine that died would wait for a quarter of an hour."""
    parameters = pool_parameters("host=db keepalives_idle=60", connect_timeout=5)
    assert parameters["tcp_user_timeout"] == 10_000
    assert parameters["keepalives"] == 1
    assert "keepalives_idle" not in parameters, "the conninfo says it"


def test_a_pool_asks_for_the_primary_of_one_host_too() -> None:
    """A name that leads to a standby for a moment must not leave connections to it in the pool."""
    assert pool_parameters("host=db", connect_timeout=5)["target_session_attrs"] == "primary"
    asked = pool_parameters("host=db target_session_attrs=any", connect_timeout=5)
    assert "target_session_attrs" not in asked, "the conninfo says it"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service file of two services."""
    file = tmp_path / "services.conf"
    file.write_text(
        "[several]\nhost=standby,primary\nkeepalives_idle=60\noptions=-c idle_session_timeout=7\n"
        "[standby]\nhost=a,b\ntarget_session_attrs=prefer-standby\napplication_name=app\nconnect_timeout=3\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("by_environment", [False, True])
def test_hosts_of_a_service_file(by_environment: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    conninfo = "" if by_environment else "service=several"
    if by_environment:
        monkeypatch.setenv("PGSERVICE", "several")
    parameters = listener_parameters(conninfo, connect_timeout=5)
    assert parameters["target_session_attrs"] == "primary"
    assert "keepalives_idle" not in parameters, "the service file says it"
    assert "'idle_session_timeout'" not in server_settings(conninfo)
    assert pool_parameters(conninfo, connect_timeout=5)["target_session_attrs"] == "primary"


@pytest.mark.usefixtures("service")
def test_a_service_file_comes_before_what_the_library_adds() -> None:
    for parameters in (
        pool_parameters("service=standby", connect_timeout=5),
        listener_parameters("service=standby", connect_timeout=5),
    ):
        assert "target_session_attrs" not in parameters
        assert "connect_timeout" not in parameters
        assert "fallback_application_name" not in parameters


@pytest.mark.usefixtures("service")
def test_libpq_says_what_it_would_use() -> None:
    assert conninfos.resolved("service=several")["host"] == "standby,primary"
    assert conninfos.resolved("service=several host=c")["host"] == "c"
    assert conninfos.resolved("service=unknown") == {}, "connecting says what is wrong"


UNREADABLE = [
    "postgresql://app:geheim@[::1/app",
    "postgresql://app:geheim%zz@db/app",
    "postgresql://app:geheim@db/app?no=1",
    "postgresql://app:no@geheim@db/app",
    "host=db password=geheim passwort=geheim",
    "password='geheim",
]


@pytest.mark.parametrize("conninfo", UNREADABLE)
@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("database", pgsession.SessionManager),
        ("database", pgsession.AsyncSessionManager),
        ("database", pgsession.Admin),
        ("database", pgsession.AsyncAdmin),
        ("listener_conninfo", lambda text: pgsession.Config(listener_conninfo=text)),
        ("conninfo", pgsession.Listener),
        ("conninfo", pgsession.AsyncListener),
        ("database", lambda text: pgsession.SessionManager(ConnectionPool(text, open=False)).open()),
        ("database", lambda text: conninfos.of_database(AsyncConnectionPool(text, open=False))),
    ],
)
def test_what_is_no_conninfo_is_refused_and_not_shown(name: str, use: Any, conninfo: str) -> None:
    """libpq's own message quotes a URL with the password in it, and one about a host quotes what it takes for it."""
    with pytest.raises(pgsession.ConfigError, match=f"^{name}: must ") as refused:
        use(conninfo)
    told = traceback.TracebackException.from_exception(refused.value, lookup_lines=False)
    assert "geheim" not in "".join(told.format())


@pytest.mark.parametrize(
    "conninfo", ["", "host=@abstract", "host=/run/a@b,db", "postgresql://app:a%40b@db,other/app"]
)
def test_an_at_sign_has_its_places(conninfo: str) -> None:
    pgsession.SessionManager(conninfo)
