"""Declares the parameters that commands share, and finds what they lead to."""

from __future__ import annotations

import functools
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Concatenate, NamedTuple, ParamSpec

import click
import msgspec
import psycopg
from click.core import ParameterSource
from psycopg.conninfo import conninfo_to_dict

from pgsession import (
    Admin,
    Config,
    ConfigError,
    OperationTimeout,
    PgSessionError,
    Shard,
    ShardedAdmin,
    read_shards,
)
from pgsession._database.connections import ADAPTERS, no_answer, shut
from pgsession._database.conninfo import check_readable, pool_parameters
from pgsession._protocol import rules
from pgsession.shard import complete

from ._failures import report, worst
from ._output import Output

_P = ParamSpec("_P")
_OLD = "PGSESSION_DSN"
_GRACE = 0.5  # seconds for the server to say that a statement took too long
_SECRETS = ("password", "sslpassword")


class Target(NamedTuple):
    """Says which tables in which database a command is about.

    Attributes:
        conninfo: What leads to the database.
        config: Which tables are meant, and for how long to wait.
        shard: Which shard they are, and of how many; None: they are no shard.
        shards: All shards, of a command that is about all at once; then `conninfo` is of no use.
    """

    conninfo: str
    config: Config
    shard: tuple[int, int] | None = None
    shards: list[Shard] | None = None

    @property
    def admin(self) -> Admin:
        """Return the admin of these tables."""
        if self.shards is not None:
            return ShardedAdmin(self.shards, self.config)
        return Admin(self.conninfo, self.config)

    def each(self) -> list[Target]:
        """Return the shards one by one."""
        assert self.shards is not None
        return [
            Target(
                str(shard.database),
                msgspec.structs.replace(
                    self.config, schema_name=shard.schema_name, listener_conninfo=shard.listener_conninfo
                ),
                (number, len(self.shards)),
            )
            for number, shard in enumerate(complete(self.shards, self.config.schema_name))
        ]

    @contextmanager
    def bounded_connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect, and bound the block as `bounded` does."""
        with self.connection() as connection, self.bounded(connection):
            yield connection

    @contextmanager
    def bounded(self, connection: psycopg.Connection) -> Iterator[None]:
        """Cut the connection where the block takes longer than `Config.operation_timeout`.

        Raises:
            OperationTimeout: It was cut.
        """
        limit = rules.seconds("operation_timeout", self.config.operation_timeout)
        cut = threading.Event()
        handle = socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM)

        def end() -> None:
            cut.set()
            shut(handle)

        timer = threading.Timer(limit + _GRACE, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except psycopg.OperationalError as error:
            if cut.is_set():
                raise OperationTimeout("the database did not answer in time") from error
            raise
        finally:
            timer.cancel()
            timer.join()
            handle.close()

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect, as a manager would; in autocommit."""
        limit = math.ceil(rules.seconds("operation_timeout", self.config.operation_timeout))
        parameters = pool_parameters(self.conninfo, connect_timeout=max(limit, 2))
        with psycopg.connect(self.conninfo, autocommit=True, context=ADAPTERS, **parameters) as connection:
            yield connection

    @property
    def tables(self) -> str:
        """Return what they are called in texts."""
        if self.shards is not None:
            return f"{len(self.shards)} shards"
        schema, prefix = self.config.schema_name, self.config.table_prefix
        return f"schema {schema!r}" + f", table prefix {prefix!r}" * bool(prefix)


def checked(
    rule: Callable[[str, Any], object],
) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a callback that checks an option, if it is given, by its rule."""

    def check(context: click.Context, option: click.Parameter, value: object) -> object:
        try:
            return None if value is None else rule(option.opts[0], value)
        except (TypeError, ValueError) as error:
            raise click.UsageError(str(error), context)

    return check


def duration(name: str, value: str) -> float:
    """Return the seconds that a text means, as in a variable for a field of `Config`."""
    try:
        iso = value.upper().startswith("P")
        length = msgspec.convert(value, timedelta) if iso else float(value)
    except (ValueError, msgspec.ValidationError):
        raise ValueError(f"{name}: a duration (seconds, or ISO 8601 such as PT10M) is needed, not {value!r}")
    return rules.seconds(name, length, 0)


def without_password(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a conninfo that everybody on the machine could read a password in."""
    name = "DATABASE" if isinstance(parameter, click.Argument) else parameter.opts[0]
    if value is None:
        return None
    if any(_read(name, value, context).get(secret) for secret in _SECRETS):
        raise click.UsageError(
            f"{name}: must have no password, which everybody on this machine could read in the list of processes:"
            " put it into PGPASSWORD, a password file (~/.pgpass) or a service file, or all of it into"
            " PGSESSION_DATABASE",
            context,
        )
    return value


def _read(name: str, value: str, context: click.Context) -> Mapping[str, object]:
    """Read a conninfo, and quote nothing of one that is none, as libpq would: a password may be in it."""
    try:
        return conninfo_to_dict(rules.conninfo_text(name, value))
    except (psycopg.ProgrammingError, ValueError):
        raise click.UsageError(f"{name}: a connection string or URL is needed", context) from None


def _database(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    given = without_password(context, parameter, value)
    if given is not None:
        return given
    for name in ("PGSESSION_DATABASE", _OLD):
        if (known := os.environ.get(name)) is not None:
            if name == _OLD:
                click.echo(f"{_OLD} is the old name of PGSESSION_DATABASE: rename it", err=True)
            _read(name, known, context)
            return known
    return ""


def _shards(context: click.Context, parameter: click.Parameter, value: str | None) -> list[Shard] | None:
    if value is None:
        return None
    try:
        shards = read_shards(value)
        for number, shard in enumerate(complete(shards, "public")):
            check_readable(f"shards: of number {number} database", str(shard.database))
            if shard.listener_conninfo is not None:
                check_readable(f"shards: of number {number} listener_conninfo", str(shard.listener_conninfo))
    except (OSError, ConfigError) as error:
        raise click.UsageError(f"--shards: {error}", context) from None
    return shards


SCHEMA_NAME = click.Option(
    ["--schema-name"], envvar="PGSESSION_SCHEMA_NAME", show_envvar=True, metavar="NAME",
    callback=checked(rules.schema_name), help="The PostgreSQL schema of the tables, else public.",
)  # fmt: skip
TABLE_PREFIX = click.Option(
    ["--table-prefix"], envvar="PGSESSION_TABLE_PREFIX", show_envvar=True, metavar="PREFIX",
    callback=checked(rules.table_prefix), help="What the names of tables and functions begin with.",
)  # fmt: skip
TIMEOUT = click.Option(
    ["--timeout"], type=float, metavar="SECONDS", callback=checked(rules.seconds),
    help="For how long the database may take, else PGSESSION_OPERATION_TIMEOUT, else 10.",
)  # fmt: skip
DATABASE = click.Argument(["database"], required=False, metavar="[DATABASE]", callback=_database)
SHARDS = click.Option(
    ["--shards"], envvar="PGSESSION_SHARDS", show_envvar=True, metavar="FILE", callback=_shards,
    help="All shards, in place of DATABASE: a file in TOML, with [[shards]] for each.",
)  # fmt: skip
SHARD = click.Option(
    ["--shard"], type=click.IntRange(0), metavar="N", help="Of these shards the one of this number alone."
)
JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, errors too.")

full_ids = click.option(
    "--full-ids",
    is_flag=True,
    help="Show whole session ids: who has one can read the session from a service.",
)


def configuration(schema_name: str | None, table_prefix: str | None, timeout: float | None = None) -> Config:
    """Return what the environment says, and the options, which come first."""
    given = {
        "schema_name": schema_name,
        "table_prefix": table_prefix,
        "operation_timeout": None if timeout is None else timedelta(seconds=timeout),
    }
    return msgspec.structs.replace(
        Config.from_env(), **{name: value for name, value in given.items() if value is not None}
    )


def _chosen(target: Target, database: str | None, shard: int | None) -> Target:
    """Return the one shard that is asked for, if one is."""
    context = click.get_current_context()
    if target.shards is None:
        if shard is not None:
            raise click.UsageError("--shard: needs --shards, which it is one of", context)
        return target
    if context.get_parameter_source("database") is ParameterSource.COMMANDLINE:
        if context.get_parameter_source("shards") is ParameterSource.COMMANDLINE:
            raise click.UsageError("DATABASE: must not be given beside --shards, which name theirs", context)
        return target._replace(shards=None)
    if shard is None:
        return target
    if shard >= len(target.shards):
        raise click.UsageError(f"--shard: there are {len(target.shards)}, from 0", context)
    return target.each()[shard]


def on_tables(function: Callable[Concatenate[Target, Output, _P], int]) -> Callable[..., int]:
    """Give a command what it is about and what it says it with, and the parameters for these.

    It stands below all other decorators, for DATABASE is the last argument. Of shards the command is called for each,
    one after the other, also where one has failed.
    """

    @functools.wraps(function)
    def run(target: Target, output: Output, /, *arguments: _P.args, **options: _P.kwargs) -> int:
        if target.shards is None:
            return function(target, output, *arguments, **options)
        statuses = []
        silent: dict[str, Exception] = {}  # servers: each of their shards would be waited for as long
        for each in target.each():
            assert each.shard is not None
            number = each.shard[0]
            part = output.of_shard(number, each.tables)
            try:
                if each.conninfo in silent:
                    raise silent[each.conninfo]
                statuses.append(function(each, part, *arguments, **options))
            except click.UsageError:
                raise
            except (click.ClickException, PgSessionError, psycopg.Error) as error:
                statuses.append(report(error, as_json=output.as_json, shard=number))
                if no_answer(error):
                    silent[each.conninfo] = error
        return worst(statuses)

    return on_all(run)


def on_all(function: Callable[Concatenate[Target, Output, _P], int]) -> Callable[..., int]:
    """Do what `on_tables` does for a command that asks the admin alone, who knows all shards."""

    @functools.wraps(function)
    def run(
        database: str,
        schema_name: str | None,
        table_prefix: str | None,
        timeout: float | None,
        as_json: bool,
        shards: list[Shard] | None,
        shard: int | None,
        **options: Any,
    ) -> int:
        config = configuration(schema_name, table_prefix, timeout)
        target = _chosen(Target(database, config, shards=shards), database, shard)
        return function(target, Output(as_json), **options)  # type: ignore[call-arg]

    run.__click_params__ = [JSON, TIMEOUT, TABLE_PREFIX, SCHEMA_NAME, SHARD, SHARDS, DATABASE]  # type: ignore[attr-defined]
    return run
