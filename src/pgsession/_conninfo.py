"""What the listener's own connection is opened with."""

from __future__ import annotations

import os
from typing import Any

from psycopg.conninfo import conninfo_to_dict

# A listener mostly waits, so only these tell it that the other end is gone: after some 11 s of silence.
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
