"""`pgsession init` creates or upgrades the tables."""

from __future__ import annotations

import click

from pgsession import schema
from pgsession._protocol import rules

from ._output import Output
from ._parameters import Target, checked, on_tables


@click.command()
@click.option(
    "--grant-to", multiple=True, metavar="ROLE", callback=checked(rules.role_names),
    help="The role of a service, which gets what it needs and nothing more; once for each.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be done: do it, and roll it back.")
@click.option(
    "--sql", "as_sql", is_flag=True,
    help="The same as a script for psql, to be run by somebody else; nothing is done here.",
)  # fmt: skip
@on_tables
def init(target: Target, output: Output, grant_to: tuple[str, ...], dry_run: bool, as_sql: bool) -> int:
    """Create what is missing and upgrade what is older, in one transaction; again changes nothing.

    Run it as the role that owns the tables, or is to own them. --dry-run and --sql need the same rights, and hold the
    locks of an upgrade for a moment.
    """
    names = (target.config.schema_name, target.config.table_prefix)
    with target.bounded_connection() as connection:
        if as_sql or dry_run:
            done, script = schema.rehearse(connection, *names, grant_to=grant_to, shard=target.shard)
        else:
            done, script = schema.create(connection, *names, grant_to=grant_to, shard=target.shard), ""
        database = connection.info.dbname
    fields = {
        "database": database,
        "schema": names[0],
        "table_prefix": names[1],
        "dry_run": as_sql or dry_run,
        "done": done,
        "sql": script if as_sql else None,
    }
    if as_sql:
        output.done(fields, script)
    else:
        would = ", of which this would be done" * dry_run
        output.done(
            fields, f"database {database!r}, {target.tables}{would}:", *(f"  {line}" for line in done)
        )
    return 0
