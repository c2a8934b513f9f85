"""The oracle of servers that are down has teeth: who is hit that need not be is found, in histories made by hand."""

from __future__ import annotations

from typing import Any

from tests.chaos import apart
from tests.chaos.endings import bounds
from tests.chaos.history import Call, Fault, State
from tests.chaos.oracle import Oracle
from tests.chaos.test_endings import fault, lasting
from tests.chaos.test_oracle import LIMITS, SECOND, call, checked, create, get, kinds
from tests.chaos.verdict import Row

BACK = apart.recovery(LIMITS) / SECOND


def down(began: float = 1, ended: float = 5, **fields: Any) -> Fault:
    """The server of the shards 0 and 2."""
    return fault(began, ended, **{"alone": True, "shards": [0, 2], **fields})


def found(
    *calls: Call, faults: tuple[Fault, ...] = (), states: list[State] | None = None
) -> tuple[set[str], dict[str, int]]:
    """What is found, and what was put to the test."""
    tried = dict.fromkeys(apart.TRIED, 0)
    violations = list(apart.violations(list(calls), faults or (down(),), states or [], LIMITS, tried))
    return {violation.kind for violation in violations}, {name: n for name, n in tried.items() if n}


def on(shards: list[int], made: Call) -> Call:
    made.shards = shards
    return made


def test_a_dead_server_that_fails_everybody() -> None:
    """As if an error, or that a server is known to be down, were kept for all of them."""
    for kind in ("get", "update", "create", "lock", "delete_user", "list", "move"):
        failed = on([1], call(kind, 2, session="", outcome="error", wrote={"0.0": 3}))
        assert "bystander" in kinds(checked(create(), failed, faults=(down(),))), kind
        failed.shards = [0, 1] if kind == "move" else [0]
        assert "bystander" not in kinds(checked(create(), failed, faults=(down(),))), kind
    before = on([1], call("get", 0.9, outcome="error"))
    assert "bystander" not in kinds(checked(create(), before, faults=(down(),)))


def test_what_one_server_lost_excuses_nothing_on_another() -> None:
    unknown = call("update", 1, outcome="unknown", wrote={"0.0": 2})
    calls = [create(), unknown, get(1.2, 2, node=1), get(3, 1, node=1)]
    crash = fault(1.5, 2, lossy=True, shards=[0, 2])
    for shard, is_excused in ((2, True), (3, False)):
        verdict = Oracle(
            [on([shard], each) for each in calls], [crash], {"s": Row(1, {"0.0": 1})}, LIMITS
        ).check()
        assert ("backwards" not in kinds(verdict)) == is_excused


def test_a_visitor_who_goes_where_no_server_is() -> None:
    def came(began: float, outcome: str = "error") -> Call:
        return on([0, 1, 2, 3], call("create", began, session="", user="", outcome=outcome))

    dead, silent = down(refuses=True), down()
    known = 1 + apart.KNOWN * LIMITS.operation_timeout / SECOND
    assert found(came(known + 0.1), faults=(dead,)) == ({"bystander"}, {"visitors": 1})
    assert found(came(known + 0.1, "ok"), faults=(dead,)) == (set(), {"visitors": 1})
    assert not found(came(known - 0.1), faults=(dead,))[0], "it may not be known yet"
    assert not found(came(known + 0.1), faults=(silent,))[0]


def test_calls_that_wait_for_anothers_server() -> None:
    long = bounds(LIMITS)["read"] * apart.SLOW / SECOND + 0.1
    slow = [on([1], lasting(get(2 + number / 100, 1), long)) for number in range(40)]
    quick = [on([3], get(2 + number / 100, 1)) for number in range(40)]
    assert found(*slow, *quick) == ({"slowed"}, {"others": 80})
    assert found(*slow[:4], *quick) == (set(), {"others": 44}), "the machine has other things to do"
    assert not found(*(on([0], each) for each in slow), *quick)[0]


def test_a_call_to_all_that_fails_where_it_need_not() -> None:
    everything = on([0, 1, 2, 3], call("count", 2, session="", outcome="unknown", failed=[0, 2]))
    assert found(everything) == (set(), {"all": 1})
    everything.failed = [0, 1, 2]
    assert found(everything)[0] == {"bystander"}
    everything.outcome, everything.failed = "error", []
    assert found(everything)[0] == {"bystander"}


def test_calls_to_all_that_ask_one_after_the_other() -> None:
    """One waits in vain for each shard of the server, and not once for the server."""
    once = bounds(LIMITS)["read"] / SECOND
    for times, kinds_found in ((1, set()), (2, {"slowed"})):
        calls = [
            on(
                [0, 1, 2, 3],
                lasting(call("count", at, session="", outcome="unknown", failed=[0, 2]), times * once),
            )
            for at in (1.5, 1.6, 1.7, 1.8)
        ]
        assert found(*calls)[0] == kinds_found


def test_a_node_that_is_not_in_sync_again() -> None:
    def of(*states: tuple[float, bool]) -> set[str]:
        known = [State(node=1, at=int(at * SECOND), in_sync=in_sync) for at, in_sync in states]
        return found(states=known)[0]

    assert not of((0, True))
    assert not of((0, True), (2, False), (5 + BACK - 0.1, True))
    assert of((0, True), (2, False)) == {"apart"}
    assert of((0, True), (2, False), (5 + BACK + 0.1, True)) == {"apart"}
    assert of((0, True), (5.1, False)) == {"apart"}, "it noticed only when the server was back"
    late = [State(node=1, at=0, in_sync=False)]
    assert not found(faults=(down(), down(6, 7, alone=False)), states=late)[0] - {"apart"}
    assert not found(
        faults=(down(1, 5), down(5 + BACK / 2, 99)),
        states=[*late, State(node=1, at=98 * SECOND, in_sync=True)],
    )[0]
