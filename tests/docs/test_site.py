"""`make docs` refuses what it should: a broken link, a broken docstring, and a page that needs another host."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.code_map import ROOT
from tools.docs import Fetches

pytest.importorskip("mkdocs", reason="needs the dependency group docs: make docs")

COPIED = ("docs", "mkdocs.yml", "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose pages the test may change."""
    for name in COPIED:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, tmp_path / name)
    (tmp_path / "tools").mkdir()
    for name in ("docs.py", "docs_pages.py"):
        shutil.copy2(ROOT / "tools" / name, tmp_path / "tools" / name)
    for name in ("src", "cython", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def make_docs(checkout: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, checkout / "tools" / "docs.py"], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_good_site_is_made_with_sources_and_without_other_hosts(checkout: Path) -> None:
    assert make_docs(checkout) == (0, "")
    site = checkout / "build" / "site"
    assert "get_cached_session" in (site / "reference" / "index.html").read_text()
    assert "close_fill" in (site / "src/pgsession/_protocol/coherence.py/index.html").read_text()
    assert 'href="../src/pgsession/_protocol/coherence.py/"' in (site / "code-map" / "index.html").read_text()
    assert 'href="first_steps.py/"' in (site / "examples" / "index.html").read_text()


def test_broken_links_are_errors(checkout: Path) -> None:
    page = checkout / "docs" / "platforms.md"
    page.write_text(
        f"{page.read_text()}\n[one](no-such-page.md) [two](glossary.md#no-such-heading) [three](../no-such-folder)\n"
    )
    code, said = make_docs(checkout)
    assert code == 1
    assert all(what in said for what in ("no-such-page.md", "#no-such-heading", "no-such-folder")), said


def test_a_page_in_no_place_is_an_error(checkout: Path) -> None:
    (checkout / "docs" / "lost.md").write_text("# Lost\n")
    code, said = make_docs(checkout)
    assert code == 1 and "lost.md" in said


def test_another_host_is_an_error(checkout: Path) -> None:
    configuration = checkout / "mkdocs.yml"
    configuration.write_text(configuration.read_text().replace("  font: false\n", ""))
    code, said = make_docs(checkout)
    assert code == 1 and "fonts.googleapis.com" in said


def test_what_a_browser_fetches_by_itself() -> None:
    parser = Fetches()
    parser.feed('<a href="https://a.example/">plain</a><img src="img/get.svg"><img src="//b.example/x.png">')
    parser.feed(
        '<p style="background: url(https://c.example/y.png)"><script src="https://d.example/z.js"></script>'
    )
    assert [next(host for host in "abcd" if f"{host}.example" in what) for what in parser.found] == [
        "b",
        "c",
        "d",
    ]
