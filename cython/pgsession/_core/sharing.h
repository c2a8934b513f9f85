/* What the core needs of an arena beside arena.h: facts about the host, and events as it writes and reads them; and all of
 * it where there are no arenas, so that the core compiles the same. */
#ifndef PGSESSION_SHARING_H
#define PGSESSION_SHARING_H

#include "arena.h"

/* ---- events; `kind` and `length` stay as they are, the rest is theirs ---- */

enum {
    PGS_OWNER_AT = offsetof(pgs_event, high), /* the name of a user or a group */
    PGS_LOCK_AT = offsetof(pgs_event, low),   /* that of a lock; its token is in `high` */
    PGS_LONGEST_OWNER = sizeof(pgs_event) - PGS_OWNER_AT,
    PGS_LONGEST_LOCK = sizeof(pgs_event) - PGS_LOCK_AT
};

static inline void pgs_event_text(pgs_event *event, uint32_t at, const char *text, uint32_t length) {
    event->length = length;
    memcpy((char *)event + at, text, length);
}

/* What came from elsewhere says how long it is: never more than there is. */
static inline const char *pgs_text_in(const pgs_event *event, uint32_t at, uint32_t *length) {
    uint32_t most = (uint32_t)sizeof(pgs_event) - at;
    *length = event->length < most ? event->length : most;
    return (const char *)event + at;
}

typedef struct {
    uint64_t sessions, inserts, evictions, refused, expirations, resets;
} pgs_arena_counters;

#if PGS_HAS_ARENA

#define PGS_ARENA_FACT(type, name, expression)                                                                         \
    static inline type pgs_arena_##name(const pgs_arena *a) { return (type)pgs_load_acquire(&a->header->expression); }

PGS_ARENA_FACT(int64_t, last_beat, beat)
PGS_ARENA_FACT(int64_t, proved_until, proved_until)
PGS_ARENA_FACT(int64_t, longest, longest)
PGS_ARENA_FACT(uint32_t, nodes, nodes)
PGS_ARENA_FACT(int64_t, registered, registered)
PGS_ARENA_FACT(uint64_t, leaving, leaving)
PGS_ARENA_FACT(int64_t, known, known)

static inline void pgs_arena_set_registered(pgs_arena *a, int64_t us) { pgs_store_release(&a->header->registered, us); }
static inline void pgs_arena_set_known(pgs_arena *a, int64_t us) { pgs_store_release(&a->header->known, us); }
static inline void pgs_arena_set_leaving(pgs_arena *a, uint64_t number) { pgs_store_release(&a->header->leaving, number); }

static inline void pgs_arena_set_nodes(pgs_arena *a, uint32_t nodes) { pgs_store_release(&a->header->nodes, nodes); }
static inline const unsigned char *pgs_arena_id(const pgs_arena *a) { return a->header->id; }

static inline void pgs_arena_count(const pgs_arena *a, pgs_arena_counters *counters) {
    counters->sessions = pgs_load(&a->header->live);
    counters->inserts = pgs_load(&a->header->inserts);
    counters->evictions = pgs_load(&a->header->evictions);
    counters->refused = pgs_load(&a->header->refused);
    counters->expirations = pgs_load(&a->header->expirations);
    counters->resets = pgs_load(&a->header->resets);
}

/* The lock is held. A writer that dies half way leaves an odd turn, which says that there is none. */
static inline void pgs_arena_set_incarnation(pgs_arena *a, const char text[PGS_INCARNATION]) {
    uint64_t turn = pgs_load(&a->header->facts_turn) | 1;
    int i;
    pgs_store(&a->header->facts_turn, turn);
    pgs_fence_release();
    for (i = 0; i < PGS_INCARNATION; i++)
        pgs_store(&a->header->incarnation[i], text[i]);
    pgs_store_release(&a->header->facts_turn, turn + 1);
}

/* Returns 0 where it is just being written, or never was. */
static inline int pgs_arena_incarnation(const pgs_arena *a, char text[PGS_INCARNATION]) {
    int tries, i;
    for (tries = 0; tries < 100; tries++) {
        uint64_t turn = pgs_load_acquire(&a->header->facts_turn);
        for (i = 0; i < PGS_INCARNATION; i++)
            text[i] = pgs_load(&a->header->incarnation[i]);
        text[PGS_INCARNATION - 1] = 0;
        pgs_fence_acquire();
        if (!(turn & 1) && pgs_load(&a->header->facts_turn) == turn)
            return turn != 0;
    }
    return 0;
}

/* The lock is held. */
static inline void pgs_arena_set_state(pgs_arena *a, uint32_t state) { pgs_store_release(&a->line->state, state); }
static inline void pgs_arena_next_epoch(pgs_arena *a) { pgs_store_release(&a->line->epoch, a->line->epoch + 1); }

#else

typedef struct {
    pgs_hit_line *line;
} pgs_arena;

#define PGS_NO_ARENA(type, name, arguments)                                                                            \
    static inline type name arguments { return (type)PGS_ARENA_UNSUPPORTED; }
#define PGS_NOTHING(name, arguments)                                                                                   \
    static inline void name arguments {}

#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#endif
PGS_NO_ARENA(uint64_t, pgs_arena_layout_of, (uint64_t encoding))
PGS_NO_ARENA(uint64_t, pgs_owner_hash, (const pgs_arena *a, int which, const char *text, uint32_t length))
PGS_NO_ARENA(uint64_t, pgs_arena_smallest, (void))
PGS_NO_ARENA(int, pgs_arena_format, (pgs_arena * a, void *base, uint64_t size, uint64_t encoding, const uint64_t random[4]))
PGS_NO_ARENA(int, pgs_arena_bind, (pgs_arena * a, void *base, uint64_t size, uint64_t encoding))
PGS_NO_ARENA(int, pgs_arena_self_test, (void))
PGS_NO_ARENA(uint32_t, pgs_arena_bell, (const pgs_arena *a))
PGS_NO_ARENA(uint32_t, pgs_arena_wait_bell, (pgs_arena * a, uint32_t seen, int64_t timeout_us))
PGS_NO_ARENA(int, pgs_arena_poisoned, (const pgs_arena *a))
PGS_NO_ARENA(int, pgs_arena_try, (pgs_arena * a))
PGS_NO_ARENA(int, pgs_arena_lock, (pgs_arena * a))
PGS_NO_ARENA(int, pgs_arena_append, (pgs_arena * a, const pgs_event *event))
PGS_NO_ARENA(int, pgs_arena_next, (const pgs_arena *a, uint64_t *tail, pgs_event *event))
PGS_NO_ARENA(int, pgs_arena_discard_older, (pgs_arena * a, uint64_t high, uint64_t low, int64_t version))
PGS_NO_ARENA(int, pgs_arena_discard, (pgs_arena * a, uint64_t high, uint64_t low))
PGS_NO_ARENA(int, pgs_arena_discard_owner, (pgs_arena * a, int which, const char *text, uint32_t length))
PGS_NO_ARENA(int, pgs_arena_insert, (pgs_arena * a, const pgs_shared *what, const void *blob, uint32_t length))
PGS_NO_ARENA(uint32_t, pgs_arena_expire, (pgs_arena * a, uint32_t *cursor, int64_t now, uint32_t limit))
PGS_NO_ARENA(uint64_t, pgs_arena_number, (const pgs_arena *a))
PGS_NO_ARENA(int, pgs_arena_beat, (pgs_arena * a, uint64_t number, int64_t now))
PGS_NO_ARENA(int64_t, pgs_arena_last_beat, (const pgs_arena *a))
PGS_NO_ARENA(int64_t, pgs_arena_proved_until, (const pgs_arena *a))
PGS_NO_ARENA(int64_t, pgs_arena_longest, (const pgs_arena *a))
PGS_NO_ARENA(uint32_t, pgs_arena_nodes, (const pgs_arena *a))
PGS_NO_ARENA(int64_t, pgs_arena_registered, (const pgs_arena *a))
PGS_NO_ARENA(uint64_t, pgs_arena_leaving, (const pgs_arena *a))
PGS_NO_ARENA(int64_t, pgs_arena_known, (const pgs_arena *a))
PGS_NOTHING(pgs_arena_set_known, (pgs_arena * a, int64_t us))
PGS_NOTHING(pgs_arena_set_registered, (pgs_arena * a, int64_t us))
PGS_NOTHING(pgs_arena_set_leaving, (pgs_arena * a, uint64_t number))
PGS_NOTHING(pgs_arena_ring_bell, (pgs_arena * a))
PGS_NOTHING(pgs_arena_poison, (pgs_arena * a))
PGS_NOTHING(pgs_arena_unlock, (pgs_arena * a))
PGS_NOTHING(pgs_arena_clear, (pgs_arena * a))
PGS_NOTHING(pgs_arena_visit, (pgs_arena * a, uint64_t high, uint64_t low))
PGS_NOTHING(pgs_arena_raise_longest, (pgs_arena * a, int64_t longest))
PGS_NOTHING(pgs_arena_set_nodes, (pgs_arena * a, uint32_t nodes))
PGS_NOTHING(pgs_arena_set_incarnation, (pgs_arena * a, const char text[PGS_INCARNATION]))
PGS_NOTHING(pgs_arena_set_state, (pgs_arena * a, uint32_t state))
PGS_NOTHING(pgs_arena_next_epoch, (pgs_arena * a))

static inline const unsigned char *pgs_arena_id(const pgs_arena *a) { return (const unsigned char *)a; }

static inline int pgs_arena_read(const pgs_arena *a, uint64_t high, uint64_t low, void *out, uint32_t room, pgs_shared *what) {
    return 0;
}

static inline int pgs_arena_walk(const pgs_arena *a, uint32_t *cursor, pgs_shared *what) { return 0; }

static inline int pgs_arena_incarnation(const pgs_arena *a, char text[PGS_INCARNATION]) { return 0; }

static inline uint64_t pgs_arena_take_lead(pgs_arena *a, uint64_t expected, uint32_t pid, int64_t now, int lost) { return 0; }

static inline int pgs_arena_vouch(pgs_arena *a, uint64_t number, int64_t until, int64_t proved_until, int64_t offset, int64_t lag) {
    return 0;
}

static inline int pgs_line_clock(const pgs_hit_line *line, int64_t *offset, int64_t *lag) { return 0; }

static inline void pgs_arena_count(const pgs_arena *a, pgs_arena_counters *counters) { memset(counters, 0, sizeof(*counters)); }
#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
#endif
