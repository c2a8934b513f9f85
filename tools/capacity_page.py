"""Writes the examples of docs/capacity.md anew: each command that stands there, with what it prints; a test compares.

`python -m tools.capacity_page` does it; so does `python -m benchmarks.capacity`, which measures the costs behind the
figures.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from click.testing import CliRunner

from pgsession.cli import cli

PAGE = Path(__file__).resolve().parent.parent / "docs" / "capacity.md"
_EXAMPLE = re.compile(r"^```console\n\$ pgsession (?P<arguments>.*)\n(?:.*\n)*?```$", re.MULTILINE)


def main() -> int:
    """Write the page anew."""
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    return 0


def page() -> str:
    """Return what the page has to be, with what is written by hand as it is."""
    return _EXAMPLE.sub(_run, PAGE.read_text(encoding="utf-8"))


def _run(example: re.Match[str]) -> str:
    arguments = example["arguments"]
    result = CliRunner().invoke(cli, shlex.split(arguments), prog_name="pgsession", standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return f"```console\n$ pgsession {arguments}\n{result.output}```"


if __name__ == "__main__":
    sys.exit(main())
