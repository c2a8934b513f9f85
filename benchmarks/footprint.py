"""What cached sessions weigh, in a process of its own: `python -m benchmarks.footprint HOLDER COUNT ATTRIBUTES SIZE`.

Prints {"bytes": resident memory a session, "empty": [seconds of gc.collect() before], "full": [and with them]}.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import Any

import msgspec

Attributes = dict[str, bytes]
"""Their JSON, by name."""
Holder = Callable[[int, Attributes], object]
"""Makes so many sessions with such attributes."""


def records(count: int, attributes: Attributes, *, read: bool = False) -> object:
    """pgsession's cache, filled as reads of the database fill it."""
    from pgsession._core.cache import Cache
    from pgsession._core.clock import Clock
    from pgsession._core.hit import session_of
    from pgsession._core.record import Record

    day = 86_400_000_000
    clock = Clock()
    cache = Cache(
        count,
        clock,
        access_interval=600_000_000,
        lifetime=day,
        max_attribute_length=16384,
    )
    now = clock.database_now()
    for number in range(count):
        values = [(key, 1, None, bytes(bytearray(text))) for key, text in attributes.items()]
        record = Record(os.urandom(16), 1, f"user {number}", None, now, now, now, now + day, 2 * day, values)
        cache.put(record)
        cache.restore_accesses([(record.key, now)])
        if read:
            session = session_of(cache, record, from_cache=True)
            for key in session:
                session[key]
    return cache


def read_records(count: int, attributes: Attributes) -> object:
    """The same after somebody has read every attribute."""
    return records(count, attributes, read=True)


def dicts(count: int, attributes: Attributes) -> dict[bytes, Any]:
    """A plain dict of its attributes for each session, by 16 bytes."""
    return {os.urandom(16): _decoded(attributes) for _ in range(count)}


def nested_dicts(count: int, attributes: Attributes) -> object:
    """A dict for each session with a dict of its attributes in it."""
    return {
        os.urandom(16): {"user_id": f"user {number}", "attributes": _decoded(attributes)}
        for number in range(count)
    }


def cachebox_dicts(count: int, attributes: Attributes) -> object:
    """Plain dicts in a compiled cache."""
    import cachebox

    return cachebox.LRUCache(count, dicts(count, attributes))


def _decoded(attributes: Attributes) -> dict[str, str]:
    return {key: msgspec.json.decode(text) for key, text in attributes.items()}


HOLDERS: dict[str, Holder] = {
    holder.__name__: holder for holder in (records, read_records, dicts, nested_dicts, cachebox_dicts)
}


def main(holder: str, count: int, number: int, size: int) -> None:
    hold = HOLDERS[holder]
    value = msgspec.json.encode("x" * (size - 2))
    attributes = {f"key_{place}": value for place in range(number)}
    hold(10, attributes)  # what is loaded once
    empty, before = _collections(), _resident()
    held = hold(count, attributes)
    full, after = _collections(), _resident()
    print(json.dumps({"bytes": (after - before) / count, "empty": empty, "full": full}))
    sys.stdout.flush()
    os._exit(0 if held is not None else 1)  # nobody needs to see it all taken apart


def _collections() -> list[float]:
    gc.collect()
    seconds = []
    for _ in range(15):
        started = thread_time()
        gc.collect()
        seconds.append(thread_time() - started)
    return seconds


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
