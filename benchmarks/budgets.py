"""What must be true of the results: the floor of what is acceptable. Ratios are of rounds that took turns."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .records import Recorded, before
from .tables import Row, columns
from .test_lock import OURS as LOCK
from .test_lock import ROW
from .test_lock import THREADS as THREAD_LOCK
from .test_memory import MANY
from .test_read import ONE_EACH, OURS_TOGETHER
from .test_storm import CORES
from .test_update import FIVE, FIVE_THREADS, OUR_THREADS, OURS, REDIS, REDIS_BLOB
from .test_web import NONE, READ, SIGNED, UNTOUCHED
from .test_web_wsgi import FLASK_SIGNED

Races = Mapping[str, Recorded]
Measure = Callable[[Races], float | None]
Format = Callable[[float], str]
HEADS = ("what", "budget", "measured", "")


@dataclass(frozen=True)
class Budget:
    """`measure` gives None where what it needs was not measured. Without a limit the figure is only stated."""

    what: str
    rule: str
    limit: float | None
    measure: Measure
    format: Format
    at_most: bool = True


def _times(value: float) -> str:
    return f"{value:.3g}x"


def _microseconds(value: float) -> str:
    return f"{value * 1e6:.3g} us"


def _milliseconds(value: float) -> str:
    return f"{value * 1e3:.2f} ms"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _bytes(value: float) -> str:
    return f"{value:,.0f} B"


def _at_most(
    what: str, limit: float, race: str, one: str, other: str, rule: str, field: str = "seconds"
) -> Budget:
    """`one` takes at most `limit` times as long as `other`, or as much of the processor."""
    return Budget(what, f"<= {limit:g}x {rule}", limit, _ratio(race, one, other, field), _times)


def _faster(what: str, limit: float, race: str, one: str, other: str, rule: str) -> Budget:
    """`one` is at least `limit` times as fast as `other`."""
    return Budget(what, f">= {limit:g}x {rule}", limit, _ratio(race, other, one), _times, at_most=False)


def _ratio(race: str, one: str, other: str, field: str = "seconds") -> Measure:
    return lambda races: races[race].ratio(one, other, field) if race in races else None


def _of_line(race: str, name: str, field: str) -> Measure:
    """A figure of a contender: the median where it has one for each round."""

    def measure(races: Races) -> float | None:
        line = races[race].lines.get(name) if race in races else None
        found = None if line is None else getattr(line, field)
        return (statistics.median(found) if found else None) if isinstance(found, list) else found

    return measure


def _wait(race: str, one: str, one_field: str, other: str, other_field: str) -> Measure:
    """By how much a caller of `one` waits longer than one of `other`: by percentiles of all rounds."""
    mine, theirs = _of_line(race, one, one_field), _of_line(race, other, other_field)

    def measure(races: Races) -> float | None:
        pair = mine(races), theirs(races)
        return pair[0] / pair[1] if pair[0] and pair[1] else None

    return measure


def part_of_before(race: str, one: str, yardstick: str) -> Measure:
    """How much of the processor `one` takes, as a part of what it took in the version before.

    Both are measured by the same yardstick, a contender of the same rounds that has not changed since.
    """

    def measure(races: Races) -> float | None:
        ratios = (
            _ratio(race, one, yardstick, "processor")(races),
            _ratio(race, one, yardstick, "processor")(before()),
        )
        return ratios[0] / ratios[1] if ratios[0] and ratios[1] else None

    return measure


def _best_redis(race: str) -> Measure:
    """By how much we are faster than that of redis-py's two asyncio forms which is nearer to us."""

    def measure(races: Races) -> float | None:
        ratios = [_ratio(race, name, OURS)(races) for name in (REDIS, REDIS_BLOB)]
        return min((ratio for ratio in ratios if ratio is not None), default=None)

    return measure


def _redis_processor(race: str, field: str) -> Measure:
    """What part of the processor's time we take that the thriftier of redis-py's two asyncio forms does."""

    def measure(races: Races) -> float | None:
        ratios = [_ratio(race, OURS, name, field)(races) for name in (REDIS, REDIS_BLOB)]
        return max((ratio for ratio in ratios if ratio is not None), default=None)

    return measure


def _cores(races: Races) -> float | None:
    lines = races["warm"].lines if "warm" in races else {}
    cores = lines["asyncio"].facts.get(CORES) if "asyncio" in lines else None
    return None if cores is None else float(cores)


def _awaiting(races: Races) -> float | None:
    return _ratio("get-async", "await get_session", "empty coroutine")(races)


_DICT = "dict.get(bytes)"
_BEFORE = "<= 0.5x the version before"
# From Python 3.12 on an awaitable that is done makes the exception that carries its result.
_AWAIT = 1.0 if sys.version_info < (3, 12) else 1.3
BUDGETS = (
    _at_most("hit by 16 bytes, fresh keys, 10,000", 1.05, "get", "pgsession, 16 bytes", _DICT, "`dict.get(bytes)`"),
    _at_most("hit by UUID, fresh keys, 10,000", 1.2, "get", "pgsession, UUID", _DICT, "`dict.get(bytes)`"),
    _at_most("hit by 36-character str, 10,000", 1.3, "get", "pgsession, str of 36", _DICT, "`dict.get(bytes)`"),
    *(
        _at_most(f"hit by {name}, fresh keys, {count}", limit, "million", f"pgsession, {name}, {count}",
                 f"{_DICT}, {count}", "`dict.get(bytes)` of as many")
        for count in ("1,000", "1,000,000") for name, limit in (("16 bytes", 1.05), ("UUID", 1.2))
    ),
    _at_most("the same key again, UUID", 1.5, "get-again", "pgsession, UUID", _DICT, "`dict.get(bytes)`"),
    _at_most("the same key again, 16 bytes", 1.5, "get-again", "pgsession, 16 bytes", _DICT, "`dict.get(bytes)`"),
    Budget("`await get_session`", f"<= {_AWAIT:g}x awaiting an empty coroutine", _AWAIT, _awaiting, _times),
    _at_most(
        "`get_cached_session`", 1.1, "get-async", "get_cached_session, not awaited", "get_session of the sync manager",
        "the sync hit",
    ),
    _at_most("`session.id`", 1, "id", "session.id", "get_session(UUID), a hit", "a hit"),
    _at_most("`session[key]`, read before", 1.5, "attribute", "session[key]", "dict[key]", "`dict[key]`"),
    *(
        _at_most(f"`session[key]`, first decode, {kind}", 1.15, "decode", f"session[key], {kind}",
                 f"msgspec.json.decode, {kind}", "msgspec")
        for kind in ("dict", "str", "int")
    ),
    _at_most(
        "first decode as a frozen Struct", 1.35, "decode", "session.get(key, type=Struct)",
        "msgspec.json.Decoder, Struct", "msgspec",
    ),
    _at_most(
        "token seen before", 1.1, "token", "pgsession, token seen before", "pgsession, UUID instead of a token",
        "a hit by UUID",
    ),
    _faster("token seen before", 100, "token", "pgsession, token seen before", "PyJWT decode, HS256", "PyJWT"),
    _at_most(
        "token, first time", 1.3, "token", "pgsession, token seen for the first time", "hmac.digest, then by UUID",
        "`hmac.digest` + a hit",
    ),
    _at_most("Starlette: the session left alone", 1.25, "web", UNTOUCHED, NONE, "no session"),
    _at_most("Flask: the session left alone", 1.25, "web-flask", UNTOUCHED, NONE, "no session"),
    _at_most("Django: the session left alone", 1.25, "web-django", UNTOUCHED, NONE, "no session"),
    _at_most("Starlette: one value read", 0.5, "web", READ, SIGNED, "Starlette's signed cookie"),
    _at_most("Flask: one value read", 0.7, "web-flask", READ, FLASK_SIGNED, "Flask's signed cookie"),
    Budget("memory of a cached session, 5 x 100 B", "<= 850 B", 850, _of_line("memory", "pgsession", "median"), _bytes),
    _at_most("a hit of a shared cache", 1.05, "shared-hit", "shared", "each its own", "a hit of a cache of its own"),
    _at_most(
        "memory of 16 workers, shared cache", 0.1, "shared-memory", "16 workers, shared", "16 workers, each its own",
        "each its own",
    ),
    Budget(
        "a commit with 16 workers that share: CPU of the server", "<= 1.2x one worker", 1.2,
        _ratio("shared-events", "16 workers, shared", "1 worker, each its own", "server"), _times,
    ),
    Budget("memory of a cached session, 50 x 20 B", "stated", None, _of_line("memory", MANY, "median"), _bytes),
    _at_most("`gc.collect()`, 1,000,000 cached", 1, "gc", "pgsession", "empty process", "without"),
    _at_most(
        "`gc.collect()`, all of them read", 1, "gc", "pgsession, every attribute read", "empty process", "without",
    ),
    Budget(
        "an update, 64 callers: CPU of the client", "<= 0.15x redis-py", 0.15, _redis_processor("update-64", "client"),
        _times,
    ),
    Budget(
        "an update, 64 callers: CPU of the server", "<= 1.2x Redis", 1.2,
        _redis_processor("update-64", "server"), _times,
    ),
    Budget(
        "an update, 64 callers: CPU in all", "<= 0.25x redis-py and Redis", 0.25,
        _redis_processor("update-64", "processor"), _times,
    ),
    Budget("updates, 64 callers", ">= 2x redis-py's best", 2, _best_redis("update-64"), _times, at_most=False),
    _faster("updates, 64 callers", 10, "update-64", OURS, FIVE, "five round trips"),
    _faster("updates, 64 callers, threads", 6, "update-64", OUR_THREADS, FIVE_THREADS, "five round trips"),
    Budget("updates, 256 callers", ">= 3x redis-py's best", 3, _best_redis("update-256"), _times, at_most=False),
    _faster("updates, 256 callers", 14, "update-256", OURS, FIVE, "five round trips"),
    Budget(
        "p99 at 256 callers", "below the p50 of five round trips", 1, _wait("update-256", OURS, "p99", FIVE, "p50"),
        _times,
    ),
    Budget("an update alone, asyncio: CPU in all", _BEFORE, 0.5, part_of_before("update-1", OURS, FIVE), _times),
    Budget(
        "an update alone, threads: CPU in all", _BEFORE, 0.5, part_of_before("update-1", OUR_THREADS,
        FIVE_THREADS), _times,
    ),
    Budget(
        "an update alone, asyncio: p50", "<= 0.8x five round trips", 0.8, _wait("update-1", OURS, "p50", FIVE, "p50"),
        _times,
    ),
    Budget(
        "an update alone, threads: p50", "<= 0.8x five round trips", 0.8,
        _wait("update-1", OUR_THREADS, "p50", FIVE_THREADS, "p50"), _times,
    ),
    Budget(
        "an update alone, 0.5 ms from the server: p50", "<= 0.35x five round trips", 0.35,
        _wait("update-delayed", OURS, "p50", FIVE, "p50"), _times,
    ),
    _faster("creating, 64 callers", 6, "create-64", OURS, FIVE, "five round trips"),
    Budget(
        "creating, 64 callers: CPU of the client", "<= 30 us", 30e-6, _of_line("create-64", OURS, "client"),
        _microseconds,
    ),
    _faster("cold reads, 64 callers", 5, "read-64", OURS_TOGETHER, ONE_EACH, "one statement each"),
    Budget(
        "a cold read, 64 callers: CPU of the server", "<= 30 us", 30e-6, _of_line("read-64", OURS_TOGETHER, "server"),
        _microseconds,
    ),
    Budget("lock + unlock, asyncio: CPU in all", _BEFORE, 0.5, part_of_before("lock", LOCK, ROW), _times),
    Budget("lock + unlock, threads: CPU in all", _BEFORE, 0.5, part_of_before("lock", THREAD_LOCK, ROW), _times),
    Budget(
        "update seen by another process, p50", "<= 1 ms", 1e-3, _of_line("invalidation", "pgsession", "p50"),
        _milliseconds,
    ),
    Budget(
        "update seen by another process, p99", "<= 5 ms", 5e-3, _of_line("invalidation", "pgsession", "p99"),
        _milliseconds,
    ),
    Budget(
        "a warm start, 100,000 sessions", "<= 6 s", 6, _of_line("warm", "asyncio", "median"), _seconds
    ),
    Budget("a warm start: the server", "<= 0.5 cores", 0.5, _cores, lambda cores: f"{cores:.2f}"),
    Budget("100,000 sessions of one user deleted", "<= 5 s", 5, _of_line("delete", "pgsession", "median"), _seconds),
    Budget(
        "meanwhile, other writers' p99", "<= 2x undisturbed", 2,
        _wait("delete-others", "while the 100,000 are deleted", "p99", "undisturbed", "p99"), _times,
    ),
)  # fmt: skip


def rows(races: Races) -> Iterator[Row]:
    """(what, rule, measured, met or not) for each budget."""
    for budget in BUDGETS:
        value = budget.measure(races)
        yield (
            budget.what,
            budget.rule,
            "-" if value is None else budget.format(value),
            _verdict(budget, value),
        )


def _verdict(budget: Budget, value: float | None) -> str:
    if value is None:
        return "not measured"
    if budget.limit is None:
        return ""
    met = value <= budget.limit if budget.at_most else value >= budget.limit
    return "met" if met else "**not met**"


def show(races: Races) -> Iterator[str]:
    """The same for a terminal."""
    return columns(HEADS, list(rows(races)))
