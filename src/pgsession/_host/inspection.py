"""An inspection shows the caches that processes of this host share to who has no part in them."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pgsession._core.arena import ArenaError
from pgsession._core.clock import Clock
from pgsession._host.offices import HOLDERS, Offices
from pgsession._host.place import Refused, attached, locks_of, own_folder, trusted

__all__ = ["Seen", "arenas", "owner_of"]


class Seen(NamedTuple):
    """Tells of one arena.

    Attributes:
        path: Its file.
        reason: Why nothing else is known of it; None: the rest is.
        used: True while a process has a part in it.
        size: Its bytes.
        sessions: How many it holds.
        state: "lost", "listening", "synced", or "given up".
        in_sync_for: For how many seconds more memory may be served, 0 where it may not.
        leader: How many leaders there were with this one, 0 before the first.
        leads: True while the process of that number lives.
        beat_age: Seconds since it last said that it is there, None before the first.
        counters: What was counted.
    """

    path: Path
    reason: str | None = None
    used: bool = False
    size: int = 0
    sessions: int = 0
    state: str = ""
    in_sync_for: float = 0.0
    leader: int = 0
    leads: bool = False
    beat_age: float | None = None
    counters: dict[str, int] | None = None


def arenas(folder: str | None) -> list[Seen]:
    """Return what there is in a folder; None: in the user's own one.

    Raises:
        FileNotFoundError: There is no such folder.
        PermissionError: It is another user's.
    """
    where = Path(folder) if folder is not None else own_folder(make=False)
    found = [path for path in where.iterdir() if path.suffix == ".arena"]
    return [_seen(path) for path in sorted(found, key=_by_number)]


def _by_number(path: Path) -> list[str | int]:
    """Have shard 10 after shard 2."""
    parts = re.split(r"([0-9]+)", path.name)  # every second one is a number
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def owner_of(path: Path) -> str:
    """Return whose a file or folder is, as a part of a sentence."""
    try:
        uid = path.stat().st_uid
    except OSError:
        return "another user's"
    return f"of the user with uid {uid}"


def _seen(path: Path) -> Seen:
    try:
        arena = attached(path)
    except (ArenaError, Refused) as error:
        return Seen(path, reason=error.reason)
    except PermissionError:
        return Seen(path, reason=f"it is {owner_of(path)}")
    except OSError as error:
        return Seen(path, reason=error.strerror)
    now = Clock().now()
    number, beat = arena.number, arena.last_beat
    used = leads = False
    with suppress(OSError, Refused):
        offices = Offices(trusted(locks_of(path)))
        used, leads = offices.has_others(HOLDERS), offices.has_leader(number)
        offices.close()
    counters = arena.counters()
    sessions = counters.pop("sessions")
    seen = Seen(
        path,
        used=used,
        size=arena.size,
        sessions=sessions,
        state="given up" if arena.poisoned else arena.state,
        in_sync_for=max(0, arena.in_sync_until - now) / 1_000_000,
        leader=number,
        leads=leads,
        beat_age=max(0, now - beat) / 1_000_000 if beat else None,
        counters=counters,
    )
    arena.close()
    return seen
