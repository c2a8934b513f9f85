"""`make check-hot`: whether reads from memory, and writes in the client, are as cheap as they were, without timing.

Counts the instructions of both under callgrind and compares them with the recorded ones: none may grow by more than
10%. Then reads the generated C of the hot path, of the reads: it may call nothing in Python but what is on the list.

`make check-hot ARGS=--record` takes the counts as they are now as those to compare with.
"""

from __future__ import annotations

import sys

from hot import calls, instructions
from hot.instructions import Counts
from rich.console import Console
from rich.table import Table


def main() -> int:
    arguments = sys.argv[1:]
    if arguments not in ([], ["--record"]):
        sys.exit(__doc__)
    called = calls.check()
    counts = instructions.count()
    if arguments:
        instructions.record(counts)
    before, same_build = instructions.recorded()
    wrong = show(before, counts, same_build)
    for problem in called:
        print(f"{problem} (tools/hot/{calls.LIST.name})")
    if wrong or called:
        print("make check-hot: failed")
    return 1 if wrong or called else 0


def show(before: dict[str, Counts], now: dict[str, Counts], same_build: bool) -> bool:
    """Prints the counts; whether one of them has grown too much."""
    verdicts = instructions.verdicts(before, now, same_build)
    table = Table(title=f"one call, {instructions.key()}: recorded, now", title_justify="left")
    table.add_column("what")
    for column in ("compiled instructions", "calls out of them", "instructions of everything"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    nothing = Counts(0, 0, 0)
    for name in {**before, **now}:
        pairs = zip(before.get(name, nothing), now.get(name, nothing), strict=True)
        table.add_row(name, *(cell(*pair) for pair in pairs), verdicts.get(name, "ok"))
    Console(width=140, markup=False).print(table)
    if not same_build:
        print(
            "This Python was built otherwise than the recorded one: what is outside of the core is not checked."
        )
    return any(verdict != instructions.LESS for verdict in verdicts.values())


def cell(before: float, now: float) -> str:
    return f"{before:.0f}  {now:.0f}  {instructions.change(before, now):+7.1%}"


if __name__ == "__main__":
    sys.exit(main())
