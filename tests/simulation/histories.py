"""Many histories: made from seeds, run, and cut down to what matters where one fails."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

from pgsession._protocol import coherence
from tests.simulation.model import Server
from tests.simulation.world import HEADER, STEP, World


class Failure(NamedTuple):
    """A history that broke an invariant."""

    history: bytes
    error: str


def history_of(seed: int) -> bytes:
    """The history of one seed: 10 to 70 actions, with about a quarter of the kinds of trouble."""
    source = random.Random(seed)
    mask = source.getrandbits(20) & source.getrandbits(20)
    last = mask >> 16 | source.getrandbits(2) << 6
    header = bytes((source.getrandbits(8), mask & 255, mask >> 8 & 255, source.getrandbits(8), last))
    return header + source.randbytes(STEP * source.randint(10, 70))


def run(
    history: bytes, module: Any = coherence, server: type[Server] = Server, world: type[World] = World
) -> Failure | None:
    """Run one history. An exception of any kind is a failure: nothing here may raise."""
    try:
        world(history, module=module, server=server).run()
    except Exception as error:
        return Failure(history, f"{type(error).__name__}: {error}")
    return None


def failures(
    seeds: range, module: Any = coherence, server: type[Server] = Server, world: type[World] = World
) -> Iterator[tuple[int, Failure]]:
    """The failing histories among these seeds."""
    for seed in seeds:
        failure = run(history_of(seed), module, server, world)
        if failure is not None:
            yield seed, failure


def shrink(failure: Failure, module: Any = coherence, world: type[World] = World) -> Failure:
    """Leave out whatever the failure does not need."""
    header, body = failure.history[:HEADER], failure.history[HEADER:]
    steps = [body[at : at + STEP] for at in range(0, len(body), STEP)]
    size = max(len(steps) // 2, 1)
    while size:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            found = run(header + b"".join(fewer), module, world=world)
            if found is not None and found.error[:12] == failure.error[:12]:
                steps, failure = fewer, found
            else:
                at += size
        size //= 2
    return failure


def report(
    failure: Failure, module: Any = coherence, *, seed: int | None = None, world: type[World] = World
) -> str:
    """Everything that is needed to understand and repeat a failure."""
    short = shrink(failure, module, world)
    again = world(short.history, module=module, trace=True)
    where = ""
    try:
        again.run()
    except Exception:
        where = traceback.format_exc(limit=-6)
    lines = [
        f"seed {seed}: {failure.error}" if seed is not None else failure.error,
        f"cut down to {(len(short.history) - HEADER) // STEP} actions: {short.error}",
        "  seconds   action node b c",
        *(again.trace or ()),
        f"commits: {', '.join(map(repr, again.oracle.commits[1:]))}",
        where,
        f"replay: python -m tests.simulation{again.option} --replay {short.history.hex()}",
    ]
    return "\n".join(lines)
