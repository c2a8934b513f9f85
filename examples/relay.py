"""A relay between a listener and its PostgreSQL, for the demo: frozen, it is a network that swallows every packet."""

from __future__ import annotations

import socket
import threading

import psycopg
from psycopg.conninfo import make_conninfo


class Relay:
    """`conninfo` leads through it. Its threads are daemons: it ends with its process."""

    def __init__(self, conninfo: str) -> None:
        with psycopg.connect(conninfo) as connection:
            self._server = connection.info.host, connection.info.port
        self._door = socket.create_server(("127.0.0.1", 0))
        self.conninfo = make_conninfo(conninfo, host="127.0.0.1", port=self._door.getsockname()[1])
        self._flows = threading.Event()
        self._flows.set()
        threading.Thread(target=self._let_in, daemon=True).start()

    def freeze(self) -> None:
        """Let nothing through, in either direction, and end nothing."""
        self._flows.clear()

    def thaw(self) -> None:
        """Let through what waits, and all that comes."""
        self._flows.set()

    def _let_in(self) -> None:
        while True:
            near, _ = self._door.accept()
            far = self._connected()
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _connected(self) -> socket.socket:
        host, port = self._server
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{host}/.s.PGSQL.{port}")
        return far

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        except OSError:
            pass  # the other direction has closed it
        finally:
            for end in (source, sink):
                end.close()
