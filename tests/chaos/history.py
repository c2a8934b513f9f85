"""What happened: one line of JSON for each call, written by the process that made it, read by the oracle.

Times are microseconds of the machine's monotonic clock, which all processes share. `began` is taken before a call and
`ended` after it, so a process that is frozen in between makes the interval longer, never wrong.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec


def now() -> int:
    """Microseconds, the same in every process of the machine."""
    return time.monotonic_ns() // 1000


class Call(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One call and what came of it."""

    kind: str
    """get, list, update, create, delete, delete_user, delete_group, drop, evict, clear, sql_set, sql_delete, sql_count,
    final; on sessions that change hands: begin, open, rotate, replace, save (see `hands`); on ids that many choose:
    claim (see `claims`); on sessions with a short idle timeout: start, use (see `idle`); move (see `moving`); lock,
    unlock (see `locks`); about all sessions there are, or many: count, load"""
    node: int
    began: int
    ended: int = 0
    who: str = ""
    """The caller: node and task. It writes only its own attribute, and counts in it."""
    session: str = ""
    outcome: str = "ok"
    """ok, none (no such session), exists (it was not to), conflict, refused (the user is at the limit), error (was not
    done), unknown (may have been done, now or later), interrupted (by an exception from outside: likewise)"""
    version: int = 0
    content: dict[str, Any] | None = None
    """The attributes that a read returned, or the caller knew after its write."""
    from_cache: bool = False
    floor: int = 0
    """The `min_version` of a read; the version that a write with check="session", or a save, was based on."""
    wrote: dict[str, Any] | None = None
    """What a write set; None for an attribute that it removed."""
    user: str = ""
    group: str = ""
    keep: str = ""
    evicts: bool = False
    """For a create: other sessions of its user may have ended for it."""
    overdue: int = 0
    """How long, in microseconds, an attribute that was returned had been expired."""
    generation: int = 0
    """Of the token that was shown, or that a rotation was based on."""
    gave: int = 0
    """The generation that a begin or a rotation has brought; 0 for a rotation that somebody else was faster than."""
    grace: int = 0
    """Of a rotation, in microseconds."""
    state: str = ""
    """What a token was taken for; the `if_exists` of a claim."""
    wait: int = 0
    """For how long, in microseconds, a call was to wait for all nodes."""
    confirmed: bool = False
    """Whether it has said that all nodes know."""
    arena: str = ""
    """The id of the memory that the process shared with its host when the call began; empty: none."""
    arena_after: str = ""
    """Likewise when it ended."""
    shards: list[int] = []
    """Those that it asks, where sessions are in shards."""
    failed: list[int] = []
    """Those of several on which it said that it was not done."""
    became: str = ""
    """The id that a session has since it was moved."""
    gives: bool = False
    """Whether there is a token for whom a session was opened by one."""
    error: str = ""

    @property
    def places(self) -> tuple[int | str, ...]:
        """Where what a call was told binds those that begin later: its process, and the arena it was in throughout."""
        return (self.node, self.arena) if self.arena and self.arena == self.arena_after else (self.node,)

    def binds(self, later: Call) -> bool:
        """Return True where what this call was told binds one that began after its end."""
        return not set(self.places).isdisjoint(later.places)

    def __str__(self) -> str:
        parts = [
            f"{self.began / 1e6:.6f} +{(self.ended - self.began) / 1e6:.6f} s",
            f"node {self.node} {self.who}",
        ]
        parts += [self.kind, self.session[:8] or self.user or self.group, self.outcome]
        parts += [f"{name}={value}" for name, value in self._details().items() if value]
        return "  ".join(parts)

    def _details(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "floor": self.floor,
            "cached": self.from_cache,
            "content": self.content,
            "wrote": self.wrote,
            "generation": self.generation,
            "gave": self.gave,
            "grace": self.grace,
            "state": self.state,
            "wait": self.wait,
            "confirmed": self.confirmed,
            "shards": self.shards,
            "failed": self.failed,
            "became": self.became,
            "error": self.error,
        }


class State(msgspec.Struct, kw_only=True):
    """A node went in or out of sync."""

    node: int
    at: int
    in_sync: bool


class Fault(msgspec.Struct, kw_only=True):
    """What was done to the system. `began` is before the first effect, `ended` when its cause was gone again."""

    kind: str
    began: int
    ended: int = 0
    lossy: bool = False
    """Whether the server may have lost commits that nobody had been told of yet."""
    detail: str = ""
    frozen: int = -1
    """The node whose process stood still."""
    alone: bool = False
    """Whether nobody has a reason to fail but who needs the rows that follow, or is interrupted: every node was well
    when it began, and it concerns nobody else."""
    sessions: list[str] = []
    """Those whose rows, or whose attributes' rows, somebody held."""
    users: list[str] = []
    """Those whose logins had to wait for rows that somebody held."""
    shards: list[int] = []
    """Those of the one server that it hits, where sessions are in shards."""
    refuses: bool = False
    """Whether nobody could connect to that server meanwhile, which is known at once."""
    unfenced: list[int] = []
    """Nodes that could go on with a former primary meanwhile, for nothing keeps them from it."""
    astray: int = 0
    """Connections that went on leading to the wrong server."""

    def __str__(self) -> str:
        took = (self.ended - self.began) / 1e6
        return f"{self.began / 1e6:.6f} +{took:.6f} s  FAULT {self.kind} {self.detail}"


class Writer:
    """Appends to a file; usable from several threads. Where it is `mortal`, nothing is lost when it is killed."""

    def __init__(self, path: Path, *, mortal: bool = False) -> None:
        self._file: TextIO = path.open("w", buffering=1 if mortal else -1)
        self._mortal = mortal
        self._lock = threading.Lock()
        self._encode = msgspec.json.Encoder().encode

    def begin(self, call: Call) -> None:
        """Note a call that may be the last."""
        if self._mortal:
            self._add("B", call)

    def add(self, entry: Call | State) -> None:
        self._add("C" if isinstance(entry, Call) else "S", entry)

    def _add(self, mark: str, entry: Call | State) -> None:
        text = mark + self._encode(entry).decode() + "\n"
        with self._lock:
            self._file.write(text)

    def flush(self) -> None:
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        with self._lock:
            self._file.close()


def read(path: Path, died: int = 0) -> Iterator[Call | State]:
    """What one process wrote; a last line that is not whole is left out.

    What it had begun when it died has ended then, and may have been done.
    """
    call = msgspec.json.Decoder(Call)
    state = msgspec.json.Decoder(State)
    begun: dict[str, Call] = {}
    with path.open() as file:
        for line in file:
            if not line.endswith("\n"):
                continue
            if line[0] == "S":
                yield state.decode(line[1:])
                continue
            entry = call.decode(line[1:])
            if line[0] == "B":
                begun[entry.who] = entry
            else:
                begun.pop(entry.who, None)
                yield entry
    for entry in begun.values():
        entry.ended, entry.outcome = died, "interrupted"
        yield entry


def dump(value: Any) -> str:
    """For the line protocol between the processes."""
    return json.dumps(value, separators=(",", ":"))
