"""A conninfo is a text, or what a function of the user's returns at each connect: a password that changes, say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import psycopg

from pgsession._concurrency import AsyncQuestion, AsyncSharedFuture, async_connections_until, call
from pgsession._database.conninfo import check_readable
from pgsession._database.timelines import Timelines
from pgsession._protocol import rules
from pgsession.errors import ConfigError


class AsyncConninfo:
    """Makes connections with what is known of the database at that moment.

    A function that fails, does not answer in time, or returns what is no conninfo is a failed attempt to connect
    (psycopg.OperationalError; a `ConfigError` too, where it returned the wrong thing). The error says nothing of what
    it returned: that may have a password in it. Nor does a former primary make a connection, once its successor has.

    Args:
        given: The text, or the function.
        complete: Returns what to connect with beyond the text.
        patience: Seconds for the function to answer.
        timelines: What is known of former primaries, by those who connect to the same place; None: nobody asks, which
            spares a round trip.
    """

    def __init__(
        self,
        given: str | Callable[[], object],
        complete: Callable[[str], dict[str, Any]],
        *,
        patience: float,
        timelines: Timelines | None = None,
    ) -> None:
        self._given = given
        self._complete = complete
        self._patience = patience
        self._newest: str | None = None
        self._timelines = timelines
        if not isinstance(given, str):
            self._question = AsyncQuestion(given)

    async def parameters(self) -> dict[str, Any]:
        """Return what to connect with."""
        if isinstance(self._given, str):
            return self._completed(self._given)
        try:
            text = await self._question.ask(self._patience)
        except Exception as error:
            raise _failed(error) from error
        self._newest = _checked(text)
        return self._completed(self._newest)

    def text_at_exit(self) -> str:
        """Return the text where there is no event loop any more: of a coroutine function, its newest answer."""
        if isinstance(self._given, str):
            return self._given
        if inspect.iscoroutinefunction(self._given):
            return _checked(self._newest)
        try:
            text = call(self._given)
        except Exception as error:
            raise _failed(error) from error
        return _checked(text)

    def connections(
        self, ended: Callable[[], bool], first: AsyncSharedFuture[None] | None = None
    ) -> type[psycopg.AsyncConnection[Any]]:
        """Return a class of connections that lead there.

        Args:
            ended: Once it says so, no more of them come about.
            first: Is told how the first attempt to connect has ended.
        """
        parameters = self.parameters

        checked = None if self._timelines is None else self._timelines.checked

        class Connection(async_connections_until(ended, checked)):  # type: ignore[misc]
            @classmethod
            async def connect(cls, conninfo: str = "", **options: Any) -> Any:
                try:
                    connection = await super().connect(**{**await parameters(), **options})
                except Exception as error:
                    if first is not None:
                        first.set_error(error)
                    raise
                if first is not None:
                    first.set_result(None)
                return connection

        return Connection

    def _completed(self, text: str) -> dict[str, Any]:
        return {"conninfo": text, **self._complete(text)}


def _failed(error: Exception) -> psycopg.OperationalError:
    return psycopg.OperationalError(f"the function that gives the conninfo failed: {type(error).__name__}")


class _WrongResult(ConfigError, psycopg.OperationalError):
    """The function that gives the conninfo returned what is none: an attempt to connect that fails as others do."""


def _checked(text: object) -> str:
    """Return the text that a function returned; what is wrong with it is said without showing it."""
    if inspect.iscoroutine(text):
        text.close()
    try:
        checked = rules.conninfo_text("its result", text, least=1)
        check_readable("its result", checked)
    except (TypeError, ValueError) as error:
        reason = str(error)
    else:
        return checked
    raise _WrongResult(f"the function that gives the conninfo: {reason}")
