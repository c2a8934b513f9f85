# Generated from tests/aio/test_instrument.py by tools/async_to_sync.py: never edit.

"""What `Config.instrument` is told: all that waits for the database, and nothing that memory answers."""

from __future__ import annotations

from collections import Counter

import pytest

import pgsession
from pgsession.instrument import Operation

from .conftest import OpenAsyncManager
from .helpers import eventually


class Told:
    def __init__(self) -> None:
        self.all: list[tuple[str, float, int, str | None]] = []

    def measured(self, operation: Operation, seconds: float, count: int, error: str | None) -> None:
        self.all.append((operation, seconds, count, error))

    def counts(self) -> Counter[str]:
        return Counter(operation for operation, *_ in self.all if operation not in ("event", "read", "write"))


def test_what_is_measured(open_manager: OpenAsyncManager) -> None:
    told = Told()
    manager, other = open_manager(instrument=told), open_manager()
    session = manager.create_session("ann", {"n": 1})
    session["n"] = 2
    manager.update_session(session)
    manager.rotate_session(session)
    manager.get_session(session.id, refresh=True)
    with manager.lock("r"):
        pass
    assert manager._runtime is not None
    manager._runtime.maintenance.clean_up()
    expected = Counter(
        create_session=1, update_session=1, rotate_session=1, get_session=1, acquire_lock=1, cleanup=1
    )
    assert told.counts() == expected
    before = len(told.all)
    for _ in range(10):
        assert (manager.get_session(session.id)).from_cache  # type: ignore[union-attr]
    assert told.counts() == expected and not [one for one in told.all[before:] if one[0] in ("read", "write")]
    assert {count for operation, _, count, _ in told.all if operation in ("read", "write")} == {1}
    assert all(0 <= seconds < 60 and error is None for _, seconds, _, error in told.all)
    assert [operation for operation, *_ in told.all].count("write") == 3
    told.all.clear()
    other.delete_session(session.id)

    def heard() -> bool:
        return "event" in [operation for operation, *_ in told.all]

    eventually(heard, "the event of another node")
    assert all(seconds < 30 for operation, seconds, *_ in told.all if operation == "event")


def test_an_error_is_told_by_its_type(open_manager: OpenAsyncManager) -> None:
    told = Told()
    manager = open_manager(instrument=told)
    session = manager.create_session("ann", {"n": 1})
    read = manager.get_session(session.id)
    assert read is not None
    session["n"], read["n"] = 2, 3
    manager.update_session(session)
    with pytest.raises(pgsession.SessionVersionConflict):
        manager.update_session(read, check="session")
    assert (
        told.all[-1][0] == "update_session" and told.all[-1][3] == "pgsession.errors.SessionVersionConflict"
    )
    assert manager.delete_session(session.id)
    assert ("delete_session", None) in [(operation, error) for operation, _, _, error in told.all]


def test_one_that_raises_harms_nobody(
    open_manager: OpenAsyncManager, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def measured(self, *_: object) -> None:
            raise ZeroDivisionError

    manager = open_manager(instrument=Broken())
    for _ in range(3):
        session = manager.create_session("ann")
        assert manager.get_session(session.id, refresh=True) is not None
    records = [record for record in caplog.records if "the instrument raised" in record.getMessage()]
    assert len(records) == 1 and records[0].__dict__["pgsession_event"] == "instrument_failed"


def test_without_one_nothing_is_timed(manager: pgsession.SessionManager) -> None:
    assert manager._runtime is not None and not manager._runtime.meter.active
    manager._runtime.meter.note("read", 1.0)
