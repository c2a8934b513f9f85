"""A race: contenders that do the same work take turns, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from .processor import Server, Spent, accounted

if TYPE_CHECKING:
    from .stage import Stage


class Missing(Exception):
    """What a contender needs is not here; the message names it. The race goes on without it."""


class Sample(NamedTuple):
    """What one round gave: seconds an operation (all callers together), and how long single callers waited.

    Where a round waits for servers it says how many operations it was, so that the race knows what one of them took of
    the processor; `helpers` is what other processes of the client took of it. `facts` are columns of their own.
    """

    seconds: float
    latencies: Sequence[float] = ()
    operations: int = 0
    helpers: float = 0.0
    facts: Mapping[str, str] = MappingProxyType({})


Round = Callable[[], Sample]
Contender = Callable[["Stage"], Iterator[Round]]
"""A generator: gets ready, yields its round, tidies up."""


@dataclass
class Result:
    """All rounds of one contender."""

    seconds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    """Seconds of the processor an operation, as far as they are known."""
    server: list[float] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    """Those of the last round."""

    def add(self, sample: Sample, spent: Spent) -> None:
        self.seconds.append(sample.seconds)
        self.latencies.extend(sample.latencies)
        self.facts = dict(sample.facts)
        if sample.operations:
            self.client.append((spent.client + sample.helpers) / sample.operations)
            if spent.server is not None:
                self.server.append(spent.server / sample.operations)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def percentile(self, percent: int) -> float | None:
        """Of the callers' waits; None where there was only one caller at a time in a tight loop."""
        if len(self.latencies) < 2:
            return None
        return statistics.quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


@dataclass
class Outcome:
    """A race that was run."""

    results: dict[str, Result] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    took: float = 0.0
    """Seconds, with getting ready and tidying up."""


class Race:
    """One kind of work and those who do it.

    baseline: the contender that the others are compared with.
    unit: "s", "B" where what is measured is memory, or "" where requests come at a given pace: then only their waits
        and the processor's time are results.
    """

    def __init__(
        self,
        name: str,
        title: str,
        *,
        baseline: str,
        rounds: int = 7,
        unit: str = "s",
        warm_up: bool = True,
    ) -> None:
        self.name = name
        self.title = title
        self.unit = unit
        self.baseline = baseline
        self.rounds = rounds
        self._first = -1 if warm_up else 0
        self._contenders: dict[str, Contender] = {}

    def contender(self, name: str) -> Callable[[Contender], Contender]:
        """Enters a contender under this name."""

        def enter(contender: Contender) -> Contender:
            self._contenders[name] = contender
            return contender

        return enter

    def run(self, stage: Stage) -> Outcome:
        """Every contender gets ready; then they take turns, each round begun by another one."""
        outcome, began = Outcome(), perf_counter()
        with ExitStack() as ready:
            turns: list[tuple[str, Round, frozenset[Server]]] = []
            for name, contender in self._contenders.items():
                try:
                    with stage.noting() as used:
                        take_turn = ready.enter_context(contextmanager(contender)(stage))
                except (Missing, ImportError) as error:
                    outcome.missing[name] = str(error)
                else:
                    turns.append((name, take_turn, frozenset(used)))
            outcome.results = {name: Result() for name, *_ in turns}
            with _settled():
                for number in range(self._first, self.rounds):
                    for name, take_turn, servers in (
                        turns[number % len(turns) :] + turns[: number % len(turns)]
                    ):
                        sample, spent = accounted(take_turn, servers)
                        if number >= 0:
                            outcome.results[name].add(sample, spent)
        outcome.took = perf_counter() - began
        return outcome

    def test(self) -> Any:
        """A pytest-benchmark test for each contender. Whichever comes first runs the race for all."""

        @pytest.mark.benchmark(group=self.title, timer=_replay)
        @pytest.mark.parametrize("contender", list(self._contenders))
        def test(contender: str, request: pytest.FixtureRequest, races: Callable[[Race], Outcome]) -> None:
            outcome = races(self)
            if contender in outcome.missing:
                pytest.skip(outcome.missing[contender])
            result = outcome.results[contender]
            if self.unit == "s":
                benchmark = request.getfixturevalue("benchmark")
                for who, spent in (("client", result.client), ("servers", result.server)):
                    if spent:
                        benchmark.extra_info[f"CPU {who}, us"] = round(1e6 * statistics.median(spent), 3)
                _replay.load(result.seconds)
                benchmark.pedantic(lambda: None, rounds=len(result.seconds))

        return test


class _Replay:
    """pytest-benchmark runs one test to its end before the next. The rounds were taken in turns before; to it they are
    shown by a clock that tells their durations again."""

    def __init__(self) -> None:
        self._readings: list[float] = []

    def load(self, durations: Sequence[float]) -> None:
        self._readings = [reading for duration in durations for reading in (0.0, duration)]

    def __call__(self) -> float:
        return self._readings.pop(0) if self._readings else 0.0


_replay = _Replay()


@contextmanager
def _settled() -> Iterator[None]:
    """What contenders prepared is not walked by the garbage collector while another one is measured."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
