"""What the tests, and `make screenshots`, run: the shop by its command, and a browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
PATIENCE = 30


@contextmanager
def open_shop(database: str, schema: str) -> Iterator[tuple[str, str]]:
    """The URLs of its two nodes: a host at two ports, so that they share the cookie."""
    place = ["--port", "0", "--database", database, "--schema", schema]
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "examples.shop", *place]
    shop = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    guard = Timer(PATIENCE, shop.kill)
    guard.start()
    assert shop.stdout is not None
    try:
        here, there = re.findall(r"http://localhost:\d+", shop.stdout.readline())
        for url in (here, there):
            urlopen(url, timeout=PATIENCE).close()
        guard.cancel()
        yield here, there
    finally:
        guard.cancel()
        shop.send_signal(signal.SIGINT)
        try:
            code = shop.wait(PATIENCE)
        finally:
            shop.kill()
            shop.stdout.close()
    assert code == 0


def launch_options(program: str) -> dict[str, Any]:
    """For Playwright. Chromium's sandbox does not work for root."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return {
        "executable_path": program,
        "args": ["--disable-gpu", *(["--no-sandbox"] if root else [])],
        "ignore_default_args": ["--disable-back-forward-cache"],  # users' browsers have it
    }
