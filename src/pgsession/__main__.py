"""`python -m pgsession init` creates or upgrades the tables; `move` brings the sessions of another store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import click
import psycopg

from pgsession import schema
from pgsession._protocol import rules
from pgsession.contrib.moving.command import move
from pgsession.errors import SchemaError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    try:
        status = cli.main(arguments, prog_name="python -m pgsession", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 1
    return int(status or 0)


@click.group()
def cli() -> None:
    """Look after the tables of pgsession."""


def _checked(
    rule: Callable[[str, object], object],
) -> Callable[[click.Context, click.Parameter, object], object]:
    """Return a callback that checks an option by its rule."""

    def check(context: click.Context, option: click.Parameter, value: object) -> object:
        try:
            return rule(option.opts[0], value)
        except ValueError as error:
            raise click.UsageError(str(error), context)

    return check


@cli.command()
@click.argument("dsn", envvar="PGSESSION_DSN", default="")
@click.option("--conninfo", help="The same, as an option.")
@click.option(
    "--schema-name", envvar="PGSESSION_SCHEMA_NAME", default="public", show_default=True, metavar="NAME",
    callback=_checked(rules.schema_name), help="The PostgreSQL schema of the tables.",
)  # fmt: skip
@click.option(
    "--table-prefix", envvar="PGSESSION_TABLE_PREFIX", default="", metavar="PREFIX",
    callback=_checked(rules.table_prefix), help="What the names of tables and functions begin with.",
)  # fmt: skip
@click.option(
    "--grant-to", multiple=True, metavar="ROLE", callback=_checked(rules.role_names),
    help="The role of a service, which gets what it needs and nothing more; once for each.",
)  # fmt: skip
def init(
    dsn: str, conninfo: str | None, schema_name: str, table_prefix: str, grant_to: tuple[str, ...]
) -> int:
    """Create what is missing and upgrade what is older, in one transaction; again changes nothing.

    DSN is a connection string or URL; without one PGSESSION_DSN, else libpq's PG... variables say where the database
    is. Run it as the role that owns the tables, or is to own them.
    """
    try:
        with psycopg.connect(conninfo or dsn, autocommit=True) as connection:
            done = schema.create(connection, schema_name, table_prefix, grant_to=grant_to)
            database = connection.info.dbname
    except (SchemaError, psycopg.Error) as error:
        click.echo(f"pgsession init failed: {str(error).strip()}", err=True)
        return 1
    click.echo(f"database {database!r}, schema {schema_name!r}, table prefix {table_prefix!r}:")
    for line in done:
        click.echo(f"  {line}")
    return 0


cli.add_command(move)


if __name__ == "__main__":
    sys.exit(main())
