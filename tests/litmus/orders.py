"""The orders in which processes show each other what they write: what arena.h relies on, each as a litmus test.

A test is a small program in C's atomics, and an outcome that must never be. It stands for lines of the headers, which
are named here so that who changes one of them comes by. `weaker` takes one order away, after which the outcome has to
be possible: so the test can fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
HEADERS = HERE.parents[1] / "cython" / "pgsession" / "_core"

Change = tuple[str, str]


@dataclass(frozen=True)
class Order:
    """One order.

    Attributes:
        harm: What would happen without it.
        lines: Of arena.h and sharing.h, that the test stands for.
        weaker: Changes of the test, by name; each `old` occurs once in it.
    """

    harm: str
    lines: tuple[str, ...]
    weaker: dict[str, tuple[Change, ...]] = field(default_factory=dict)


def _store(location: str, value: int, order: str) -> str:
    return f"  atomic_store_explicit({location}, {value}, memory_order_{order});\n"


def _load(name: str, location: str, order: str) -> str:
    return f"  int {name} = atomic_load_explicit({location}, memory_order_{order});\n"


def _relaxed_store(location: str, value: int) -> Change:
    return _store(location, value, "release"), _store(location, value, "relaxed")


def _relaxed_load(name: str, location: str) -> Change:
    return _load(name, location, "acquire"), _load(name, location, "relaxed")


def _none(what: str) -> Change:
    return what, ""


_RELEASE = "  atomic_thread_fence(memory_order_release);\n"
_ACQUIRE = "  atomic_thread_fence(memory_order_acquire);\n"
_ALL = "  atomic_thread_fence(memory_order_seq_cst);\n"

ORDERS = {
    "turn": Order(
        "a record, the clock or an incarnation is of two writers, and taken for good",
        (
            "pgs_store(&line->clock_turn, turn);\n    pgs_fence_release();",
            "pgs_store_release(&line->clock_turn, turn + 1);",
            "uint64_t turn = pgs_load_acquire(&line->clock_turn);",
            "pgs_fence_acquire();\n        if (!(turn & 1) && pgs_load(&line->clock_turn) == turn)",
            "pgs_store(&a->header->facts_turn, turn);\n    pgs_fence_release();",
            "pgs_store_release(&a->header->facts_turn, turn + 1);",
            "uint64_t turn = pgs_load_acquire(&a->header->facts_turn);",
            "pgs_fence_acquire();\n        if (!(turn & 1) && pgs_load(&a->header->facts_turn) == turn)",
        ),
        {
            "odd-without-a-fence": (_none(_RELEASE),),
            "even-without-release": (_relaxed_store("turn", 4),),
            "first-look-without-acquire": (_relaxed_load("before", "turn"),),
            "second-look-without-a-fence": (_none(_ACQUIRE),),
        },
    ),
    "reuse": Order(
        "S5: the bytes of another session are returned",
        (
            "pgs_store(&slot->seq, slot->seq + 1); /* odd from here on (S5) */\n    pgs_fence_release();",
            "pgs_fence_release(); /* whoever was in this memory is odd to its readers (S5) */",
            "pgs_store_release(&slot->seq, slot->seq + 1); /* even */",
            "pgs_store_release(cell, (uint64_t)pgs_cell_tag(hash) << 32 | (n + 1));",
            "uint64_t cell = pgs_load_acquire(&a->buckets[bucket[i]].cell[j]);",
            "uint64_t seq = pgs_load_acquire(&slot->seq), blob;",
            "pgs_fence_acquire();\n                if (pgs_load(&slot->seq) != seq || !good)",
        ),
        {
            "odd-without-a-fence": (_none(_RELEASE),),
            "even-without-release": (_relaxed_store("other", 2),),
            "first-look-without-acquire": (_relaxed_load("even", "other"),),
            "second-look-without-a-fence": (_none(_ACQUIRE),),
            "cell-without-release": (_relaxed_store("cell", 1),),
            "cell-without-acquire": (_relaxed_load("found", "cell"),),
        },
    ),
    "event": Order(
        "an event is read that is not written yet",
        (
            "__atomic_compare_exchange_n(&a->line->head, &head, head + 1, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED)",
            "uint64_t head = pgs_load_acquire(&a->line->head);\n    const uint64_t *from;",
        ),
        {
            "head-without-release": (_relaxed_store("head", 1),),
            "head-without-acquire": (_relaxed_load("seen", "head"),),
        },
    ),
    "overrun": Order(
        "an event is taken for another that overwrote it",
        (
            "pgs_store(&a->header->reserve, head + 1);\n    pgs_fence_release();",
            "pgs_fence_acquire();\n    if (pgs_load(&a->header->reserve) - *tail > PGS_RING)",
        ),
        {
            "reserve-without-a-fence": (_none(_RELEASE),),
            "reserve-read-without-a-fence": (_none(_ACQUIRE),),
            "reserve-after-the-event": (
                _none(_store("reserve", 2, "relaxed")),
                (
                    _store("head", 2, "release"),
                    _store("reserve", 2, "release") + _store("head", 2, "release"),
                ),
            ),
        },
    ),
    "leaves": Order(
        "S2: the old record is copied by one who has read that it is old",
        (
            "pgs_store(&slot->seq, slot->seq + 1); /* odd from here on (S5) */\n    pgs_fence_release();",
            "uint64_t seq = pgs_load_acquire(&slot->seq), blob;",
        ),
        {
            "event-first": (
                _none(_store("turn", 3, "relaxed")),
                (_store("head", 1, "release"), _store("head", 1, "release") + _store("turn", 3, "release")),
            ),
        },
    ),
    "proof": Order(
        "S3: a proof is believed, and an event before it is not read",
        (
            "pgs_store_release(&line->in_sync_until, until);",
            "__atomic_compare_exchange_n(&a->line->head, &head, head + 1, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED)",
        ),
        {
            "proof-without-release": (_relaxed_store("until", 1),),
            "proof-without-acquire": (_relaxed_load("proved", "until"),),
            "head-first": (
                _none(_load("proved", "until", "acquire")),
                (
                    _load("seen", "head", "acquire"),
                    _load("seen", "head", "acquire") + _load("proved", "until", "acquire"),
                ),
            ),
            "proof-first": (
                _none(_store("until", 1, "release")),
                (
                    _store("head", 1, "release"),
                    _store("until", 1, "release") + _store("head", 1, "release"),
                ),
            ),
        },
    ),
    "handover": Order(
        "S3: the leader proves what another process has told, and a third does not see that",
        ("pthread_mutex_unlock(&a->header->mutex);", "pgs_store_release(&line->in_sync_until, until);"),
        {
            "lock-without-release": (_relaxed_store("mutex", 1),),
            # Either would do on ARM, where all see a write at once.
            "leader-without-order": (_relaxed_load("held", "mutex"), _relaxed_store("until", 1)),
            "proof-without-acquire": (_relaxed_load("proved", "until"),),
        },
    ),
    "leader": Order(
        "a new leader is deposed for the silence of the one before; or what that one left counts as in sync",
        (
            "pgs_store_release(&a->line->state, PGS_LOST);",
            "pgs_store(&a->header->beat, now);\n    pgs_store_release(&a->header->number, expected + 1);",
            "return pgs_load_acquire(&a->header->number);",
        ),
        {
            "number-without-release": (_relaxed_store("number", 1),),
            "number-without-acquire": (_relaxed_load("seen", "number"),),
        },
    ),
    "poison": Order(
        "an arena that was given up comes back, with processes that have left it",
        (
            "__atomic_fetch_or(&a->line->head, PGS_POISONED, __ATOMIC_SEQ_CST);",
            "__atomic_compare_exchange_n(&a->line->head, &head, head + 1, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED)",
            "__atomic_compare_exchange_n(&a->line->head, &head, beyond, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)",
        ),
        {
            "append-by-a-store": (
                (
                    "  int done = atomic_compare_exchange_strong_explicit"
                    "(head, expected, 2, memory_order_release, memory_order_relaxed);\n",
                    _load("done", "head", "relaxed") + _store("head", 2, "release"),
                ),
            ),
        },
    ),
    "death": Order(
        "what a dead writer left half done is used",
        (
            "pgs_store(&h->dirty, 1);\n    pgs_in_this_order();",
            "reset = pgs_load_acquire(&h->dirty) != 0;",
        ),
        {"a-kernel-without-a-barrier": (_none(_ALL),)},
    ),
    "made": Order(
        "an arena is used that is half made",
        (
            'pgs_fence();\n    memcpy(h->magic, "PGSARENA", 8);',
            'memcmp(h->magic, "PGSARENA", 8) != 0)\n        return PGS_ARENA_NOT_ONE;\n    pgs_fence_acquire();',
        ),
        {"magic-without-a-fence": (_none(_ALL),), "magic-read-without-a-fence": (_none(_ACQUIRE),)},
    ),
    "bell": Order(
        "one who is woken sees no reason, and sleeps on for a tenth of a second",
        (
            "__atomic_fetch_add(&a->header->bell, 1, __ATOMIC_RELEASE);",
            "return pgs_load_acquire(&a->header->bell);",
        ),
        {
            "bell-without-release": (
                (
                    "atomic_fetch_add_explicit(bell, 1, memory_order_release)",
                    "atomic_fetch_add_explicit(bell, 1, memory_order_relaxed)",
                ),
            ),
            "bell-without-acquire": (_relaxed_load("heard", "bell"),),
        },
    ),
}


def written(name: str) -> str:
    """Return the test of an order as it is."""
    return (HERE / f"{name}.litmus").read_text(encoding="utf-8")


def weakened(name: str, change: str) -> str:
    """Return the test of an order, without one of the things that it needs."""
    text = written(name)
    for old, new in ORDERS[name].weaker[change]:
        assert text.count(old) == 1, f"{name}.litmus has {text.count(old)} times {old!r}"
        text = text.replace(old, new)
    return text
