"""Ways to a server that are not as they should be: each leads there for as long as a `with` block lasts."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo

_NOTIFICATION = b"A"
_WANTS_TLS = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


class Way:
    """`conninfo` leads to the server, by TCP; what passes is up to the kind."""

    def __init__(self, conninfo: str, **options: str) -> None:
        with psycopg.connect(conninfo) as connection:
            info = connection.info
            self._server: Any = (info.host, info.port)
            if info.host.startswith("/"):
                self._server = f"{info.host}/.s.PGSQL.{info.port}"
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        port = self._door.getsockname()[1]
        self.conninfo = make_conninfo(conninfo, host="127.0.0.1", port=port, gssencmode="disable", **options)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._door, *self._sockets):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        for thread in self._threads:
            thread.join()

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        try:
            while True:
                self._start(self._serve, self._door.accept()[0])
        except OSError:
            pass  # it is over

    def _serve(self, client: socket.socket) -> None:
        self._sockets.append(client)
        try:
            client = self._opened(client)
        except OSError:  # of which those of ssl are some
            return
        server = socket.socket(socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET)
        server.connect(self._server)
        self._sockets += [client, server]
        self._start(_pass_on, client, server)
        self._answer(server, client)

    def _opened(self, client: socket.socket) -> socket.socket:
        return client

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        _pass_on(server, client)


class Mute(Way):
    """Everything passes but notifications, as behind some proxies for many servers."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(conninfo, sslmode="disable")

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        try:
            with server.makefile("rb") as answers:
                while head := answers.read(5):
                    body = answers.read(int.from_bytes(head[1:], "big") - 4)
                    if head[:1] != _NOTIFICATION:
                        client.sendall(head + body)
        except OSError:
            pass


class Tls(Way):
    """The server as it is with TLS, which not every build of it has."""

    def __init__(self, conninfo: str, certificate: Path, key: Path, **options: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        super().__init__(conninfo, **options)

    def _opened(self, client: socket.socket) -> socket.socket:
        if client.recv(8, socket.MSG_WAITALL) != _WANTS_TLS:
            raise OSError("TLS is needed")
        client.sendall(b"S")
        return self._context.wrap_socket(client, server_side=True)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
