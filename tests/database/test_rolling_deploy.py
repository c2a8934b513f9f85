"""Nodes of several versions work side by side while one replaces the other, and back again; nothing is lost.

The other versions are copies of this one with migrations and functions of their own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgsession

SOURCE = Path(pgsession.__file__).parent
PATIENCE = 60.0

# Counts up in each session, as fast as it can, until a line comes in.
NODE = """
import sys, threading
import pgsession

dsn, schema, *sessions = sys.argv[1:]
end = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), end.set()), daemon=True).start()

def count(session):
    session["n"] += 1

with pgsession.SessionManager(dsn, pgsession.Config(schema_name=schema, max_staleness=2)) as node:
    print(pgsession.__file__, flush=True)
    done = 0
    while not end.is_set():
        for session in sessions:
            node.modify_session(session, count, retries=1000)
            done += 1
        print("done", done, flush=True)
print("ended", done, flush=True)
"""


class Version:
    """A copy of the library, changed."""

    def __init__(self, folder: Path, migrations: dict[str, str], replaced: dict[str, str]) -> None:
        self.folder = folder
        package = folder / "pgsession"
        shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
        for name, text in migrations.items():
            (package / "_database" / "migrations" / f"{name}.sql").write_text(text)
        templates = package / "_database" / "templates.py"
        text = templates.read_text()
        for old, new in replaced.items():
            assert f'"{old}"' in text
            text = text.replace(f'"{old}"', f'"{new}"')
        templates.write_text(text)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env={"PYTHONPATH": str(self.folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def init(self, dsn: str, schema: str) -> str:
        """What the command says."""
        process = self.start("-m", "pgsession", "init", "--schema-name", schema, dsn)
        output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        return output


class Node:
    """A process of one version that counts."""

    def __init__(self, version: Version, dsn: str, schema: str, sessions: list[str]) -> None:
        self._process = version.start("-c", NODE, dsn, schema, *sessions)
        self._watchdog = threading.Timer(PATIENCE, self._process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        first = self._line()
        assert first.startswith(str(version.folder)), first + self._rest()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _rest(self) -> str:
        return "".join(self._process.communicate(timeout=PATIENCE))

    def works(self) -> None:
        """It goes on counting: after what happened last it has done two rounds, of which the second began later."""
        assert self._process.stdin is not None
        before = None
        for line in iter(self._line, ""):
            if before is not None and line != before:
                return
            before = line
        raise AssertionError(self._rest())

    def end(self) -> int:
        """How often it has counted."""
        output, errors = self._process.communicate("\n", timeout=PATIENCE)
        self._watchdog.cancel()
        assert self._process.returncode == 0, errors
        return int(output.split()[-1])

    def kill(self) -> None:
        self._watchdog.cancel()
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


SECOND = {
    "0002_colour": "-- serves_from: 1\n\nALTER TABLE {sessions} ADD COLUMN colour text;",
}
THIRD = SECOND | {
    "0003_shape": "-- serves_from: 2\n\nALTER TABLE {sessions} ADD COLUMN shape text;",
}


@pytest.fixture
def version(tmp_path: Path) -> Callable[[int], Version]:
    """The library as it is, and as it may be one and two versions later; the last one does not serve the first."""
    changes: list[tuple[dict[str, str], dict[str, str]]] = [
        ({}, {}),
        (SECOND, {"session_write_1": "session_write_2"}),
        (THIRD, {"session_write_1": "session_write_3", "session_lock_acquire_1": "session_lock_acquire_2"}),
    ]
    return lambda number: Version(tmp_path / str(number), *changes[number - 1])


@pytest.mark.slow
def test_versions_replace_each_other_under_load_and_back(
    version: Callable[[int], Version], dsn: str, schema: str
) -> None:
    first, second, third = (version(number) for number in (1, 2, 3))
    assert "applied migration 0001_tables" in first.init(dsn, schema)
    config = pgsession.Config(schema_name=schema)
    with pgsession.SessionManager(dsn, config) as manager, ExitStack() as running:
        sessions = [str(manager.create_session("ann", {"n": 0}).id) for _ in range(2)]
        alive: list[Node] = []
        counted = 0

        def node(version: Version) -> Node:
            started = Node(version, dsn, schema, sessions)
            running.callback(started.kill)
            alive.append(started)
            return started

        def all_work() -> None:
            for each in alive:
                each.works()

        def end(which: Node) -> None:
            nonlocal counted
            alive.remove(which)
            counted += which.end()

        old = [node(first), node(first)]
        all_work()
        # Out: the tables first, then node by node; an old one may start again meanwhile.
        assert "applied migration 0002_colour" in second.init(dsn, schema)
        all_work()
        new = [node(second)]
        end(old.pop())
        old.append(node(first))
        all_work()
        assert "nothing to do: the schema is at version 2" in first.init(dsn, schema)
        all_work()
        # Back: the new ones go, the tables stay.
        end(new.pop())
        old.append(node(first))
        all_work()
        # And out again, past what serves the first version.
        new = [node(second)]
        while old:
            end(old.pop())
        assert "applied migration 0003_shape" in third.init(dsn, schema)
        newest = node(third)
        all_work()
        new.append(node(second))
        with pytest.raises(
            AssertionError, match="serves no version of pgsession that knows less than 2; this one knows 1"
        ):
            node(first)
        all_work()
        end(newest)
        all_work()
        while alive:
            end(alive[-1])
        seen = [manager.get_session(session, refresh=True) for session in sessions]
        assert sum(session["n"] for session in seen if session is not None) == counted
    with psycopg.connect(dsn) as connection:
        versions = f"SELECT version, serves_from FROM {schema}.session_schema_version ORDER BY version"
        assert connection.execute(versions).fetchall() == [(1, 1), (2, 1), (3, 2)]  # type: ignore[arg-type]


def test_an_older_version_on_tables_that_a_newer_one_has_made(
    version: Callable[[int], Version], dsn: str, schema: str
) -> None:
    """Its `init` brings its functions, and mends what has no version."""
    version(2).init(dsn, schema)
    older = version(1)
    with pytest.raises(
        AssertionError, match=r"missing, .*: write\. For all of it .* `python -m pgsession init"
    ):
        Node(older, dsn, schema, [])
    triggers = (
        f"SELECT tgname, tgfoid FROM pg_trigger WHERE tgrelid = '{schema}.sessions'::regclass ORDER BY 1"
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        before = connection.execute(triggers).fetchall()  # type: ignore[arg-type]
        connection.execute(f"ALTER TABLE {schema}.sessions DISABLE TRIGGER USER")  # type: ignore[arg-type]
        said = older.init(dsn, schema)
        assert connection.execute(triggers).fetchall() == before  # type: ignore[arg-type]
    assert "created 1 function" in said
    assert f"ALTER TABLE {schema}.sessions ENABLE ALWAYS TRIGGER pgsession_2_note" in said
    assert "nothing to do: the schema is at version 2" in older.init(dsn, schema)
    assert Node(older, dsn, schema, []).end() == 0


def test_a_newer_library_on_older_tables(
    tmp_path: Path, version: Callable[[int], Version], dsn: str, schema: str
) -> None:
    """It goes on where all that it needs is there, and else names the command."""
    version(1).init(dsn, schema)
    with pytest.raises(
        AssertionError, match="are at version 1 and must be at 2: run `python -m pgsession init"
    ):
        Node(version(2), dsn, schema, [])
    index = {"0002_index": "-- serves_from: 1\n\nCREATE INDEX ON {sessions} (created_at);"}
    assert Node(Version(tmp_path / "index", index, {}), dsn, schema, []).end() == 0
