"""For the release workflow: `check TAG` refuses a tag that does not fit, `notes TAG` prints its change log entry."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version() -> str:
    found = re.search(
        r'^__version__ = "(.+)"$', (ROOT / "src/pgsession/_version.py").read_text(), re.MULTILINE
    )
    if found is None:
        raise SystemExit("src/pgsession/_version.py has no __version__")
    return found[1]


def notes(tag: str) -> str:
    """What CHANGELOG.md says below the heading of the tag's version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entry = re.search(
        rf"^## \[?{re.escape(tag.removeprefix('v'))}\]?(?![\w.])[^\n]*\n(.*?)(?=^## |\Z)",
        text,
        re.MULTILINE | re.DOTALL,
    )
    if entry is None or not entry[1].strip():
        raise SystemExit(f"CHANGELOG.md has no entry for {tag}")
    return entry[1].strip()


def main(command: str, tag: str) -> None:
    if tag != f"v{version()}":
        raise SystemExit(f"the tag is {tag}, the version in src/pgsession/_version.py {version()}")
    entry = notes(tag)
    if command == "notes":
        print(entry)


if __name__ == "__main__":
    main(*sys.argv[1:])
