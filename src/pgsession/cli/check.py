"""`pgsession check` finds out whether a service could work with the tables."""

from __future__ import annotations

import click

from pgsession import schema
from pgsession._database.shard_mark import ShardMark
from pgsession._database.statements import Statements

from ._output import Output
from ._parameters import Target, on_tables


@click.command()
@on_tables
def check(target: Target, output: Output) -> int:
    """Look whether the tables serve this version, and the role has the rights of a service; change nothing.

    Run it as the role of the service: its `open()` makes the same check. Of shards it looks, too, whether the tables
    are those of the shard that they are given for. `doctor` looks at more than the tables.
    """
    names = (target.config.schema_name, target.config.table_prefix)
    with target.bounded_connection() as connection:
        statements = Statements(*names)
        schema.check(connection, statements)
        mark = None if target.shard is None else ShardMark(*target.shard)
        is_marked = mark is not None and schema.has_mark(connection, statements, mark)
        database, role = connection.info.dbname, connection.info.user
    fields = {
        "database": database,
        "schema": names[0],
        "table_prefix": names[1],
        "role": role,
        "well": True,
        "says": str(mark) if is_marked else None,
    }
    well = f"database {database!r}, {target.tables}: well, for a service as {role!r}"
    if mark is not None:
        which = f"shard {mark.number} of {mark.shards}"
        well += (
            f"; its tables are {which}"
            if is_marked
            else f"; they will be {which} once a service has been started"
        )
    output.done(fields, well)
    return 0
