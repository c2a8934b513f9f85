"""A server that is down takes its own users only: what the oracle says of shards on several servers.

While a fault hits one server, and every node was well when it began:

- **Others.** No call about users, sessions or locks of the other servers' shards fails (`endings.Endings` looks for
  that, without any slack: a healthy server gives no error). And it is not slower: of those that begin meanwhile, at
  most `MOST_SLOW` takes longer than `SLOW` of its bound, which is what the machine's own pauses may do.
- **All.** A call that asks all shards fails on none but that server's, and names those. It asks all at the same time:
  of those that waited for that server, at most `MOST_SLOW` takes longer than `LONG` times the bound of one.
- **Visitors** go where a server is: `KNOWN` times `operation_timeout` after one was killed or stopped, none fails.
- **Back.** `recovery` after the server is back each node has been in sync with all shards.

That each call on the server's own users ends within its bound is `endings.Endings`'s, as ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from tests.chaos.endings import bound_of, needs_nothing_of
from tests.chaos.history import Call, Fault, State
from tests.chaos.verdict import Limits, Violation

TRIED = {
    "others": "calls on other servers' users while one was away",
    "all": "calls that asked all shards while one server was away",
    "visitors": "visitors who came while one server was down",
    "own": "calls that the server which was away has failed",
    "back": "servers that came back, to every node",
}
SLOW = 0.5
"""Of its bound: longer than that is slow for a call that needs nothing of the server that is away."""

LONG = 1.5
"""Times its bound that a call to all shards takes where it waits for one server once."""

MOST_SLOW = 0.1
"""The part of calls that may be slow, for the machine has other things to do."""

KNOWN = 2
"""Times `operation_timeout` after which each node knows of each shard that its server is down."""

ENOUGH = 20
"""Calls in a fault of which such a part can be told."""

CONNECT_TIMEOUT = 2
"""Seconds that an attempt to connect takes at most, of which the conninfo says so; where it says nothing it is 10."""

PAUSE = 2_000_000
"""Microseconds of the longest pause between two attempts to connect again."""


def recovery(limits: Limits) -> int:
    """Microseconds in which a node is in sync with a server that is back: an attempt to connect that was under way and
    got lost, a pause, a call, and a proof."""
    return CONNECT_TIMEOUT * 1_000_000 + PAUSE + limits.operation_timeout + limits.max_staleness


def violations(
    calls: list[Call], faults: Iterable[Fault], states: list[State], limits: Limits, tried: dict[str, int]
) -> Iterator[Violation]:
    by_begin = sorted(faults, key=lambda fault: fault.began)
    waited: list[Call] = []
    for number, fault in enumerate(by_begin):
        following = by_begin[number + 1].began if number + 1 < len(by_begin) else 1 << 62
        yield from _back(fault, following, states, limits, tried)
        if not fault.alone:
            continue
        during = [
            call
            for call in calls
            if fault.began < call.began and call.began < fault.ended and call.ended < following
        ]
        others = [call for call in during if needs_nothing_of(fault, call) and bound_of(limits, call)]
        tried["others"] += len(others)
        tried["own"] += sum(
            call.outcome in ("error", "unknown") and set(call.shards) <= set(fault.shards) for call in during
        )
        yield from _slow(fault, others, limits)
        yield from _visitors(fault, during, limits, tried)
        for call in during:
            if len(call.shards) > 1 and call.kind in ("count", "load", "delete_group", "clear"):
                tried["all"] += 1
                yield from _partly(fault, call)
                if call.failed and call.ended - call.began > bound_of(limits, call) // 2:
                    waited.append(call)
    late = [call for call in waited if call.ended - call.began - call.wait > LONG * bound_of(limits, call)]
    if len(late) > max(2, MOST_SLOW * len(waited)):
        text = f"{len(late)} of {len(waited)} calls to all shards waited more than once for one server"
        yield Violation("slowed", text, late[:3])


def _slow(fault: Fault, others: list[Call], limits: Limits) -> Iterator[Violation]:
    slow = [call for call in others if call.ended - call.began - call.wait > SLOW * bound_of(limits, call)]
    if len(others) >= ENOUGH and len(slow) > MOST_SLOW * len(others):
        text = f"{len(slow)} of {len(others)} calls that need nothing of the server were slow during {fault.kind!r}"
        yield Violation("slowed", text, slow[:3])


def _visitors(fault: Fault, during: list[Call], limits: Limits, tried: dict[str, int]) -> Iterator[Violation]:
    known = fault.began + KNOWN * limits.operation_timeout
    for call in during if fault.refuses else ():
        if call.kind == "create" and not call.user and call.began > known:
            tried["visitors"] += 1
            if call.outcome != "ok":
                yield Violation("bystander", f"{call.outcome} for a visitor, who could go elsewhere", [call])


def _partly(fault: Fault, call: Call) -> Iterator[Violation]:
    others = set(call.shards) - set(fault.shards)
    if call.outcome == "error" and others:
        yield Violation("bystander", "an error for all shards, of which some are there", [call])
    if wrong := set(call.failed) - set(fault.shards):
        yield Violation("bystander", f"it failed on shards {sorted(wrong)}, which are there", [call])


def _back(
    fault: Fault, following: int, states: list[State], limits: Limits, tried: dict[str, int]
) -> Iterator[Violation]:
    end = fault.ended + recovery(limits)
    of_node: dict[int, list[State]] = defaultdict(list)
    for state in states:
        of_node[state.node].append(state)
    for node, known in of_node.items():
        known.sort(key=lambda state: state.at)
        # Once more, or still: what it was at the end of the fault it had perhaps not noticed yet.
        known = [state for state in known if state.at <= end]
        if known and (known[-1].in_sync or any(state.in_sync and state.at > fault.ended for state in known)):
            tried["back"] += 1
        elif following > end:
            text = f"node {node} is not in sync {recovery(limits) / 1e6:g} s after {fault}"
            yield Violation("apart", text, [])
