"""What must be true of the results: the floor of what is acceptable. Ratios are of rounds that took turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .records import Recorded
from .test_notify import INSIDE, SPLIT
from .test_update import FIVE, FIVE_THREADS, OUR_THREADS, OURS, REDIS, REDIS_BLOB
from .test_web import NONE, READ, SIGNED, UNTOUCHED
from .test_web_wsgi import FLASK_SIGNED

Races = Mapping[str, Recorded]

# What the reference library reached on the project's reference machine, of the same kind as this one at best.
GO_GET = 2.45e-6
GO_LOCK = 1 / 225


@dataclass(frozen=True)
class Budget:
    """`measure` gives None where what it needs was not measured."""

    what: str
    rule: str
    limit: float
    at_most: bool
    measure: Callable[[Races], float | None]
    format: Callable[[float], str]


def _times(value: float) -> str:
    return f"{value:.3g}x"


def _at_most(what: str, limit: float, race: str, one: str, other: str, rule: str) -> Budget:
    """`one` takes at most `limit` times as long as `other`."""
    return Budget(what, f"<= {limit:g}x {rule}", limit, True, _ratio(race, one, other), _times)


def _faster(what: str, limit: float, race: str, one: str, other: str, rule: str) -> Budget:
    """`one` is at least `limit` times as fast as `other`."""
    return Budget(what, f">= {limit:g}x {rule}", limit, False, _ratio(race, other, one), _times)


def _ratio(race: str, one: str, other: str) -> Callable[[Races], float | None]:
    return lambda races: races[race].ratio(one, other) if race in races else None


def _line(
    what: str,
    rule: str,
    limit: float,
    race: str,
    one: str,
    format: Callable[[float], str],
    field: str = "median",
) -> Budget:
    def measure(races: Races) -> float | None:
        line = races[race].lines.get(one) if race in races else None
        return None if line is None else getattr(line, field)

    return Budget(what, rule, limit, True, measure, format)


def _milliseconds(value: float) -> str:
    return f"{value * 1e3:.2f} ms"


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _bytes(value: float) -> str:
    return f"{value:,.0f} B"


def _than_go(race: str, one: str, theirs: float) -> Callable[[Races], float | None]:
    def measure(races: Races) -> float | None:
        line = races[race].lines.get(one) if race in races else None
        return None if line is None else theirs / line.median

    return measure


def _p99_below_p50(races: Races) -> float | None:
    lines = races["update-256"].lines if "update-256" in races else {}
    if OURS not in lines or FIVE not in lines:
        return None
    return (lines[OURS].p99 or 0) / (lines[FIVE].p50 or 1)


def _p99_of_others(races: Races) -> float | None:
    lines = races["delete-others"].lines if "delete-others" in races else {}
    if len(lines) < 2:
        return None
    return (lines["while the 100,000 are deleted"].p99 or 0) / (lines["undisturbed"].p99 or 1)


def _best_redis(races: Races) -> float | None:
    """The one of redis-py's two asyncio forms that is nearer to us."""
    ratios = [_ratio("update-64", name, OURS)(races) for name in (REDIS, REDIS_BLOB)]
    known = [ratio for ratio in ratios if ratio is not None]
    return min(known) if known else None


_DICT = "dict.get(bytes)"
BUDGETS = (
    _at_most("hit by UUID, fresh keys", 1.2, "get", "pgsession, UUID", _DICT, "`dict.get(bytes)`"),
    _at_most("hit by 16 bytes, fresh keys", 1.2, "get", "pgsession, 16 bytes", _DICT, "`dict.get(bytes)`"),
    _at_most("hit by 36-character str", 2, "get", "pgsession, str of 36", _DICT, "`dict.get(bytes)`"),
    Budget(
        "the same key again, UUID",
        ">= 30x the reference's loop (its own measurement)", 30, False,
        _than_go("get-again", "pgsession, UUID", GO_GET), _times,
    ),
    _at_most("the same key again, UUID", 1.6, "get-again", "pgsession, UUID", _DICT, "`dict.get(bytes)`"),
    _at_most("the same key again, 16 bytes", 1.6, "get-again", "pgsession, 16 bytes", _DICT, "`dict.get(bytes)`"),
    _at_most(
        "`await get_session`", 2, "get-async", "await get_session", "empty coroutine", "awaiting an empty coroutine"
    ),
    _at_most(
        "`get_cached_session`", 1.1, "get-async", "get_cached_session, not awaited", "get_session of the sync manager",
        "the sync hit",
    ),
    _at_most("hit among 1,000,000", 2, "million", "pgsession, 1,000,000", "pgsession, 1,000", "among 1,000"),
    _at_most(
        "hit among 1,000,000", 1.5, "million", "pgsession, 1,000,000", "dict.get(bytes), 1,000,000",
        "`dict.get` among 1,000,000",
    ),
    _at_most("`session[key]`, read before", 1.5, "attribute", "session[key]", "dict[key]", "`dict[key]`"),
    _at_most(
        "`session[key]`, first decode, dict", 1.2, "decode", "session[key], dict", "msgspec.json.decode, dict",
        "msgspec",
    ),
    _at_most(
        "`session[key]`, first decode, str", 1.2, "decode", "session[key], str", "msgspec.json.decode, str", "msgspec"
    ),
    _at_most(
        "`session[key]`, first decode, int", 1.2, "decode", "session[key], int", "msgspec.json.decode, int", "msgspec"
    ),
    _at_most(
        "first decode as a frozen Struct", 1.2, "decode", "session.get(key, type=Struct)",
        "msgspec.json.Decoder, Struct", "msgspec",
    ),
    _at_most(
        "token seen before", 1.1, "token", "pgsession, token seen before", "pgsession, UUID instead of a token",
        "by UUID",
    ),
    _faster(
        "token seen before", 100, "token", "pgsession, token seen before", "PyJWT decode, HS256", "PyJWT"
    ),
    _at_most(
        "token, first time", 1.3, "token", "pgsession, token seen for the first time", "hmac.digest, then by UUID",
        "`hmac.digest` + a hit",
    ),
    _at_most("Starlette: the session left alone", 1.25, "web", UNTOUCHED, NONE, "no session"),
    _at_most("Flask: the session left alone", 1.25, "web-flask", UNTOUCHED, NONE, "no session"),
    _at_most("Django: the session left alone", 1.25, "web-django", UNTOUCHED, NONE, "no session"),
    _at_most("Starlette: one value read", 0.5, "web", READ, SIGNED, "Starlette's signed cookie"),
    _at_most("Flask: one value read", 0.7, "web-flask", READ, FLASK_SIGNED, "Flask's signed cookie"),
    _line("memory of a cached session", "<= 1,000 B", 1000, "memory", "pgsession", _bytes),
    _at_most("`gc.collect()`, 1,000,000 cached", 1.1, "gc", "pgsession", "empty process", "without"),
    _at_most(
        "`gc.collect()`, all of them read", 1.1, "gc", "pgsession, every attribute read", "empty process", "without"
    ),
    _faster("update, 1 caller, asyncio", 2, "update-1", OURS, FIVE, "five round trips"),
    _faster("update, 1 caller, threads", 2, "update-1", OUR_THREADS, FIVE_THREADS, "five round trips"),
    _faster("updates, 64 callers, asyncio", 12, "update-64", OURS, FIVE, "five round trips"),
    _faster("updates, 64 callers, threads", 8, "update-64", OUR_THREADS, FIVE_THREADS, "five round trips"),
    Budget("updates, 64 callers, asyncio", ">= 3x redis-py's best", 3, False, _best_redis, _times),
    _faster("updates, 256 callers, asyncio", 20, "update-256", OURS, FIVE, "five round trips"),
    Budget("p99 at 256 callers", "below the p50 of five round trips", 1, True, _p99_below_p50, _times),
    _faster("notifying commits, 32 processes", 1.8, "notify-32", SPLIT, INSIDE, "NOTIFY inside"),
    _faster("create, 64 callers, asyncio", 8, "create-64", OURS, FIVE, "five round trips"),
    _faster("cold read, sync", 1.4, "read", "pgsession, sync", "PostgreSQL, 2 queries, sync", "two queries"),
    _faster("cold read, asyncio", 1.4, "read", "pgsession, asyncio", "PostgreSQL, 2 queries, asyncio", "two queries"),
    Budget(
        "lock + unlock", ">= 4x the reference (its own measurement)", 4, False,
        _than_go("lock", "pgsession", GO_LOCK), _times,
    ),
    _line("update seen by another process, p50", "<= 1 ms", 1e-3, "invalidation", "pgsession", _milliseconds, "p50"),
    _line("update seen by another process, p99", "<= 5 ms", 5e-3, "invalidation", "pgsession", _milliseconds, "p99"),
    _line("100,000 sessions of one user deleted", "<= 5 s", 5, "delete", "pgsession", _seconds),
    Budget("meanwhile, other writers' p99", "<= 2x undisturbed", 2, True, _p99_of_others, _times),
)  # fmt: skip


def rows(races: Races) -> Iterator[tuple[str, str, str, str]]:
    """(what, rule, measured, met or not) for each budget whose race was run."""
    for budget in BUDGETS:
        value = budget.measure(races)
        if value is None:
            yield budget.what, budget.rule, "-", "not measured"
        else:
            met = value <= budget.limit if budget.at_most else value >= budget.limit
            yield budget.what, budget.rule, budget.format(value), "met" if met else "**not met**"


def lines(races: Races) -> Iterator[str]:
    """The same as text for a terminal."""
    for what, rule, measured, verdict in rows(races):
        yield f"{verdict.strip('*'):13} {what:42} {rule:50} {measured}"
