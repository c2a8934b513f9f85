"""A TCP proxy in front of a PostgreSQL server that fails on command, from a thread of its own.

    with FaultProxy(conninfo) as proxy:
        ... connect to proxy.conninfo ...
        proxy.lose()

It can be commanded from any thread; what was commanded holds when the call returns.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Self, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

T = TypeVar("T")


class _Pair:
    """One connection of a client, and the proxy's to the server."""

    def __init__(self) -> None:
        self.lost = False
        self.asked = False  # and the server has not begun to answer
        self.writers: list[asyncio.StreamWriter] = []

    def abort(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class FaultProxy:
    """`conninfo` leads to the server through the proxy, over TCP; `delay` (seconds) holds back whatever passes.

    The server is given by a conninfo, or by host and port: then it may be down, or be of another kind.

    `delay_answers` does that to what comes from the server alone. `round_trips` counts how often a client has sent
    something and the server has answered it, on all connections; notifications are no answers.
    """

    def __init__(self, upstream: str | tuple[str, int]) -> None:
        self.delay = self.delay_answers = 0.0
        self.round_trips = 0
        self._host, self._port = _address(upstream)
        self._upstream = upstream if isinstance(upstream, str) else ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._pairs: dict[_Pair, asyncio.Task[None] | None] = {}
        self._ended = False
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.forward()
        self.conninfo = make_conninfo(
            self._upstream, host="127.0.0.1", hostaddr="", port=self.port, gssencmode="disable"
        )
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- commands -------------------------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Those that the proxy has with clients now."""
        return self._command(lambda: len(self._pairs))

    def forward(self) -> None:
        """Be a good proxy again. What was frozen goes on where it stopped; what was cut or lost stays so."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self._command(self._flows.set)

    def accept(self) -> None:
        """Accept connections again, and nothing else."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def refuse(self) -> None:
        """Refuse new connections, as if nobody listened. Present ones stay."""
        asyncio.run_coroutine_threadsafe(self._stop_listening(), self._loop).result()

    def cut(self) -> None:
        """Reset every present connection: both ends notice at once."""
        self._command(self._cut)

    def lose(self) -> None:
        """Forward nothing for the present connections ever again, nor their end: neither side notices anything."""
        self._command(self._lose)

    def freeze(self) -> None:
        """Forward nothing at all until `forward`: connections are accepted, and nothing answers."""
        self._command(self._flows.clear)

    def redirect(self, upstream: str | tuple[str, int], *, cut: bool = True) -> None:
        """Lead to another server from now on; present connections are reset, or stay where they lead."""
        self._host, self._port = _address(upstream)
        if cut:
            self.cut()

    # -- in the proxy's thread -------------------------------------------------------------------------------------

    def _command(self, action: Callable[[], T]) -> T:
        async def run() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            for socket in server.sockets:
                self._loop.remove_reader(socket.fileno())
            await asyncio.sleep(
                0
            )  # Python 3.11 never closes what a server has just accepted when it is closed
            server.close()

    def _cut(self) -> None:
        for pair in self._pairs:
            pair.abort()

    def _lose(self) -> None:
        for pair in self._pairs:
            pair.lost = True

    async def _end(self) -> None:
        self._ended = True
        await self._stop_listening()
        # Those, too, that were just accepted: their tasks have not begun, or are not even made.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            self._cut()
            for task in self._pairs.values():
                if task is not None:
                    task.cancel()
            await asyncio.wait(others)
        await asyncio.sleep(0)  # the transports' own last step

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._ended:
            writer.transport.abort()
            return
        pair = _Pair()
        self._pairs[pair] = asyncio.current_task()
        pair.writers.append(writer)
        try:
            await self._flows.wait()
            server_reader, server_writer = await self._connect()
            pair.writers.append(server_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    self._pump(pair, reader, server_writer, lambda: self.delay, partial(self._asked, pair))
                )
                group.create_task(
                    self._pump(
                        pair,
                        server_reader,
                        writer,
                        lambda: self.delay or self.delay_answers,
                        partial(self._answered, pair),
                    )
                )
        except* (OSError, asyncio.CancelledError):
            pass  # one end is gone, or the test is over
        finally:
            pair.abort()
            del self._pairs[pair]

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._host.startswith("/"):
            return await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        return await asyncio.open_connection(self._host, self._port)

    async def _pump(
        self,
        pair: _Pair,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        delay: Callable[[], float],
        note: Callable[[], None],
    ) -> None:
        while True:
            chunk = await reader.read(65536)
            note()
            if seconds := delay():
                await asyncio.sleep(seconds)
            await self._flows.wait()
            if pair.lost:
                await asyncio.Event().wait()
            if not chunk:
                raise ConnectionResetError  # ends the other direction too
            writer.write(chunk)
            await writer.drain()

    def _asked(self, pair: _Pair) -> None:
        pair.asked = True

    def _answered(self, pair: _Pair) -> None:
        self.round_trips += pair.asked
        pair.asked = False


def _address(upstream: str | tuple[str, int]) -> tuple[str, int]:
    if isinstance(upstream, tuple):
        return upstream
    with psycopg.connect(upstream) as connection:
        return connection.info.host, connection.info.port
