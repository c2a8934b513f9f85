"""The listener listens to many channels on one connection of its own; a lost one is replaced."""

from __future__ import annotations

import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, LiteralString, Self

import psycopg
from psycopg import Notify

from pgsession._concurrency import (
    LOGGER,
    AsyncBackgroundLoop,
    AsyncEvent,
    AsyncSharedFuture,
    AsyncSocketWaiter,
    AsyncThunk,
    async_call,
)
from pgsession._database.channels import for_each
from pgsession._database.conninfo import listener_parameters, server_settings
from pgsession._protocol import rules
from pgsession.errors import ListenerError

from .listener_connection import AsyncListenerConnection, Command, Row
from .subscription import AsyncSubscription

STABLE_SECONDS = 1  # a connection that lasted less counts as one more failure to connect

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"

STANDBY = (
    "the server is a standby, which cannot LISTEN: give the primary's address, or several hosts, "
    "of which the listener takes the one that is the primary"
)


class AsyncListener:
    """Listens to any number of channels on one connection of its own, and makes a new one when it is lost.

    Callbacks are plain functions or, for asyncio, coroutine functions. They run one after the other, in the listener's
    own task or thread, so a slow one delays all that follow; they may use the listener. One that raises is logged, and
    ends nothing.

    A listener is opened once, by `open` or `with`, and closed once. Use after that raises `ListenerError`.

    Args:
        conninfo: The server to connect to; TCP keepalive and timeouts are set where it does not set them itself. It has
            to lead to the primary, and not through a pooler that shares connections between transactions.
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
        conninfo: str = "",
        *,
        connect_timeout: int = 5,
        command_timeout: float = 10,
        health_check_interval: float | None = 30,
        reconnect_delay: float = 2,
        logger: logging.Logger = LOGGER,
    ) -> None:
        rules.instance("conninfo", conninfo, str, "a str")
        rules.count("connect_timeout", connect_timeout, 1, 2**31 - 1)
        rules.instance("logger", logger, logging.Logger, "a logging.Logger")
        self._parameters = listener_parameters(conninfo, connect_timeout=connect_timeout)
        self._settings = server_settings(conninfo)
        self._command_timeout = rules.seconds("command_timeout", command_timeout)
        self._health_check_interval = (
            None
            if health_check_interval is None
            else rules.seconds("health_check_interval", health_check_interval)
        )
        self._reconnect_delay = rules.seconds("reconnect_delay", reconnect_delay)
        self._logger = logger
        self._loop = AsyncBackgroundLoop(logger)
        self._lost_hooks: list[Callable[[], object]] = []
        self._requests: deque[tuple[AsyncThunk[Any], AsyncSharedFuture[Any]]] = deque()
        self._owner = 0
        self._waiter: AsyncSocketWaiter
        self._opened: AsyncSharedFuture[None] | None = None
        self._closing = AsyncEvent()
        self._ended = AsyncEvent()
        # What follows is changed by the background loop only.
        self._subscriptions: dict[str, list[AsyncSubscription]] = {}
        self._connection: AsyncListenerConnection | None = None
        self._connecting = False
        self._connected_at = 0.0
        self._failures = 0

    # -- opening and closing ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, if that is not done yet.

        Once the listener is open, a lost connection raises nothing: it is replaced, as long as that takes.

        Raises:
            psycopg.OperationalError: No server answered within the timeout for connecting.
            ListenerError: The listener cannot work there, or was closed before; the message says why.
        """
        if self._opened is None:
            if self._closing.is_set():
                raise _closed()
            self._owner = os.getpid()
            self._waiter = AsyncSocketWaiter()
            self._opened = AsyncSharedFuture()
            self._loop.start(partial(self._run, self._opened), "pgsession listener")
        try:
            await self._opened.wait()
        except BaseException:
            await self.close()
            raise

    async def close(self, timeout: float = 5) -> None:
        """Stop listening, call every `on_done`, and disconnect. A second call, or one by a callback, does no harm.

        A thread that is just connecting ends within its connect timeout, and calls `on_done` then.

        Args:
            timeout: Seconds to wait for a callback that is running; after that a task is cancelled, a thread left
                alone.
        """
        patience = rules.seconds("timeout", timeout, 0)
        self._closing.set()
        if self._opened is None or self._owner != os.getpid():
            return  # a child of a fork must not touch what it shares with its parent
        self._waiter.wake()
        connection = self._connection
        if connection is not None and connection.busy:
            connection.abort()
        await self._loop.stop(0 if self._connecting else patience)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """Return True while the listener has a connection that is not known to be lost."""
        return self._present() is not None

    @property
    def pid(self) -> int | None:
        """Return the id of the server's process that serves the connection, None without one."""
        connection = self._present()
        return None if connection is None else connection.pid

    def _present(self) -> AsyncListenerConnection | None:
        return self._connection if self._owner == os.getpid() else None

    # -- channels --------------------------------------------------------------------------------------------

    async def listen(
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
        await self._hear(
            AsyncSubscription(channel, on_notification, on_out_of_sync, on_error, on_done), patience
        )

    async def _hear(self, subscription: AsyncSubscription, patience: float | None = None) -> None:
        """Do what a subscription asks for; return once its channel is listened to."""
        try:
            await self._ask(partial(self._subscribe, subscription), patience)
            if self._loop.is_current() and not subscription.listening.done:
                raise _disconnected()  # a callback cannot wait here for what only its return makes possible
            await subscription.listening.wait(patience)
        except BaseException:
            self._drop(subscription)
            raise

    async def unlisten(self, channel: str, on_notification: Callable[[Notify], object] | None = None) -> None:
        """Stop listening to a channel; return once no callback of it runs or will run any more.

        It is no error if the channel was not listened to.

        Args:
            channel: The name of the channel.
            on_notification: The one callback to stop calling; None: all of the channel.

        Raises:
            ListenerError: The listener is not open in this process, or closed.
        """
        rules.channel("channel", channel)
        if on_notification is not None:
            rules.function("on_notification", on_notification)
        await self._ask(partial(self._unsubscribe, channel, on_notification), None)

    async def _stop_hearing(self, subscription: AsyncSubscription) -> None:
        """End a subscription; return once no callback of it runs or will run any more."""
        await self._ask(partial(self._remove, subscription), None)

    async def notify(self, channel: str, payload: str = "") -> None:
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
        await self.execute(*self.notify_query(channel, payload))

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

    async def execute(
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
        seconds = self._command_timeout if timeout is None else rules.seconds("timeout", timeout)
        self._check_open()
        if self._connection is None:
            raise _disconnected()
        rows: list[Row] = await self._ask(partial(self._execute, query, params, seconds), seconds)
        return rows

    def reconnect(self) -> None:
        """Give up the present connection, at once and whatever state it is in; the background loop makes a new one."""
        connection = self._present()
        if connection is not None:
            connection.abort()

    def add_lost_hook(self, hook: Callable[[], object]) -> None:
        """Have a plain function called the moment the connection is known to be lost, before anything else happens.

        Args:
            hook: A function without arguments.
        """
        rules.function("hook", hook)
        self._lost_hooks.append(hook)

    def remove_lost_hook(self, hook: Callable[[], object]) -> None:
        """Stop calling a function that was given to `add_lost_hook`.

        Args:
            hook: The function.
        """
        rules.function("hook", hook)
        self._lost_hooks.remove(hook)

    # -- what others ask the background loop to do -----------------------------------------------------------

    def _check_open(self) -> None:
        if self._opened is None or self._ended.is_set() or self._owner != os.getpid():
            raise _closed()

    async def _ask(self, action: AsyncThunk[Any], timeout: float | None) -> Any:
        """Have the loop do something between two notifications; a callback, running in the loop, does it itself."""
        self._check_open()
        if self._loop.is_current():
            return await action()
        future: AsyncSharedFuture[Any] = AsyncSharedFuture()
        self._requests.append((action, future))
        self._waiter.wake()
        if self._ended.is_set():  # perhaps after the loop's last look at the requests
            future.set_error(_closed())
        try:
            return await future.wait(timeout)
        except BaseException as error:
            withdrawn = future.set_error(error)  # so it is not begun any more
            if withdrawn and isinstance(error, TimeoutError):
                raise TimeoutError(f"the listener had no answer within {timeout} s") from None
            raise

    async def _answer_requests(self) -> None:
        for _ in range(len(self._requests)):  # notifications are delivered in between
            if self._closing.is_set():
                return
            action, future = self._requests.popleft()
            if future.done:
                continue
            try:
                future.set_result(await action())
            except Exception as error:  # it is raised in the one who asked
                future.set_error(error)
            except BaseException:
                future.set_error(_closed())
                raise

    async def _execute(self, query: Command, params: Sequence[Any] | None, timeout: float) -> list[Row]:
        if self._connection is None or not self._connection.alive:
            raise _disconnected()
        return await self._connection.execute(query, params, timeout)

    async def _subscribe(self, subscription: AsyncSubscription) -> None:
        """Listen to the channel of a subscription and set its `listening`; without a connection, the next one does."""
        if subscription.left:
            return
        connection = self._connection
        try:
            if connection is not None:
                await self._listen(connection, [subscription])
        except Exception:
            if connection is not None and connection.alive:  # so it is the command's fault
                subscription.left = True
                raise
            connection = None
        self._subscriptions.setdefault(subscription.channel, []).append(subscription)
        if connection is not None:
            subscription.listening.set_result(None)

    async def _unsubscribe(self, channel: str, on_notification: Callable[[Notify], object] | None) -> None:
        for subscription in list(self._subscriptions.get(channel, ())):
            if on_notification is None or subscription.on_notification == on_notification:
                await self._remove(subscription)
                await self._say_done(subscription)

    async def _remove(self, subscription: AsyncSubscription) -> None:
        subscription.left = True
        others = self._subscriptions.get(subscription.channel, [])
        if subscription not in others:
            return
        others.remove(subscription)
        if others:
            return
        del self._subscriptions[subscription.channel]
        if self._connection is not None and self._connection.alive:
            try:
                await self._unlisten(self._connection, subscription)
            except (psycopg.Error, TimeoutError) as error:
                self._logger.debug(
                    "UNLISTEN failed: %s", error
                )  # a lost connection, which the loop will notice

    def _drop(self, subscription: AsyncSubscription) -> None:
        """Have a subscription removed whose `listen` did not come to its end."""
        subscription.left = True
        if self._opened is not None and not self._ended.is_set():
            self._requests.append((partial(self._remove, subscription), AsyncSharedFuture()))
            self._waiter.wake()

    # -- the background loop ---------------------------------------------------------------------------------

    async def _run(self, opened: AsyncSharedFuture[None]) -> None:
        try:
            try:
                await self._connect()
            except Exception as error:
                opened.set_error(error)
                return
            opened.set_result(None)
            while not self._closing.is_set():
                try:
                    await self._serve()
                except Exception as error:
                    await self._lose(error)
                    await self._reconnect()
        finally:
            opened.set_error(_closed())
            await self._finish()

    async def _serve(self) -> None:
        """Deliver notifications and answer requests until the listener closes or an error says it is lost."""
        connection = self._connection
        assert connection is not None
        while not self._closing.is_set():
            await self._answer_requests()
            await self._deliver(connection)
            if self._closing.is_set():
                return
            if await self._waiter.wait(connection.fileno, self._health_check_interval):
                connection.receive()
            elif not self._requests and not self._closing.is_set():
                await connection.execute("SELECT", None, self._command_timeout)

    async def _deliver(self, connection: AsyncListenerConnection) -> None:
        while not self._closing.is_set() and (notification := connection.take()) is not None:
            for subscription in list(self._subscriptions.get(notification.channel, ())):
                if not subscription.left:
                    await self._call(subscription.on_notification, notification)

    async def _connect(self) -> None:
        self._connecting = True
        try:
            connection = await AsyncListenerConnection.connect(self._parameters)
        finally:
            self._connecting = False
        try:
            if self._closing.is_set():
                raise _closed()
            if connection.in_recovery:
                raise ListenerError(STANDBY)
            await connection.execute(self._settings, None, self._command_timeout)
            everybody = self._everybody()
            await self._listen(connection, everybody)
        except BaseException:
            await connection.close()
            raise
        self._subscriptions.clear()  # secret channels have other names now
        for subscription in everybody:
            self._subscriptions.setdefault(subscription.channel, []).append(subscription)
        self._connection = connection
        self._connected_at = time.monotonic()

    async def _listen(
        self, connection: AsyncListenerConnection, subscriptions: list[AsyncSubscription]
    ) -> None:
        channels = {subscription.channel for subscription in subscriptions if subscription.secret is None}
        try:
            if channels:
                await connection.execute(for_each("LISTEN {}", channels), None, self._command_timeout)
            for subscription in subscriptions:
                await self._learn(connection, subscription)
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise ListenerError(STANDBY) from error

    async def _learn(self, connection: AsyncListenerConnection, subscription: AsyncSubscription) -> None:
        """Listen to a secret channel, and learn its name.

        Where there is no secret yet the server makes one, whatever the role's transactions are by default.
        """
        if subscription.secret is None:
            return
        statement, label = subscription.secret
        await connection.execute(_BEGIN, None, self._command_timeout)
        try:
            rows = await connection.execute(statement, (label, True), self._command_timeout)
            await connection.execute("COMMIT", None, self._command_timeout)
        except psycopg.Error:
            if connection.alive:
                await connection.execute("ROLLBACK", None, self._command_timeout)
            raise
        subscription.channel = rows[0][0]

    async def _unlisten(self, connection: AsyncListenerConnection, subscription: AsyncSubscription) -> None:
        if subscription.secret is None:
            command = for_each("UNLISTEN {}", [subscription.channel])
            await connection.execute(command, None, self._command_timeout)
        else:
            statement, label = subscription.secret
            await connection.execute(statement, (label, False), self._command_timeout)

    async def _resume(self) -> None:
        """Tell every subscription that LISTEN is active again, before anything from the new connection is delivered."""
        for subscription in self._everybody():
            if not subscription.listening.done:
                subscription.listening.set_result(None)
            elif subscription.on_out_of_sync is not None:
                await self._call(subscription.on_out_of_sync, subscription.channel)

    async def _lose(self, error: Exception) -> None:
        connection, self._connection = self._connection, None
        if self._closing.is_set():
            return await self._part(connection)
        for hook in list(self._lost_hooks):
            await self._call(hook)
        expected = isinstance(error, (psycopg.Error, TimeoutError))
        self._logger.warning(
            "the listener lost its connection: %s", error, exc_info=None if expected else error
        )
        await self._part(connection)
        if connection is not None:
            await self._deliver(connection)  # what it had heard before
        if time.monotonic() - self._connected_at > STABLE_SECONDS:
            self._failures = 0
        await self._report(error)

    async def _reconnect(self) -> None:
        while not self._closing.is_set():
            await self._rest(_delay(self._failures, self._reconnect_delay))
            if self._closing.is_set():
                return
            self._failures += 1
            try:
                await self._connect()
            except Exception as error:
                if not self._closing.is_set():
                    self._logger.info("the listener cannot connect: %s", error)
                    await self._report(error)
            else:
                self._logger.info("the listener is connected again")
                return await self._resume()

    async def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._closing.is_set() and (remaining := end - time.monotonic()) > 0:
            await self._waiter.wait(None, remaining)
            await self._answer_requests()

    async def _finish(self) -> None:
        self._closing.set()
        connection, self._connection = self._connection, None
        await self._part(connection)
        for subscription in self._everybody():
            subscription.left = True
            await self._say_done(subscription)
        self._subscriptions.clear()
        self._ended.set()
        while self._requests:
            self._requests.popleft()[1].set_error(_closed())
        self._waiter.close()

    async def _part(self, connection: AsyncListenerConnection | None) -> None:
        if connection is not None:
            await connection.close()

    # -- callbacks -------------------------------------------------------------------------------------------

    def _everybody(self) -> list[AsyncSubscription]:
        return [subscription for group in self._subscriptions.values() for subscription in group]

    async def _report(self, error: Exception) -> None:
        for subscription in self._everybody():
            if subscription.on_error is not None and not subscription.left:
                await self._call(subscription.on_error, subscription.channel, error)

    async def _say_done(self, subscription: AsyncSubscription) -> None:
        if subscription.listening.set_error(_closed()):
            return  # it never began
        if subscription.on_done is not None:
            await self._call(subscription.on_done, subscription.channel)

    async def _call(self, callback: Callable[..., object], *args: object) -> None:
        try:
            await async_call(callback, *args)
        except Exception:
            self._logger.exception("a callback of the listener failed")


def _disconnected() -> psycopg.OperationalError:
    return psycopg.OperationalError("the listener has no connection at present")


def _closed() -> ListenerError:
    return ListenerError("the listener is not open in this process, or closed")


def _delay(failures: int, longest: float) -> float:
    """Return the seconds to wait before the next attempt: exponential, capped, and spread.

    They are spread because all nodes lose a restarted server at the same moment.
    """
    return min(longest, 0.05 * 2.0 ** min(failures, 20)) * random.uniform(0.5, 1)
