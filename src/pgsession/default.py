"""Stands for what `Config` says, where an argument says nothing else."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["DEFAULT", "DefaultType"]


class DefaultType(enum.Enum):
    """Has `DEFAULT` as its only value. It is for annotations: `timedelta | DefaultType`."""

    DEFAULT = "DEFAULT"

    def __repr__(self) -> str:
        return self.value


DEFAULT: Final = DefaultType.DEFAULT
"""What `Config` says, as `inactivity=DEFAULT` for `Config.inactivity_duration`."""
