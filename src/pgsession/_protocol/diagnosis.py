"""Decides from what was seen which of the causes is there that keep a node from working or from memory.

Each cause is found by what it does itself, not by what follows from it: where one makes another look broken, that one
is unknown, so that an operator is told what to mend and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from pgsession.infos import Finding

from .diagnosis_facts import Facts, Schema

__all__ = ["LONG_TRANSACTION", "causes", "findings"]

LONG_TRANSACTION: Final = 300
"""Seconds after which an open transaction is one to ask about."""

_OLDEST_SERVER: Final = 140_000
_CLOCK: Final = 2  # seconds that two clocks may be apart
_FILLING, _FULL = 0.25, 0.75  # of the notification queue
_VERIFYING: Final = ("verify-full", "verify-ca")


class _Unknown(NamedTuple):
    why: str


class _Bad(NamedTuple):
    message: str
    remedy: str
    level: str = "problem"


_Result = str | _Unknown | _Bad
_Cause = Callable[[Facts], _Result]


def findings(facts: Facts) -> list[Finding]:
    """Return what came of each cause, in the order in which they are best mended."""
    return [_finding(name, cause(facts)) for name, cause in _CAUSES.items()]


def _finding(cause: str, result: _Result) -> Finding:
    match result:
        case _Bad(message, remedy, level):
            return Finding(
                cause=cause,
                level="warning" if level == "warning" else "problem",
                message=message,
                remedy=remedy,
            )
        case _Unknown(why):
            return Finding(cause=cause, level="unknown", message=why)
    return Finding(cause=cause, level="well", message=result)


_NO_CONNECTION: Final = _Unknown("there was no connection to ask on")


def _connection(facts: Facts) -> _Result:
    if facts.failure is None:
        return "the database answers"
    if facts.too_many:
        return _Unknown("the server has no connection left")
    return _Bad(
        f"the database cannot be reached: {facts.failure}",
        "see that the server runs, that its address, database, role and password are right, and that pg_hba.conf and"
        " firewalls let this machine in",
    )


def _connections(facts: Facts) -> _Result:
    remedy = (
        f"raise max_connections, or the limit of the role or database, or lower Config.pool_max_size: a node takes"
        f" {facts.needed} at most"
    )
    if facts.too_many:
        return _Bad(f"the server has no connection left: {facts.failure}", remedy)
    if facts.server is None:
        return _NO_CONNECTION
    left = facts.server.connections_left
    if left < facts.needed:
        return _Bad(f"only {max(left, 0)} connections are left for this role", remedy, "warning")
    return f"{left} connections are left for this role"


def _server_version(facts: Facts) -> _Result:
    if facts.server is None:
        return _NO_CONNECTION
    if facts.server.version_number < _OLDEST_SERVER:
        return _Bad(
            f"the server is PostgreSQL {facts.server.version}", "upgrade it to PostgreSQL 14 or newer"
        )
    return f"the server is PostgreSQL {facts.server.version}"


def _standby(facts: Facts) -> _Result:
    if facts.server is None:
        return _NO_CONNECTION
    whose = "the server" if facts.server.standby else "the listener's server"
    if facts.server.standby or facts.listener_standby:
        return _Bad(
            f"{whose} is a standby, which can neither write nor LISTEN",
            "name the primary; or several hosts, of which a node takes the one that is the primary",
        )
    return "the server is no standby"


def _tls(facts: Facts) -> _Result:
    there = [
        (whose, connection)
        for whose, connection in (("the", facts.connection), ("the listener's", facts.listener_connection))
        if connection is not None
    ]
    for whose, connection in there:
        if not connection.local and not connection.encrypted:
            return _Bad(
                f"{whose} connection is in clear: sessions and passwords can be read on their way",
                "set ssl = on for the server, and sslmode=verify-full with sslrootcert in the conninfo",
                "warning",
            )
        if not connection.local and connection.sslmode not in _VERIFYING:
            return _Bad(
                f"{whose} connection is encrypted for whoever answers: sslmode={connection.sslmode} verifies nothing",
                "set sslmode=verify-full, with sslrootcert, in the conninfo",
                "warning",
            )
    if not there:
        return _NO_CONNECTION
    return "connections stay on this machine, or are encrypted for a server that is verified"


def _clock(facts: Facts) -> _Result:
    if facts.server is None or facts.clock is None:
        return _NO_CONNECTION
    here, error = facts.clock
    apart = (here - facts.server.now) / 1_000_000
    if abs(apart) - error / 1_000_000 > _CLOCK:
        return _Bad(
            f"this machine's clock is {abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} the database's",
            "synchronize both clocks (NTP): sessions go by the database's, but logs, certificates and cookies by this",
            "warning",
        )
    return "this machine's clock and the database's agree"


def _schema_missing(facts: Facts) -> _Result:
    if facts.schema is None:
        return _no_schema(facts)
    if facts.schema.owner is None:
        return _Bad(
            "there are no tables of pgsession in this schema with this prefix",
            f"run `{facts.schema.init}` as who is to own them, or name the right schema_name and table_prefix",
        )
    return "the tables are there"


def _schema_older(facts: Facts) -> _Result:
    if (versions := _versions(facts)) is None:
        return _no_schema(facts)
    schema, (version, _) = versions
    if version < schema.newest and schema.missing:
        return _Bad(
            f"the tables are at version {version}, and must be at {schema.newest}",
            f"run `{schema.init}` as {schema.owner}",
        )
    return f"the tables are at version {version}"


def _schema_newer(facts: Facts) -> _Result:
    if (versions := _versions(facts)) is None:
        return _no_schema(facts)
    schema, (version, serves_from) = versions
    if serves_from > schema.newest:
        return _Bad(
            f"the tables are at version {version}, which serves no library that knows less than {serves_from}",
            f"install a newer pgsession: this one knows {schema.newest}",
        )
    return "the tables serve this version of the library"


def _incomplete(facts: Facts) -> _Result:
    if (schema := _present(facts)) is None:
        return _no_schema(facts)
    if _unfit(facts):
        return _Unknown("the tables are of another version")
    if schema.missing:
        return _Bad(
            f"missing, or not {schema.owner}'s: {', '.join(schema.missing)}",
            f"run `{schema.init}` as {schema.owner}",
        )
    return "tables, functions and triggers are there"


def _ownership(facts: Facts) -> _Result:
    if (schema := _present(facts)) is None:
        return _no_schema(facts)
    if schema.untrusted is not None:
        message, _, remedy = schema.untrusted.partition(". ")
        return _Bad(message, remedy)
    return f"the tables are {schema.owner}'s, and nobody else could have put them there"


def _rights(facts: Facts) -> _Result:
    if (schema := _present(facts)) is None:
        return _no_schema(facts)
    assert facts.server is not None
    if schema.grants:
        return _Bad(
            f"role {facts.server.role} may not do what a service must",
            f"as {schema.owner} run `{'; '.join(schema.grants)}`, or `{schema.granting}`",
        )
    return f"role {facts.server.role} may do what a service must"


def _triggers(facts: Facts) -> _Result:
    if (schema := _present(facts)) is None:
        return _no_schema(facts)
    if schema.silent_triggers:
        return _Bad(
            f"disabled, or not enabled ALWAYS: trigger {', '.join(schema.silent_triggers)}; nodes do not hear of what"
            " plain SQL or replication changes",
            f"run `{schema.init}` as {schema.owner}, and clear_cache() on a node",
        )
    return "the triggers fire always"


def _public_functions(facts: Facts) -> _Result:
    if (schema := _present(facts)) is None:
        return _no_schema(facts)
    if schema.public_functions:
        return _Bad(
            f"everybody may call functions, and forge what nodes tell each other: {schema.public_functions}",
            f"run `{schema.init}` as {schema.owner}",
        )
    return "nobody but the roles of services may call the functions"


def _incarnation(facts: Facts) -> _Result:
    if facts.incarnation is None:
        return _no_schema(facts)
    if not facts.incarnation:
        return _Bad(
            "no row says which life of the server this is, nor has the secret of the channels: no node answers from"
            " memory",
            "nodes make it within some seconds: start one, or look into the logs of those that run",
            "warning",
        )
    return "the row of the incarnation, with the secret, is there"


def _locked_tables(facts: Facts) -> _Result:
    if facts.server is None or facts.held is None:
        return _NO_CONNECTION
    if facts.held:
        return _Bad(
            f"somebody holds locks on the tables: {', '.join(facts.held)} (table, lock, process); reads or writes wait",
            "end that transaction: SELECT pg_terminate_backend(process)",
        )
    return "nobody holds up reads or writes by a lock on the tables"


def _long_transactions(facts: Facts) -> _Result:
    if facts.server is None:
        return _NO_CONNECTION
    if facts.server.transactions:
        said = ", ".join(
            f"process {pid} of {role} ({state or 'unknown'}, {lasts:,} s)"
            for pid, role, state, lasts in facts.server.transactions
        )
        return _Bad(
            f"transactions are open for long: {said}; nothing that ended since can be vacuumed, nor, if one listens,"
            " the notification queue be emptied",
            "end them (SELECT pg_terminate_backend(process)), and set idle_in_transaction_session_timeout",
            "warning",
        )
    if not facts.server.sees_transactions:
        return _Unknown(
            "the role is not shown other roles' transactions: GRANT pg_read_all_stats TO it, or ask as another"
        )
    return f"no transaction is open for more than {LONG_TRANSACTION} s"


def _autovacuum(facts: Facts) -> _Result:
    if facts.server is None:
        return _NO_CONNECTION
    if not facts.server.autovacuum:
        return _Bad(
            "autovacuum is off: the tables grow with every access",
            "set autovacuum = on and track_counts = on for the server",
            "warning",
        )
    if facts.server.not_vacuumed:
        return _Bad(
            f"autovacuum is turned off for {', '.join(facts.server.not_vacuumed)}: they grow with every access",
            "as the owner: ALTER TABLE ... RESET (autovacuum_enabled)",
            "warning",
        )
    return "autovacuum is on"


def _synchronous_standbys(facts: Facts) -> _Result:
    if facts.server is None:
        return _NO_CONNECTION
    if facts.server.standby:
        return _Unknown("the server is a standby")
    if facts.durable is False:
        return _Bad(
            f"no commit ends: synchronous_standby_names is {facts.server.synchronous_standbys!r}, and no such standby"
            " answers in time",
            "bring it back, or take it out of synchronous_standby_names and reload the server",
        )
    return "commits end"


def _listener_connection(facts: Facts) -> _Result:
    if facts.listener_failure is not None:
        return _Bad(
            f"the listener cannot connect: {facts.listener_failure}",
            "see that Config.listener_conninfo leads to the server itself, past poolers, and that it lets this role in",
        )
    return _NO_CONNECTION if facts.listener_place is None else "the listener's server answers"


def _pooler(facts: Facts) -> _Result:
    if facts.listener_place is None:
        return _NO_CONNECTION
    if facts.listener_pooled:
        return _Bad(
            "the listener is connected to a pooler that shares connections, and hears nothing",
            "set Config.listener_conninfo to the server itself",
        )
    return "no pooler is between the listener and the server"


def _other_database(facts: Facts) -> _Result:
    if facts.server is None or facts.listener_place is None:
        return _NO_CONNECTION
    if facts.listener_place != facts.server.place and not facts.listener_standby:
        return _Bad(
            "the listener is connected to another database or server than the one that has the sessions",
            "set Config.listener_conninfo to the same server and database",
        )
    return "the listener is connected to the database that has the sessions"


def _notification_queue(facts: Facts) -> _Result:
    if facts.server is None:
        return _NO_CONNECTION
    usage = facts.server.queue_usage
    if usage >= _FILLING:
        return _Bad(
            f"the queue of notifications is {usage:.0%} full; once it is full, no commit that notifies succeeds",
            "end the session that listens and does not read, mostly one idle in transaction: SELECT"
            " pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'",
            "problem" if usage >= _FULL else "warning",
        )
    return f"the queue of notifications is {usage:.0%} full"


def _notifications(facts: Facts) -> _Result:
    if facts.heard is None:
        return _Unknown("no notification was sent, for what is said above")
    if facts.heard.failure is not None or not facts.heard.arrived:
        why = facts.heard.failure or f"it had not arrived after {facts.heard.seconds:.0f} s"
        return _Bad(
            f"the listener did not hear a notification that was sent through the pool: {why}",
            "see what is between the listener and the server, and which commits wait: SELECT * FROM pg_stat_activity"
            " WHERE wait_event IS NOT NULL AND state = 'active'",
        )
    return "the listener hears what is sent through the pool"


_CAUSES: Final[dict[str, _Cause]] = {
    "connection": _connection,
    "connections": _connections,
    "server_version": _server_version,
    "standby": _standby,
    "tls": _tls,
    "clock": _clock,
    "schema_missing": _schema_missing,
    "schema_older": _schema_older,
    "schema_newer": _schema_newer,
    "incomplete": _incomplete,
    "ownership": _ownership,
    "rights": _rights,
    "triggers": _triggers,
    "public_functions": _public_functions,
    "incarnation": _incarnation,
    "locked_tables": _locked_tables,
    "long_transactions": _long_transactions,
    "autovacuum": _autovacuum,
    "synchronous_standbys": _synchronous_standbys,
    "listener_connection": _listener_connection,
    "pooler": _pooler,
    "other_database": _other_database,
    "notification_queue": _notification_queue,
    "notifications": _notifications,
}


def causes() -> Iterator[str]:
    """Return the names of all causes, in their order."""
    return iter(_CAUSES)


def _no_schema(facts: Facts) -> _Unknown:
    if facts.server is None:
        return _NO_CONNECTION
    if facts.tables_locked:
        return _Unknown("the tables could not be read for a lock on them")
    if facts.schema is not None and facts.schema.owner is None:
        return _Unknown("there are no tables")
    if facts.server.standby:
        return _Unknown("the server is a standby")
    return _Unknown("the role may not read it")


def _present(facts: Facts) -> Schema | None:
    return facts.schema if facts.schema is not None and facts.schema.owner is not None else None


def _versions(facts: Facts) -> tuple[Schema, tuple[int, int]] | None:
    schema = _present(facts)
    return None if schema is None or schema.version is None else (schema, schema.version)


def _unfit(facts: Facts) -> bool:
    return isinstance(_schema_older(facts), _Bad) or isinstance(_schema_newer(facts), _Bad)
