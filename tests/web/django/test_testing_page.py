"""The snippet of the page about users' own tests which is for Django, run as it stands."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "testing.md").read_text(encoding="utf-8")


def test_time_passes_in_a_test_case_of_django(shop: str) -> None:
    (snippet,) = re.findall(r"^```python\n# tests\.py\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    here: dict[str, type[unittest.TestCase]] = {}
    exec(snippet, here)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(here["AdminTests"]).run(result)
    assert result.testsRun == 1 and result.wasSuccessful(), result.errors + result.failures
