"""The import layers, for the compiled modules too: a part of `make check`.

import-linter reads Python sources, and a compiled module has none where it is imported from. So it is given a copy of
the package in which each module of the core stands as a `.py` file that has the imports of its Cython source, the
cimports among them, and nothing else. To a decision that is compiled the cimports of its types are added. What is
allowed is in `pyproject.toml`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / ".cache" / "layers"
CORE = Path("pgsession") / "_core"

IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<origin>[\w.]+)[ \t]+c?import\b|c?import[ \t]+(?P<name>[\w.]+))", re.MULTILINE
)


def main() -> int:
    """Make the copy, and run import-linter on it."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(
        ROOT / "src" / "pgsession",
        COPY / "pgsession",
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "*.pyi", "*.sql", "__pycache__"),
    )
    for module, sources in compiled().items():
        (COPY / CORE / f"{module}.py").write_text("".join(f"import {name}\n" for name in imports(sources)))
    for types in (COPY / "pgsession").glob("**/*.pxd"):
        with types.with_suffix(".py").open("a") as source:
            source.writelines(f"import {name}\n" for name in imports([types]))
    command = [str(Path(sys.executable).with_name("lint-imports")), str(ROOT / "pyproject.toml")]
    paths = {**os.environ, "PYTHONPATH": str(COPY)}
    return subprocess.run([*command, "--no-cache", *sys.argv[1:]], cwd=COPY, env=paths).returncode


def compiled() -> dict[str, list[Path]]:
    """Return the Cython sources of each module of the core, those that are a `.pxd` only included."""
    modules: dict[str, list[Path]] = {}
    for source in sorted((ROOT / "cython" / CORE).glob("*.p[yx][xd]")):
        if source.stem != "__init__":
            modules.setdefault(source.stem, []).append(source)
    return modules


def imports(sources: list[Path]) -> list[str]:
    """Return the names of the modules that these sources import, of the package and of others."""
    found = (match for source in sources for match in IMPORT.finditer(source.read_text(encoding="utf-8")))
    names = {match["origin"] or match["name"] for match in found}
    return sorted(name for name in names if not name.startswith(("cpython", "cython", "libc")))


if __name__ == "__main__":
    sys.exit(main())
