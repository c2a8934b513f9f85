"""A race: contenders that do the same work take turns, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from .stage import Stage


class Missing(Exception):
    """What a contender needs is not here; the message names it. The race goes on without it."""


class Sample(NamedTuple):
    """What one round gave: seconds an operation (all callers together), and how long single callers waited."""

    seconds: float
    latencies: Sequence[float] = ()


Round = Callable[[], Sample]
Contender = Callable[["Stage"], Iterator[Round]]
"""A generator: gets ready, yields its round, tidies up."""


@dataclass
class Result:
    """All rounds of one contender."""

    seconds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

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


class Race:
    """One kind of work and those who do it.

    baseline: the contender that the others are compared with.
    unit: "s", or "B" where what is measured is memory.
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
        outcome = Outcome()
        with ExitStack() as ready:
            rounds: list[tuple[str, Round]] = []
            for name, contender in self._contenders.items():
                try:
                    rounds.append((name, ready.enter_context(contextmanager(contender)(stage))))
                except (Missing, ImportError) as error:
                    outcome.missing[name] = str(error)
            outcome.results = {name: Result() for name, _ in rounds}
            with _settled():
                for number in range(self._first, self.rounds):
                    for name, take_turn in rounds[number % len(rounds) :] + rounds[: number % len(rounds)]:
                        sample = take_turn()
                        if number >= 0:
                            outcome.results[name].seconds.append(sample.seconds)
                            outcome.results[name].latencies.extend(sample.latencies)
        return outcome

    def test(self) -> Any:
        """A pytest-benchmark test for each contender. Whichever comes first runs the race for all."""

        @pytest.mark.benchmark(group=self.title, timer=_replay)
        @pytest.mark.parametrize("contender", list(self._contenders))
        def test(contender: str, request: pytest.FixtureRequest, races: Callable[[Race], Outcome]) -> None:
            outcome = races(self)
            if contender in outcome.missing:
                pytest.skip(outcome.missing[contender])
            if self.unit == "s":
                _replay.load(outcome.results[contender].seconds)
                benchmark = request.getfixturevalue("benchmark")
                benchmark.pedantic(lambda: None, rounds=len(outcome.results[contender].seconds))

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
