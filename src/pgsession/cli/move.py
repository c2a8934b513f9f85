"""`pgsession move` brings live sessions from another store."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

import click
import msgspec
import psycopg
from click.core import ParameterSource

from pgsession import AsyncSessionManager, Config, PgSessionError
from pgsession.contrib.moving.mover import MoveError, Mover, OldStore, Report, Values

from ._failures import Status
from ._parameters import DATABASE, SCHEMA_NAME, TABLE_PREFIX, configuration

__all__ = ["move"]

_EVERY = 2  # seconds, of progress
_AGAIN = "what was brought already is known: run it again"


@click.group()
def move() -> None:
    """Bring the live sessions of another store.

    Nothing of that store is changed. Again it brings what is new there and what has changed, and ends what has ended
    there; a session whose browser has come over is left alone. The exit status is 3 where sessions had to be left
    behind.

    `PGSESSION_...` variables set fields of Config, such as PGSESSION_MAX_ATTRIBUTE_LENGTH, where the service does so.
    """


def _url(context: click.Context, option: click.Parameter, value: str) -> str:
    """Refuse a URL in whose argument everybody on the machine could read a password."""
    given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    if given and urlsplit(value).password:
        raise click.UsageError("--redis: must have no password: put the URL into REDIS_URL", context)
    return value


_PLACES: list[click.Parameter] = [
    DATABASE,
    click.Option(
        ["--redis", "url"],
        envvar="REDIS_URL",
        required=True,
        metavar="URL",
        callback=_url,
        help="Or REDIS_URL, where it has a password.",
    ),
    SCHEMA_NAME,
    TABLE_PREFIX,
]
_OPTIONS: list[click.Parameter] = [
    click.Option(["--dry-run"], is_flag=True, help="Write nothing; count what would be done."),
    click.Option(
        ["--without"], multiple=True, metavar="KEY",
        help="Leave this value of each session out; once for each. Else a session is left behind if one of its values "
        "would not be what it was.",
    ),
]  # fmt: skip
_UNPICKLE = click.Option(
    ["--unpickle"], is_flag=True,
    help="Decode pickles too. Who can write to the other store can then run anything here.",
)  # fmt: skip


_MAX_AGE = click.Option(
    ["--max-age"], type=click.IntRange(1), default=31 * 24 * 3600, show_default=True, metavar="SECONDS",
    help="PERMANENT_SESSION_LIFETIME of the app: how long browsers keep the cookie of a session that is permanent.",
)  # fmt: skip


def _key_prefix(default: str) -> click.Option:
    return click.Option(
        ["--key-prefix"], default=default, show_default=True, metavar="PREFIX",
        help="What Redis' keys begin with, as the service has set it.",
    )  # fmt: skip


def _user_key(default: str | None) -> click.Option:
    return click.Option(
        ["--user-key"], default=default, show_default=True, metavar="KEY",
        help="The value of a session that says who is logged in.",
    )  # fmt: skip


@move.command(params=[*_OPTIONS, _UNPICKLE])
def django(dry_run: bool, without: tuple[str, ...], unpickle: bool) -> int:
    """Bring the sessions of Django's engines db and cached_db.

    DJANGO_SETTINGS_MODULE names the project's settings, which have PGSESSION already, and SECRET_KEY and DATABASES as
    before. django.contrib.sessions has to be in INSTALLED_APPS still; SESSION_ENGINE does not matter.
    """
    sys.path.insert(0, "")  # as manage.py has it
    try:
        from django.core.exceptions import ImproperlyConfigured

        from pgsession.contrib.moving.django_table import DjangoTable
    except ImportError as error:
        raise click.ClickException(f"needs pip install 'pgsession[django]': {error}")
    try:
        store = DjangoTable(unpickle=unpickle)
    except (ImproperlyConfigured, ImportError, MoveError) as error:
        raise click.ClickException(str(error))
    database = store.database
    if not isinstance(database, str) and not callable(database):
        raise click.ClickException(
            "sessions are moved to one server, and PGSESSION names shards: their ids name none"
        )
    return _run(store, database, store.config, dry_run, without)


@move.command(
    params=[*_PLACES, _key_prefix("session:"), _user_key("_user_id"), _MAX_AGE, *_OPTIONS, _UNPICKLE]
)
def flask_session(
    database: str,
    url: str,
    schema_name: str | None,
    table_prefix: str | None,
    key_prefix: str,
    user_key: str,
    max_age: int,
    dry_run: bool,
    without: tuple[str, ...],
    unpickle: bool,
) -> int:
    """Bring the sessions that Flask-Session keeps in Redis.

    Who is logged in is by default what Flask-Login says. DATABASE says where they go, as for `init`.
    """
    try:
        from pgsession.contrib.moving.redis_store import of_flask_session
    except ImportError as error:
        raise click.ClickException(f"needs pip install 'pgsession[moving]': {error}")
    store = _redis(url, key_prefix, partial(of_flask_session, unpickle=unpickle, max_age=max_age), user_key)
    return _run(store, database, configuration(schema_name, table_prefix), dry_run, without)


@move.command(params=[*_PLACES, _key_prefix("starsessions."), _user_key(None), *_OPTIONS])
def starsessions(
    database: str,
    url: str,
    schema_name: str | None,
    table_prefix: str | None,
    key_prefix: str,
    user_key: str | None,
    dry_run: bool,
    without: tuple[str, ...],
) -> int:
    """Bring the sessions that starsessions keeps in Redis, by its serializer for JSON.

    DATABASE says where they go, as for `init`.
    """
    try:
        from pgsession.contrib.moving.redis_store import of_starsessions
    except ImportError as error:
        raise click.ClickException(f"needs pip install 'pgsession[moving]': {error}")
    store = _redis(url, key_prefix, of_starsessions, user_key)
    return _run(store, database, configuration(schema_name, table_prefix), dry_run, without)


def _redis(
    url: str, prefix: str, decode: Callable[[bytes], tuple[Values, int | None]], user_key: str | None
) -> OldStore:
    from pgsession.contrib.moving.redis_store import RedisStore

    try:
        return RedisStore(url, prefix, decode, user_key)
    except ValueError as error:
        raise click.ClickException(f"--redis: {error}")


def _run(
    store: OldStore,
    database: str | Callable[[], str],
    config: Config,
    dry_run: bool,
    without: tuple[str, ...],
) -> int:
    # The next login of each user sees to the limit: nobody is to lose sessions by the order in which they are brought.
    config = msgspec.structs.replace(config, max_sessions=0)
    loop = asyncio.SelectorEventLoop if sys.platform == "win32" else None  # psycopg works in no other there

    async def bring() -> Report:
        async with AsyncSessionManager(database, config) as manager:
            return await Mover(
                manager, store, without=frozenset(without), dry_run=dry_run, on_progress=_Progress()
            ).run()

    failures: tuple[type[Exception], ...] = (MoveError, *store.errors)
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            report = runner.run(bring())
    except failures as error:
        raise click.ClickException(f"{error} ({_AGAIN})")
    except (PgSessionError, psycopg.Error):
        click.echo(_AGAIN, err=True)
        raise
    _tell(report, dry_run)
    return Status.SOMETHING_LEFT if report.left else Status.WELL


class _Progress:
    """Tells from time to time how far a run is."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, report: Report) -> None:
        if time.monotonic() - self._told > _EVERY:
            self._told = time.monotonic()
            click.echo(f"{report.seen:,} so far", err=True)


def _tell(report: Report, dry_run: bool) -> None:
    click.echo(
        f"{report.seen:,} live sessions in the other store{'; nothing was written' if dry_run else ''}:"
    )
    for count, what in (
        (report.new, "new here"),
        (report.changed, "changed there since they were brought"),
        (report.same, "here already"),
        (report.taken, "left alone: their browsers have come over, or they have ended here"),
        *((count, f"left behind: {reason}") for reason, count in report.left.most_common()),
    ):
        click.echo(f"{count:>12,}  {what}")
    click.echo(f"and {report.ended:,} ended here, since they have ended there")
