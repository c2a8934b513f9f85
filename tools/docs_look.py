"""`make docs-look`: looks at each page of the site in Chromium, narrow and wide, light and dark, with axe-core.

Fails where axe-core finds something serious or critical, where a page is wider than the window, or where the browser
reports an error. Pictures of some pages are in build/look, for whoever wants to look with his own eyes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from check import NODE, ROOT, node_modules, run
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

SITE = ROOT / "build" / "site"
PICTURES = ROOT / "build" / "look"
AXE = NODE / "node_modules" / "axe-core" / "axe.min.js"
SIZES = {"phone": ViewportSize(width=390, height=844), "desktop": ViewportSize(width=1280, height=800)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SOURCES = ("src", "cython", "examples", "tests", "tools")  # pages that only show a file
SERIOUS = ("serious", "critical")
PICTURED = ("index", "tutorial", "web", "settings", "comparison", "performance")


class Quiet(SimpleHTTPRequestHandler):
    """Serves the site without a word."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def pages() -> list[str]:
    """Return the addresses of the pages, and of one that shows a source file."""
    every = sorted(page.parent.relative_to(SITE).as_posix() for page in SITE.rglob("index.html"))
    shown = [page for page in every if page.split("/")[0] not in SOURCES]
    return [*shown, *[page for page in every if page.endswith(".py")][:1]]


def look(
    browser: Browser, address: str, shown: list[str], size: str, scheme: Literal["light", "dark"]
) -> Iterator[str]:
    """Yield what is wrong with the pages in a window of this size, with these colours."""
    with browser.new_context(viewport=SIZES[size], color_scheme=scheme) as context:
        context.add_init_script(path=AXE)
        tab = context.new_page()
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        for page in shown:
            tab.goto(f"{address}/{page}/")
            found = [*problems(tab), *errors]
            errors.clear()
            yield from (f"{page}, {size}, {scheme}: {problem}" for problem in found)
            name = page if page != "." else "index"
            if name in PICTURED:
                tab.screenshot(path=PICTURES / f"{name}-{size}-{scheme}.png", animations="disabled")


def problems(tab: Page) -> Iterator[str]:
    """Yield what is wrong with the page that is shown."""
    wide = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    if wide > 0:
        yield f"{wide} pixels wider than the window"
    for violation in tab.evaluate("axe.run({resultTypes: ['violations']})")["violations"]:
        if violation["impact"] in SERIOUS:
            places = [str(node["target"][0]) for node in violation["nodes"]]
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            yield f"{violation['id']} ({violation['help']}): {', '.join(places[:3])}{more}"


def main() -> int:
    """Look at all of the site."""
    sys.path.insert(0, str(ROOT))
    from tests.browser.shop import launch_options
    from tests.programs import path_of
    from tests.serving import serving

    program = path_of("chromium")
    if program is None:
        raise SystemExit("make docs-look: needs Chromium: `sudo make system-packages`")
    if not all(run(step) for step in node_modules()):
        return 1
    looked_at = pages()
    assert looked_at, "there is no site: `make docs`"
    PICTURES.mkdir(parents=True, exist_ok=True)
    site = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    with serving(site) as address, sync_playwright() as playwright:
        with playwright.chromium.launch(**launch_options(program)) as browser:
            found = [
                problem
                for size in SIZES
                for scheme in SCHEMES
                for problem in look(browser, address, looked_at, size, scheme)
            ]
    print("\n".join(found))
    print(
        f"make docs-look: {len(looked_at)} pages, {len(SIZES) * len(SCHEMES)} times each: {len(found)} problems"
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
