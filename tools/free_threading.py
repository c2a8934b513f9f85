"""`make free-threading PYTHON_FT=python3.13t`: what of the core is declared for builds without the GIL, tested on one.

Only the modules of the cache are built, in a copy of the checkout, and only tests that need nothing but pytest are
run: msgspec and hypothesis have no builds for 3.13t. So any free-threaded CPython from 3.13 on will do. This Python's
Cython makes the C; the compiler and the flags are those that the other one was built with.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    *(
        "arguments",
        "clock",
        "key",
        "record",
        "record_bytes",
        "arena",
        "absences",
        "accesses",
        "changes",
        "cache",
    ),
)
TESTS = ("test_free_threading", "test_clock")  # the others need msgspec or hypothesis
ASK = """
import json, sysconfig
asked = sysconfig.get_config_vars("Py_GIL_DISABLED", "LDSHARED", "CFLAGS", "CCSHARED", "EXT_SUFFIX")
print(json.dumps([sysconfig.get_path("include"), *asked]))
"""


def main() -> int:
    if len(sys.argv) < 2 or not sys.argv[1]:
        sys.exit("name a free-threaded Python: make free-threading PYTHON_FT=/path/to/python3.13t")
    with tempfile.TemporaryDirectory(prefix="pgsession-free-threading-") as folder:
        copy = Path(folder)
        for name in ("src", "tests"):
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
            )
        python = environment(sys.argv[1], copy / "venv")
        build(python, copy)
        if os.environ.get("PGSESSION_MEASURE"):
            run([str(python), str(ROOT / "tools" / "free_threading_scaling.py")], cwd=copy, env=paths(copy))
        return test(python, copy, sys.argv[2:])


def environment(interpreter: str, folder: Path) -> Path:
    """A virtual environment of that Python with pytest in it."""
    run([interpreter, "-m", "venv", str(folder)])
    python = folder / "bin" / "python"
    run([str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "pytest"])
    return python


def build(python: Path, copy: Path) -> None:
    answer = subprocess.check_output([str(python), "-c", ASK], text=True)
    include, disabled, link, flags, position, suffix = json.loads(answer)
    if not disabled:
        sys.exit(f"{sys.argv[1]} is an ordinary build")
    for module in MODULES:
        source = copy / f"{module}.c"
        run(
            [
                *(sys.executable, "-m", "cython", "-3", "-I", "cython", "-o", str(source)),
                *("-X", "boundscheck=False,wraparound=False,initializedcheck=False,binding=True"),
                f"cython/pgsession/_core/{module}.pyx",
            ]
        )
        options = [
            *shlex.split(flags),
            *shlex.split(position),
            f"-I{include}",
            "-Icython/pgsession/_core",
            "-w",
        ]
        target = copy / "src" / "pgsession" / "_core" / f"{module}{suffix}"
        run([*shlex.split(link), *options, str(source), "-o", str(target)])


def test(python: Path, copy: Path, arguments: list[str]) -> int:
    """Settings of its own: those of the project name plugins that this environment has not."""
    settings = copy / "pytest.ini"
    settings.write_text("[pytest]\nfilterwarnings = error\n")
    command = [str(python), "-m", "pytest", "-q", "-c", str(settings), "--rootdir", str(copy)]
    command += ["--import-mode=importlib", "-p", "no:cacheprovider", *arguments]
    command += [f"tests/core/{name}.py" for name in TESTS]
    return subprocess.run(command, cwd=copy, env=paths(copy)).returncode


def paths(copy: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}


def run(command: list[str], **options: object) -> None:
    subprocess.run(command, check=True, **{"cwd": ROOT, **options})  # type: ignore[call-overload]


if __name__ == "__main__":
    sys.exit(main())
