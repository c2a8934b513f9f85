"""What a run brings, and what the next one does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from pgsession import Session, SessionManager
from pgsession.contrib.moving import mover
from pgsession.contrib.moving.mover import LeftBehind, MoveError, Report
from pgsession.web.moving import entry_id, moved_id
from tests.tables import Tables
from tests.web.moving.notes import DAY, Browser, Moving, Notes

Run = Callable[..., Report]


@pytest.fixture
def store() -> Notes:
    return Notes()


@pytest.fixture
def move(moving: Moving, tables: Tables, store: Notes) -> Run:
    """`move("cart", dry_run=True)`: a run, without a key."""
    return lambda *without, **options: moving.run(store, *without, **options)


def found(manager: SessionManager, key: str) -> Session | None:
    return manager.get_session(moved_id(entry_id(key)), refresh=True)


def counts(report: Report) -> dict[str, Any]:
    """What is not zero."""
    return {name: value for name, value in vars(report).items() if value}


def test_all_of_it_is_brought(move: Run, manager: SessionManager, store: Notes) -> None:
    key = store.begin(timedelta(hours=3), user="alice", cart=[{"sku": "book", "n": 2}], none=None, price=1.5)
    visitor = store.begin(None, cart=[])
    assert counts(move()) == {"seen": 2, "new": 2}
    assert store.closed == 1
    session = found(manager, key)
    assert session is not None and session.user_id == "alice" and session.group_id is None
    assert dict(session) == store.sessions[key][0]
    assert abs(session.expires_at - datetime.now(UTC) - timedelta(hours=3)) < timedelta(minutes=1)
    session = found(manager, visitor)
    assert session is not None and session.user_id is None and dict(session) == {"cart": []}


def test_a_user_keeps_more_sessions_than_the_limit(move: Run, manager: SessionManager, store: Notes) -> None:
    for _ in range(9):
        store.begin(user="alice")
    move()
    assert manager.count_sessions(user_id="alice") == 9


def test_a_dry_run_counts_and_writes_nothing(move: Run, tables: Tables, store: Notes) -> None:
    key = store.begin(n=1)
    store.begin(n=Decimal(1))
    assert counts(move(dry_run=True)) == {
        "seen": 2, "new": 1, "left": {"'n' would not be what it was: Decimal": 1}
    }  # fmt: skip
    assert tables.count() == 0
    move()
    before = tables.run("SELECT id, version FROM {sessions} ORDER BY id")
    store.write(key, n=2)
    assert move(dry_run=True).changed == 1
    del store.sessions[key]
    store.begin(n=3)
    assert counts(move(dry_run=True))["ended"] == 1
    assert tables.run("SELECT id, version FROM {sessions} ORDER BY id") == before


def test_again_brings_what_has_changed(
    move: Run, manager: SessionManager, store: Notes, tables: Tables
) -> None:
    same, changed, longer = (store.begin(n=n, gone=1) for n in range(3))
    move()
    before = tables.one("SELECT version FROM {sessions} WHERE id = %s", moved_id(entry_id(same)))
    store.write(changed, 2 * DAY, user="alice", n=9)
    store.write(longer, 3 * DAY, n=2, gone=1)
    new = store.begin(n=4)
    assert counts(move()) == {"seen": 4, "new": 1, "changed": 2, "same": 1}
    session = found(manager, changed)
    assert session is not None and dict(session) == {"user": "alice", "n": 9} and session.user_id == "alice"
    session = found(manager, longer)
    assert session is not None and session.expires_at - datetime.now(UTC) > 2 * DAY
    assert found(manager, new) is not None
    assert tables.one("SELECT version FROM {sessions} WHERE id = %s", moved_id(entry_id(same))) == before
    assert counts(move()) == {"seen": 4, "same": 4}
    assert Browser(manager, changed).begin().user_id == "alice"


def test_what_has_come_over_is_left_alone(move: Run, manager: SessionManager, store: Notes) -> None:
    key = store.begin(n=1)
    move()
    browser = Browser(manager, key)
    session = browser.begin()
    session["n"] = 2
    browser.end(session)
    store.write(key, n=7)
    assert counts(move()) == {"seen": 1, "taken": 1}
    assert browser.begin()["n"] == 2


def test_what_has_ended_here_does_not_come_back(move: Run, manager: SessionManager, store: Notes) -> None:
    logged_out, revoked = store.begin(user="alice"), store.begin(user="bob")
    move()
    browser = Browser(manager, logged_out)
    session = browser.begin()
    session.log_out()
    browser.end(session)
    assert manager.delete_user_sessions("bob") == 1
    for _ in range(2):
        assert counts(move())["taken"] + counts(move()).get("same", 0) == 2
        for key in (logged_out, revoked):
            assert found(manager, key) is None and Browser(manager, key).begin().new
    store.write(revoked, user="bob", n=1)
    assert counts(move()) == {"seen": 2, "taken": 2}
    assert Browser(manager, revoked).begin().new


@pytest.mark.parametrize("has_come", [False, True], ids=["before its browser came", "after its browser came"])
def test_what_has_ended_there_ends_here(
    move: Run, manager: SessionManager, store: Notes, has_come: bool
) -> None:
    """A logout, or a login that changes the key, by a node of before."""
    key, other = store.begin(user="alice"), store.begin(user="bob")
    move()
    browser = Browser(manager, key)
    if has_come:
        browser.end(browser.begin())
    del store.sessions[key]
    assert counts(move()) == {"seen": 1, "same": 1, "ended": 1}
    assert found(manager, key) is None and browser.begin().new
    store.write(key, user="alice")  # by a request that was under way: as good as gone
    assert counts(move()) == {"seen": 2, "same": 1, "taken": 1}
    assert browser.begin().new and Browser(manager, other).begin().user_id == "bob"


def test_what_has_expired_there_may_live_on_here(move: Run, manager: SessionManager, store: Notes) -> None:
    key, _ = store.begin(timedelta(seconds=50), n=1), store.begin()
    move()
    browser = Browser(manager, key)
    session = browser.begin()
    session.expire(DAY)
    browser.end(session)
    del store.sessions[key]
    assert counts(move()) == {"seen": 1, "same": 1}
    assert browser.begin()["n"] == 1


def test_an_empty_store_ends_nothing(move: Run, manager: SessionManager, store: Notes) -> None:
    assert counts(move()) == {}
    key = store.begin(n=1)
    move()
    store.sessions.clear()
    with pytest.raises(MoveError, match="is it the right one"):
        move()
    assert found(manager, key) is not None


def test_a_run_that_was_interrupted_is_taken_up(
    move: Run, manager: SessionManager, store: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session was stored, and its entry not yet."""
    key = store.begin(user="alice", n=1)
    move()
    manager.delete_session(entry_id(key))
    store.write(key, user="alice", n=2)
    assert Browser(manager, key).begin().new
    assert counts(move()) == {"seen": 1, "new": 1}
    assert Browser(manager, key).begin()["n"] == 2


def test_one_run_at_a_time(move: Run, manager: SessionManager, store: Notes) -> None:
    store.begin(n=1)
    with manager.lock(mover.LOCK):
        with pytest.raises(MoveError, match="under way"):
            move()
    assert move().new == 1


def test_a_browser_that_comes_while_it_is_brought_again_wins(
    move: Run, manager: SessionManager, store: Notes
) -> None:
    key = store.begin(n=1)
    move()
    store.write(key, n=2)
    browser = Browser(manager, key)

    class Come(Notes):
        def contents(self, old: Any) -> Any:
            session = browser.begin()
            session["n"] = 9
            browser.end(session)
            return super().contents(old)

    store.__class__ = Come
    assert counts(move()) == {"seen": 1, "taken": 1}
    assert browser.begin()["n"] == 9


# ---- what is left behind ----


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Decimal("1.5"), "'v' would not be what it was: Decimal"),
        ((1, 2), "'v' would not be what it was: tuple"),
        ({1, 2}, "'v' would not be what it was: set"),
        (b"x", "'v' would not be what it was: bytes"),
        (datetime.now(UTC), "'v' would not be what it was: datetime"),
        ({1: 2}, "'v' would not be what it was: dict"),
        (float("nan"), "'v' would not be what it was: float"),
        (object(), "'v' would not be what it was: object"),
        ("x" * 20_000, "'v' is longer than max_attribute_length"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_a_session_stays_behind_with_a_value_that_would_be_another(
    move: Run, manager: SessionManager, store: Notes, value: object, why: str
) -> None:
    key, good = store.begin(user="alice", v=value), store.begin(n=1)
    assert counts(move()) == {"seen": 2, "new": 1, "left": {why: 1}}
    assert found(manager, key) is None and Browser(manager, key).begin().new
    assert found(manager, good) is not None
    assert counts(move("v")) == {"seen": 2, "new": 1, "same": 1}
    assert Browser(manager, key).begin().user_id == "alice"


def test_a_session_that_can_not_be_brought_any_more_does_not_stay_as_it_was(
    move: Run, manager: SessionManager, store: Notes
) -> None:
    """As after a logout there that leaves the session: here its user would be logged in still."""
    key, other = store.begin(user="alice"), store.begin(user="bob")
    move()
    browser = Browser(manager, other)
    browser.end(browser.begin())
    for each in (key, other):
        store.write(each, v=Decimal(1))
    assert counts(move(dry_run=True))["left"]
    assert found(manager, key) is not None
    for _ in range(2):
        report = counts(move())
        assert report == {"seen": 2, "taken": 1, "left": {"'v' would not be what it was: Decimal": 1}}
        assert found(manager, key) is None and Browser(manager, key).begin().new
    assert browser.begin().user_id == "bob"
    store.write(key, n=1)
    assert counts(move()) == {"seen": 2, "taken": 1, "new": 1}
    assert Browser(manager, key).begin()["n"] == 1


def test_other_reasons(move: Run, store: Notes) -> None:
    store.begin(broken=True)
    store.write("short", n=1)
    store.write("of other letters than those of keys", n=1)
    store.begin(**{"x" * 600: 1})
    store.begin(**{f"k{n}": n for n in range(1001)})
    store.begin(nul="\0")
    left = move().left
    assert left.pop("it is broken") == 1
    assert left.pop("its key is not what a server makes: 22 letters, digits, - and _ or more") == 2
    assert left.pop("it has more values than max_attributes") == 1
    assert sum(left.values()) == 2 and all(why.startswith("it is refused: ") for why in left)


def test_an_error_is_told_once_all_of_the_batch_has_ended() -> None:
    ended = []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        ended.append(number)
        if number == 1:
            raise LeftBehind("one")

    with pytest.raises(LeftBehind, match="one"):
        asyncio.run(mover._all(work(number) for number in range(4)))
    assert ended == [0, 1, 2, 3]


@pytest.mark.parametrize("how", ["logged out", "revoked", "in use"])
def test_a_session_that_lives_longer_there_is_still_left_alone(
    move: Run, manager: SessionManager, store: Notes, tables: Tables, how: str
) -> None:
    """Its browser goes on visiting nodes of before: what says that it has come over lives as long as that."""
    key = store.begin(DAY, user="alice", n=1)
    move()
    browser = Browser(manager, key)
    session = browser.begin()
    session["n"] = 2
    session.expire(9 * DAY)
    browser.end(session)
    if how == "logged out":
        session = browser.begin()
        session.log_out()
        browser.end(session)
    elif how == "revoked":
        manager.delete_user_sessions("alice")
    store.write(key, 3 * DAY, user="alice", n=1)
    assert move(dry_run=True).taken == move().taken == 1
    tables.run("UPDATE {sessions} SET expires_at = expires_at - interval '2 days'")
    assert counts(move()) == {"seen": 1, "taken": 1}
    assert Browser(manager, key).begin().new
    assert (found(manager, key) is None) == (how != "in use")
