"""`pgsession sessions` lists, counts and ends sessions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from uuid import UUID

import click

from pgsession import Admin, SessionInfo
from pgsession._protocol import rules
from pgsession._short_names import short_name

from ._failures import Status
from ._output import Output
from ._parameters import Target, checked, duration, full_ids, on_all
from .drop import confirm

_PAGE = 1000
_F = TypeVar("_F", bound=Callable[..., Any])
_COLUMNS = {
    "session": "session",
    "user_id": "user",
    "group_id": "group",
    "created_at": "created",
    "last_accessed": "last accessed",
    "expires_at": "expires",
}


@click.group()
def sessions() -> None:
    """List, show, count and end sessions.

    A session is shown by its short name, as in log lines and errors, unless --full-ids asks for its whole id.
    """


def _which(function: _F) -> _F:
    """Add the options that say which sessions are meant."""
    for option in (
        click.option("--older-than", metavar="DURATION", callback=checked(duration),
                     help="Those created so long ago or earlier: seconds, or ISO 8601 such as P90D."),
        click.option("--active-within", metavar="DURATION", callback=checked(duration),
                     help="Those whose last access was written so long ago or later."),
        click.option("--group", "group_id", metavar="ID", callback=checked(rules.identifier),
                     help="Those of this group."),
        click.option("--user", "user_id", metavar="ID", callback=checked(rules.identifier), help="Those of this user."),
    ):  # fmt: skip
        function = option(function)
    return function


@sessions.command("list")
@_which
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    metavar="N",
    help="How many at most.",
)
@full_ids
@on_all
def list_(target: Target, output: Output, /, limit: int, full_ids: bool, **which: Any) -> int:
    """List live sessions that fit all that is given, in the order of their ids."""
    found = list(itertools.islice(_all(target.admin, limit + 1, which), limit + 1))
    output.rows(
        [_row(session, full_ids) for session in found[:limit]], _COLUMNS, nothing="no live session fits"
    )
    if len(found) > limit:
        output.note(f"there are more: --limit {limit} ends the list here")
    return 0


@sessions.command()
@click.argument("session_id", metavar="ID", type=click.UUID)
@click.option("--values", is_flag=True, help="Show its attributes too.")
@full_ids
@on_all
def show(target: Target, output: Output, session_id: UUID, values: bool, full_ids: bool) -> int:
    """Show the live session of this whole ID.

    Exit status 3: there is none.
    """
    page = target.admin.list_sessions(session_id=session_id, with_values=values)
    if not page:
        raise NotFound(f"there is no live session {short_name(session_id)}")
    output.fields(_row(page[0], full_ids) | ({"attributes": page[0].attributes} if values else {}))
    return 0


class NotFound(click.ClickException):
    """There is nothing of what was asked for."""

    exit_code = Status.SOMETHING_LEFT


@sessions.command()
@_which
@on_all
def count(target: Target, output: Output, /, **which: Any) -> int:
    """Count live sessions that fit all that is given."""
    number = target.admin.count(**which)
    output.done({"sessions": number}, f"{number:,}")
    return 0


@sessions.command()
@click.option("--id", "session_id", metavar="ID", type=click.UUID, help="The session of this whole id.")
@_which
@click.option("--all", "everybodys", is_flag=True, help="Every session of everybody; asks first.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--dry-run", is_flag=True, help="End nothing; count the live sessions that would end.")
@on_all
def revoke(
    target: Target,
    output: Output,
    /,
    session_id: UUID | None,
    everybodys: bool,
    yes: bool,
    dry_run: bool,
    **which: Any,
) -> int:
    """End the sessions that fit all that is given, on every node at once, and their locks with them.

    It goes in steps; what is done stays done, and the same command goes on with the rest.

    Exit status 3: there was none.
    """
    which["session_id"] = session_id
    if everybodys == any(value is not None for value in which.values()):
        raise click.UsageError("say which sessions, or --all and nothing else", click.get_current_context())
    admin = target.admin
    if dry_run:
        number = admin.count(**which)
        output.done({"dry_run": True, "ended": number}, f"{number:,} live sessions would end")
        return Status.WELL if number else Status.SOMETHING_LEFT
    if everybodys:
        if not yes:
            confirm(f"{target.tables}: end all {admin.count():,} sessions?")
        which["older_than"] = 0
    number = admin.revoke(**which)
    output.done({"dry_run": False, "ended": number}, f"{number:,} ended")
    return Status.WELL if number else Status.SOMETHING_LEFT


def _all(admin: Admin, most: int, which: dict[str, Any]) -> Iterator[SessionInfo]:
    after = None
    while page := admin.list_sessions(after=after, limit=min(most, _PAGE), **which):
        yield from page
        after = page[-1].id


def _row(session: SessionInfo, full_ids: bool) -> dict[str, object]:
    whole = str(session.id) if full_ids else None
    return {
        "session": whole or short_name(session.id),
        "session_id": whole,
        "user_id": session.user_id,
        "group_id": session.group_id,
        "version": session.version,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "last_accessed": session.last_accessed,
        "expires_at": session.expires_at,
        "inactivity_seconds": None if session.inactivity is None else session.inactivity.total_seconds(),
    }
