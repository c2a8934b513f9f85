# Generated from src/pgsession/_async/subscription.py by tools/async_to_sync.py: never edit.

"""A subscription is one caller's wish to hear a channel."""

from __future__ import annotations

from collections.abc import Callable

from psycopg import Notify

from pgsession._concurrency import SharedFuture


class Subscription:
    """Holds what one call of `listen` asked for, under the same names.

    Attributes:
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
    ) -> None:
        self.channel = channel
        self.on_notification = on_notification
        self.on_out_of_sync = on_out_of_sync
        self.on_error = on_error
        self.on_done = on_done
        self.listening: SharedFuture[None] = SharedFuture()
        self.left = False
