"""The command `python -m pgsession init` creates or upgrades the tables."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import psycopg

from pgsession import schema
from pgsession._protocol import rules
from pgsession.errors import SchemaError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    options = _parse(arguments)
    conninfo = options.conninfo or options.dsn or os.environ.get("PGSESSION_DSN", "")
    try:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            done = schema.create(connection, options.schema_name, options.table_prefix)
            database = connection.info.dbname
    except (SchemaError, psycopg.Error) as error:
        print(f"pgsession init failed: {str(error).strip()}", file=sys.stderr)
        return 1
    print(f"database {database!r}, schema {options.schema_name!r}, table prefix {options.table_prefix!r}:")
    for line in done:
        print(f"  {line}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; end the process with status 2 where a name breaks its rule."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        rules.schema_name("--schema-name", options.schema_name)
        rules.table_prefix("--table-prefix", options.table_prefix)
    except ValueError as error:
        parser.error(str(error))
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pgsession", description="Maintenance of pgsession's tables."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser(
        "init",
        help="create or upgrade the tables",
        description="Create what is missing and upgrade what is older, in one transaction; again changes nothing.",
    )
    init.add_argument(
        "dsn",
        nargs="?",
        help="connection string or URL; default: PGSESSION_DSN, else libpq's PG... variables",
    )
    init.add_argument("--conninfo", help="the same, as an option")
    init.add_argument(
        "--schema-name", default=os.environ.get("PGSESSION_SCHEMA_NAME", "public"), metavar="NAME"
    )
    init.add_argument(
        "--table-prefix", default=os.environ.get("PGSESSION_TABLE_PREFIX", ""), metavar="PREFIX"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
