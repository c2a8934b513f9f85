# Generated from src/pgsession/_async/subscription.py by tools/async_to_sync.py: never edit.

"""A subscription is one caller's wish to hear a channel, whose name may be known only to the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from psycopg import Notify

from pgsession._concurrency import SharedFuture


class Secret(NamedTuple):
    """Says how to listen to a channel whose name only the server knows.

    Attributes:
        statement: Takes the label, and True to begin or False to end listening; returns the channel's name.
        label: What the server knows the channel by.
    """

    statement: str
    label: str


class Subscription:
    """Holds what one call of `listen` asked for, under the same names.

    Attributes:
        secret: How to listen, where the channel is a secret one: its name is learned anew with each connection.
        listening: Set once the channel is listened to, or to an error if it never will be.
        left: True once nothing is to be delivered any more.
    """

    def __init__(
        self,
        channel: str,
        on_notification: Callable[[Notify], object],
        on_out_of_sync: Callable[[str], object] | None,
        on_error: Callable[[str, Exception], object] | None,
        on_done: Callable[[str], object] | None,
        secret: Secret | None = None,
    ) -> None:
        self.channel = channel
        self.on_notification = on_notification
        self.on_out_of_sync = on_out_of_sync
        self.on_error = on_error
        self.on_done = on_done
        self.secret = secret
        self.listening: SharedFuture[None] = SharedFuture()
        self.left = False
