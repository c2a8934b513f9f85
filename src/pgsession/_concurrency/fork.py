"""The managers of a forked child start over here, and nothing of the parent's is touched.

A libpq connection that the child closed would end the parent's session with the server, so what was inherited is kept
alive here, unused, until the child ends (psycopg closes no connection of another process at exit).
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["inherited", "watch"]


class _Forkable(Protocol):
    def _after_fork(self) -> None: ...


inherited: list[object] = []
_managers: weakref.WeakSet[_Forkable] = weakref.WeakSet()


def watch(manager: _Forkable) -> None:
    """Tell a manager, from now on, in each forked child; one that nobody else refers to is not kept for that."""
    _managers.add(manager)


def _after_fork_in_child() -> None:
    for manager in list(_managers):
        manager._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
