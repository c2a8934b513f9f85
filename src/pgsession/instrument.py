"""An instrument is told how long things take, off the way of reads that memory answers."""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["Instrument", "Operation"]

Operation = Literal[
    "get_session",
    "create_session",
    "update_session",
    "rotate_session",
    "delete_session",
    "acquire_lock",
    "read",
    "write",
    "cleanup",
    "event",
]


class Instrument(Protocol):
    """Says what `Config.instrument` must have: one method; `pgsession.telemetry` has two such classes."""

    def measured(self, operation: Operation, seconds: float, count: int, error: str | None) -> object:
        """Take one measurement.

        It is called where the operation ends, in its caller's thread or event loop, and has to be quick. What it raises
        is logged, once a minute at most, and harms nobody. No read that memory answers comes here.

        Args:
            operation: What was done. Of these a caller has waited for: `get_session` (not answered from memory),
                `create_session`, `update_session`, `rotate_session`, `delete_session`, `acquire_lock`. Of statements:
                `read` and `write`, which do the work of all who waited at the moment. `cleanup`. And `event`: how long
                a change of some node's was under way, from its statement until it was applied here, by the database's
                clock.
            seconds: How long that took.
            count: Of statements, for how many sessions it was; else 1.
            error: The type of the error that it ended with, None where it was done.
        """
