"""What cached sessions weigh, and what they cost the garbage collector, each holder in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from .race import Contender, Missing, Race, Round, Sample
from .stage import Stage

HUNDRED_THOUSAND, MILLION = 100_000, 1_000_000
NAMES = {
    "records": "pgsession",
    "read_records": "pgsession, every attribute read",
    "dicts": "dict of dicts",
    "nested_dicts": "dict of nested dicts",
    "cachebox_dicts": "cachebox of dicts",
}

MANY = "pgsession, 50 attributes of 20 B"

memory = Race(
    "memory",
    "Memory of a cached session, 5 attributes of 100 B",
    baseline="pgsession",
    rounds=1,
    unit="B",
    warm_up=False,
)
collect = Race(
    "gc", "gc.collect() with 1,000,000 cached sessions", baseline="empty process", rounds=1, warm_up=False
)


@cache
def _measured(holder: str, count: int, attributes: int, size: int = 100) -> dict[str, Any]:
    if not Path("/proc/self/statm").exists():
        raise Missing("resident memory is read from /proc")
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.footprint", holder, str(count), str(attributes), str(size)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    measured: dict[str, Any] = json.loads(output)
    return measured


def _weighing(holder: str, attributes: int = 5, size: int = 100) -> Contender:
    def contender(stage: Stage) -> Iterator[Round]:
        yield lambda: Sample(_measured(holder, HUNDRED_THOUSAND, attributes, size)["bytes"])

    return contender


def _collecting(holder: str, state: str) -> Contender:
    def contender(stage: Stage) -> Iterator[Round]:
        # The least: what else the machine does can only add to a collection, and each process is measured by itself.
        yield lambda: Sample(min(_measured(holder, MILLION, 1)[state]))

    return contender


for _holder, _name in NAMES.items():
    memory.contender(_name)(_weighing(_holder))
memory.contender(MANY)(_weighing("records", 50, 20))
collect.contender("empty process")(_collecting("records", "empty"))
for _holder in ("records", "read_records", "nested_dicts"):
    collect.contender(NAMES[_holder])(_collecting(_holder, "full"))

test_memory = memory.test()
test_gc = collect.test()
