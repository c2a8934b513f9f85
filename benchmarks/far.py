"""A server that is far away: a proxy holds back whatever passes, in both directions."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import psycopg
from psycopg.conninfo import make_conninfo


@contextlib.contextmanager
def far(conninfo: str, seconds: float) -> Iterator[str]:
    """A conninfo that leads to the same server, which is so many seconds away in each direction.

    A thread of its own sleeps for each direction of each connection: an event loop's timers are of a millisecond.
    """
    with psycopg.connect(conninfo) as connection:
        there = connection.info.host, connection.info.port
    ends: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                near, _ = door.accept()
                distant = socket.create_connection(there)
                ends.extend((near, distant))
                for one, other in ((near, distant), (distant, near)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=pass_on, args=(one, other), daemon=True).start()

    def pass_on(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while some := one.recv(65536):
                time.sleep(seconds)
                other.sendall(some)
            other.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield make_conninfo(conninfo, host="127.0.0.1", hostaddr="", port=door.getsockname()[1])
        finally:
            door.shutdown(socket.SHUT_RDWR)
            for end in ends:
                end.close()
