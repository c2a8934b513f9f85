"""`pgsession drop` takes the tables and functions away."""

from __future__ import annotations

import sys

import click

from pgsession import schema

from ._output import Output
from ._parameters import Target, on_tables


@click.command()
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be dropped: do it, and roll it back.")
@on_tables
def drop(target: Target, output: Output, yes: bool, dry_run: bool) -> int:
    """Drop the tables and functions, and every session with them, in one transaction.

    The schema stays, with what else is in it. What is not pgsession's own and depends on the tables, a view say, makes
    it fail, and nothing is dropped. Stop the services first.
    """
    names = (target.config.schema_name, target.config.table_prefix)
    with target.connection() as connection:
        database = connection.info.dbname
        where = f"database {database!r}, {target.tables}"
        if not yes and not dry_run:
            confirm(f"{where}: drop the tables, with every session in them?")
        with target.bounded(connection):  # without the time that somebody thinks
            dropped = schema.drop(connection, *names, dry_run=dry_run)
    fields = {
        "database": database,
        "schema": names[0],
        "table_prefix": names[1],
        "dry_run": dry_run,
        "dropped": dropped,
    }
    said = "would be dropped" if dry_run else "dropped"
    output.done(
        fields,
        f"{where}, {said if dropped else 'nothing to drop'}:" if dropped else f"{where}: nothing to drop",
        *(f"  {name}" for name in dropped),
    )
    return 0


def confirm(question: str) -> None:
    """Ask at the terminal; anything but a yes ends the command.

    Raises:
        click.UsageError: There is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at: say --yes", click.get_current_context())
    click.confirm(question, abort=True, err=True)
