"""Numbers of things stand in texts as people say them."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return "1 session", "2 sessions"; `plural` where it is not made by an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
