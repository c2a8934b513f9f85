"""Says what the connections of the listener and of the manager's own pool are opened with."""

from __future__ import annotations

import os
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo, PGconn
from psycopg.pq import version as pq_version

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

# By "read-write" libpq would refuse the primary to a role whose transactions are read-only by default; the library's
# own say READ WRITE. Older libpqs know nothing else.
_PRIMARY = "primary" if pq_version() >= 140_000 else "read-write"
_ANY = "any"  # libpq's default; it cannot be told from the same word in a service file


def check_readable(name: str, conninfo: str) -> None:
    """Refuse what is no conninfo as the argument of that name.

    Raises:
        ConfigError: It is none; the message shows nothing of it, as libpq's would: a password may be in it.
    """
    try:
        parameters = conninfo_to_dict(conninfo)
    except ProgrammingError:
        parameters = None
    if parameters is None:  # so that the error of libpq is not the context of this one
        raise ConfigError(f"{name}: must be a conninfo, a connection string or URL that libpq can read")
    # What libpq takes for a host begins after the first @ of a URL, and each error of a connection shows it.
    for host in str(parameters.get("host", "")).split(","):
        if "@" in host and not host.startswith(("/", "@")):
            raise ConfigError(f"{name}: must name a host without @, which is %40 in the password of a URL")


def listener_parameters(conninfo: str, *, connect_timeout: int) -> dict[str, Any]:
    """Return the conninfo as parameters for `connect`, completed where nothing says otherwise."""
    given, known = conninfo_to_dict(conninfo), resolved(conninfo)
    added = _additions(given, known, connect_timeout, "pgsession listener")
    # A standby cannot LISTEN. Where there is but one host, the listener says so better than libpq.
    if _any_host_will_do(given, known) and any("," in known.get(name, "") for name in ("host", "hostaddr")):
        added["target_session_attrs"] = _PRIMARY
    return {**added, **given, "client_encoding": "utf8"}


def pool_parameters(conninfo: str, *, connect_timeout: int) -> dict[str, Any]:
    """Return what the manager's own pool connects with beyond the conninfo, where nothing says otherwise."""
    given, known = conninfo_to_dict(conninfo), resolved(conninfo)
    added = _additions(given, known, connect_timeout, "pgsession")
    # Also of one host: its name may lead to a standby for a moment, and the pool would keep that connection.
    if _any_host_will_do(given, known):
        added["target_session_attrs"] = _PRIMARY
    return added


def resolved(conninfo: str) -> dict[str, str]:
    """Return what libpq makes of the conninfo, the environment and the service file, its own defaults included.

    libpq reads a service file only on its way to a connection. So it is asked for one that it refuses, for an SSL
    mode that does not exist, after it has put its parameters together and before it has looked up a host.
    """
    attempt = PGconn.connect_start(make_conninfo(conninfo, sslmode="none").encode())
    try:
        return {
            option.keyword.decode(): option.val.decode() for option in attempt.info if option.val is not None
        }
    finally:
        attempt.finish()


def server_settings(conninfo: str) -> str:
    """Return a statement that sets the server's end of the connection, where `options` do not."""
    options = resolved(conninfo).get("options", "")
    values = ", ".join(
        f"('{name}', '{value}')" for name, value in _SERVER_SIDE.items() if name not in options
    )
    # By way of pg_settings, since older servers do not know them all.
    return (
        "SELECT pg_catalog.set_config(name, value, false)"
        f" FROM pg_catalog.pg_settings JOIN (VALUES {values or '(NULL, NULL)'}) AS wanted (name, value) USING (name)"
    )


def _additions(
    given: dict[str, Any], known: dict[str, str], connect_timeout: int, name: str
) -> dict[str, Any]:
    added: dict[str, Any] = {**_CLIENT_SIDE, "connect_timeout": connect_timeout}
    added = {keyword: value for keyword, value in added.items() if keyword not in {**known, **given}}
    if "application_name" not in {**known, **given}:
        added["fallback_application_name"] = name
    return added


def _any_host_will_do(given: dict[str, Any], known: dict[str, str]) -> bool:
    """Return True while nobody has said which kind of server is wanted."""
    said = "target_session_attrs" in given or "PGTARGETSESSIONATTRS" in os.environ
    return not said and known.get("target_session_attrs", _ANY) == _ANY


def to_listen(database: Any, listener_conninfo: object) -> Any:
    """Return where to listen: there, if that is given, else where the sessions are.

    Raises:
        ConfigError: It is not given, and the pool computes its own conninfo for each connection.
    """
    return listener_conninfo or of_database(database)


def of_database(database: Any) -> Any:
    """Return the conninfo of what a manager was given: the text or function itself, or what a pool connects with.

    Raises:
        ConfigError: The pool computes its own conninfo for each connection, or has what is none.
    """
    if isinstance(database, str) or callable(database):
        return database
    conninfo, kwargs = database.conninfo, database.kwargs
    if not isinstance(conninfo, str) or (kwargs is not None and not isinstance(kwargs, dict)):
        raise ConfigError(
            "listener_conninfo: is needed, since the pool computes its own conninfo for each connection"
        )
    check_readable("database", conninfo)
    known = {name: value for name, value in (kwargs or {}).items() if name in _CONNINFO_KEYWORDS}
    return make_conninfo(conninfo, **known)


_CONNINFO_KEYWORDS = {option.keyword.decode() for option in Conninfo.get_defaults()}
