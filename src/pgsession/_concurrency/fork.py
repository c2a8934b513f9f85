"""After a fork: the child's managers start over, and nothing of the parent's is touched.

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
    """From now on the manager is told in each forked child."""
    _managers.add(manager)


def _after_fork_in_child() -> None:
    for manager in list(_managers):
        manager._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
