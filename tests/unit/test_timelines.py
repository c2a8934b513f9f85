"""A former primary is told from its successor by the timeline; without a server."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import psycopg
import pytest
from psycopg import pq

from pgsession._database.timelines import Timelines


def test_one_that_was_promoted_is_followed() -> None:
    known = Timelines()
    assert [known.learn(b"a", timeline) for timeline in (1, 1, 2, 7)] == [True] * 4


def test_a_former_one_is_refused_for_good() -> None:
    known = Timelines()
    assert known.learn(b"a", 3)
    assert not known.learn(b"a", 2)
    assert not known.learn(b"a", 2)
    assert known.learn(b"a", 3)


def test_systems_have_nothing_to_do_with_each_other() -> None:
    known = Timelines()
    assert known.learn(b"a", 3)
    assert known.learn(b"b", 1)
    assert not known.learn(b"a", 2)


def test_a_connection_of_which_nothing_is_known_is_not_superseded() -> None:
    assert not Timelines().superseded(object())


class Server:
    """Stands for a connection that is made to a server, and says what that answers."""

    def __init__(self, *told: bytes | None, fails: bool = False, dies: bool = False) -> None:
        self.told, self.finished, self.socket = told, False, 9
        self.result = self.pgconn = self
        self.ntuples = 1
        self.answer = pq.ExecStatus.FATAL_ERROR if fails else pq.ExecStatus.TUPLES_OK
        self.dies = dies

    def send_query(self, query: bytes) -> None:
        pass

    def finish(self) -> None:
        self.finished = True

    def get_value(self, row: int, column: int) -> bytes | None:
        return self.told[column]

    @property
    def status(self) -> object:
        return pq.ConnStatus.BAD if self.dies else pq.ConnStatus.OK


def connect(known: Timelines, server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    def execute(_: object) -> Iterator[object]:
        ready = yield "to write"
        assert ready == "ready"
        return [SimpleNamespace(status=server.answer, ntuples=1, get_value=server.get_value)]

    def made() -> Iterator[object]:
        yield 9, "to connect"
        return server

    monkeypatch.setattr("psycopg.generators.execute", execute)
    steps = known.checked(made())
    assert next(steps) == (9, "to connect")
    assert steps.send("ready") == (9, "to write"), "psycopg wants to hear at which socket it waits"
    with pytest.raises(StopIteration) as end:
        steps.send("ready")
    assert end.value.value is server
    return server


def test_connections_to_a_former_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are open are superseded, and no others come about."""
    known = Timelines()
    old = connect(known, Server(b"7", b"00000009"), monkeypatch)
    assert not known.superseded(old)
    new = connect(known, Server(b"7", b"0000000A"), monkeypatch)
    assert known.superseded(old) and not known.superseded(new)
    again = Server(b"7", b"00000009")
    with pytest.raises(
        psycopg.OperationalError, match=r"former primary: it is on timeline 9, and one on timeline 10"
    ):
        connect(known, again, monkeypatch)
    assert again.finished and not new.finished


def test_servers_that_do_not_tell_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Timelines()
    connect(known, Server(b"7", b"00000002"), monkeypatch)
    for silent in (Server(b"7", None), Server(fails=True)):
        assert not known.superseded(connect(known, silent, monkeypatch))


def test_one_that_goes_away_while_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Server(fails=True, dies=True)
    with pytest.raises(psycopg.OperationalError, match="went away"):
        connect(Timelines(), gone, monkeypatch)
    assert gone.finished
