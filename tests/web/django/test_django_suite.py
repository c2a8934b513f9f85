"""Django's own tests of sessions, auth, messages, CSRF and the test client, on our engine.

They are in Django's sdist, which `make test` gets into build/django. Django's databases are SQLite in memory there, so
that what is looked for in Django's own table of sessions is not found: those tests are excluded by name, each with its
reason, and nothing else is. What our engine has to do as each of Django's own does, `SessionTestsMixin`, is run on ours
besides, by suite/pgsession_tests. It takes some 20 s of processor time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SDIST = Path(__file__).parents[3] / "build" / "django"
SUITE = Path(__file__).parent / "suite"
LABELS = (
    "pgsession_tests",
    "sessions_tests",
    "auth_tests",
    "messages_tests",
    "csrf_tests",
    "test_client",
    "test_client_regress",
)
EXCLUDED = {
    # `Session.objects.get(session_key=...)`. What it is about, that a session whose values were all deleted is saved as
    # an empty one, is in suite/pgsession_tests.
    "sessions_tests.tests.SessionMiddlewareTests.test_empty_session_saved",
}
# Of the tests that Django skips by itself none may be for want of what we could install, but for these.
NOT_INSTALLED = ("bcrypt not installed", "argon2-cffi not installed")
LEAST = 2000  # that so many have run shows that they were found


@pytest.mark.slow
def test_djangos_own_tests_pass(dsn: str, schema: str, tmp_path: Path) -> None:
    if not SDIST.exists():
        pytest.skip("needs Django's sdist in build/django: make test gets it")
    tests = tmp_path / "tests"
    shutil.copytree(SDIST / "tests", tests)
    shutil.copytree(SUITE / "pgsession_tests", tests / "pgsession_tests")
    result = tmp_path / "result.json"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SUITE), str(SDIST), os.environ.get("PYTHONPATH", "")]),
        "PGSESSION_TEST_DSN": dsn,
        "PGSESSION_TEST_SCHEMA": schema,
        "PGSESSION_EXCLUDED": json.dumps(sorted(EXCLUDED)),
        "PGSESSION_RESULT": str(result),
    }
    command = [sys.executable, "runtests.py", "--settings=pgsession_settings", "--parallel=1", "--noinput"]
    done = subprocess.run(
        [*command, *LABELS], cwd=tests, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text())
    print(f"{found['run']} of Django's tests ran, {len(found['skipped'])} of them were skipped")
    assert found["run"] > LEAST
    assert not found["failed"] and not found["unexpected"]
    assert not {
        test: reason
        for test, reason in found["skipped"].items()
        if "not installed" in reason and reason not in NOT_INSTALLED
    }
