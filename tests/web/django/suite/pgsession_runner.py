"""Runs Django's tests without those that are excluded by name, and leaves what came of it in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import TestCase, TestSuite

from django.test.runner import DiscoverRunner


class Runner(DiscoverRunner):
    def build_suite(self, *arguments: Any, **options: Any) -> TestSuite:
        excluded = set(json.loads(os.environ["PGSESSION_EXCLUDED"]))
        tests = list(_each(super().build_suite(*arguments, **options)))
        unknown = excluded - {test.id() for test in tests}
        if unknown:
            raise SystemExit(f"there are no such tests to exclude: {sorted(unknown)}")
        return TestSuite(test for test in tests if test.id() not in excluded)

    def suite_result(self, suite: Any, result: Any, **options: Any) -> int:
        failed = [*result.failures, *result.errors]
        found = {
            "run": result.testsRun,
            "failed": [test.id() for test, _ in failed],
            "unexpected": [test.id() for test in result.unexpectedSuccesses],
            "skipped": {test.id(): reason for test, reason in result.skipped},
        }
        with open(os.environ["PGSESSION_RESULT"], "w") as file:
            json.dump(found, file)
        return int(super().suite_result(suite, result, **options))


def _each(tests: Iterable[Any]) -> Iterator[TestCase]:
    for test in tests:
        if isinstance(test, TestCase):
            yield test
        else:
            yield from _each(test)
