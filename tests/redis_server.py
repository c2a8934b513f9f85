"""A Redis of one's own, for what is compared with it and for what comes from it."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

ATTEMPTS = 3  # somebody else may take a port that was free
PATIENCE = 10


@contextmanager
def redis_server(program: str, *options: str) -> Iterator[str]:
    """The URL of a Redis that keeps nothing on disk, unless the options say so."""
    with tempfile.TemporaryDirectory(prefix="pgsession-redis-") as folder:
        server, port = _start([program, "--dir", folder, "--save", "", "--appendonly", "no", *options])
        try:
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(PATIENCE)


def _start(command: list[str]) -> tuple[subprocess.Popen[str], int]:
    said = ""
    for _ in range(ATTEMPTS):
        port = _free_port()
        address = ["--bind", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen([*command, *address], stdout=subprocess.PIPE, text=True)
        said = _until_ready(server)
        if "Ready to accept connections" in said:
            return server, port
        server.wait(PATIENCE)
    raise RuntimeError(f"redis-server did not start: {said}")


def _until_ready(server: subprocess.Popen[str]) -> str:
    """What it says until it is ready, or has ended."""
    lines = []
    guard = Timer(PATIENCE, server.kill)
    guard.start()
    assert server.stdout is not None
    with server.stdout:  # it goes on where nobody reads
        for line in server.stdout:
            lines.append(line)
            if "Ready to accept connections" in line:
                break
    guard.cancel()
    return "".join(lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
