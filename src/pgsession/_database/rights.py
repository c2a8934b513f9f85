"""Says which rights the role of a service needs, by the short names of `templates`: these, and nothing more.

It reads, and it calls. What it calls runs with the rights of the functions' owner (SECURITY DEFINER): that calls the
other functions, writes the tables and draws from the sequence. So a service's role may write, TRUNCATE or lock no table
and not use the sequence, and what is not named here is refused to it.
"""

from __future__ import annotations

from typing import Final

READ: Final[dict[str, tuple[str, ...]]] = {
    "sessions": (),
    "attributes": (),
    "versions": (),
    "incarnation": ("incarnation", "started_at", "place"),  # not the secret
}
"""The tables that it may SELECT from, with the columns that it may see of them; none named: every column."""

CALLED: Final = (
    "acknowledge",
    "acquire",
    "ask_nodes",
    "cleanup",
    "delete_many",
    "drop_attribute",
    "incarnate",
    "listen",
    "register",
    "release",
    "renew",
    "send",
    "send_beacon",
    "silent_nodes",
    "unregister",
    "write",
    "write_accesses",
)
"""The functions that it may EXECUTE: those that statements of ours call."""
