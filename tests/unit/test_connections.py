"""What is known of a connection without asking its server, with a server that says what it is told to."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import errors

from pgsession._database.connections import in_recovery, is_stale, leads_elsewhere

PATIENCE = 20


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def said(kind: bytes, severity: bytes, sqlstate: bytes) -> bytes:
    """An error or a notice."""
    return message(kind, b"S%b\0V%b\0C%b\0Mscripted\0\0" % (severity, severity, sqlstate))


@contextmanager
def connected(**settings: str) -> Iterator[tuple[psycopg.Connection[object], socket.socket]]:
    """A connection, and the server's end of it."""
    settings = {"server_version": "17.0", "client_encoding": "UTF8"} | settings
    hello = message(b"R", struct.pack("!i", 0))
    for name, value in settings.items():
        hello += message(b"S", f"{name}\0{value}\0".encode())
    hello += message(b"K", struct.pack("!ii", 1, 1)) + message(b"Z", b"I")
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as crew:
        listening.settimeout(PATIENCE)

        def welcome() -> socket.socket:
            server, _ = listening.accept()
            server.settimeout(PATIENCE)
            assert server.recv(4096)
            server.sendall(hello)
            return server

        welcomed = crew.submit(welcome)
        where = f"host=127.0.0.1 port={listening.getsockname()[1]} connect_timeout={PATIENCE}"
        with (
            psycopg.connect(f"{where} sslmode=disable gssencmode=disable", autocommit=True) as connection,
            welcomed.result(PATIENCE) as server,
        ):
            yield connection, server


@pytest.mark.parametrize(
    ("kind", "severity", "sqlstate", "stale"),
    [
        (b"E", b"FATAL", b"57P01", True),
        (b"E", b"PANIC", b"57P02", True),
        (b"N", b"WARNING", b"01000", False),
    ],
)
def test_a_connection_whose_end_was_announced_is_stale(
    kind: bytes, severity: bytes, sqlstate: bytes, stale: bool
) -> None:
    """Also before the end itself has arrived."""
    with connected() as (connection, server):
        assert not is_stale(connection)
        server.sendall(said(kind, severity, sqlstate))
        assert select.select([connection], [], [], PATIENCE)[0]
        assert is_stale(connection) == stale


@pytest.mark.parametrize(
    ("settings", "standby"),
    [({"in_hot_standby": "on"}, True), ({"in_hot_standby": "off"}, False), ({}, False)],
)
def test_a_standby_says_that_it_is_one(settings: dict[str, str], standby: bool) -> None:
    with connected(**settings) as (connection, _):
        assert in_recovery(connection.pgconn) == standby


@pytest.mark.parametrize(
    ("error", "elsewhere"),
    [
        (errors.AdminShutdown, True),
        (errors.CrashShutdown, True),
        (errors.CannotConnectNow, True),
        (errors.ConnectionFailure, True),
        (errors.ReadOnlySqlTransaction, True),
        (errors.FeatureNotSupported, True),
        (errors.QueryCanceled, False),
        (errors.DeadlockDetected, False),
        (errors.UniqueViolation, False),
        (psycopg.OperationalError, False),
    ],
)
def test_errors_after_which_a_connection_is_not_kept(error: type[psycopg.Error], elsewhere: bool) -> None:
    assert leads_elsewhere(error()) == elsewhere
