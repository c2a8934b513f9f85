"""What a security log costs whose function sleeps for a minute: `python -m benchmarks.audit [ROUNDS]`.

A node that tells nobody and one whose `Config.on_audit_event` sleeps take turns, in one process, on one server: in
many short rounds, so that what the machine does besides weighs on both. A request is a hit by token; one of ten is a
login and a logout in its place, one of ten a forged token. Prints requests a second and CPU a request, and what the
second node has more, as medians of all rounds.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import pgsession
from pgsession.embedded import EmbeddedServer

REQUESTS = 320  # a round
TASKS = 16
SIGNER = pgsession.Signer(b"k" * 32)


def slow(event: pgsession.AuditEvent) -> None:
    time.sleep(60)


def config(function: Callable[[pgsession.AuditEvent], object] | None) -> pgsession.Config:
    return pgsession.Config(create_schema_if_missing=True, max_sessions=0, on_audit_event=function)


def token(manager: Any, session: pgsession.Session) -> str:
    # As it is called: the signer makes it, or the manager.
    if hasattr(manager, "token"):
        return str(manager.token(session))
    return SIGNER.sign_session(session.id, session.version)


def forged() -> str:
    return secrets.token_urlsafe(66)


async def asyncio_round(manager: pgsession.AsyncSessionManager, known: str) -> None:
    async def some(count: int) -> None:
        for number in range(count):
            if number % 10 == 0:
                session = await manager.create_session(f"u{number}")
                await manager.delete_session(session.id)
            elif number % 10 == 1:
                assert await manager.get_session_by_token(forged()) is None
            else:
                assert await manager.get_session_by_token(known) is not None

    await asyncio.gather(*(some(REQUESTS // TASKS) for _ in range(TASKS)))


def threads_round(manager: pgsession.SessionManager, known: str) -> None:
    for number in range(REQUESTS):
        if number % 10 == 0:
            manager.delete_session(manager.create_session(f"u{number}").id)
        elif number % 10 == 1:
            assert manager.get_session_by_token(forged()) is None
        else:
            assert manager.get_session_by_token(known) is not None


class Figures:
    """The figures of each node, by round."""

    def __init__(self) -> None:
        self.rates: tuple[list[float], list[float]] = [], []
        self.costs: tuple[list[float], list[float]] = [], []

    def note(self, node: int, wall: float, cpu: float) -> None:
        self.rates[node].append(REQUESTS / wall)
        self.costs[node].append(cpu / REQUESTS)

    def show(self, name: str, stats: pgsession.Stats) -> None:
        rate, cost = statistics.median(self.rates[0]), statistics.median(self.costs[0])
        print(
            f"{name}: {rate:,.0f} requests/s, {_more(self.rates):+.1%} with a log; "
            f"CPU {cost * 1e6:.1f} us a request, {_more(self.costs):+.1%}; "
            f"{stats.audit_events} told, {stats.lost_audit_events:,} lost"
        )


def _more(figures: tuple[list[float], list[float]]) -> float:
    """The median of what each round has more than the one beside it: what the machine does besides weighs on both."""
    without, audited = figures
    return statistics.median(theirs / ours for ours, theirs in zip(without, audited, strict=True)) - 1


async def with_asyncio(dsn: str, rounds: int) -> None:
    figures = Figures()
    nodes = [pgsession.AsyncSessionManager(dsn, config(function), signer=SIGNER) for function in (None, slow)]
    for manager in nodes:
        await manager.open()
    tokens = [token(manager, await manager.create_session("u")) for manager in nodes]
    for number in range(rounds + 1):
        for node in (0, 1) if number % 2 else (1, 0):
            wall, cpu = time.perf_counter(), time.process_time()
            await asyncio_round(nodes[node], tokens[node])
            if number:  # the first one warms up
                figures.note(node, time.perf_counter() - wall, time.process_time() - cpu)
    figures.show(f"asyncio, {TASKS} tasks", nodes[1].stats())
    for manager in nodes:
        await manager.close(timeout=1)


def with_threads(dsn: str, rounds: int) -> None:
    figures = Figures()
    nodes = [pgsession.SessionManager(dsn, config(function), signer=SIGNER) for function in (None, slow)]
    for manager in nodes:
        manager.open()
    tokens = [token(manager, manager.create_session("u")) for manager in nodes]
    for number in range(rounds + 1):
        for node in (0, 1) if number % 2 else (1, 0):
            wall, cpu = time.perf_counter(), time.process_time()
            threads_round(nodes[node], tokens[node])
            if number:
                figures.note(node, time.perf_counter() - wall, time.process_time() - cpu)
    figures.show("threads, one caller", nodes[1].stats())
    for manager in nodes:
        manager.close(timeout=1)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with EmbeddedServer() as server:
        asyncio.run(with_asyncio(server.conninfo, rounds))
        with_threads(server.conninfo, rounds)


if __name__ == "__main__":
    main()
