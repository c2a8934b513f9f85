"""The command line is `pgsession`, or `python -m pgsession`; it has one file for each command.

Each command returns its exit status; `_failures` says what the others mean.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from . import _failures
from .arena import arena
from .check import check
from .completion import VARIABLE, completion
from .doctor import doctor
from .drop import drop
from .init import init
from .locks import locks
from .move import move
from .nodes import nodes
from .plan import plan
from .secret import secret
from .sessions import sessions
from .stats import stats
from .watch import watch

__all__ = ["cli", "main"]


class _Commands(click.Group):
    """Tells of a reader that has gone what click would turn into a failure."""

    def invoke(self, context: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(context)
        except BrokenPipeError as error:
            raise _failures.ReaderGone from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pgsession", message="%(prog)s %(version)s")
def cli() -> None:
    """Look after the sessions that pgsession keeps in PostgreSQL.

    DATABASE is a connection string or URL without a password; where it is left out PGSESSION_DATABASE says where the
    database is, else libpq's PG... variables and its service file do. A password comes from PGPASSWORD, a password
    file, a service file or PGSESSION_DATABASE: arguments are for everybody on the machine to read.

    Exit status: 0 done, or well; 1 failed, or not well; 2 wrong arguments; 3 done, and something is left to look at; 4
    the database does not answer; 5 it is not known whether it was done; 130 interrupted.
    """


for _command in (
    init, check, doctor, drop, sessions, locks, nodes, stats, watch, arena, plan, secret, move,
    completion,
):  # fmt: skip
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status.

    Args:
        arguments: What stands behind the program's name; None: as this process was called.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    color = False if os.environ.get("NO_COLOR") else None
    try:
        status = cli.main(given, "pgsession", complete_var=VARIABLE, standalone_mode=False, color=color)
        if sys.stdout is not None:  # as where the caller has closed it
            sys.stdout.flush()
    except (_failures.ReaderGone, BrokenPipeError):
        return _failures.reader_gone()
    except _failures.EXPECTED as error:
        return _failures.report(error, as_json="--json" in given)
    except OSError as error:
        return _failures.not_written(error, as_json="--json" in given)
    return int(status or 0)
