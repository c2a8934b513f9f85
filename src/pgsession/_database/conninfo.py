"""What the listener's own connection is opened with."""

from __future__ import annotations

import os
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from pgsession.errors import ConfigError

# Only these tell who waits that the other end is gone without a word: after some 11 s. A listener mostly waits; a read
# or write would, for a quarter of an hour, when the server's machine has died.
_CLIENT_SIDE = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

# The same for the server: a dead listener holds the tail of the notification queue until it is noticed. And a listener
# that hears nothing for long is no idle session to be thrown out.
_SERVER_SIDE = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "idle_session_timeout": "0",
}


def listener_parameters(conninfo: str, *, connect_timeout: int) -> dict[str, Any]:
    """The conninfo as parameters for `connect`, completed where it (or the environment) says nothing."""
    given = conninfo_to_dict(conninfo)
    parameters: dict[str, Any] = {"fallback_application_name": "pgsession listener", **_CLIENT_SIDE}
    if "PGCONNECT_TIMEOUT" not in os.environ:
        parameters["connect_timeout"] = connect_timeout
    if _many_hosts(given) and "PGTARGETSESSIONATTRS" not in os.environ:
        parameters["target_session_attrs"] = "primary"  # a standby cannot LISTEN
    return {**parameters, **given, "client_encoding": "utf8"}


def _many_hosts(given: dict[str, Any]) -> bool:
    hosts = (given.get("host"), given.get("hostaddr"), os.environ.get("PGHOST"), os.environ.get("PGHOSTADDR"))
    return any("," in str(host) for host in hosts if host)


def server_settings(conninfo: str) -> str:
    """A statement that sets the server's end of the connection, where the conninfo's `options` do not."""
    options = str(conninfo_to_dict(conninfo).get("options") or os.environ.get("PGOPTIONS", ""))
    values = ", ".join(
        f"('{name}', '{value}')" for name, value in _SERVER_SIDE.items() if name not in options
    )
    # By way of pg_settings, since older servers do not know them all.
    return (
        "SELECT pg_catalog.set_config(name, value, false)"
        f" FROM pg_catalog.pg_settings JOIN (VALUES {values or '(NULL, NULL)'}) AS wanted (name, value) USING (name)"
    )


def pool_parameters(conninfo: str, *, connect_timeout: int) -> dict[str, Any]:
    """What the manager's own pool connects with beyond the conninfo, where that (or the environment) says nothing."""
    given = conninfo_to_dict(conninfo)
    parameters: dict[str, Any] = {name: value for name, value in _CLIENT_SIDE.items() if name not in given}
    if "application_name" not in given:
        parameters["fallback_application_name"] = "pgsession"
    if "connect_timeout" not in given and "PGCONNECT_TIMEOUT" not in os.environ:
        parameters["connect_timeout"] = connect_timeout
    if (
        "target_session_attrs" not in given
        and "PGTARGETSESSIONATTRS" not in os.environ
        and _many_hosts(given)
    ):
        parameters["target_session_attrs"] = "read-write"
    return parameters


def of_database(database: Any) -> str:
    """The conninfo of what a manager was given: the text itself, or what a pool connects with."""
    if isinstance(database, str):
        return database
    conninfo, kwargs = database.conninfo, database.kwargs
    if not isinstance(conninfo, str) or (kwargs is not None and not isinstance(kwargs, dict)):
        raise ConfigError(
            "listener_conninfo: is needed, since the pool computes its own conninfo for each connection"
        )
    known = {name: value for name, value in (kwargs or {}).items() if name in _CONNINFO_KEYWORDS}
    return make_conninfo(conninfo, **known)


_CONNINFO_KEYWORDS = {option.keyword.decode() for option in Conninfo.get_defaults()}
