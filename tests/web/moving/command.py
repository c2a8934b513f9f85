"""Calls the command, in this process."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from unittest.mock import patch

from pgsession.__main__ import main


def call(kind: str, *always: str, **variables: str) -> Callable[..., tuple[int, str]]:
    """`call(...)("--dry-run")`: its exit status, and what it says."""

    def run(*options: str) -> tuple[int, str]:
        said = io.StringIO()
        with (
            patch.dict(os.environ, variables),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            status = main(["move", kind, *always, *options])
        return status, said.getvalue()

    return run
