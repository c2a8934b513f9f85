"""Browsers whose sessions were moved here from Django's own engine get them by the cookie of that, once."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.contrib.sessions import middleware
from django.http import HttpRequest, HttpResponse

from pgsession.contrib.django import configuration
from pgsession.contrib.django.store import SessionStore
from pgsession.web.moving import key_in

__all__ = ["SessionMiddleware"]


class SessionMiddleware(middleware.SessionMiddleware):
    """Is Django's, for the time of the move, and also takes the cookie that `PGSESSION["moved_from"]` names.

    That one stays in the browser until it logs out: for nodes that still run the service's version of before, and for
    the way back.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        super().__init__(get_response)
        self._old_name = configuration.read().moved_from

    def process_request(self, request: HttpRequest) -> None:
        """Give the request its session: that of the token, else that of the old cookie."""
        super().process_request(request)
        old = key_in(request.COOKIES.get(self._old_name or "", ""))
        if old is not None:
            session = self.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME) or old)
            assert isinstance(session, SessionStore), "SESSION_ENGINE is another one"
            session.old_key = old
            request.session = session

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Save the session, and have its cookie set or deleted; delete the old one where its session was ended."""
        response = super().process_response(request, response)
        name = self._old_name
        is_ended = getattr(getattr(request, "session", None), "is_old_key_ended", False)
        if is_ended and name is not None and name != settings.SESSION_COOKIE_NAME:
            response.delete_cookie(
                name,
                path=settings.SESSION_COOKIE_PATH,
                domain=settings.SESSION_COOKIE_DOMAIN,
                samesite=settings.SESSION_COOKIE_SAMESITE,
            )
        return response
