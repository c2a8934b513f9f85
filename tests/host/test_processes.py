"""Processes that share one cache of their host, on a real PostgreSQL."""

from __future__ import annotations

import psycopg
import pytest

from tests.host.processes import Host, Process, eventually
from tests.host.worker import create, delete, read, write

KINDS = ("threads", "tasks")


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_writes_all_have_at_once(host: Host, kind: str) -> None:
    processes = [host.start(kind) for _ in range(3)]
    first, second, third = processes
    session = first.do(create, "u", n=0)
    assert all(process.do(read, session) == ({"n": 0}, True) for process in processes)
    for number, writer in enumerate(processes):
        writer.do(write, session, n=number)
        assert all(process.do(read, session) == ({"n": number}, True) for process in processes)
    assert second.do(delete, session, None)
    assert [process.do(read, session) for process in processes] == [None] * 3
    assert third.stats.shared_hits
