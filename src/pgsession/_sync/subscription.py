# Generated from src/pgsession/_async/subscription.py by tools/async_to_sync.py: never edit.

"""One wish to hear a channel."""

from __future__ import annotations

from collections.abc import Callable

from psycopg import Notify

from pgsession._concurrency import SharedFuture


class Subscription:
    """What one call of `listen` asked for."""

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
