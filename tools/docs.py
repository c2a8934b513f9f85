"""`make docs`: makes the site of docs/ in build/site. Fails on warnings, and where a page needs another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "site"
# What a browser fetches by itself. A plain link, <a href>, is followed by the reader only. Scripts are the theme's own;
# they fetch from elsewhere for what is not used here (diagrams, figures of a repository).
FETCHED = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "iframe": ("src",),
    "embed": ("src",),
    "object": ("data",),
}
ELSEWHERE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
IN_CSS = re.compile(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)


class Fetches(HTMLParser):
    """Collects what a page would fetch from another host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Look at one element's attributes."""
        for name, value in attributes:
            if name in FETCHED.get(tag, ()) and ELSEWHERE.match(value or ""):
                self.found.append(f"<{tag} {name}={value}>")
            elif name == "style":
                self.found += IN_CSS.findall(value or "")


def main() -> int:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # what Material for MkDocs says of its future
    # Not --quiet: a warning that is not logged would not count.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    made = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if made.returncode:
        print(made.stdout)
        return 1
    foreign = list(fetched_elsewhere())
    for line in foreign:
        print(f"make docs: fetched from elsewhere: {line}")
    return 1 if foreign else 0


def fetched_elsewhere() -> Iterator[str]:
    """Yield what the pages and style sheets of the site would fetch from another host."""
    for page in sorted(SITE.rglob("*.html")):
        parser = Fetches()
        parser.feed(page.read_text(encoding="utf-8"))
        yield from (f"{page.relative_to(SITE)}: {what}" for what in parser.found)
    for sheet in sorted(SITE.rglob("*.css")):
        yield from (
            f"{sheet.relative_to(SITE)}: {what}" for what in IN_CSS.findall(sheet.read_text(encoding="utf-8"))
        )


if __name__ == "__main__":
    sys.exit(main())
