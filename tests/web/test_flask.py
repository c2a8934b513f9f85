"""Flask's adapter, where the rules over HTTP do not reach: settings, values, what Flask itself says of sessions."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

pytest.importorskip("flask")

import flask
from flask import Flask, session, stream_with_context
from flask.json.tag import JSONTag
from flask.testing import FlaskClient
from markupsafe import Markup
from werkzeug.test import TestResponse

import pgsession
from pgsession import Codec, Config, ConfigError
from pgsession.contrib.flask import FlaskSession, PgSession, PgSessionInterface, session_manager
from tests.tables import Tables

PATIENCE = 30
Make = Callable[..., Flask]


@pytest.fixture
def make(dsn: str, config: Config, tables: Tables) -> Iterator[Make]:
    """`make(PGSESSION_ON_CONFLICT="fail")`: an application."""
    made: list[Flask] = []

    def application(**settings: Any) -> Flask:
        app = Flask(__name__)
        app.config.update(
            {"SECRET_KEY": "a secret", "TESTING": True, "PGSESSION_DATABASE": dsn}
            | {"PGSESSION_SCHEMA_NAME": config.schema_name, "PGSESSION_POOL_MAX_SIZE": 2}
            | settings
        )
        PgSession(app)

        @app.get("/put")
        def put() -> Any:
            session.update(flask.request.args)
            return dict(session)

        @app.get("/get")
        def get() -> Any:
            return dict(session)

        @app.get("/nothing")
        def nothing() -> str:
            return ""

        @app.get("/pop/<key>")
        def pop(key: str) -> str:
            return str(session.pop(key))

        made.append(app)
        return app

    yield application
    for app in made:
        app.extensions["pgsession"].process.close()


def cookie_of(response: TestResponse) -> str | None:
    return response.headers.get("Set-Cookie")


def ours(session: object) -> FlaskSession:
    """The session of the request itself."""
    found = flask.request.environ["pgsession.session"]
    assert isinstance(found, FlaskSession)
    return found


# ---- applications ----


def test_a_factory_and_several_applications_each_with_its_schema(make: Make, dsn: str) -> None:
    extension = PgSession()
    other = Flask("other")
    other.config.update(
        SECRET_KEY="another", PGSESSION_DATABASE=dsn, PGSESSION_SCHEMA_NAME="flask_other",
        PGSESSION_CREATE_SCHEMA_IF_MISSING=True, SESSION_COOKIE_NAME="other", TESTING=True,
    )  # fmt: skip
    extension.init_app(other)
    other.add_url_rule("/put", view_func=lambda: session.update(flask.request.args) or dict(session))
    first, second = make().test_client(), other.test_client()
    assert first.get("/put?a=1").json == {"a": "1"}
    assert second.get("/put?b=2").json == {"b": "2"}
    assert first.get("/get").json == {"a": "1"}
    with other.app_context():
        assert session_manager() is session_manager(other)
        assert session_manager().count_sessions() == 1
        session_manager().delete_all_sessions()
    other.extensions["pgsession"].process.close()


def test_an_application_that_is_dropped_closes_its_manager(make: Make, dsn: str, config: Config) -> None:
    before = len(pgsession.Admin(dsn, config).nodes())
    app = Flask(__name__)
    app.config.update(SECRET_KEY="x", PGSESSION_DATABASE=dsn, PGSESSION_SCHEMA_NAME=config.schema_name)
    PgSession(app)
    session_manager(app)
    assert len(pgsession.Admin(dsn, config).nodes()) == before + 1
    del app
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "pgsession close":
            thread.join(PATIENCE)
    assert len(pgsession.Admin(dsn, config).nodes()) == before


def test_nothing_is_opened_before_a_session_needs_it(make: Make) -> None:
    app = make(PGSESSION_DATABASE="host=/nowhere dbname=none")
    client = app.test_client()
    assert client.get("/nothing").status_code == 200 and client.get("/get").json == {}
    client.set_cookie("session", "forged")
    assert client.get("/nothing").status_code == 200

    @app.cli.command()
    def greet() -> None:
        print("hello")

    assert app.test_cli_runner().invoke(args=["greet"]).output == "hello\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"PGSESSION_DATABASE": None}, "PGSESSION_DATABASE: a conninfo"),
        ({"SECRET_KEY_FALLBACKS": "an older one"}, "SECRET_KEY_FALLBACKS: a list"),
        ({"PGSESSION_MAX_SESIONS": 1}, "PGSESSION_MAX_SESIONS: there is no such"),
        ({"PGSESSION_MAX_SESSIONS": -1}, "PGSESSION_MAX_SESSIONS: must be"),
        ({"PGSESSION_ON_CONFLICT": "win"}, "PGSESSION_ON_CONFLICT: must be"),
        ({"PGSESSION_REMEMBER_FOR": 0}, "PGSESSION_REMEMBER_FOR: must be"),
        ({"SESSION_COOKIE_SAMESITE": "None"}, "SESSION_COOKIE_SAMESITE: .*secure"),
        ({"SESSION_COOKIE_PARTITIONED": True}, "SESSION_COOKIE_PARTITIONED: "),
        ({"SESSION_COOKIE_NAME": "__Host-session"}, "SESSION_COOKIE_NAME: .*secure"),
        ({"SESSION_COOKIE_DOMAIN": "a;b"}, "SESSION_COOKIE_DOMAIN: "),
        ({"PERMANENT_SESSION_LIFETIME": timedelta(days=500)}, "PERMANENT_SESSION_LIFETIME: .*400 days"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_the_start(
    make: Make, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**settings)


def test_a_database_is_needed() -> None:
    with pytest.raises(ConfigError, match="PGSESSION_DATABASE"):
        PgSession(Flask(__name__))


def test_unsafe_settings_are_warned_of(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    make()
    safe = {"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_SAMESITE": "Lax", "TESTING": False}
    make(**safe)
    assert not caplog.records
    make(TESTING=False, SESSION_COOKIE_HTTPONLY=False)
    assert [record.getMessage().split()[0] for record in caplog.records] == [
        f"SESSION_COOKIE_{name}" for name in ("SECURE", "HTTPONLY", "SAMESITE")
    ]


def test_keys_are_rotated_as_flask_says(make: Make) -> None:
    app = make(SECRET_KEY="old")
    client = app.test_client()
    client.get("/put?n=1")
    app.config.update(SECRET_KEY="new")
    assert client.get("/get").json == {}
    app.config.update(SECRET_KEY_FALLBACKS=["older", "old"])
    assert client.get("/get").json == {"n": "1"}
    app.config.update(SECRET_KEY=None)
    with pytest.raises(RuntimeError, match="no secret key"):
        client.get("/put?n=2")


# ---- values ----


def test_values_come_back_as_they_were_put_in(make: Make) -> None:
    app = make()
    identity, now = uuid4(), datetime.now(UTC).replace(microsecond=0)
    values = {
        "tuple": (1, (2, [3])), "bytes": b"\xff", "markup": Markup("<b>"), "uuid": identity, "date": now,
        "like": {" t": "none"}, "deep": {"a": [(1,), b""]}, "plain": [1, "a", None],
    }  # fmt: skip
    with app.test_client() as client:
        with client.session_transaction() as writing:
            writing.update(values)
        with client.session_transaction() as reading:
            assert dict(reading) == values and type(reading["tuple"]) is tuple
            assert isinstance(reading["uuid"], UUID) and type(reading["markup"]) is Markup
            assert not reading.modified, "reading is no change"


def test_tags_of_the_applications_own_and_a_codec_of_its_own(make: Make, tables: Tables) -> None:
    class TagSet(JSONTag):
        key = " s"

        def check(self, value: Any) -> bool:
            return isinstance(value, set)

        def to_json(self, value: Any) -> Any:
            return sorted(value)

        def to_python(self, value: Any) -> Any:
            return set(value)

    class Xor(Codec):
        def seal(self, session_id: UUID, key: str, data: bytes) -> bytes:
            return bytes(byte ^ 1 for byte in data)

        open = seal

    for options in ({}, {"PGSESSION_CODEC": Xor()}):
        app = make(**options)
        interface = app.session_interface
        assert isinstance(interface, PgSessionInterface)
        interface.serializer.register(TagSet, force=True)
        with app.test_client() as client:
            with client.session_transaction() as writing:
                writing["set"] = {1, 2}
            with client.session_transaction() as reading:
                assert reading["set"] == {1, 2}
        assert ("[1,2]" in str(tables.one("SELECT value::text FROM {session_attributes}"))) is (options == {})
        tables.run("DELETE FROM {sessions}")


def test_a_change_inside_of_a_value_is_found(make: Make) -> None:
    app = make()

    @app.get("/add")
    def add() -> Any:
        session.setdefault("cart", {"books": []})["books"].append(1)
        return dict(session)

    client = app.test_client()
    for many in (1, 2, 3):
        assert client.get("/add").json == {"cart": {"books": [1] * many}}
        assert client.get("/get").json == {"cart": {"books": [1] * many}}


def test_flasks_messages(make: Make) -> None:
    app = make()

    @app.get("/flash")
    def flash() -> str:
        flask.flash("saved", "info")
        return ""

    @app.get("/messages")
    def messages() -> Any:
        return [list(message) for message in flask.get_flashed_messages(with_categories=True)]

    client = app.test_client()
    client.get("/flash")
    assert client.get("/messages").json == [["info", "saved"]] and client.get("/messages").json == []


# ---- what is saved, and when ----


def test_what_after_request_functions_do_is_saved_and_a_stream_before_it_begins(make: Make) -> None:
    app = make()

    @app.after_request
    def note(response: Any) -> Any:
        session["noted"] = True
        return response

    @app.get("/stream")
    def stream() -> Any:
        session["n"] = 1

        @stream_with_context
        def lines() -> Iterator[str]:
            yield str(session["n"])

        return app.response_class(lines())

    client = app.test_client()
    assert client.get("/stream").text == "1"
    assert client.get("/get").json == {"noted": True, "n": 1}


def test_a_change_in_a_stream_is_saved_by_save_or_warned_of(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()

    @app.get("/stream/<how>")
    def stream(how: str) -> Any:
        session["n"] = 1

        @stream_with_context
        def lines() -> Iterator[str]:
            session["n"] = 2
            if how == "save":
                ours(session).save()
            yield ""

        return app.response_class(lines())

    client = app.test_client()
    client.get("/stream/save")
    assert not caplog.records and client.get("/get").json == {"n": 2}
    client.get("/stream/lose")
    assert "call `session.save()`" in caplog.text and client.get("/get").json == {"n": 1}


def test_a_handler_that_raises_saves_nothing_and_its_page_is_shown(make: Make, tables: Tables) -> None:
    app = make(PROPAGATE_EXCEPTIONS=False)

    @app.errorhandler(500)
    def sorry(_: Exception) -> Any:
        session["seen"] = "sorry"
        return "sorry", 500

    @app.errorhandler(404)
    def missing(_: Exception) -> Any:
        session["seen"] = "missing"
        return "missing", 404

    @app.get("/fail")
    def fail() -> str:
        session["n"] = 1
        raise ZeroDivisionError

    client = app.test_client()
    assert client.get("/fail").text == "sorry" and tables.count() == 0
    assert client.get("/none").text == "missing" and client.get("/get").json == {"seen": "missing"}
    app.config.update(PROPAGATE_EXCEPTIONS=True)
    with pytest.raises(ZeroDivisionError):
        client.get("/fail")
    assert client.get("/get").json == {"seen": "missing"}


def test_a_save_that_fails_is_not_tried_again_for_the_page_about_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make(PROPAGATE_EXCEPTIONS=False)
    tries = []

    def fail(*_: Any, **__: Any) -> None:
        tries.append(1)
        raise ZeroDivisionError

    monkeypatch.setattr(session_manager(app), "create_session", fail)
    assert app.test_client().get("/put?n=1").status_code == 500 and tries == [1]


@pytest.mark.parametrize("handled", [False, True])
def test_a_conflict_is_409_as_the_application_answers_it(make: Make, handled: bool) -> None:
    app = make(PGSESSION_ON_CONFLICT="fail")
    if handled:
        app.register_error_handler(409, lambda _: ("once more", 409))

    @app.get("/late")
    def late() -> Any:
        session["n"] = int(session["n"]) + 1
        other = flask.request.headers["Cookie"]
        app.test_client(use_cookies=False).get("/put?n=7", headers={"Cookie": other})
        return "no", 200, {"X-Late": "yes"}

    @app.get("/log-in")
    def log_in() -> str:
        ours(session).log_in("alice")
        return "yes"

    @app.get("/log-in-late")
    def log_in_late() -> Any:
        ours(session).log_in("alice")
        ours(session).save()
        session["n"] = 8
        session_manager().modify_session(ours(session).session_id, lambda session: session.update(n=9))
        return "no"

    client = app.test_client()
    client.get("/put?n=1")
    answer = client.get("/log-in-late")
    assert answer.status_code == 409 and cookie_of(answer) is not None, "what was saved before is kept"
    assert "Cookie" in answer.vary and client.get("/get").json == {"n": 9}
    client = app.test_client()
    client.get("/put?n=1")
    old = client.get_cookie("session")
    answer = client.get("/late")
    assert answer.status_code == 409 and cookie_of(answer) is None and "X-Late" not in answer.headers
    assert (answer.text == "once more") is handled
    assert old is not None and client.get("/log-in").text == "yes"
    client.set_cookie("session", old.value)
    answer = client.get("/log-in")
    assert answer.status_code == 409 and (answer.text == "once more") is handled


def test_a_turn_ends_with_a_request_that_raises(make: Make) -> None:
    app = make(PGSESSION_ON_CONFLICT="serial", PGSESSION_SERIAL_TIMEOUT=1)

    @app.get("/fail")
    def fail() -> str:
        session["n"] = 1
        raise ZeroDivisionError

    @app.get("/nested")
    def nested() -> Any:
        session.get("n")
        cookie = flask.request.headers["Cookie"]
        return str(app.test_client(use_cookies=False).get("/get", headers={"Cookie": cookie}).status_code)

    client = app.test_client()
    client.get("/put?n=0")
    with pytest.raises(ZeroDivisionError):
        client.get("/fail")
    assert client.get("/get").json == {"n": "0"}
    assert client.get("/nested").text == "409", "it waits for its own turn"


def test_an_emptied_session_ends_unless_another_request_has_put_something_in(
    make: Make, tables: Tables
) -> None:
    app = make()

    @app.get("/empty")
    def empty() -> str:
        cookie = flask.request.headers["Cookie"]
        session.pop("a")
        app.test_client(use_cookies=False).get("/put?b=1", headers={"Cookie": cookie})
        return ""

    client = app.test_client()
    client.get("/put?a=1")
    client.get("/empty")
    assert client.get("/get").json == {"b": "1"}
    gone = cookie_of(client.get("/pop/b"))
    assert gone is not None and gone.startswith("session=;") and tables.count() == 0


def test_what_is_said_of_being_modified(make: Make) -> None:
    app = make()

    @app.get("/say/<value>")
    def say(value: str) -> str:
        session["n"] = value
        session.modified = value == "True"
        return ""

    @app.get("/touch")
    def touch() -> str:
        session.modified = True
        return ""

    client = app.test_client()
    assert cookie_of(client.get("/say/False")) is None and client.get("/get").json == {}
    assert cookie_of(client.get("/touch")) is None, "nothing is stored"
    client.get("/say/True")
    assert client.get("/get").json == {"n": "True"}
    assert cookie_of(client.get("/touch")) is not None


# ---- lifetimes ----


@pytest.fixture
def lasting(make: Make) -> Make:
    def application(**settings: Any) -> Flask:
        app = make(PERMANENT_SESSION_LIFETIME=3600, **settings)

        @app.before_request
        def last() -> None:
            if flask.request.path != "/nothing":
                session.permanent = True

        return app

    return application


def ends(tables: Tables) -> datetime:
    end: datetime = tables.one("SELECT expires_at FROM {sessions}")
    return end


def test_a_permanent_session_is_refreshed_by_each_response(lasting: Make, tables: Tables) -> None:
    client = lasting().test_client()
    assert cookie_of(client.get("/get")) is None and tables.count() == 0, "robots leave nothing"
    first = cookie_of(client.get("/put?n=1"))
    assert first is not None and "Expires=" in first and "Max-Age=3600" in first
    before, version = ends(tables), tables.one("SELECT version FROM {sessions}")
    for path in ("/get", "/nothing"):
        response = client.get(path)
        assert "Max-Age=3" in str(cookie_of(response)) and response.headers["Vary"] == "Cookie"
    assert (ends(tables), tables.one("SELECT version FROM {sessions}")) == (before, version), "not written"
    tables.run("UPDATE {sessions} SET expires_at = expires_at - interval '1 minute'")
    session_manager(client.application).clear_cache()
    assert "Max-Age=3600" in str(cookie_of(client.get("/get"))) and ends(tables) >= before
    session_manager(client.application).clear_cache()
    assert cookie_of(client.get("/nothing")) is None, "no query for who leaves it alone"


def test_without_refreshing_it_is_renewed_after_half_of_it(lasting: Make, tables: Tables) -> None:
    client = lasting(SESSION_REFRESH_EACH_REQUEST=False).test_client()
    client.get("/put?n=1")
    assert cookie_of(client.get("/get")) is None and cookie_of(client.get("/nothing")) is None
    tables.run("UPDATE {sessions} SET expires_at = expires_at - interval '31 minutes'")
    session_manager(client.application).clear_cache()
    assert "Max-Age=3600" in str(cookie_of(client.get("/get"))) and cookie_of(client.get("/get")) is None


def test_a_session_is_permanent_as_long_as_it_is_told(make: Make) -> None:
    app = make()

    @app.get("/permanent/<value>")
    def permanent(value: str) -> str:
        session["n"] = 1
        session.permanent = value == "True"
        return str(session.permanent)

    @app.get("/log-in/<remember>")
    def log_in(remember: str) -> str:
        ours(session).log_in("alice", remember=remember == "True")
        return str(session.permanent)

    client = app.test_client()
    assert "Expires" not in str(cookie_of(client.get("/put?n=1")))
    assert "Expires" in str(cookie_of(client.get("/permanent/True")))
    assert client.get("/log-in/False").text == "True"
    assert "Expires" not in str(cookie_of(client.get("/permanent/False")))
    assert client.get("/log-in/False").text == "False"
    assert client.get("/log-in/True").text == "True"


def test_what_an_interface_of_ones_own_says_of_the_cookie(make: Make) -> None:
    class Interface(PgSessionInterface):
        def get_cookie_name(self, app: Flask) -> str:
            return "admin" if flask.request.path.startswith("/put") else "session"

        def get_cookie_path(self, app: Flask) -> str:
            return "/put"

        def get_expiration_time(self, app: Flask, session: Any) -> datetime:
            return datetime.now(UTC) + timedelta(seconds=77)

    app = make()
    app.session_interface = Interface()
    cookie = str(cookie_of(app.test_client().get("/put?n=1")))
    assert cookie.startswith("admin=") and "Path=/put" in cookie and "Max-Age=77" in cookie


# ---- handlers of other kinds ----


def test_async_views_and_blueprints(make: Make) -> None:
    pytest.importorskip("asgiref")
    app = make()
    pages = flask.Blueprint("pages", __name__, url_prefix="/pages")

    @pages.get("/add")
    async def add() -> Any:
        session["n"] = session.get("n", 0) + 1
        return dict(session)

    app.register_blueprint(pages)
    client = app.test_client()
    client.get("/pages/add")
    assert client.get("/pages/add").json == {"n": 2}


def test_the_test_client_and_contexts(make: Make, tables: Tables) -> None:
    app = make()
    with app.test_request_context("/"):
        session["n"] = 1
        assert session["n"] == 1
    assert tables.count() == 0, "without a response nothing is saved"
    client: FlaskClient = app.test_client()
    with client.session_transaction() as changing:
        changing["user"] = "alice"
    with client:
        assert client.get("/get").json == {"user": "alice"}
        assert session["user"] == "alice"
    with pytest.raises(ZeroDivisionError), client.session_transaction() as changing:
        changing["user"] = str(1 / 0)
    assert client.get("/get").json == {"user": "alice"}


def test_flask_login(make: Make, tables: Tables) -> None:
    flask_login = pytest.importorskip("flask_login")
    app = make()
    manager = flask_login.LoginManager(app)

    class User(flask_login.UserMixin):  # type: ignore[misc]
        id = "alice"

    @manager.user_loader
    def load(name: str) -> User:
        return User()

    @app.get("/log-in")
    def log_in() -> str:
        ours(session).log_in("alice")
        flask_login.login_user(User())
        return ""

    @app.get("/log-out")
    def log_out() -> str:
        flask_login.logout_user()
        ours(session).log_out()
        return ""

    @app.get("/me")
    @flask_login.login_required
    def me() -> str:
        return f"{flask_login.current_user.get_id()}"

    client = app.test_client()
    client.get("/put?cart=book")
    before = client.get_cookie("session")
    client.get("/log-in")
    assert client.get("/me").text == "alice" and client.get("/get").json["cart"] == "book"
    assert tables.run("SELECT user_id FROM {sessions}") == [("alice",)]
    thief = app.test_client()
    assert before is not None
    thief.set_cookie("session", before.value)
    assert thief.get("/me").status_code == 401
    client.get("/log-out")
    assert client.get("/me").status_code == 401 and tables.count() == 0
