"""The session stores of web frameworks, called as their middleware calls them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .race import Missing
from .service import ATTRIBUTES, SESSIONS, THREE, Service
from .stage import Stage

LIFETIME = 30 * 86400


@contextmanager
def starsessions(stage: Stage) -> Iterator[Service]:
    """starsessions with its Redis store: load, save."""
    import redis.asyncio
    from starlette.requests import HTTPConnection
    from starsessions import JsonSerializer
    from starsessions.session import SessionHandler
    from starsessions.stores.redis import RedisStore

    client: Any = redis.asyncio.Redis.from_url(stage.redis, max_connections=1000)
    store, serializer = RedisStore(connection=client), JsonSerializer()

    async def load(session_id: str | None) -> SessionHandler:
        connection = HTTPConnection({"type": "http", "headers": []})
        handler = SessionHandler(connection, session_id, store, serializer, LIFETIME)
        await handler.load()
        return handler

    async def change(session_id: str) -> None:
        handler = await load(session_id)
        handler.connection.session["cart"] = ["book", "another"]
        await handler.save(LIFETIME)

    async def create(attributes: dict[str, Any] = THREE) -> str:
        handler = await load(None)
        handler.connection.session.update(attributes)
        return await handler.save(LIFETIME)

    async def populate() -> list[str]:
        return [await create(ATTRIBUTES) for _ in range(SESSIONS)]

    yield Service(stage.loop.run(populate()), load, change, create)
    stage.loop.run(client.aclose())


@contextmanager
def flask_session(stage: Stage) -> Iterator[Service]:
    """Flask-Session with Redis: open_session, save_session."""
    import flask
    import redis
    from flask_session.redis.redis import RedisSessionInterface
    from werkzeug.test import EnvironBuilder

    app = flask.Flask("benchmark")
    client = redis.Redis.from_url(stage.redis)
    interface = RedisSessionInterface(app, client)

    def request(session_id: str | None) -> flask.Request:
        cookies: Any = (
            {} if session_id is None else {"Cookie": f"{app.config['SESSION_COOKIE_NAME']}={session_id}"}
        )
        return flask.Request(EnvironBuilder(headers=cookies).get_environ())

    def save(session: Any, attributes: dict[str, Any]) -> str:
        session.update(attributes)
        interface.save_session(app, session, flask.Response())
        return str(session.sid)

    ids = [save(interface.open_session(app, request(None)), ATTRIBUTES) for _ in range(SESSIONS)]
    requests = {session_id: request(session_id) for session_id in ids}
    yield Service(
        ids,
        read=lambda session_id: interface.open_session(app, requests[session_id]),
        change=lambda session_id: save(
            interface.open_session(app, requests[session_id]), {"cart": ["book", "another"]}
        ),
        create=lambda: save(interface.open_session(app, request(None)), THREE),
    )
    client.close()


@contextmanager
def django(stage: Stage, backend: str = "cached_db") -> Iterator[Service]:
    """Django's sessions in PostgreSQL: `db`, or `cached_db` with the cache in this process.

    One caller at a time: it has a connection for each thread.
    """
    store = configured_django(stage)(backend)

    def change(session_id: str) -> None:
        session = store(session_id)
        session["cart"] = ["book", "another"]
        session.save()

    def create(attributes: dict[str, Any] = THREE) -> str:
        session = store()
        session.update(attributes)
        session.save()
        return str(session.session_key)

    yield Service(
        [create(ATTRIBUTES) for _ in range(SESSIONS)], lambda key: store(key).load(), change, create
    )
    from django.db import connections

    connections.close_all()


def configured_django(stage: Stage) -> Any:
    """Configures Django, once for the process; returns what gives a backend's class."""
    stage.once(_configured)
    return _django_store


@contextmanager
def _configured(stage: Stage) -> Iterator[None]:
    import django as package
    from django.conf import settings
    from psycopg.conninfo import conninfo_to_dict

    database_of_all = stage.new_database()
    given = conninfo_to_dict(database_of_all)
    parts = {
        "NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port",
    }  # fmt: skip
    database = {ours: str(given.get(theirs, "")) for ours, theirs in parts.items()}
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "CONN_MAX_AGE": None,
                **database,
            }
        },
        CACHES=_caches(stage),
        INSTALLED_APPS=["django.contrib.sessions", "pgsession.contrib.django"],
        PGSESSION={"database": database_of_all},
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="benchmark" * 5,
        USE_TZ=True,
    )
    package.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    yield


def _caches(stage: Stage) -> dict[str, Any]:
    in_process = {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 100_000},
    }  # fmt: skip
    try:
        in_redis = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": stage.redis}
    except Missing:
        return {"default": in_process}
    return {"default": in_process, "redis": in_redis}


def _django_store(backend: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"django.contrib.sessions.backends.{backend}").SessionStore
    except ImportError as error:
        raise Missing(str(error)) from error
