"""A node of the shop: a process of its own, as it could be on a host of its own."""

from __future__ import annotations

import multiprocessing
import signal
import socket
from threading import Thread

import uvicorn

from pgsession import Config

from .app import make_app


def serve(
    listening: socket.socket, database: str, schema: str, key: bytes, name: str, other_node: str
) -> None:
    """Answer requests until the process is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which then ends its nodes
    config = Config(schema_name=schema, create_schema_if_missing=True)
    app = make_app(database, key, config, name=name, other_node=other_node)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    Thread(target=end_with_parent, args=(server,), daemon=True).start()
    server.run(sockets=[listening])


def end_with_parent(server: uvicorn.Server) -> None:
    """Shut down once the command is gone, in whatever way it has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        server.should_exit = True
