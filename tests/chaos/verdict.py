"""What the oracle finds, and what it measures by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from tests.chaos.history import Call

KINDS = {
    "lost": "acknowledged writes lost",
    "backwards": "versions that went back",
    "own": "own writes not read",
    "resurrected": "resurrections",
    "quiescent": "stale records after quiescence",
    "stale": "records served stale for too long",
    "torn": "versions with two contents",
    "undone": "writes that failed and were done",
    "expired": "expired attributes served",
    "refused": "tokens refused that were good",
    "outlived": "ended tokens that opened a session",
    "earned": "tokens given to who had not earned them",
    "crossed": "writes into another owner's session",
    "claimed": "chosen ids not created exactly once",
    "idle": "idle timeouts not kept",
    "untried": "checks to which nothing was put",
    "surprise": "calls that failed as none should",
    "late": "calls that took longer than they may",
    "bystander": "calls that failed for what concerned others",
    "slowed": "calls that others' servers have slowed down",
    "apart": "nodes not in sync soon after a server was back",
    "held": "locks held twice",
    "crowd": "users with more sessions than allowed",
    "emptied": "caches emptied by an outage",
    "astray": "connections kept to the wrong server",
    "stuck": "calls or nodes that did not recover",
}
"""The kinds of violations, and what the report calls them."""


class Limits(msgspec.Struct, kw_only=True):
    """How the nodes were configured; the times in microseconds."""

    max_staleness: int
    operation_timeout: int = 10_000_000
    max_sessions: int = 0
    """Sessions that a user may have; 0: any number."""


class Violation(msgspec.Struct):
    kind: str
    text: str
    calls: list[Call]
    """Those that show it."""


class Row(msgspec.Struct):
    """A session as the database has it in the end."""

    version: int
    content: dict[str, Any]
    user: str = ""
    live: bool = True


class Verdict(msgspec.Struct, kw_only=True):
    violations: list[Violation] = []
    longest_stale: int = 0
    """Microseconds from when a call anywhere was over that knew of a newer version until a call began that got the
    older one."""
    longest: dict[str, int] = {}
    """Microseconds that the longest call of each class of `endings.CLASSES` took."""
    calls: int = 0
    hits: int = 0
    unknown: int = 0
    interrupted: int = 0
    errors: int = 0
    conflicts: int = 0
    refused: int = 0
    confirmed: int = 0
    """Calls that have said that all nodes know."""
    unconfirmed: int = 0
    writes: int = 0
    tried: dict[str, int] = {}
    """What was put to the test of `oracle.TRIED`, and how often."""

    def add_untried(self, titles: dict[str, str]) -> None:
        """A check to which nothing was put says nothing."""
        self.violations += [
            Violation("untried", title, []) for name, title in titles.items() if not self.tried.get(name)
        ]

    def add_stuck(self, texts: Iterable[str]) -> None:
        self.violations += [Violation("stuck", text, []) for text in texts]

    def add_emptied(self, texts: Iterable[str]) -> None:
        self.violations += [Violation("emptied", text, []) for text in texts]

    def count(self, kind: str) -> int:
        return sum(violation.kind == kind for violation in self.violations)
