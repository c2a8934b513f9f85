# asyncio only
"""Round trips on a connection: its socket is entered into the event loop once; nobody is told of what is not his."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from pgsession._concurrency import AsyncRoundTrips
from pgsession._database.script import Script, step

from .conftest import OpenAsyncManager
from .helpers import eventually

Connection = psycopg.AsyncConnection[Any]
PATIENCE = 20


class Entries:
    """Counts how often the loop is told of a socket, and what it tells of one."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.entered = 0
        self.told = 0
        loop = asyncio.get_running_loop()
        add_reader = loop.add_reader

        def enter(fileno: int, callback: Any, *arguments: Any) -> None:
            def tell() -> None:
                self.told += 1
                callback(*arguments)

            self.entered += 1
            add_reader(fileno, tell)

        patch.setattr(loop, "add_reader", enter)


@pytest_asyncio.fixture
async def connection(dsn: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest_asyncio.fixture
async def round_trips(connection: Connection) -> AsyncIterator[AsyncRoundTrips]:
    with socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as handle:
        round_trips = AsyncRoundTrips(connection, handle)
        yield round_trips
        round_trips.close()


def asking(statement: str, *parameters: str) -> Script:
    return Script((step(statement, *parameters),), 0)


async def test_a_socket_is_entered_once(
    connection: Connection, round_trips: AsyncRoundTrips, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = Entries(monkeypatch)
    for number in range(10):
        script = asking("SELECT $1::text", str(number))
        assert await round_trips.run(script.run(connection.pgconn)) == (str(number),)
    assert entries.entered == 1 and entries.told == 10, "and a round trip is one thing to be told"


async def test_writes_of_one_caller_enter_no_socket(
    open_manager: OpenAsyncManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await open_manager(max_staleness=600)
    session = await manager.create_session("u", {"n": 0})

    async def change() -> None:
        session["n"] += 1
        heard = manager.stats().events
        await manager.update_session(session)

        async def arrived() -> bool:
            return manager.stats().events > heard

        await eventually(arrived)

    await change()
    entries = Entries(monkeypatch)
    for _ in range(10):
        await change()
    assert entries.entered == 0


async def test_what_does_not_fit_into_the_socket_is_sent(
    connection: Connection, round_trips: AsyncRoundTrips
) -> None:
    large = "x" * 30_000_000
    script = asking("SELECT pg_catalog.length($1::text), $1::text", large)
    assert await round_trips.run(script.run(connection.pgconn)) == (len(large), large)
    assert await round_trips.run(asking("SELECT 1").run(connection.pgconn)) == (1,)


async def test_the_end_of_an_idle_connection_is_told_once(
    connection: Connection, round_trips: AsyncRoundTrips, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = Entries(monkeypatch)
    await round_trips.run(asking("SELECT 1").run(connection.pgconn))
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
        await other.execute("SELECT pg_terminate_backend(%s, 10000)", [connection.info.backend_pid])
    told = entries.told
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert entries.told <= told + 1
    with pytest.raises(psycopg.OperationalError):
        await round_trips.run(asking("SELECT 1").run(connection.pgconn))


async def test_psycopg_may_use_the_connection_in_between(
    connection: Connection, round_trips: AsyncRoundTrips
) -> None:
    for number in range(3):
        assert await round_trips.run(asking("SELECT 1").run(connection.pgconn)) == (1,)
        cursor = await connection.execute("SELECT %s::integer", [number])
        assert await cursor.fetchone() == (number,)


async def test_a_cancelled_round_trip_ends_at_the_server_too(
    connection: Connection, round_trips: AsyncRoundTrips, dsn: str
) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
        pid = connection.info.backend_pid

        async def state() -> Any:
            cursor = await other.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [pid])
            return await cursor.fetchone()

        async def works() -> bool:
            return await state() == ("active",)

        async def is_gone() -> bool:
            return await state() is None

        task = asyncio.create_task(round_trips.run(asking("SELECT pg_sleep(3600)").run(connection.pgconn)))
        await eventually(works)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)
        assert connection.closed, "nobody knows what it would answer next"
        await eventually(is_gone)


async def test_descriptors_of_ended_connections_are_free_for_others(dsn: str) -> None:
    """A loop that still watched a closed descriptor would refuse the next one of the same number."""
    loop = asyncio.get_running_loop()
    for _ in range(5):
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            with socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as handle:
                round_trips = AsyncRoundTrips(connection, handle)
                await round_trips.run(asking("SELECT 1").run(connection.pgconn))
                fileno = handle.fileno()
                round_trips.close()
        assert not loop.remove_reader(fileno)
