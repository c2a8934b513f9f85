"""Each page's relative links lead to a file, a folder or a heading; and no page, no public name is left out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pgsession
import pgsession.errors

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
NOT_USED = "## Words that are not used"
CODE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)[^)]*\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
SOURCES = {".py", ".pyi", ".pyx", ".pxd", ".h", ".sql"}


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in LINK.findall(CODE.sub("`code`", page.read_text(encoding="utf-8"))):
            if "://" not in target and not target.startswith("mailto:"):
                yield page, target


def broken(page: Path, target: str) -> str | None:
    """What is wrong with a link, if anything is."""
    path, _, anchor = target.partition("#")
    place = (page.parent / path).resolve() if path else page
    if not place.is_relative_to(ROOT) or not place.exists():
        return f"there is no {path}"
    if anchor and (place.suffix != ".md" or anchor not in anchors(place)):
        return f"{place.name} has no heading #{anchor}"
    return None


def anchors(page: Path) -> set[str]:
    """The headings as a page's address names them."""
    headings = HEADING.findall(
        re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    )
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize(
    ("page", "target"), list(links()), ids=lambda value: str(value).removeprefix(f"{ROOT}/")
)
def test_links_lead_somewhere(page: Path, target: str) -> None:
    assert broken(page, target) is None


def test_a_broken_link_is_noticed() -> None:
    page = ROOT / "docs" / "glossary.md"
    assert broken(page, "no-such-page.md")
    assert broken(page, "architecture.md#no-such-heading")
    assert broken(page, "../../outside.md")
    assert not broken(page, "architecture.md#invariants")
    assert len(list(links())) > 50


def test_the_glossary_is_the_first_link_of_the_contributors_page() -> None:
    first, *_ = (target for page, target in links() if page.name == "CONTRIBUTING.md")
    assert first == "docs/glossary.md"


def test_the_glossary_says_where_each_word_is_and_none_twice() -> None:
    rows = re.findall(r"^\| ([a-z][\w ,]*) \| (.+) \|$", GLOSSARY.partition(NOT_USED)[0], re.MULTILINE)
    words = [word for words, _ in rows if words != "word" for word in words.split(", ")]
    assert len(words) > 50 and len(set(words)) == len(words)
    assert not [words for words, meaning in rows if words != "word" and not LINK.search(meaning)]


def test_every_page_is_in_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\ntheme:")[0]
    for page in PAGES:
        assert f": {page.relative_to(ROOT).as_posix()}\n" in navigation, page


def test_the_reference_has_every_public_name() -> None:
    documented = set(
        re.findall(r"^::: pgsession\.(\w+)$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)
    )
    errors = {name for name, value in vars(pgsession.errors).items() if inspect.isclass(value)}
    assert set(pgsession.__all__) - errors - {"__version__"} == documented - {"errors", "schema", "embedded"}
    assert {"errors", "schema", "embedded"} <= documented


def test_the_words_that_are_not_used() -> None:
    words = re.findall(r"^\| (\w+) \| ", GLOSSARY.partition(NOT_USED)[2], re.MULTILINE)
    assert len(words) > 5
    used = re.compile(rf"\b({'|'.join(set(words) - {'not'})})(e?[ds]|ing|ment)?\b", re.IGNORECASE)
    texts = [path for path in PAGES if path.name != "glossary.md"]
    for room in ("src", "cython"):
        texts += [path for path in (ROOT / room).rglob("*") if path.suffix in SOURCES]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in texts
        for match in used.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found
