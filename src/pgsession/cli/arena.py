"""`pgsession arena` shows the caches that processes of this host share."""

from __future__ import annotations

from pathlib import Path

import click

from pgsession._host.inspection import Seen, arenas, owner_of

from ._failures import Status
from ._output import Output
from ._parameters import JSON


@click.command(params=[JSON])
@click.option(
    "--folder",
    type=click.Path(file_okay=False),
    help="Where they lie, if `Config.shared_cache` is a path; else where names lie.",
)
def arena(as_json: bool, folder: str | None) -> int:
    """Show the caches that processes of this host share (Config.shared_cache), as the user that runs them.

    Each shard of several has one, with its number in the name of the file. No database is asked. Exit status 3: one of
    them serves nothing at this moment, or cannot be read.
    """
    try:
        seen = arenas(folder)
    except FileNotFoundError:
        seen = []
    except PermissionError as error:
        whose = owner_of(Path(error.filename))
        raise click.ClickException(f"{error.filename} is {whose}: run this as that user") from error
    columns = {
        "path": "file",
        "state": "state",
        "sessions": "sessions",
        "size_bytes": "size",
        "leader": "leader",
        "leads": "it lives",
        "beat_age_seconds": "its last beat",
        "in_sync_for_seconds": "serves for",
    }
    Output(as_json).rows([_row(one) for one in seen], columns, nothing="no cache is shared on this host")
    well = all(one.reason is None and one.in_sync_for > 0 for one in seen)
    return Status.WELL if well else Status.SOMETHING_LEFT


def _row(seen: Seen) -> dict[str, object]:
    return {
        "path": str(seen.path),
        "state": seen.reason or seen.state,
        "used": seen.used,
        "sessions": seen.sessions,
        "size_bytes": seen.size,
        "leader": seen.leader,
        "leads": seen.leads,
        "beat_age_seconds": seen.beat_age,
        "in_sync_for_seconds": seen.in_sync_for,
        "counters": seen.counters,
    }
