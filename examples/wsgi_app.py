"""Log in, be greeted, log out: a Flask app. `flask --app wsgi_app run` in this folder runs it."""

from __future__ import annotations

import os

from common import config
from flask import Flask, Response, request

from pgsession.contrib.flask import PgSession, session, session_manager

PASSWORDS = {"alice": "wonderland"}  # yours are hashed, and in a database


def make_app(database: str, schema: str, secret: str) -> Flask:
    """Each process opens its manager when the first session needs it."""
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=secret,
        SESSION_COOKIE_NAME="__Host-session",
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Strict",
        PGSESSION_DATABASE=database,
        PGSESSION_SCHEMA_NAME=schema,
        PGSESSION_CREATE_SCHEMA_IF_MISSING=True,
    )
    PgSession(app)

    @app.post("/login")
    def log_in() -> Response:
        name = request.form.get("username", "")
        if name not in PASSWORDS or PASSWORDS[name] != request.form.get("password"):
            return Response("authentication failed", 401)
        session.log_in(name)
        session["name"] = name
        return Response("login successful")

    @app.get("/")
    def greet() -> Response:
        if session.user_id is None:
            return Response("please log in", 401)
        return Response(f"hello, {session['name']}")

    @app.post("/logout")
    def log_out() -> Response:
        if session.user_id is None:
            return Response("no session", 401)
        session.log_out()
        return Response("logout successful")

    @app.post("/logout-everywhere")
    def log_out_everywhere() -> Response:
        if session.user_id is None:
            return Response("no session", 401)
        return Response(f"{session_manager().delete_user_sessions(session.user_id)} sessions ended")

    _ = log_in, greet, log_out, log_out_everywhere  # Flask has them
    return app


def create_app() -> Flask:
    """From the environment, for `flask run` and other servers."""
    return make_app(os.environ["DATABASE_URL"], config().schema_name, os.environ["SESSION_KEY"])
