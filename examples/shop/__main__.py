"""Runs the shop on two nodes, which share a PostgreSQL: `python -m examples.shop`. Ctrl-C ends it."""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import signal
import socket
import sys
from contextlib import ExitStack
from multiprocessing.connection import wait
from typing import NoReturn

from pgsession.embedded import EmbeddedServer

from .node import serve


def end(*_: object) -> NoReturn:
    sys.exit(143)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="of the first node; 0: two that are free")
    parser.add_argument("--database", help="a PostgreSQL to use instead of an embedded one")
    parser.add_argument("--schema", default="shop", help="where in it the tables are made")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    with ExitStack() as stack:
        database = options.database or stack.enter_context(EmbeddedServer()).conninfo
        key = secrets.token_bytes(32)  # yours is among your secrets, the same on all nodes
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", options.port and options.port + number)))
            for number in range(2)
        ]
        here, there = (f"http://localhost:{each.getsockname()[1]}" for each in sockets)
        processes = multiprocessing.get_context("spawn")
        nodes = [
            processes.Process(
                target=serve, args=(listening, database, options.schema, key, *about), daemon=True
            )
            for listening, about in zip(sockets, [("A", there), ("B", here)], strict=True)
        ]
        for node in nodes:
            node.start()
            stack.callback(node.join, 10)
            stack.callback(node.terminate)
        print(
            f"The shop is open: {here} and {there}. Log in as alice, with the password wonderland.",
            flush=True,
        )
        try:
            wait([node.sentinel for node in nodes])
            sys.exit("A node has ended.")
        except KeyboardInterrupt:
            print("closed")


if __name__ == "__main__":
    main()
