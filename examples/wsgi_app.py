"""Log in, be greeted, log out: a WSGI app. `flask --app wsgi_app run` in this folder runs it."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from common import config
from flask import Flask, Response, request

from pgsession import Session, SessionManager, Signer

PASSWORDS = {"alice": "wonderland"}  # yours are hashed, and in a database


def make_app(sessions: SessionManager) -> Flask:
    """The manager belongs to the process, and serves all of its threads."""
    app = Flask(__name__)

    def current_session() -> Session | None:
        return sessions.get_session_by_token(request.cookies.get("session", ""))

    @app.post("/login")
    def log_in() -> Response:
        name = request.form.get("username", "")
        if name not in PASSWORDS or PASSWORDS[name] != request.form.get("password"):
            return Response("authentication failed", 401)
        session = sessions.create_session(name, {"name": name, "last_login": datetime.now(UTC)})
        response = Response("login successful")
        token = sessions.token(session)
        assert token is not None, "nobody else knows the session yet"
        response.set_cookie("session", token, httponly=True, secure=True, samesite="Strict")
        return response

    @app.get("/")
    def greet() -> Response:
        session = current_session()
        return Response("please log in", 401) if session is None else Response(f"hello, {session['name']}")

    @app.post("/logout")
    def log_out() -> Response:
        session = current_session()
        if session is None:
            return Response("no session", 401)
        sessions.delete_session(session.id)
        response = Response("logout successful")
        response.delete_cookie("session", httponly=True, secure=True, samesite="Strict")
        return response

    @app.post("/logout-everywhere")
    def log_out_everywhere() -> Response:
        session = current_session()
        if session is None or session.user_id is None:
            return Response("no session", 401)
        return Response(f"{sessions.delete_user_sessions(session.user_id)} sessions ended")

    _ = log_in, greet, log_out, log_out_everywhere  # Flask has them
    return app


def create_app() -> Flask:
    """From the environment, for `flask run` and other servers. The manager closes with the process."""
    signer = Signer(os.environ["SESSION_KEY"].encode())
    sessions = SessionManager(os.environ["DATABASE_URL"], config(), signer=signer)
    sessions.open()
    return make_app(sessions)
