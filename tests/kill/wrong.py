"""The rules of an arena, each broken in one place; the docs' host-cache-testing.md has them as a table.

`STEPS` are caught by steps.c, which needs no luck; `RUNS` by kill.c within seconds.
"""

from __future__ import annotations

from tests.kill.programs import Wrong

STEPS = {
    "no-odd-turn": Wrong(
        "S5",
        "what has left is still copied while its memory has another's bytes",
        "arena.h",
        "pgs_store(&slot->seq, slot->seq + 1); /* odd from here on (S5) */",
        "pgs_store(&slot->seq, slot->seq + 2);",
    ),
    "turns-restart": Wrong(
        "S5",
        "a reader that was stopped takes another record of the same turn for its own",
        "arena.h",
        "            pgs_store(&slot->seq, slot->seq + 1);\n        a->links[i].live = 0;",
        "            pgs_store(&slot->seq, 1);\n        a->links[i].live = 0;",
    ),
    "any-leader-vouches": Wrong(
        "S6",
        "a leader that was stopped vouches for what it no longer hears",
        "arena.h",
        "if (pgs_arena_number(a) != number || pgs_arena_poisoned(a))",
        "if (pgs_arena_poisoned(a))",
    ),
    "vouch-in-a-poisoned": Wrong(
        "failure table",
        "an arena that was given up is served from",
        "arena.h",
        "if (pgs_arena_number(a) != number || pgs_arena_poisoned(a))",
        "if (pgs_arena_number(a) != number)",
    ),
    "clock-after-a-death": Wrong(
        "S3",
        "an offset and a lag that are of two writers judge whether a record is over",
        "arena.h",
        "turn = pgs_load(&line->clock_turn) | 1; /* odd already where one who wrote it died */",
        "turn = pgs_load(&line->clock_turn) + 1;",
    ),
    "a-death-is-ignored": Wrong(
        "failure table",
        "what a dead writer left half done is used",
        "arena.h",
        "reset = pgs_load_acquire(&h->dirty) != 0;",
        "reset = 0;",
    ),
    "a-death-is-not-told": Wrong(
        "failure table",
        "private caches keep what a dead writer did not get to tell of",
        "arena.h",
        "+ 3 * (uint64_t)PGS_RING;",
        "+ 0;",
    ),
    "always-reset": Wrong(
        "failure table",
        "a death outside of a change empties the host's cache",
        "arena.h",
        "    pgs_store_release(&a->header->dirty, 0);\n",
        "",
    ),
    "reset-takes-poison-back": Wrong(
        "poisoning",
        "an arena that was given up comes back, with processes that have left it",
        "arena.h",
        "    while (!(head & PGS_POISONED) &&\n",
        "    pgs_store(&a->line->head, beyond);\n    while (0 &&\n",
    ),
    "append-takes-poison-back": Wrong(
        "poisoning",
        "the same, by a writer that was stopped",
        "arena.h",
        "if (!__atomic_compare_exchange_n(&a->line->head, &head, head + 1,",
        "pgs_store_release(&a->line->head, head + 1);\n"
        "    if (0 && !__atomic_compare_exchange_n(&a->line->head, &head, 0,",
    ),
    "overrun-unnoticed": Wrong(
        "ring",
        "a reader takes an event for another that overwrote it",
        "arena.h",
        "if (pgs_load(&a->header->reserve) - *tail > PGS_RING) {",
        "if (0) {",
    ),
    "no-reserve": Wrong(
        "ring",
        "a reader takes an event that is half another",
        "arena.h",
        "    pgs_store(&a->header->reserve, head + 1);\n    pgs_fence_release();\n    PGS_CRASH_POINT(1);",
        "    PGS_CRASH_POINT(1);\n    pgs_store(&a->header->reserve, head + 1);",
    ),
    "older-replaces-newer": Wrong(
        "insert",
        "a late fill puts an old version where a new one is",
        "arena.h",
        "if (n != PGS_NONE && a->slots[n].version > what->version) {",
        "if (0) {",
    ),
    "use-is-not-seen": Wrong(
        "CLOCK",
        "what is used all the time leaves first",
        "arena.h",
        "if (!pgs_load(&slot->visited))\n                    pgs_store(&slot->visited, 1);",
        "",
    ),
}

RUNS = {
    "two-sections": Wrong(
        "S1",
        "between its event and its record another deletes the session",
        "kill.c",
        "nothing(v); /* S1: still the same section */",
        "open_the_section(v);",
    ),
    "event-first": Wrong(
        "S2",
        "a reader copies the old record after it has read that it is old",
        "kill.c",
        "        pgs_arena_discard_owner(&v->a, which, text, length); /* S2: first what is shared, then the event */\n"
        "        done = tell(v, which ? PGS_GROUP_CHANGED : PGS_USER_CHANGED, -1, 0, text, length);\n",
        "        done = tell(v, which ? PGS_GROUP_CHANGED : PGS_USER_CHANGED, -1, 0, text, length);\n"
        "        pthread_mutex_unlock(&own);\n        sleep_us(200);\n        pthread_mutex_lock(&own);\n"
        "        pgs_arena_discard_owner(&v->a, which, text, length);\n",
    ),
    "head-first": Wrong(
        "S3",
        "a proof is believed whose events were not read",
        "kill.c",
        "    until = pgs_load_acquire(&v->a.line->in_sync_until); /* S3: first */\n    crash_point(0);\n"
        "    alive = hear(v);\n    crash_point(0);\n",
        "    alive = hear(v);\n"
        "    while (pgs_monotonic_us() >= LOOK(v->a.line->in_sync_until) && !one_in(100))\n        sleep_us(300);\n"
        "    until = pgs_load_acquire(&v->a.line->in_sync_until);\n",
        (
            ("THREADS = 3", "THREADS = 1"),
            ("BEAT_OVERDUE = 45000", "BEAT_OVERDUE = 500000"),
            (
                "version[KEYS], now = pgs",
                "version[KEYS], now = (leading && one_in(9) ? sleep_us(90000) : (void)0, 0) + pgs",
            ),
        ),
    ),
    "proof-first": Wrong(
        "S3",
        "the leader says that all is in sync before it has told of what it knows",
        "kill.c",
        "    alive = v == leading_in;\n",
        "    alive = v == leading_in;\n"
        "    if (alive && one_in(8)) {\n        sleep_us(35000);\n"
        "        now = pgs_monotonic_us();\n"
        "        for (key = 0; key < KEYS; key++)\n            version[key] = LOOK(db->word[key]);\n"
        "        pgs_arena_vouch(&v->a, leading, now + MAX_STALENESS, now, now, now ^ CLOCKS_DIFFER);\n"
        "        sleep_us(2000);\n    }\n",
    ),
    "answer-first": Wrong(
        "S4",
        "a write has returned, and others still read what was before it",
        "kill.c",
        "    close_lease(mine, key, version);\n    returns(key, version); /* S4: after its event */\n",
        "    returns(key, version);\n    close_lease(mine, key, version);\n",
    ),
    "ring-unread": Wrong(
        "the hit",
        "a private cache serves what the host knows to be old",
        "kill.c",
        "    alive = hear(v);\n    crash_point(0);\n    fresh =",
        "    alive = one_in(8) ? hear(v) : 1;\n    crash_point(0);\n    fresh =",
    ),
    "leases-believed": Wrong(
        "leases",
        "a fill keeps what was replaced while it read",
        "kill.c",
        " || mine->wide != wide || mine->epoch != epoch || version < mine->stamp",
        "",
    ),
    "copies-enter-late": Wrong(
        "S9",
        "a thread puts a copy into the private cache after another has read that it is old",
        "kill.c",
        "hear(v) && tail == before) /* S9 */",
        "hear(v))",
    ),
    "no-odd-turn": STEPS["no-odd-turn"],
    "a-death-is-ignored": STEPS["a-death-is-ignored"],
    "any-leader-vouches": STEPS["any-leader-vouches"],
}
