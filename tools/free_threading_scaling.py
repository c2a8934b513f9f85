"""How the cache scales with two threads on a free-threaded build: PGSESSION_MEASURE=1 make free-threading PYTHON_FT=...

Prints hits per second of one thread and of two, on one cache and on two, and what a hit costs its thread in processor
time; the median of interleaved rounds. Where other programs use the processors, only the second says something.
"""

from __future__ import annotations

import importlib.util
import random
import statistics
import sys
import threading
import time
import types
from collections.abc import Callable

found = importlib.util.find_spec("pgsession")
assert found is not None
package = types.ModuleType("pgsession")  # without its __init__, which needs msgspec and psycopg
package.__path__ = list(found.submodule_search_locations or [])
sys.modules["pgsession"] = package

from pgsession._core.cache import Cache  # noqa: E402
from pgsession._core.clock import Clock  # noqa: E402
from pgsession._core.record import Record  # noqa: E402

SESSIONS = 10_000
LOOKUPS = 100_000
ROUNDS = 9
FAR = 4_000_000_000_000_000


def keys_of(cache: Cache, first: int) -> list[bytes]:
    keys = [(first + number).to_bytes(16, "big") for number in range(SESSIONS)]
    for key in keys:
        cache.put(Record(key, 1, key.hex(), None, 0, 0, cache.clock.database_now(), FAR, None, ()))
    return keys


def new_cache() -> Cache:
    return Cache(2 * SESSIONS, Clock(), access_interval=0, lifetime=0, max_attribute_length=0)


def look_up(cache: Cache, keys: list[bytes]) -> Callable[[], None]:
    """Fresh keys, as a service has them, made by the thread that uses them."""

    def work() -> None:
        get = cache.get
        fresh = [bytes(bytearray(key)) for key in random.choices(keys, k=LOOKUPS)]
        barrier.wait()
        started, used = time.perf_counter(), time.thread_time()
        for key in fresh:
            get(key)
        spent.append((time.perf_counter() - started, time.thread_time() - used))

    return work


def rate(*jobs: Callable[[], None]) -> tuple[float, float]:
    """Look-ups per second of all threads together, until the slowest is done; nanoseconds of processor time for one."""
    global barrier, spent
    barrier, spent = threading.Barrier(len(jobs)), []
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = sum(processor for _, processor in spent) / len(jobs)
    return len(jobs) * LOOKUPS / max(wall for wall, _ in spent), used / LOOKUPS * 1e9


barrier = threading.Barrier(1)
spent: list[tuple[float, float]] = []


def main() -> None:
    one, other = new_cache(), new_cache()
    keys, halves, others = keys_of(one, 0), keys_of(one, SESSIONS), keys_of(other, 0)
    cases = {
        "one thread": [look_up(one, keys)],
        "two threads, one cache, the same sessions": [look_up(one, keys), look_up(one, keys)],
        "two threads, one cache, sessions of their own": [look_up(one, keys), look_up(one, halves)],
        "two threads, two caches": [look_up(one, keys), look_up(other, others)],
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, jobs in cases.items():
            rates[name].append(rate(*jobs))
    alone = statistics.median(rate for rate, _ in rates["one thread"])
    for name, results in rates.items():
        typical = statistics.median(rate for rate, _ in results)
        cost = statistics.median(cost for _, cost in results)
        print(
            f"{name:48} {typical / 1e6:6.2f} million/s  {typical / alone:5.2f}x  {cost:5.0f} ns of processor time"
        )


if __name__ == "__main__":
    main()
