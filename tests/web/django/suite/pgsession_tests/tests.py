"""The tests that Django has for every engine of its own, on ours."""

from __future__ import annotations

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, SimpleTestCase, override_settings
from sessions_tests.tests import SessionTestsMixin

from pgsession.contrib.django import SessionStore


class PgSessionTests(SessionTestsMixin, SimpleTestCase):
    backend = SessionStore


@override_settings(USE_TZ=True)
class PgSessionWithTimeZoneTests(PgSessionTests):
    pass


class PgSessionMiddlewareTests(SimpleTestCase):
    def test_empty_session_saved(self) -> None:
        """Django's own test of this name looks into its table."""

        def set_value(request: HttpRequest) -> HttpResponse:
            request.session["foo"] = "bar"
            return HttpResponse("Session test")

        request = RequestFactory().get("/")
        middleware = SessionMiddleware(set_value)
        response = middleware(request)
        self.assertEqual(tuple(request.session.items()), (("foo", "bar"),))
        before = request.session.session_key
        self.assertEqual(response.cookies[settings.SESSION_COOKIE_NAME].value, before)
        self.assertEqual(response.headers["Vary"], "Cookie")

        del request.session["foo"]
        response = middleware.process_response(request, HttpResponse("Session test"))
        self.assertEqual(dict(request.session.values()), {})
        after = request.session.session_key
        self.assertIs(SessionStore().exists(after), True)
        self.assertEqual(SessionStore(after).load(), {})
        self.assertEqual(SessionStore(before).load(), {})
        self.assertEqual(response.cookies[settings.SESSION_COOKIE_NAME].value, after)
        self.assertEqual(response.headers["Vary"], "Cookie")
