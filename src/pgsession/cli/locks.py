"""`pgsession locks` lists and breaks locks."""

from __future__ import annotations

from collections.abc import Iterator

import click

from pgsession import Admin, LockInfo
from pgsession._protocol import rules
from pgsession._short_names import short_name, without_ids

from ._failures import Status
from ._output import Output
from ._parameters import Target, checked, full_ids, on_all

_PAGE = 1000


@click.group()
def locks() -> None:
    """List and break locks."""


@locks.command("list")
@full_ids
@on_all
def list_(target: Target, output: Output, full_ids: bool) -> int:
    """List the locks that are held, in the order of what they lock."""
    columns = {
        "resource": "resource",
        "session": "session",
        "token": "token",
        "acquired_at": "acquired",
        "expires_at": "ends unless renewed",
    }
    rows = [_row(lock, full_ids) for lock in _all(target.admin)]
    output.rows(rows, columns, nothing="no lock is held")
    return 0


@locks.command("break")
@click.argument("resource", callback=checked(rules.identifier))
@on_all
def break_(target: Target, output: Output, resource: str) -> int:
    """End the lock on RESOURCE, of which its holder is told; another may have it before the holder knows.

    Exit status 3: nobody held it.
    """
    held = target.admin.break_lock(resource)
    shown = without_ids(resource)
    output.done(
        {"resource": shown, "held": held},
        f"ended the lock on {shown!r}" if held else f"nobody held {shown!r}",
    )
    return Status.WELL if held else Status.SOMETHING_LEFT


def _all(admin: Admin) -> Iterator[LockInfo]:
    after = None
    while page := admin.list_locks(after=after, limit=_PAGE):
        yield from page
        after = page[-1].resource


def _row(lock: LockInfo, full_ids: bool) -> dict[str, object]:
    session = lock.session_id
    return {
        "resource": lock.resource if full_ids else without_ids(lock.resource),
        "token": lock.token,
        "session": None if session is None else str(session) if full_ids else short_name(session),
        "session_id": str(session) if session is not None and full_ids else None,
        "acquired_at": lock.acquired_at,
        "expires_at": lock.expires_at,
    }
