"""The hot path beside a plain dictionary, in one interleaved run: `python benchmarks/hot.py [entries ...]`.

Every figure is the median of several rounds, in nanoseconds; what is compared takes turns within a round, so that a
noisy machine is noisy for both. Keys are fresh objects in random order, as they come from a request.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.hit import session_of
from pgsession._core.reader import AsyncReader, Reader
from pgsession._core.record import Record

ROUNDS, SAMPLE = 15, 5_000
HOUR = 3_600_000_000
FAR = 1 << 60
CLOCK = Clock()


class Settings(msgspec.Struct, frozen=True):
    theme: str
    size: int


def record(key: bytes, *, attributes: int = 5) -> Record:
    now = CLOCK.database_now()
    values = [(f"attribute{i}", 1, None, b'"' + b"x" * 98 + b'"') for i in range(attributes)]
    return Record(key, 1, key.hex(), None, now, now, now, now + 24 * HOUR, 48 * HOUR, values)


def filled(ids: list[bytes], *, attributes: int = 5) -> Cache:
    limits = {"access_interval": HOUR, "lifetime": 48 * HOUR}
    cache = Cache(len(ids), CLOCK, max_attribute_length=16384, **limits)
    cache.in_sync_until = FAR
    for key in ids:
        cache.put(record(key, attributes=attributes))
    return cache


def spent(function: Callable[[Any], Any], arguments: Iterable[Any]) -> float:
    start = time.perf_counter_ns()
    for argument in arguments:
        function(argument)
    return (time.perf_counter_ns() - start) / SAMPLE


def in_any_order(work: dict[str, tuple[Callable[[Any], Any], list[Any]]]) -> dict[str, float]:
    """What comes first finds the processor's caches cold: it is another one in every round."""
    result = {name: spent(*work[name]) for name in random.sample(list(work), len(work))}
    return {name: result[name] for name in work}


def medians(rounds: Iterable[dict[str, float]]) -> dict[str, float]:
    """The median of each name over the rounds, the first of which only warms up; of the others, by way of the ratios
    to the first of the same round, which a noisy machine disturbs less."""
    results = list(rounds)[1:]
    first = next(iter(results[0]))
    base = statistics.median(result[first] for result in results)
    return {
        name: base * statistics.median(result[name] / result[first] for result in results)
        for name in results[0]
    }


def look_ups(entries: int) -> dict[str, float]:
    ids = [uuid.uuid4().bytes for _ in range(entries)]
    cache = filled(ids, attributes=1 if entries > 200_000 else 5)
    plain = {key: object() for key in random.sample(ids, entries)}
    reader, asynchronous = Reader(cache), AsyncReader(cache)

    def rounds() -> Iterator[dict[str, float]]:
        for _ in range(ROUNDS):
            order = random.choices(ids, k=SAMPLE)
            copies = [bytes(bytearray(key)) for key in order]
            others = [bytes(bytearray(key)) for key in random.choices(ids, k=SAMPLE)]
            uuids = [uuid.UUID(bytes=key) for key in random.choices(ids, k=SAMPLE)]
            more = [uuid.UUID(bytes=key) for key in random.choices(ids, k=SAMPLE)]
            texts = [str(uuid.UUID(bytes=key)) for key in random.choices(ids, k=SAMPLE)]
            gc.collect()
            yield in_any_order(
                {
                    "dict.get(bytes)": (plain.get, copies),
                    "get_session(bytes)": (reader.get_session, others),
                    "get_session(UUID)": (reader.get_session, uuids),
                    "get_session(str)": (reader.get_session, texts),
                    "async get_cached_session(UUID)": (asynchronous.get_cached_session, more),
                }
            )

    return medians(rounds())


def same_key() -> dict[str, float]:
    ids = [uuid.uuid4().bytes for _ in range(10_000)]
    reader, plain = Reader(filled(ids)), dict.fromkeys(ids)
    key, identity = ids[7], uuid.UUID(bytes=ids[7])
    work = {
        "dict.get(bytes)": (plain.get, [key] * SAMPLE),
        "get_session(bytes)": (reader.get_session, [key] * SAMPLE),
        "get_session(UUID)": (reader.get_session, [identity] * SAMPLE),
        "get_session(str)": (reader.get_session, [str(identity)] * SAMPLE),
    }
    return medians(in_any_order(work) for _ in range(3 * ROUNDS))


def awaited() -> dict[str, float]:
    ids = [uuid.uuid4().bytes for _ in range(1_000)]
    reader = AsyncReader(filled(ids))
    keys = [uuid.UUID(bytes=key) for key in ids] * (SAMPLE // 1_000)

    async def empty(key: Any) -> None:
        pass

    async def awaiting(get: Callable[[Any], Any]) -> float:
        start = time.perf_counter_ns()
        for key in keys:
            await get(key)
        return (time.perf_counter_ns() - start) / SAMPLE

    async def rounds() -> list[dict[str, float]]:
        return [
            {"empty()": await awaiting(empty), "get_session(UUID)": await awaiting(reader.get_session)}
            for _ in range(ROUNDS)
        ]

    return medians(asyncio.run(rounds()))


def spent_reading(mapping: Any, key: str) -> float:
    turns = range(SAMPLE)
    start = time.perf_counter_ns()
    for _ in turns:
        mapping[key]
    return (time.perf_counter_ns() - start) / SAMPLE


def attributes() -> dict[str, float]:
    cache = filled([bytes(16)])
    session = session_of(cache, cache.get(bytes(16)), from_cache=True)
    plain = {f"attribute{i}": str(i) for i in range(5)}
    assert session["attribute3"]
    return medians(
        {
            "dict[key]": spent_reading(plain, "attribute3"),
            "session[key], decoded before": spent_reading(session, "attribute3"),
        }
        for _ in range(ROUNDS)
    )


def first_decode(encoded: bytes, kind: Any) -> dict[str, float]:
    """In small groups, so that the records are as near to the processor as the one value that msgspec decodes."""
    group, turns = 100, 20
    cache = filled([bytes(16)])
    decode = msgspec.json.Decoder(kind).decode

    def sessions() -> list[Any]:
        made = [
            Record(bytes(16), 1, "u", None, 0, 0, 0, FAR, 48 * HOUR, [("key", 1, None, encoded)])
            for _ in range(group)
        ]
        return [session_of(cache, one, from_cache=True) for one in made]

    def timed(work: Callable[[list[Any]], list[Any]]) -> float:
        total = 0
        for _ in range(turns):
            fresh = sessions()
            start = time.perf_counter_ns()
            kept = work(fresh)
            total += time.perf_counter_ns() - start
            del kept
        return total / (group * turns)

    def plain(fresh: list[Any]) -> list[Any]:
        return [decode(encoded) for _ in fresh]

    def untyped(fresh: list[Any]) -> list[Any]:
        return [session["key"] for session in fresh]

    def typed(fresh: list[Any]) -> list[Any]:
        return [session.get("key", type=kind) for session in fresh]

    return medians(
        {"msgspec": timed(plain), "session": timed(untyped if kind is Any else typed)} for _ in range(ROUNDS)
    )


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def memory(entries: int = 100_000) -> float:
    """Resident bytes a session: 5 attributes of 100 bytes, not decoded, and a user id of its own."""
    ids = [uuid.uuid4().bytes for _ in range(entries)]
    gc.collect()
    before = resident()
    cache = filled(ids)
    gc.collect()
    return (resident() - before) / len(cache)


def collection(entries: int = 300_000) -> tuple[float, float]:
    """Milliseconds of gc.collect() without and with that many sessions, one plain value of each decoded."""

    def collecting() -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter_ns()
            gc.collect()
            times.append((time.perf_counter_ns() - start) / 1e6)
        return statistics.median(times)

    ids = [uuid.uuid4().bytes for _ in range(entries)]
    gc.collect()
    without = collecting()
    cache = filled(ids, attributes=2)
    for key in ids:
        session_of(cache, cache.get(key), from_cache=True)["attribute1"]
    return without, collecting()


def show(title: str, result: dict[str, float]) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("what", "ns", "ratio"):
        table.add_column(column, justify="left" if column == "what" else "right")
    base = next(iter(result.values()))
    for name, ns in result.items():
        table.add_row(name, f"{ns:.1f}", f"{ns / base:.2f}")
    Console(width=100).print(table)


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or [1_000, 10_000, 200_000]
    print(f"Python {sys.version.split()[0]}; the loop around each call is part of every figure")
    print(f"memory: {memory():.0f} B of RSS a session of 5 x 100 B, not decoded")
    for entries in sizes:
        show(f"{entries:,} entries, fresh keys in random order", look_ups(entries))
    show("10,000 entries, the same key again and again", same_key())
    show("awaiting", awaited())
    show("an attribute", attributes())
    show("first decode: str of 100", first_decode(b'"' + b"x" * 100 + b'"', Any))
    show("first decode: int", first_decode(b"12345", Any))
    show("first decode: small dict", first_decode(b'{"theme":"dark","size":12,"tags":["a","b"]}', Any))
    show("first decode: frozen Struct", first_decode(b'{"theme":"dark","size":12}', Settings))
    without, filled_up = collection()
    print(f"gc.collect(): {without:.2f} ms without, {filled_up:.2f} ms with 300,000 sessions")


if __name__ == "__main__":
    main()
