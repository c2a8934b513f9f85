# Generated from src/pgsession/_async/conninfo.py by tools/async_to_sync.py: never edit.

"""A conninfo is a text, or what a function of the user's returns at each connect: a password that changes, say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pgsession._concurrency import Question, call, connections_until


class Conninfo:
    """Makes connections with what is known of the database at that moment.

    A function that fails, does not answer in time, or returns what is no conninfo is a failed attempt to connect
    (psycopg.OperationalError). The error says nothing of what it returned: that may have a password in it.

    Args:
        given: The text, or the function.
        complete: Returns what to connect with beyond the text.
        patience: Seconds for the function to answer.

    Raises:
        psycopg.ProgrammingError: The text is no conninfo.
    """

    def __init__(
        self,
        given: str | Callable[[], object],
        complete: Callable[[str], dict[str, Any]],
        *,
        patience: float,
    ) -> None:
        self._given = given
        self._complete = complete
        self._patience = patience
        self._newest: str | None = None
        if isinstance(given, str):
            complete(given)  # which refuses what is no conninfo
        else:
            self._question = Question(given)

    def parameters(self) -> dict[str, Any]:
        """Return what to connect with."""
        if isinstance(self._given, str):
            return self._completed(self._given)
        try:
            text = self._question.ask(self._patience)
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

    def connections(self, ended: Callable[[], bool]) -> type[psycopg.Connection[Any]]:
        """Return a class of connections that lead there, of which no more come about once `ended` says so."""
        parameters = self.parameters

        class Connection(connections_until(ended)):  # type: ignore[misc]
            @classmethod
            def connect(cls, conninfo: str = "", **options: Any) -> Any:
                return super().connect(**{**parameters(), **options})

        return Connection

    def _completed(self, text: str) -> dict[str, Any]:
        return {"conninfo": text, **self._complete(text)}


def _failed(error: Exception) -> psycopg.OperationalError:
    return psycopg.OperationalError(f"the function that gives the conninfo failed: {type(error).__name__}")


def _checked(text: object) -> str:
    """Return the text that a function returned; what is wrong with it is said without showing it."""
    if not isinstance(text, str):
        if inspect.iscoroutine(text):
            text.close()
        raise psycopg.OperationalError(
            f"the function that gives the conninfo must return a str, not {type(text).__name__}"
        )
    try:
        conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        pass  # it shows the text
    else:
        return text
    raise psycopg.OperationalError("the function that gives the conninfo returned what is none")
