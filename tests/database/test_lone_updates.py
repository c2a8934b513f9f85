"""A lone update has a function of its own: it does, answers and tells what the one for many does of the same update."""

from __future__ import annotations

from typing import Any

from .conftest import DAY, HOUR, Database

CASES: dict[str, dict[str, Any]] = {
    "one value": {"sets": {"a": 2}},
    "several values": {"sets": {"a": 2, "b": [1], "new": None}},
    "no value": {"sets": {}},
    "values that expire": {"sets": {"a": 2}, "attribute_expires": 4 * 10**15},
    "a value goes": {"sets": {"a": 2}, "deletes": ["b", "absent"]},
    "untold": {"sets": {"a": 2}, "notify": False},
    "another expiry": {"sets": {}, "expires": 4 * 10**15},
    "another idle timeout": {"sets": {}, "inactivity": HOUR},
    "no idle timeout": {"sets": {}, "inactivity": None},
    "a group": {"sets": {"a": 2}, "group": "g", "notify": False},
    "the same group": {"sets": {"a": 2}, "group": None, "notify": False},
    "behind": {"sets": {"a": 2}, "base": 0},
    "of another incarnation": {"sets": {"a": 2}, "incarnation": "0" * 32},
    "of none": {"sets": {"a": 2}, "incarnation": None},
    "checked": {"sets": {"a": 2}, "check": "session"},
    "checked and behind": {"sets": {"a": 2}, "check": "session", "base": 0},
    "checked and behind, told": {
        "sets": {"a": 2}, "check": "session", "base": 0, "notify_on_conflict": True
    },
    "checked, of another incarnation": {"sets": {"a": 2}, "check": "session", "incarnation": "0" * 32},
    "attributes checked": {"sets": {"a": 2}, "check": "attributes"},
    "attributes checked and behind": {"sets": {"a": 2}, "check": "attributes", "bases": {"a": 0}},
    "of a former owner": {"sets": {"a": 2}, "owner_since": 7},
}  # fmt: skip


def test_what_one_update_does_is_what_it_does_among_others(database: Database) -> None:
    seen = {case: _alone_and_among_others(database, **options) for case, options in CASES.items()}
    assert {case: alone for case, (alone, _) in seen.items()} == {
        case: among for case, (_, among) in seen.items()
    }


def _alone_and_among_others(database: Database, **options: Any) -> list[list[Any]]:
    options = {"base": 1, **options}
    sets, base = options.pop("sets"), options.pop("base")
    expires = database.now() + DAY
    lone, one_of_two, other = (
        database.create(attributes={"a": 1, "b": 1}, expires=expires) for _ in range(3)
    )
    ear = database.ear()
    seen = []
    for session, others in ((lone, []), (one_of_two, [database.change(other, 1, {"z": 1}, i=1)])):
        answer = database.write(update=[database.change(session, base, sets, **options), *others])
        told = [item for item in ear.items() if getattr(item, "key", None) == bytes.fromhex(session)]
        seen.append(_view(answer["update"][0], told, database.read(session)))
    return seen


def _view(answer: list[Any], told: list[Any], snapshot: list[Any] | None) -> list[Any]:
    """What was seen, without what differs between two sessions: ids, times, generations."""
    assert snapshot is not None
    (
        _,
        version,
        user,
        group,
        created,
        updated,
        accessed,
        expires,
        inactivity,
        attributes,
        _,
        owner_since,
        _,
    ) = snapshot
    if answer[1] == "ok":
        _, _, now_at, at, current = answer
        answer = [
            "ok",
            now_at,
            at == updated == accessed > created,
            current is None or current == snapshot,
            current is None,
        ]
    return [
        answer, [(type(item), item.version) for item in told],
        version, user, group, expires, inactivity, attributes, owner_since,
    ]  # fmt: skip


def test_a_session_that_is_gone_expired_or_locked_is_answered_alike(database: Database) -> None:
    past = database.create(expires=database.now() - HOUR)
    idle = database.create(inactivity=DAY)
    database.execute("SET pgsession.own = 'on'")
    database.execute("UPDATE app_sessions SET last_accessed = now() - interval '3 days' WHERE id = %s", idle)
    database.execute("RESET pgsession.own")
    held, other = database.create(), database.create()
    with database.connect() as holder:
        holder.autocommit = False
        holder.execute("SELECT FROM app_sessions WHERE id = %s FOR UPDATE", (held,))
        for number, (session, verdict) in enumerate(
            [("c" * 32, "gone"), (past, "gone"), (idle, "gone"), (held, "locked")]
        ):
            assert database.update(session, 1, {"a": 1}) == [verdict]
            change = database.change(session, 1, {"a": 1})
            pair = database.write(update=[change, database.change(other, 1 + number, {"a": 1}, i=1)])
            assert [one[1] for one in pair["update"]] == [verdict, "ok"]
        holder.rollback()
    assert database.update(held, 1, {"a": 1})[0] == "ok"


def test_what_a_trigger_of_the_owners_keeps_from_being_changed_is_answered_alike(database: Database) -> None:
    session, other = database.create(attributes={"a": 1}), database.create()
    database.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        f"CREATE TRIGGER keep BEFORE UPDATE ON app_sessions FOR EACH ROW WHEN (old.id = '{session}')"
        " EXECUTE FUNCTION keep()"
    )
    for sets in ({}, {"a": 2}):
        change = database.change(session, 1, sets)
        among = database.write(update=[change, database.change(other, 1, {}, i=1)])["update"]
        assert database.write(update=[change])["update"][0][1] == among[0][1] == "locked"
