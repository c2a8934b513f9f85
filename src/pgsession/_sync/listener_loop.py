# Generated from src/pgsession/_async/listener_loop.py by tools/async_to_sync.py: never edit.

"""A listener's loop does its work, in a task or thread of its own, without holding the listener that users have."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import Notify

from pgsession._concurrency import (
    GRACE,
    BackgroundLoop,
    BackgroundTasks,
    ConninfoFunction,
    Event,
    Home,
    SharedFuture,
    SocketWaiter,
    Thunk,
    call,
    deadline_in,
    left_until,
)
from pgsession._database.channels import for_each
from pgsession._database.conninfo import listener_parameters, server_settings
from pgsession._database.timelines import Timelines
from pgsession.errors import ListenerError

from .conninfo import Conninfo
from .listener_connection import Command, ListenerConnection, Row
from .subscription import Subscription

STABLE_SECONDS = 1  # a connection that lasted less counts as one more failure to connect

_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"

STANDBY = (
    "the server is a standby, which cannot LISTEN: give the primary's address, or several hosts, "
    "of which the listener takes the one that is the primary"
)


class ListenerLoop:
    """Keeps the connection, delivers what it hears, and does what is asked, in one background loop.

    The arguments are those of `Listener`, checked.
    """

    def __init__(
        self,
        conninfo: str | ConninfoFunction,
        *,
        connect_timeout: int,
        command_timeout: float,
        health_check_interval: float | None,
        reconnect_delay: float,
        logger: logging.Logger,
    ) -> None:
        complete = partial(listener_parameters, connect_timeout=connect_timeout)
        self._command_timeout = command_timeout
        self._health_check_interval = health_check_interval
        self._reconnect_delay = reconnect_delay
        self._logger = logger
        self._loop = BackgroundLoop(logger)
        self._starter = BackgroundTasks(logger, most=1)
        self._starting = threading.Lock()
        self.lost_hooks: list[Callable[[], object]] = []
        self._requests: deque[tuple[Thunk[Any], SharedFuture[Any]]] = deque()
        self._owner = 0
        self._home: Home
        self._waiter: SocketWaiter
        self._opened: SharedFuture[None] | None = None
        self._closing = Event()
        self._ended = Event()
        self.timelines = Timelines()
        self._connections = Conninfo(
            conninfo, complete, patience=connect_timeout, timelines=self.timelines
        ).connections(self._closing.is_set)
        # What follows is changed by the background loop only.
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._connection: ListenerConnection | None = None
        self._connected_at = 0.0
        self._failures = 0

    # -- opening and closing ---------------------------------------------------------------------------------

    def open(self, watch: Callable[[], None]) -> None:
        """Connect, if that is not done yet; call `watch` before anything is opened.

        Raises:
            ListenerError: It was closed before, or cannot listen there.
        """
        # Not in the caller's thread, who may be interrupted half way.
        opened = self._starter.complete(partial(self._start, watch), "pgsession listener")
        self._starter.drain(GRACE)
        opened.wait()

    def _start(self, watch: Callable[[], None]) -> SharedFuture[None]:
        """Have the loop run; return what is set once it listens, or cannot."""
        with self._starting:  # several threads of the library may open one that is lent to them
            if self._opened is None:
                if self._closing.is_set():
                    raise _closed()
                self._owner = os.getpid()
                self._home = Home()
                watch()
                self._waiter = SocketWaiter()
                self._opened = SharedFuture()
                self._loop.start(partial(self._run, self._opened), "pgsession listener")
            return self._opened

    def close(self, timeout: float | None) -> None:
        """End the loop: at once, but for a callback that is running, which has `timeout` seconds."""
        self._closing.set()
        if self._opened is None or self._owner != os.getpid():
            return  # a child of a fork must not touch what it shares with its parent
        self._waiter.wake()
        connection = self._connection
        if connection is not None and connection.busy:
            connection.abort()
        if not self._loop.stop(timeout):
            self._loop.stop(GRACE)

    def abandon(self, ended: Callable[[], None]) -> bool:
        """Begin to end the loop of a listener that was dropped."""
        return self._home.end(partial(self.close, GRACE), self.finish, ended)

    def at_exit(self, deadline: float) -> None:
        """End the loop of a listener that is open when the interpreter exits."""
        self._home.at_exit(partial(self.close, 0))

    def finish(self) -> None:
        """Close the connection of a loop that does not run any more."""
        self._closing.set()
        if self._connection is not None:
            self._connection.finish()

    def present(self) -> ListenerConnection | None:
        """Return the connection that is not known to be lost, None without one."""
        return self._connection if self._owner == os.getpid() else None

    def reconnect(self) -> None:
        """Give up the present connection: it is not lost, and no operator has to know."""
        connection = self.present()
        if connection is not None:
            connection.given_up = True
            connection.abort()

    # -- what others ask for ---------------------------------------------------------------------------------

    def listen(self, subscription: Subscription, timeout: float | None) -> None:
        """Have what a subscription asks for, and return once its channel is listened to."""
        deadline = deadline_in(timeout)
        try:
            self._ask(partial(self._subscribe, subscription), left_until(deadline))
            if self._loop.is_current() and not subscription.listening.done:
                raise _disconnected()  # a callback cannot wait here for what only its return makes possible
            subscription.listening.wait(left_until(deadline))
        except BaseException:
            self._drop(subscription)
            raise

    def unlisten(
        self, channel: str, on_notification: Callable[[Notify], object] | None, timeout: float | None
    ) -> None:
        """End the subscriptions of a channel, or those with one callback."""
        self._ask_in_any_case(partial(self._unsubscribe, channel, on_notification), timeout)

    def stop_hearing(self, subscription: Subscription) -> None:
        """End a subscription: nothing is told to it any more, and the channel is left as soon as that is possible."""
        self._drop(subscription)

    def _ask_in_any_case(self, action: Thunk[Any], timeout: float | None) -> None:
        try:
            self._ask(action, timeout)
        except TimeoutError:
            self._do_later(action)
            raise

    def execute(
        self,
        query: Command,
        params: Sequence[Any] | None,
        timeout: float | None,
        future: SharedFuture[list[Row]] | None = None,
    ) -> list[Row]:
        """Run a command on the connection, between two notifications; an error in the `future` ends the wait."""
        seconds = self._command_timeout if timeout is None else timeout
        self._check_open()
        if self._connection is None:
            raise _disconnected()
        rows: list[Row] = self._ask(partial(self._execute, query, params, seconds), seconds, future)
        return rows

    def _check_open(self) -> None:
        if self._opened is None or self._ended.is_set() or self._owner != os.getpid():
            raise _closed()

    def _ask(self, action: Thunk[Any], timeout: float | None, future: SharedFuture[Any] | None = None) -> Any:
        """Have the loop do something between two notifications; a callback, running in the loop, does it itself."""
        self._check_open()
        if self._loop.is_current():
            return action()
        future = SharedFuture() if future is None else future
        self._requests.append((action, future))
        self._waiter.wake()
        if self._ended.is_set():  # perhaps after the loop's last look at the requests
            future.set_error(_closed())
        try:
            return future.wait(timeout)
        except BaseException as error:
            withdrawn = future.set_error(error)  # so it is not begun any more
            if withdrawn and isinstance(error, TimeoutError):
                raise TimeoutError(f"the listener had no answer within {timeout} s") from None
            raise

    def _answer_requests(self) -> None:
        for _ in range(len(self._requests)):  # notifications are delivered in between
            if self._closing.is_set():
                return
            action, future = self._requests.popleft()
            if future.done:
                continue
            try:
                future.set_result(action())
            except Exception as error:  # it is raised in the one who asked
                future.set_error(error)
            except BaseException:
                future.set_error(_closed())
                raise

    def _execute(self, query: Command, params: Sequence[Any] | None, timeout: float) -> list[Row]:
        if self._connection is None or not self._connection.alive:
            raise _disconnected()
        return self._connection.execute(query, params, timeout)

    def _subscribe(self, subscription: Subscription) -> None:
        """Listen to the channel of a subscription and set its `listening`; without a connection, the next one does."""
        if subscription.left:
            return
        connection = self._connection
        try:
            if connection is not None:
                self._listen(connection, [subscription])
        except Exception:
            if connection is not None and connection.alive:  # so it is the command's fault
                subscription.left = True
                raise
            connection = None
        self._subscriptions.setdefault(subscription.channel, []).append(subscription)
        if connection is not None:
            subscription.listening.set_result(None)

    def _unsubscribe(self, channel: str, on_notification: Callable[[Notify], object] | None) -> None:
        for subscription in list(self._subscriptions.get(channel, ())):
            if on_notification is None or subscription.on_notification == on_notification:
                self._remove(subscription)
                self._say_done(subscription)

    def _remove(self, subscription: Subscription) -> None:
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
                self._unlisten(self._connection, subscription)
            except (psycopg.Error, TimeoutError) as error:  # a lost connection, which the loop will notice
                if not self._closing.is_set():
                    self._logger.debug("UNLISTEN failed: %s", error)

    def _drop(self, subscription: Subscription) -> None:
        """Have a subscription removed whose `listen` did not come to its end."""
        subscription.left = True
        self._do_later(partial(self._remove, subscription))

    def _do_later(self, action: Thunk[Any]) -> None:
        """Have the loop do something for which nobody waits."""
        if self._opened is not None and not self._ended.is_set() and self._owner == os.getpid():
            self._requests.append((action, SharedFuture()))
            self._waiter.wake()

    # -- the background loop ---------------------------------------------------------------------------------

    def _run(self, opened: SharedFuture[None]) -> None:
        try:
            try:
                self._connect()
            except Exception as error:
                opened.set_error(error)
                return
            opened.set_result(None)
            while not self._closing.is_set():
                try:
                    self._serve()
                except Exception as error:
                    self._lose(error)
                    self._reconnect()
        finally:
            opened.set_error(_closed())
            self._finish()

    def _serve(self) -> None:
        """Deliver notifications and answer requests until the listener closes or an error says it is lost."""
        connection = self._connection
        assert connection is not None
        while not self._closing.is_set():
            self._answer_requests()
            self._deliver(connection)
            if self._closing.is_set():
                return
            heard = self._waiter.wait(connection, self._health_check_interval)
            if not heard and not self._requests and not self._closing.is_set():
                connection.execute("SELECT", None, self._command_timeout)

    def _deliver(self, connection: ListenerConnection) -> None:
        while not self._closing.is_set() and (notification := connection.take()) is not None:
            for subscription in list(self._subscriptions.get(notification.channel, ())):
                if not subscription.left:
                    self._call(subscription.on_notification, notification)

    def _connect(self) -> None:
        connection = ListenerConnection.connect(self._connections)
        try:
            if self._closing.is_set():
                raise _closed()
            if connection.in_recovery:
                raise ListenerError(STANDBY)
            connection.execute(server_settings(connection.conninfo), None, self._command_timeout)
            everybody = self._everybody()
            self._listen(connection, everybody)
        except BaseException:
            connection.close()
            raise
        self._subscriptions.clear()  # secret channels have other names now
        for subscription in everybody:
            self._subscriptions.setdefault(subscription.channel, []).append(subscription)
        self._connection = connection
        self._connected_at = time.monotonic()

    def _listen(self, connection: ListenerConnection, subscriptions: list[Subscription]) -> None:
        channels = {subscription.channel for subscription in subscriptions if subscription.secret is None}
        try:
            if channels:
                connection.execute(for_each("LISTEN {}", channels), None, self._command_timeout)
            for subscription in subscriptions:
                self._learn(connection, subscription)
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise ListenerError(STANDBY) from error

    def _learn(self, connection: ListenerConnection, subscription: Subscription) -> None:
        """Listen to a secret channel, and learn its name.

        Where there is no secret yet the server makes one, whatever the role's transactions are by default.
        """
        if subscription.secret is None:
            return
        statement, label = subscription.secret
        connection.execute(_BEGIN, None, self._command_timeout)
        try:
            rows = connection.execute(statement, (label, True), self._command_timeout)
            connection.execute("COMMIT", None, self._command_timeout)
        except psycopg.Error:
            if connection.alive:
                connection.execute("ROLLBACK", None, self._command_timeout)
            raise
        subscription.channel = rows[0][0]

    def _unlisten(self, connection: ListenerConnection, subscription: Subscription) -> None:
        if subscription.secret is None:
            command = for_each("UNLISTEN {}", [subscription.channel])
            connection.execute(command, None, self._command_timeout)
        else:
            statement, label = subscription.secret
            connection.execute(statement, (label, False), self._command_timeout)

    def _resume(self) -> None:
        """Tell every subscription that LISTEN is active again, before anything from the new connection is delivered."""
        for subscription in self._everybody():
            if not subscription.listening.done:
                subscription.listening.set_result(None)
            elif subscription.on_out_of_sync is not None and not subscription.left:
                self._call(subscription.on_out_of_sync, subscription.channel)

    def _lose(self, error: Exception) -> None:
        connection, self._connection = self._connection, None
        if self._closing.is_set():
            return self._part(connection)
        for hook in list(self.lost_hooks):
            self._call(hook)
        if connection is not None and connection.given_up:
            self._logger.info("the listener has given up its connection, and makes another")
        else:
            expected = isinstance(error, (psycopg.Error, TimeoutError))
            # A node tells it in words of its own: what it means for reads.
            level = logging.INFO if expected and self.lost_hooks else logging.WARNING
            self._logger.log(
                level,
                "the listener lost its connection: %s",
                error,
                exc_info=None if expected else error,
                extra={"pgsession_event": "listener_lost"},
            )
        self._part(connection)
        if connection is not None:
            self._deliver(connection)  # what it had heard before
        if time.monotonic() - self._connected_at > STABLE_SECONDS:
            self._failures = 0
        self._report(error)

    def _reconnect(self) -> None:
        while not self._closing.is_set():
            self._rest(_delay(self._failures, self._reconnect_delay))
            if self._closing.is_set():
                return
            self._failures += 1
            try:
                self._connect()
            except Exception as error:
                if not self._closing.is_set():
                    self._logger.info("the listener cannot connect: %s", error)
                    self._report(error)
            else:
                self._logger.info("the listener is connected again")
                return self._resume()

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._closing.is_set() and (remaining := end - time.monotonic()) > 0:
            self._waiter.wait(None, remaining)
            self._answer_requests()

    def _finish(self) -> None:
        self._closing.set()
        connection, self._connection = self._connection, None
        self._part(connection)
        for subscription in self._everybody():
            subscription.left = True
            self._say_done(subscription)
        self._subscriptions.clear()
        self._ended.set()
        while self._requests:
            self._requests.popleft()[1].set_error(_closed())
        self._waiter.close()

    def _part(self, connection: ListenerConnection | None) -> None:
        if connection is not None:
            self._waiter.leave()
            connection.close()

    # -- callbacks -------------------------------------------------------------------------------------------

    def _everybody(self) -> list[Subscription]:
        return [subscription for group in self._subscriptions.values() for subscription in group]

    def _report(self, error: Exception) -> None:
        for subscription in self._everybody():
            if subscription.on_error is not None and not subscription.left:
                self._call(subscription.on_error, subscription.channel, error)

    def _say_done(self, subscription: Subscription) -> None:
        if subscription.listening.set_error(_closed()):
            return  # it never began
        if subscription.on_done is not None:
            self._call(subscription.on_done, subscription.channel)

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        try:
            call(callback, *args)
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
