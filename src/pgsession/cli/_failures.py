"""Says in one line what went wrong, with its remedy, and by the exit status."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final, NamedTuple

import click
import msgspec
import psycopg
from psycopg import errors as pg

from pgsession import ConfigError, OperationTimeout, PgSessionError, ShardsFailed, WriteOutcomeUnknown
from pgsession._database.connections import no_answer

from ._output import plain

EXPECTED: Final = (click.ClickException, click.Abort, PgSessionError, psycopg.Error)
"""What a command may raise; anything else is a fault of this program, of which the traceback tells most."""


_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_NO_ARGUMENTS: Final = getattr(click.exceptions, "NoArgsIsHelpError", ())  # since click 8.2


class Status(IntEnum):
    """Says what an exit status means."""

    WELL = 0
    FAILED = 1
    USAGE = 2
    SOMETHING_LEFT = 3
    NO_ANSWER = 4
    UNKNOWN_OUTCOME = 5
    INTERRUPTED = 130
    READER_GONE = 141


_GRAVITY: Final = [
    Status.WELL, Status.SOMETHING_LEFT, Status.USAGE, Status.FAILED, Status.NO_ANSWER, Status.UNKNOWN_OUTCOME,
]  # fmt: skip


class ReaderGone(Exception):
    """Nobody reads the output any more, as behind `pgsession sessions list | head`."""


class _Failure(NamedTuple):
    status: Status
    message: str
    remedy: str = ""


def worst(statuses: Iterable[int]) -> int:
    """Return the exit status of a command that was done for several shards."""
    return max(map(Status, statuses), key=lambda status: _GRAVITY.index(status))


def report(error: BaseException, *, as_json: bool, shard: int | None = None) -> int:
    """Tell of the error on standard error, and of the shard that has it; return the exit status."""
    if isinstance(error, _NO_ARGUMENTS):
        error.show()
        return Status.USAGE
    failure = _failure(error)
    shards = None
    if shard is not None:
        failure = failure._replace(message=f"shard {shard}: {failure.message}")
        shards = {"done": [], "failed": [shard]}
    elif isinstance(error, ShardsFailed):
        shards = {"done": list(error.done), "failed": list(error.failed)}
    return _say(failure, as_json, shards)


def not_written(error: OSError, *, as_json: bool) -> int:
    """Tell that the output cannot be written, as on a full disk, when the command has done its work."""
    if error.errno not in _NO_ROOM:
        raise error
    _give_up_output()
    failure = _Failure(
        Status.UNKNOWN_OUTCOME,
        f"the output cannot be written: {error.strerror}",
        "what was to be done may have been done, look before you run it again",
    )
    return _say(failure, as_json)


def _say(failure: _Failure, as_json: bool, shards: Mapping[str, list[int]] | None = None) -> int:
    sentence = plain("; ".join(filter(None, (failure.message, failure.remedy))))
    if as_json:
        said = {
            "error": {
                "status": int(failure.status),
                "kind": failure.status.name.lower(),
                "message": sentence,
                "shards": shards,
            }
        }
        click.echo(msgspec.json.encode(said), err=True)
    elif failure.status is Status.INTERRUPTED:
        click.echo("interrupted", err=True)
    else:
        click.echo(f"pgsession: {sentence}", err=True)
    return failure.status


def reader_gone() -> int:
    """Return the exit status of a program that SIGPIPE ended."""
    _give_up_output()
    return Status.READER_GONE


def _give_up_output() -> None:
    """Have the interpreter's last flush go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _failure(error: BaseException) -> _Failure:
    message = _one_line(str(error))
    match error:
        case click.Abort():
            return _Failure(Status.INTERRUPTED, "interrupted")
        case click.UsageError():
            help = "" if error.ctx is None else f"`{error.ctx.command_path} --help` tells more"
            return _Failure(Status.USAGE, _one_line(error.format_message()).rstrip("."), help)
        case click.ClickException():
            return _Failure(Status(error.exit_code), _one_line(error.format_message()))
        case ConfigError():
            return _Failure(Status.USAGE, message)
        case WriteOutcomeUnknown():
            cause = f" ({_one_line(str(error.__cause__))})" * (error.__cause__ is not None)
            return _Failure(
                Status.UNKNOWN_OUTCOME,
                f"it is not known whether it was done: {message}{cause}",
                "look before you run it again",
            )
        case OperationTimeout():
            done = f" ({error.done} were done before)" * bool(error.done)
            return _Failure(
                Status.NO_ANSWER, f"{message}{done}", "run it again, or give it more time with --timeout"
            )
        case ShardsFailed():
            failures = [_failure(each) for each in error.failed.values()]
            status = Status(worst(failure.status for failure in failures))
            # Of one that answers the remedy is its own.
            remedy = next(failure.remedy for failure in failures if failure.status == status)
            if status == Status.NO_ANSWER or not remedy:
                remedy = "run it again once they answer, or name others with --shard"
            counted = [result for result in error.done.values() if type(result) is int]
            those = f"; {sum(counted):,} on those that answered" * bool(counted)
            return _Failure(status, f"{message}{those}", remedy)
        case PgSessionError():
            return _Failure(Status.NO_ANSWER if no_answer(error) else Status.FAILED, message)
        case psycopg.Error():
            return _of_database(error, message)
    raise error


def _of_database(error: psycopg.Error, message: str) -> _Failure:
    message = _one_line(error.diag.message_primary or message)
    match error:
        case pg.InsufficientPrivilege():
            return _Failure(
                Status.FAILED,
                message,
                "grant the role what docs/cli.md lists, or run it as the owner of the tables",
            )
        case pg.UndefinedTable() | pg.InvalidSchemaName() | pg.UndefinedFunction():
            return _Failure(
                Status.FAILED,
                f"there are no tables of pgsession here: {message}",
                "name their schema with --schema-name and --table-prefix, or make them with `pgsession init`",
            )
        case pg.QueryCanceled():
            return _Failure(Status.NO_ANSWER, message, "give it more time with --timeout")
        case _ if no_answer(error):
            return _Failure(
                Status.NO_ANSWER,
                f"the database does not answer: {message}",
                "see that the server runs, and that DATABASE, PGSESSION_DATABASE or the PG... variables lead to it",
            )
    return _Failure(Status.FAILED, message)


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.strip().splitlines() if line.strip())
