"""Generates the sync shells and their tests from the async ones: `make sync`, or `--check` for `make check`.

    src/pgsession/_async/*.py  ->  src/pgsession/_sync/*.py
    tests/aio/**/*.py          ->  tests/sync/**/*.py

The conversion is renaming: what differs in earnest lives in pairs of one shape (`AsyncX` and `X`, `async_x` and `x`,
in `pgsession._concurrency`). A source whose first line begins with `# asyncio only` has no sync twin.

Sources are cut into strings, comments and code by one regular expression that is exact for the grammar of Python 3.11,
the oldest we support, so the output is the same whichever Python runs this (the standard tokenizer changed f-strings).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUFF = Path(sys.executable).parent / "ruff"
FOLDERS = {"src/pgsession/_async": "src/pgsession/_sync", "tests/aio": "tests/sync"}
HEADER = "# Generated from {source} by tools/async_to_sync.py: never edit."
ASYNCIO_ONLY = "# asyncio only"

LEXEME = re.compile(
    r"""
    (?P<comment> \#[^\n]* )
  | (?P<string>
        (?P<prefix> (?<![A-Za-z0-9_]) (?i:[rbu]|rb|br|f|fr|rf)? )
        (?: \"\"\" (?: \\. | [^\\] )*? \"\"\" | ''' (?: \\. | [^\\] )*? '''
          | " (?: \\. | [^"\\\n] )* "          | ' (?: \\. | [^'\\\n] )* ' ) )
    """,
    re.VERBOSE | re.DOTALL,
)

# Everywhere, prose included: a docstring names the class that its reader has before him.
NAMES = [
    (r"\b(_*)Async(?=[A-Z])", r"\1"),
    (r"\b(_*)async_(?=[a-z])", r"\1"),
    (r"\b_async\b", "_sync"),
    (r"\btests\.aio\b", "tests.sync"),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
]

# In code only, where they cannot be words of English.
CODE = [
    (r"\b(?:async|await)\s+", ""),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\benter_async_context\b", "enter_context"),
    (r"\bpush_async_exit\b", "push"),
    (r"\bpush_async_callback\b", "callback"),
    (r"\ba(close|closing|iter|next)\b", r"\1"),
    (r"\bpytest_asyncio\b", "pytest"),
]


def convert(source: str) -> str:
    """The sync form of an async module, not formatted yet."""
    parts = []
    end = 0
    for lexeme in LEXEME.finditer(source):
        parts.append(rename(source[end : lexeme.start()], code=True))
        parts.append(rename(lexeme[0], code="f" in (lexeme["prefix"] or "").lower()))
        end = lexeme.end()
    parts.append(rename(source[end:], code=True))
    return "".join(parts)


def rename(text: str, *, code: bool) -> str:
    for pattern, replacement in [*NAMES, *(CODE if code else [])]:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def tidy(text: str, path: Path) -> str:
    """Formatted, with the imports that are used and sorted, by the rules that hold at `path`."""
    for arguments in (["check", "--select=I,F401", "--fix-only"], ["format"]):
        command = [str(RUFF), *arguments, "--quiet", "--stdin-filename", str(path), "-"]
        text = subprocess.run(
            command, input=text, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
    return text


def generate() -> Iterator[tuple[Path, str]]:
    """Every generated file with what it has to contain."""
    for sources, targets in FOLDERS.items():
        for source in sorted((ROOT / sources).rglob("*.py")):
            text = source.read_text(encoding="utf-8")
            if text.startswith(ASYNCIO_ONLY):
                continue
            target = ROOT / targets / source.relative_to(ROOT / sources)
            header = HEADER.format(source=source.relative_to(ROOT).as_posix())
            yield target, tidy(f"{header}\n\n{convert(text)}", target)


def leftovers(wanted: dict[Path, str]) -> list[Path]:
    """Files in the generated folders that nothing generates (any more)."""
    there = (path for targets in FOLDERS.values() for path in (ROOT / targets).rglob("*") if path.is_file())
    return sorted(path for path in there if path not in wanted and "__pycache__" not in path.parts)


def main() -> int:
    wanted = dict(generate())
    wrong = [path for path, text in wanted.items() if not path.exists() or path.read_bytes() != text.encode()]
    extra = leftovers(wanted)
    if "--check" in sys.argv[1:]:
        for path in wrong:
            print(f"{path.relative_to(ROOT)}: differs from what its source gives; run `make sync`")
        for path in extra:
            print(f"{path.relative_to(ROOT)}: nothing generates it; run `make sync`")
        return 1 if wrong or extra else 0
    for path in wrong:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8", newline="\n")
    for path in extra:
        path.unlink()
    print(f"{len(wanted)} files generated, {len(wrong)} of them new or changed; {len(extra)} removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
