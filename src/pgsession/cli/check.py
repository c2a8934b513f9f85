"""`pgsession check` finds out whether a service could work with the tables."""

from __future__ import annotations

import click

from pgsession import schema
from pgsession._database.statements import Statements

from ._output import Output
from ._parameters import Target, on_tables


@click.command()
@on_tables
def check(target: Target, output: Output) -> int:
    """Look whether the tables serve this version, and the role has the rights of a service; change nothing.

    Run it as the role of the service: its `open()` makes the same check. `doctor` looks at more than the tables.
    """
    names = (target.config.schema_name, target.config.table_prefix)
    with target.bounded_connection() as connection:
        schema.check(connection, Statements(*names), target.shard)
        database, role = connection.info.dbname, connection.info.user
    fields = {"database": database, "schema": names[0], "table_prefix": names[1], "role": role, "well": True}
    output.done(fields, f"database {database!r}, {target.tables}: well, for a service as {role!r}")
    return 0
