"""Compiles the core, cython/pgsession/_core/, and what every write goes through; pyproject.toml has the rest.

Decisions and statements are compiled from the `.py` that can run as it is. The `.pxd` beside it says what is typed,
and is what has it compiled: where that and the compiled module are missing, the `.py` runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
CORE = Path("cython") / "pgsession" / "_core"

# What leans on how CPython is made: cython/pgsession/_core/cpython_tricks.h
MACROS = [("PGSESSION_PLAIN_CPYTHON", "1")] if os.environ.get("PGSESSION_PLAIN_CPYTHON") == "1" else []

HEADERS = sorted(str(CORE / header.name) for header in (ROOT / CORE).glob("*.[hp]*"))
TYPES = sorted(path.relative_to(ROOT) for path in (ROOT / "src" / "pgsession").glob("**/*.pxd"))

# What was compiled of a source that is not any more would run in place of it.
for path in (ROOT / "src" / "pgsession").glob("**/*.*.[sp][oy]*"):
    source = path.with_name(path.name.split(".")[0])
    if (
        path.suffix in (".so", ".pyd")
        and source.with_suffix(".py").exists()
        and not source.with_suffix(".pxd").exists()
    ):
        path.unlink()

core = [
    Extension(
        f"pgsession._core.{source.stem}",
        [str(CORE / source.name)],
        include_dirs=[str(CORE)],
        define_macros=MACROS,
        depends=HEADERS,
    )
    for source in sorted((ROOT / CORE).glob("*.pyx"))
]
decisions = [
    Extension(
        ".".join(types.relative_to("src").with_suffix("").parts),
        [str(types.with_suffix(".py"))],
        include_dirs=[str(CORE)],
        define_macros=MACROS,
        depends=[*map(str, TYPES), *HEADERS],
    )
    for types in TYPES
]


def compiled(extensions: list[Extension], **directives: bool) -> list[Extension]:
    """Return the modules, translated to C."""
    return cythonize(
        extensions,
        include_path=["cython", "src"],
        build_dir=os.path.join("build", "cython"),
        annotate=bool(os.environ.get("PGSESSION_ANNOTATE")),
        compiler_directives={"language_level": 3, "binding": True, "embedsignature": False, **directives},
    )


setup(
    ext_modules=[
        *compiled(core, boundscheck=False, wraparound=False, initializedcheck=False),
        # As Python does it: whatever is None, out of bounds or of another type raises what it raises there.
        *compiled(decisions, nonecheck=True, annotation_typing=False),
    ]
)
