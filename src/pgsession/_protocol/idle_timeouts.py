"""The idle timeout of a session is its own, stored with it, so that nodes with other settings agree on when it ends.

What arguments ask for is made the microseconds that are stored, or None for a session that only ends at `expires_at`.
"""

from __future__ import annotations

from datetime import timedelta

from msgspec import UNSET, UnsetType

from pgsession.default import DEFAULT, DefaultType

from . import rules

Inactivity = timedelta | float | DefaultType | None


def of_new(inactivity: Inactivity, include: bool, default: int) -> int | None:
    """Return the idle timeout of a new session.

    Args:
        inactivity: The caller's argument.
        include: The caller's `include_inactivity`, where True is no more than the default.
        default: The configured idle timeout in microseconds.
    """
    rules.boolean("include_inactivity", include)
    timeout = _microseconds(inactivity, default)
    if include:
        return timeout
    if inactivity is not DEFAULT and timeout is not None:
        raise _contradiction(include, inactivity)
    return None


def of_changed(
    inactivity: Inactivity | UnsetType, include: bool | None, default: int
) -> tuple[int | None] | None:
    """Return the new idle timeout of a session, or None where none is asked for.

    Args:
        inactivity: The caller's argument.
        include: The caller's `include_inactivity`. True is for a session without one (`Flag.KEEP_INACTIVITY`).
        default: The configured one.
    """
    if include is not None:
        rules.boolean("include_inactivity", include)
    if inactivity is UNSET:
        return None if include is None else (default if include else None,)
    timeout = _microseconds(inactivity, default)
    if include is not None and include != (timeout is not None):
        raise _contradiction(include, inactivity)
    return (timeout,)


def _microseconds(inactivity: Inactivity, default: int) -> int | None:
    if inactivity is DEFAULT:
        return default
    if inactivity is None:
        return None
    return rules.microseconds("inactivity", inactivity, rules.LEAST_IDLE_TIMEOUT)


def _contradiction(include: bool, inactivity: object) -> ValueError:
    rule = "must not be None where include_inactivity is True"
    if not include:
        rule = f"must be None or left out where include_inactivity is False, not {inactivity!r}"
    return ValueError(f"inactivity: {rule}")
