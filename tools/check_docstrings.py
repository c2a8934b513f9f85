"""Checks the first line of each docstring of the library: a full sentence or an imperative, never a headless clause.

    python tools/check_docstrings.py            all that is held to the rules; part of `make check`
    python tools/check_docstrings.py FOLDER ... other folders or files

The rules are simple on purpose. The first sentence of a docstring, public or private, Python or Cython,

1. does not begin with a word of `HEADLESS` (what follows it has no subject or no verb of its own),
2. has a verb: where its first word is an article or the like (`NOMINAL`), a word of `VERBS` follows in the sentence. A
   verb that is missing in the list is added to it.

And a class, function or method of a Python file has a docstring, unless its name begins with an underscore, or it is
an overload; ruff asks that only of modules that are public themselves.

Ruff checks the rest of the form (`[tool.ruff.lint.pydocstyle]`), and that a function's first line is an imperative.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ENFORCED = ("src/pgsession", "cython/pgsession")
GENERATED = "src/pgsession/_sync/"  # from _async, where it is checked


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HEADLESS = words(
    """
    whether what how that where which who whose whom when if as those of by to with without for from in on at
    after before until till since because though although than like as likewise same mostly only also and or but
    """
)
NOMINAL = words(
    """
    a an the this these another other others some any all each every one two three both it its they their
    everything everybody nothing nobody somebody something half
    """
)
VERBS = words(
    """
    is are was were be been am has have had does do did can could may might must shall should will would says
    stands goes comes gives takes holds keeps makes tells lets means knows needs asks answers reads writes runs
    returns raises calls sends hears waits ends begins starts stops works serves belongs consists refers leads
    lives costs counts carries compares connects decides depends differs leaves passes remains renders stays
    turns uses creates upgrades checks finds fills listens drops became becomes breaks renews names stand say
    take give
    """
)


class Violation(NamedTuple):
    path: Path
    line: int
    text: str
    why: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.why}: {self.text}"


def reason(docstring: str) -> str | None:
    """Return why the first sentence of a docstring breaks the rule, or None."""
    paragraph = " ".join(docstring.strip().split("\n\n", 1)[0].split())
    sentence = re.split(r"(?<=[.:;])\s", paragraph, maxsplit=1)[0]
    found = re.findall(r"`[^`]*`|[\w'-]+", sentence)
    if not found:
        return "empty"
    first = found[0].lower()
    if first in HEADLESS:
        return f"begins with {found[0]!r}"
    if first in NOMINAL and not VERBS.intersection(word.lower() for word in found):
        return "has no verb"
    return None


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring of a Python or Cython file."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from python_docstrings(source)
    else:
        yield from cython_docstrings(source)


def python_docstrings(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node)
        if text is not None:
            yield node.body[0].lineno, text


def undocumented(tree: ast.AST, inside: str = "") -> Iterator[tuple[int, str]]:
    """Yield the line and the name of what should have a docstring and has none."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        overload = any(isinstance(by, ast.Name) and by.id == "overload" for by in node.decorator_list)
        if not node.name.startswith("_") and not overload and ast.get_docstring(node) is None:
            yield node.lineno, inside + node.name
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node, f"{inside}{node.name}.")


# A docstring is what stands alone after the head of a file or after the colon that ends a def or class.
CYTHON = re.compile(r'(?:\A(?:[ \t]*#[^\n]*\n|[ \t]*\n)*|:[ \t]*(?:#[^\n]*)?\n)[ \t]*"""(.*?)"""', re.DOTALL)


def cython_docstrings(source: str) -> Iterator[tuple[int, str]]:
    for found in CYTHON.finditer(source):
        if not re.search(r"\bcdef extern\b", source[: found.start()].rsplit("\n", 1)[-1]):  # C, not prose
            yield source.count("\n", 0, found.start(1)) + 1, found[1]


def sources(place: str) -> Iterator[Path]:
    path = ROOT / place
    if path.is_file():
        yield path
        return
    for suffix in ("py", "pyx", "pxd"):
        yield from sorted(path.rglob(f"*.{suffix}"))


def violations(place: str, exempt: tuple[str, ...] = ()) -> Iterator[Violation]:
    """Yield what breaks the rules in a folder or file, but for what begins with a path of `exempt`."""
    for path in sources(place):
        if str(path.relative_to(ROOT)).startswith(GENERATED):
            continue
        for line, text in docstrings(path):
            why = reason(text)
            if why is not None:
                yield Violation(path, line, text.strip().split("\n", 1)[0], why)
        if path.suffix == ".py":
            for line, name in undocumented(ast.parse(path.read_text(encoding="utf-8"))):
                yield Violation(path, line, name, "has no docstring")


def main(arguments: list[str]) -> int:
    """Run the check; return the exit status."""
    found = [v for place in arguments or ENFORCED for v in violations(place)]
    print("\n".join(map(str, found)))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
