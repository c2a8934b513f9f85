"""A token opens a session, or there is a reason why it opens none."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pgsession._core.session import Session

__all__ = ["Opened"]


class Opened(NamedTuple):
    """Tells what a token opens.

    Attributes:
        session: The session; None where the token opens none.
        state: `"current"`: it opens the session. `"previous"`: that too, for the session was rotated a moment ago, and
            requests under way with the older token are let through. `"superseded"`: a rotation has ended it, within the
            last `Config.rotation_grace`; the browser has, or is about to get, the current token, so answer without
            touching its cookie. `"ended"`: the session has ended, or the token has for longer than that. `"forged"`:
            none of the signer's keys signed it.
    """

    session: Session | None
    state: Literal["current", "previous", "superseded", "ended", "forged"]
