"""The table at the end of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

from tests.chaos.endings import bounds
from tests.chaos.history import Call, Fault, State
from tests.chaos.run import Outcome
from tests.chaos.verdict import KINDS, Violation

MOST_SHOWN = 3
"""Violations of a kind that are shown with their history."""

BEFORE = 25
"""Calls before a violation that are shown."""


def summary(outcome: Outcome) -> str:
    return "\n".join(_lines(outcome))


def _lines(outcome: Outcome) -> Iterator[str]:
    options, verdict = outcome.options, outcome.verdict
    yield f"\nseed {options.seed}, {options.seconds:g} s of calls and faults ({outcome.took:.0f} s in all)\n"
    yield _row("calls", f"{verdict.calls:,}")
    yield _row("  writes acknowledged", f"{verdict.writes:,}")
    yield _row("  reads answered from memory", f"{verdict.hits:,}")
    yield _row("  refused for a conflict", f"{verdict.conflicts:,}")
    yield _row("  refused, the user being at the limit", f"{verdict.refused:,}")
    yield _row("  failed, known not to be done", f"{verdict.errors:,}")
    yield _row("  outcome unknown", f"{verdict.unknown:,}")
    yield _row("  interrupted", f"{verdict.interrupted:,}")
    yield _row("  confirmed to be known by all nodes", f"{verdict.confirmed:,}")
    yield _row("  not confirmed in time", f"{verdict.unconfirmed:,}")
    for name, title in outcome.titles.items():
        yield _row(f"  {title}", f"{verdict.tried.get(name, 0):,}")
    yield _row("faults", f"{len(outcome.faults):,}")
    yield ""
    for kind, title in KINDS.items():
        yield _row(title, str(verdict.count(kind)))
    yield _row(
        "longest that a superseded record was served",
        f"{verdict.longest_stale / 1e6:.3f} s (max_staleness {options.max_staleness:g} s)",
    )
    for name, bound in bounds(options.limits).items():
        yield _row(
            f"longest {name} call", f"{verdict.longest[name] / 1e6:.3f} s (its bound {bound / 1e6:g} s)"
        )
    yield ""
    yield from _recoveries(outcome)


def _row(title: str, value: str) -> str:
    return f"{title:<58}{value}"


def _recoveries(outcome: Outcome) -> Iterator[str]:
    """How long after the cause was gone the last node wrote, and answered from memory, again."""
    yield f"{'fault':<32}{'times':>6}{'lasted':>22}{'writes again after':>22}{'in sync again after':>22}"
    kinds: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for number, fault in enumerate(outcome.faults):
        end = outcome.faults[number + 1].began if number + 1 < len(outcome.faults) else 1 << 62
        writes = max(_writes_again(outcome.calls, fault).values(), default=0)
        lasted = fault.ended - fault.began
        kinds[fault.kind].append((lasted, writes, _in_sync_again(outcome.states, fault, end)))
    for kind in sorted(kinds):
        columns = [_spread([times / 1e6 for times in column]) for column in zip(*kinds[kind], strict=True)]
        yield f"{kind:<32}{len(kinds[kind]):>6}" + "".join(f"{column:>22}" for column in columns)


def _spread(seconds: list[float]) -> str:
    return f"{median(seconds):.2f} (most {max(seconds):.2f}) s"


def _writes_again(calls: list[Call], fault: Fault) -> dict[int, float]:
    """Per node that was there, the end of the first acknowledged write after the fault."""
    first: dict[int, float] = {}
    there = {call.node for call in calls if call.began < fault.ended}
    for call in calls:
        if (
            call.node in there
            and call.outcome == "ok"
            and call.kind in ("update", "create", "delete")
            and call.ended > fault.ended
        ):
            after = call.ended - fault.ended
            first[call.node] = min(first.get(call.node, after), after)
    return first


def _in_sync_again(states: list[State], fault: Fault, end: int) -> float:
    """The last time at which a node that fell out of sync by this fault was in sync again."""
    latest = 0.0
    nodes = {state.node for state in states}
    for node in nodes:
        mine = [state for state in states if state.node == node]
        for lost, again in pairwise(mine):
            if not lost.in_sync and again.in_sync and fault.began <= lost.at < end:
                latest = max(latest, again.at - fault.ended)
    return latest


def failures(outcome: Outcome) -> str:
    """Each violation with the history that led to it."""
    options = outcome.options
    lines = ["\nFAILED. Again: " + options.again.format(seconds=options.seconds, seed=options.seed)]
    for kind, title in KINDS.items():
        of_kind = [violation for violation in outcome.verdict.violations if violation.kind == kind]
        for violation in of_kind[:MOST_SHOWN]:
            lines += ["", f"== {title}: {violation.text}", *_history(outcome, violation)]
        if len(of_kind) > MOST_SHOWN:
            lines.append(f"   and {len(of_kind) - MOST_SHOWN} more of this kind")
    return "\n".join(lines)


def _history(outcome: Outcome, violation: Violation) -> Iterator[str]:
    """What happened to the session around the calls that show it, by the beginnings of the calls."""
    shown = [call for call in violation.calls if call.node >= 0]
    if not shown:
        return
    session = next((call.session for call in shown if call.session), "")
    end = max(call.ended for call in shown)
    about = [
        call
        for call in outcome.calls
        if call.began <= end and (call.session == session or (call.user and not call.session))
    ]
    about.sort(key=lambda call: call.began)
    entries: list[Call | Fault | State] = [*about[-BEFORE:]]
    entries += [call for call in shown if call not in entries]
    begin = min(entry.began for entry in entries if isinstance(entry, Call))
    entries += [fault for fault in outcome.faults if fault.ended > begin - 5_000_000 and fault.began < end]
    entries += [state for state in outcome.states if begin - 5_000_000 < state.at < end]
    for entry in sorted(entries, key=lambda entry: entry.at if isinstance(entry, State) else entry.began):
        mark = ">" if isinstance(entry, Call) and entry in shown else " "
        if isinstance(entry, State):
            yield f"  {entry.at / 1e6:.6f}  node {entry.node} in sync: {entry.in_sync}"
        else:
            yield f"{mark} {entry}"
