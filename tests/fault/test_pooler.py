"""PgBouncer in transaction mode: the pool works through it, a listener cannot and is told so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import pgsession
from tests.fault.conftest import NewNode
from tests.fault.nodes import Console
from tests.fault.pgbouncer import PgBouncer


def test_the_pool_works_through_it_with_a_listener_of_its_own(
    new_node: NewNode, console: Console, dsn: str
) -> None:
    with PgBouncer(dsn) as bouncer:
        through = new_node(bouncer.conninfo, listener_conninfo=dsn, cache_size=4)
        direct = new_node()
        assert [node.manager._runtime.store._prepares for node in (through, direct)] == [False, True]
        sessions = [through.create_session("u", {"n": 0}) for _ in range(5)]
        # More connections than the pooler has to the server, and more reads of a kind than are run unprepared.
        with ThreadPoolExecutor(8) as crew:
            for _ in range(10):
                assert all(crew.map(lambda session: through.get_session(session.id, refresh=True), sessions))
            list(crew.map(lambda session: _update(through, session), sessions))
        first = sessions[0]
        assert direct.from_memory(first.id)["n"] == 1
        first["n"] = 2
        through.update_session(first, check="session")
        direct.until_read(first.id, lambda session: session["n"] == 2)
        assert through.from_memory(first.id)["n"] == 2
        console("UPDATE {t}.session_attributes SET value = '3' WHERE session_id = %s", first.id)
        through.until_read(first.id, lambda session: session["n"] == 3)
        assert through.delete_user_sessions("u") == 5
        assert through.get_session(first.id) is None
        with through.manager.lock("resource") if through.kind == "sync" else _nothing():
            pass


def _update(node: object, session: pgsession.Session) -> None:
    session["n"] = 1
    node.update_session(session)  # type: ignore[attr-defined]


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_a_listener_behind_it_is_refused(new_node: NewNode, dsn: str) -> None:
    """Its own notifications come back, and no event does: 30 of 30, and 0 of 30."""
    with PgBouncer(dsn) as bouncer, pytest.raises(pgsession.ListenerError, match="listener_conninfo"):
        new_node(bouncer.conninfo, max_staleness=2)


def test_a_listener_behind_it_is_refused_with_a_direct_pool(new_node: NewNode, dsn: str) -> None:
    with PgBouncer(dsn) as bouncer, pytest.raises(pgsession.ListenerError, match="pooler"):
        new_node(dsn, listener_conninfo=bouncer.conninfo, max_staleness=2)
