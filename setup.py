"""Compiles the core, cython/pgsession/_core/, into the package; everything else is declared in pyproject.toml."""

from __future__ import annotations

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
CORE = Path("cython") / "pgsession" / "_core"

# What leans on how CPython is made: cython/pgsession/_core/cpython_tricks.h
MACROS = [("PGSESSION_PLAIN_CPYTHON", "1")] if os.environ.get("PGSESSION_PLAIN_CPYTHON") == "1" else []

extensions = [
    Extension(
        f"pgsession._core.{source.stem}",
        [str(CORE / source.name)],
        include_dirs=[str(CORE)],
        define_macros=MACROS,
        depends=sorted(str(CORE / header.name) for header in (ROOT / CORE).glob("*.[hp]*")),
    )
    for source in sorted((ROOT / CORE).glob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        include_path=["cython"],
        build_dir=os.path.join("build", "cython"),
        annotate=bool(os.environ.get("PGSESSION_ANNOTATE")),
        compiler_directives={
            "language_level": 3,
            "binding": True,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "embedsignature": False,
        },
    )
)
