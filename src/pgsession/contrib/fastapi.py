"""Sessions as FastAPI's dependencies, beside the middleware of `pgsession.contrib.asgi`: the extra `fastapi`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Depends, HTTPException
from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyCookie

from pgsession.contrib.asgi import AsgiSession, SessionMiddleware

__all__ = ["CurrentSession", "SessionMiddleware", "SessionUser", "current_session", "session_as"]

_T = TypeVar("_T")

# The dependencies are coroutines, for functions are called in a thread.


async def current_session(connection: HTTPConnection) -> AsgiSession:
    """Return the session of a request or WebSocket; a dependency.

    Args:
        connection: The request or WebSocket.
    """
    return _session(connection)


CurrentSession = Annotated[AsgiSession, Depends(current_session)]


def session_as(type: type[_T]) -> Callable[[HTTPConnection], Awaitable[_T]]:
    """Return a dependency that is the session as a type sees it: see `pgsession.Session.as_type`.

    Args:
        type: A frozen `msgspec.Struct`, made of what the session has; or a TypedDict, which is the session itself, so
            that what is set in it is saved.
    """

    async def session(connection: HTTPConnection) -> _T:
        return _session(connection).as_type(type)

    return session


class SessionUser(APIKeyCookie):
    """Is a dependency for `Security`: the id of the user who is logged in. Nobody is: the answer is 401.

    Args:
        name: The name of the session's cookie, for the OpenAPI document.
        auto_error: False: None in place of the answer 401.
    """

    def __init__(self, name: str = "__Host-session", *, auto_error: bool = True) -> None:
        super().__init__(
            name=name,
            scheme_name="session",
            description="The cookie of a session that was logged in",
            auto_error=auto_error,
        )

    async def __call__(self, request: HTTPConnection) -> str | None:
        """Return the user's id."""
        user = _session(request).user_id
        if user is None and self.auto_error:
            raise HTTPException(401, "log in first")
        return user


def _session(connection: HTTPConnection) -> AsgiSession:
    session: AsgiSession = connection.scope["session"]
    return session
