# Generated from src/pgsession/_async/listener.py by tools/async_to_sync.py: never edit.

"""The listener listens to many channels on one connection of its own; a lost one is replaced."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, LiteralString, Self

from psycopg import Notify

from pgsession._concurrency import LOGGER, ConninfoFunction, SharedFuture, Unclosed
from pgsession._database.conninfo import check_readable
from pgsession._protocol import rules

from .listener_connection import Command, Row
from .listener_loop import ListenerLoop
from .subscription import Subscription


class Listener:
    """Listens to any number of channels on one connection of its own, and makes a new one when it is lost.

    Callbacks are plain functions or, for asyncio, coroutine functions. They run one after the other, in the listener's
    own task or thread, so a slow one delays all that follow; they may use the listener. One that raises is logged, and
    ends nothing.

    A listener is opened once, by `open` or `with`, and closed once. Use after that raises `ListenerError`. One that is
    dropped without that gives a `ResourceWarning`, and is closed in the background.

    Args:
        conninfo: The server to connect to, or a function that returns this, called at each attempt to connect; TCP
            keepalive and timeouts are set where it does not set them itself. It has to lead to the primary, and not
            through a pooler that shares connections between transactions.
        connect_timeout: Seconds for each host, where the conninfo gives no connect_timeout (at least 2).
        command_timeout: Seconds after which a connection that does not answer a command is taken for dead.
        health_check_interval: Seconds of silence after which the server is asked whether it is still there (None:
            never; for those who send commands regularly themselves).
        reconnect_delay: The longest wait between two attempts to reconnect, in seconds; the first come quickly.
        logger: The logger for errors of callbacks and changes of the connection.

    Raises:
        TypeError, ValueError: An argument is not usable; the message names it.
    """

    def __init__(
        self,
        conninfo: str | ConninfoFunction = "",
        *,
        connect_timeout: int = 5,
        command_timeout: float = 10,
        health_check_interval: float | None = 30,
        reconnect_delay: float = 2,
        logger: logging.Logger = LOGGER,
    ) -> None:
        conninfo = rules.conninfo("conninfo", conninfo)
        if isinstance(conninfo, str):
            check_readable("conninfo", conninfo)
        connect_timeout = rules.count("connect_timeout", connect_timeout, 1, 2**31 - 1)
        rules.instance("logger", logger, logging.Logger, "a logging.Logger")
        self._loop = ListenerLoop(
            conninfo,
            connect_timeout=connect_timeout,
            command_timeout=rules.seconds("command_timeout", command_timeout),
            health_check_interval=(
                None
                if health_check_interval is None
                else rules.seconds("health_check_interval", health_check_interval)
            ),
            reconnect_delay=rules.seconds("reconnect_delay", reconnect_delay),
            logger=logger,
        )
        self._unclosed: Unclosed | None = None
        self._entrusted = False

    # -- opening and closing ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect, if that is not done yet.

        Once the listener is open, a lost connection raises nothing: it is replaced, as long as that takes.

        Raises:
            psycopg.OperationalError: No server answered within the timeout for connecting.
            ListenerError: The listener cannot work there, or was closed before; the message says why.
        """
        try:
            self._loop.open(self._watch)
        except BaseException:
            self.close()
            raise

    def close(self, timeout: timedelta | float | None = 5) -> None:
        """Stop listening, call every `on_done`, and disconnect. A second call, or one by a callback, does no harm.

        An `open` or a command that is under way ends with an error.

        Args:
            timeout: A timedelta or seconds to wait for a callback that is running; after that a task is cancelled, a
                thread left alone. 0: it is not waited for. None: no limit.
        """
        patience = rules.timeout("timeout", timeout)
        if self._unclosed is not None:
            self._unclosed.closed()
        self._loop.close(patience)

    def _watch(self) -> None:
        if not self._entrusted:
            self._unclosed = Unclosed(
                self, f"a {type(self).__name__}", dropped=self._loop.abandon, at_exit=self._loop.at_exit
            )

    def _entrust(self) -> Self:
        """Leave it to its maker, who is watched over himself, to close this one; warn of nothing."""
        self._entrusted = True
        return self

    def _finish(self) -> None:
        """Close the connection of one whose event loop is gone."""
        self._loop.finish()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Return True while the listener has a connection that is not known to be lost."""
        return self._loop.present() is not None

    @property
    def pid(self) -> int | None:
        """Return the id of the server's process that serves the connection, None without one."""
        connection = self._loop.present()
        return None if connection is None else connection.pid

    # -- channels --------------------------------------------------------------------------------------------

    def listen(
        self,
        channel: str,
        on_notification: Callable[[Notify], object],
        *,
        on_out_of_sync: Callable[[str], object] | None = None,
        on_error: Callable[[str, Exception], object] | None = None,
        on_done: Callable[[str], object] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Have `on_notification` called for every notification on `channel`; return once the channel is listened to.

        A channel may be listened to several times, with different callbacks.

        Args:
            channel: The name of the channel.
            on_notification: Called with the notification, which has a `channel`, a `payload` and the `pid` of the
                sender's connection.
            on_out_of_sync: Called with the channel when the connection was lost, and the channel is being listened to
                again. Whatever happened in between went unheard; all that is committed from now on is delivered after
                this call.
            on_error: Called with the channel and the error when the connection was lost, or could not be replaced; it
                will be tried again.
            on_done: Called last, with the channel: `unlisten` or `close` has ended it.
            timeout: Seconds to wait while there is no connection; None: for as long as that takes.

        Raises:
            TimeoutError: There was no connection in time; it is as if the channel was never asked for.
            ListenerError: The listener is not open in this process, or closed.
            TypeError, ValueError: An argument is not usable; the message names it.
        """
        rules.channel("channel", channel)
        rules.function("on_notification", on_notification)
        for name, callback in (
            ("on_out_of_sync", on_out_of_sync),
            ("on_error", on_error),
            ("on_done", on_done),
        ):
            if callback is not None:
                rules.function(name, callback)
        patience = rules.timeout("timeout", timeout)
        self._hear(Subscription(channel, on_notification, on_out_of_sync, on_error, on_done), patience)

    def _hear(self, subscription: Subscription, patience: float | None) -> None:
        """Do what a subscription asks for; return once its channel is listened to."""
        self._loop.listen(subscription, patience)

    def unlisten(
        self,
        channel: str,
        on_notification: Callable[[Notify], object] | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Stop listening to a channel; return once no callback of it runs or will run any more.

        It is no error if the channel was not listened to.

        Args:
            channel: The name of the channel.
            on_notification: The one callback to stop calling; None: all of the channel.
            timeout: Seconds to wait; None: until the server has answered, or is given up after `command_timeout`.

        Raises:
            TimeoutError: It has not stopped in time; it will, as soon as that is possible.
            ListenerError: The listener is not open in this process, or closed.
        """
        rules.channel("channel", channel)
        if on_notification is not None:
            rules.function("on_notification", on_notification)
        self._loop.unlisten(channel, on_notification, rules.timeout("timeout", timeout))

    def _stop_hearing(self, subscription: Subscription) -> None:
        """End a subscription: its callbacks are not called any more, but for one that is running."""
        self._loop.stop_hearing(subscription)

    def notify(self, channel: str, payload: str = "") -> None:
        """Send a notification, on the listener's connection.

        Args:
            channel: The name of the channel.
            payload: The text to send, at most 7,999 bytes in UTF-8.

        Raises:
            psycopg.OperationalError: There is no connection at present.
            TimeoutError: There was no answer in time; the connection is given up and replaced.
            ListenerError: The listener is not open in this process, or closed.
            TypeError, ValueError: An argument is not usable; the message names it.
        """
        self.execute(*self.notify_query(channel, payload))

    @staticmethod
    def notify_query(channel: str, payload: str = "") -> tuple[LiteralString, tuple[str, str]]:
        """Return the statement and its parameters that notify when the caller's own transaction commits.

        Args:
            channel: The name of the channel.
            payload: The text to send, at most 7,999 bytes in UTF-8.
        """
        parameters = rules.channel("channel", channel), rules.payload("payload", payload)
        return "SELECT pg_catalog.pg_notify(%s, %s)", parameters

    # -- the connection, for those who want to prove that it works -------------------------------------------

    def execute(
        self, query: Command, params: Sequence[Any] | None = None, *, timeout: float | None = None
    ) -> list[Row]:
        """Run one short command on the listener's connection, in a transaction of its own, and return its rows.

        A notification that this command sends to a channel of the listener's own is delivered after the ones committed
        before it.

        Args:
            query: The command.
            params: Its parameters.
            timeout: Seconds to wait for the answer; None: `command_timeout`.

        Raises:
            psycopg.OperationalError: There is no connection at present.
            TimeoutError: There was no answer in time; the connection is given up and replaced.
            ListenerError: The listener is not open in this process, or closed.
        """
        seconds = None if timeout is None else rules.seconds("timeout", timeout)
        return self._loop.execute(query, params, seconds)

    def _execute_unless(self, given_up: SharedFuture[list[Row]], query: Command, timeout: float) -> list[Row]:
        """Run a command, likewise; an error that is set in `given_up` ends the wait, and is raised."""
        return self._loop.execute(query, (), timeout, given_up)

    def reconnect(self) -> None:
        """Give up the present connection, at once and whatever state it is in; the background loop makes a new one."""
        self._loop.reconnect()

    def add_lost_hook(self, hook: Callable[[], object]) -> None:
        """Have a plain function called the moment the connection is known to be lost, before anything else happens.

        Args:
            hook: A function without arguments.
        """
        rules.function("hook", hook)
        self._loop.lost_hooks.append(hook)

    def remove_lost_hook(self, hook: Callable[[], object]) -> None:
        """Stop calling a function that was given to `add_lost_hook`.

        Args:
            hook: The function.
        """
        rules.function("hook", hook)
        self._loop.lost_hooks.remove(hook)
