"""`make sanitize` runs the core's tests and the fuzz tests under AddressSanitizer and UndefinedBehaviorSanitizer.

It does so in a copy of the checkout.

Leaks are not looked for here (Python itself keeps what it once had); the tests count references and memory themselves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"


def main() -> int:
    """Run both; return 0 where all tests pass."""
    compiler = os.environ.get("CC", "gcc")
    sanitized = {"CC": compiler, "CFLAGS": FLAGS, "LDFLAGS": "-fsanitize=address,undefined"}
    watched = {
        "PYTHONMALLOC": "malloc",  # Python's own allocator hides overruns
        "LD_PRELOAD": runtime(compiler),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    failed = tested("sanitizers", sanitized, watched)
    return tested("plain CPython", {"PGSESSION_PLAIN_CPYTHON": "1"}, {}) or failed


def tested(title: str, build: dict[str, str], test: dict[str, str]) -> int:
    """Build a copy and run its tests, each with these variables; return the exit status of the tests."""
    print(f"---- {title}", flush=True)
    with tempfile.TemporaryDirectory(prefix="pgsession-sanitize-") as folder:
        copy = Path(folder)
        for name in ("cython", "src", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
            copy_of(ROOT / name, copy / name)
        setup = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(setup, cwd=copy, env={**os.environ, **build}, check=True)
        command = [sys.executable, "-m", "pytest", "-q", *sys.argv[1:], "tests/core", "tests/fuzz"]
        environment = {**os.environ, "PYTHONPATH": str(copy / "src"), **test}
        return subprocess.run(command, cwd=copy, env=environment).returncode


def copy_of(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(
            source, target, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "*.egg-info")
        )
    else:
        shutil.copy(source, target)


def runtime(compiler: str) -> str:
    """The sanitizer's library: it has to be loaded before anything else, and the interpreter is not built with it."""
    names = ("libasan.so", "libubsan.so", "libstdc++.so.6")
    found = [
        subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip() for name in names
    ]
    return " ".join(path for path in found if os.path.isabs(path))


if __name__ == "__main__":
    sys.exit(main())
