"""`pgsession stats` says what the database knows of all nodes' sessions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgspec

from pgsession._database import overview
from pgsession._protocol import rules

from ._output import Output
from ._parameters import Target, on_tables

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = (
    (end.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1) for end in (datetime.min, datetime.max)
)


@click.command()
@on_tables
def stats(target: Target, output: Output) -> int:
    """Say how many sessions there are, what has ended and is not deleted yet, how large the tables are, and more.

    It reads the table of the sessions once. What single nodes count, their hits say, is in their own `stats()`.
    """
    output.fields(_overview(target))
    return 0


def _overview(target: Target) -> dict[str, Any]:
    limit = rules.seconds("operation_timeout", target.config.operation_timeout)
    with target.bounded_connection() as connection, connection.transaction():
        connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        # The server is not to go on where nobody waits any more.
        connection.execute(f"SET LOCAL statement_timeout = {max(int(1000 * limit), 1)}".encode())
        cursor = connection.execute(overview.query(target.config.schema_name, target.config.table_prefix))
        ((text,),) = cursor.fetchall()
    found: dict[str, Any] = _with_times(msgspec.json.decode(text))
    return found


def _with_times(value: Any) -> Any:
    """Make datetimes of the microseconds under names of times; of those that none holds the first or last one."""
    if not isinstance(value, dict):
        return value
    return {
        name: _EPOCH + timedelta(microseconds=max(_FIRST, min(field, _LAST)))
        if field is not None and (name.endswith("_at") or name == "last_accessed")
        else _with_times(field)
        for name, field in value.items()
    }
