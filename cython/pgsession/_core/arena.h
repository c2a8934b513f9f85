/* The arena is the memory that the processes of a host share: encoded records (L2), a ring of events, and one line that
 * every hit reads. docs/host-cache.md has the design; the rules S1 to S9 are cited by their numbers there.
 *
 * Offsets only, no pointers: each process has it mapped where it likes. What readers look at without the lock are plain
 * aligned integers, read and written by the atomic built-ins. Nothing here knows Python. On other systems than Linux
 * only the line is there, for a private cache has one too; the rest says PGS_ARENA_UNSUPPORTED. */
#ifndef PGSESSION_ARENA_H
#define PGSESSION_ARENA_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__linux__) && (defined(__GNUC__) || defined(__clang__))
#define PGS_HAS_ARENA 1
#else
#define PGS_HAS_ARENA 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define pgs_load(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define pgs_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define pgs_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define pgs_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#else /* MSVC: aligned volatile accesses of x86-64 and of /volatile:ms are enough for one process under a lock */
#define pgs_load(p) (*(p))
#define pgs_load_acquire(p) (*(p))
#define pgs_store(p, v) (*(p) = (v))
#define pgs_store_release(p, v) (*(p) = (v))
#endif

/* A fault test defines this to die or to stop there. */
#ifndef PGS_CRASH_POINT
#define PGS_CRASH_POINT(number) ((void)0)
#endif

#define PGS_POISONED (1ULL << 63)

enum { /* of an arena as a whole */
    PGS_LOST = 0,  /* nobody listens: nothing enters */
    PGS_LISTENING, /* what was there before is not compared yet */
    PGS_SYNCED
};

typedef struct { /* what every hit reads; a private cache has one of its own */
    int64_t in_sync_until; /* node time; 0: not in sync */
    uint64_t head;         /* events that were appended; the top bit: poisoned */
    uint64_t clock_turn;   /* odd while the two below are written */
    int64_t offset, lag;
    uint32_t state, epoch;
    uint64_t unused[2];
} pgs_hit_line;

enum {
    PGS_EVENT_TEXT = 32,     /* bytes of an owner or a lock's name that an event can hold */
    PGS_RING = 16384,        /* events */
    PGS_INCARNATION = 64     /* bytes, with the zero at its end */
};

enum {
    PGS_CHANGED = 1, PGS_GONE, PGS_USER_CHANGED, PGS_GROUP_CHANGED, PGS_ALL_CHANGED, PGS_EPOCH,
    PGS_LOCK_RELEASED, PGS_LOCK_ENDED, PGS_LOCKS_MISSED
};

typedef struct {
    uint32_t kind, length; /* of the text */
    uint64_t high, low;
    int64_t version; /* or the token of a lock */
    char text[PGS_EVENT_TEXT];
} pgs_event;

typedef struct { /* what L2 knows of a record */
    uint64_t high, low;
    int64_t version, generation, expires_at, inactivity, last_accessed, cached_at;
    uint64_t user, group; /* pgs_owner_hash(); 0: none */
} pgs_shared;

/* What pgs_arena_*() say. */
enum {
    PGS_ARENA_OK = 0,
    PGS_HELD = 0,
    PGS_HELD_AFTER_RESET = 1, /* somebody died inside: all that was there is gone */
    PGS_BUSY = -1,
    PGS_ARENA_POISONED = -2,
    PGS_ARENA_UNSUPPORTED = -3,
    PGS_ARENA_NOT_ONE = -4,  /* no magic */
    PGS_ARENA_LAYOUT = -5,   /* of a library that lays it out otherwise */
    PGS_ARENA_SIZE = -6,     /* too small, or not the size that it says */
    PGS_ARENA_MUTEX = -7     /* robust mutexes do not work here */
};

#if PGS_HAS_ARENA

#include <errno.h>
#include <features.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PGS_NONE 0xFFFFFFFFu
enum {
    PGS_FORMAT = 1,
    PGS_CELLS = 8,
    PGS_SLAB = 65536,
    PGS_CLASSES = 31,
    PGS_BLOCK_HEADER = 8,
    PGS_HEADER = 4096,
    PGS_MOST_EVICTED = 64 /* at once for a block, before a whole slab is taken away */
};

typedef struct { uint64_t cell[PGS_CELLS]; } pgs_bucket; /* tag << 32 | slot + 1; 0: free */

typedef struct { /* what readers look at */
    uint64_t seq; /* odd: free, or being written; it never goes back (S5) */
    uint64_t high, low;
    int64_t version, generation, expires_at, inactivity, last_accessed, cached_at;
    uint64_t user, group;
    uint64_t blob; /* its offset in the arena */
    uint32_t length, visited;
    uint64_t unused[3];
} pgs_entry;

typedef struct { /* what writers alone look at */
    uint32_t prev[2], next[2]; /* of the same user and of the same group, by hash */
    uint32_t cell, live, next_free, unused;
} pgs_entry_links;

typedef struct { uint32_t slot, next; } pgs_block; /* before each blob; slot: PGS_NONE while it is free */

typedef struct {
    char magic[8]; /* written last */
    uint64_t layout, size;
    unsigned char id[16];
    uint64_t seed[2];
    uint64_t at_buckets, at_owners, at_slots, at_links, at_slabs_state, at_ring, at_slabs;
    uint32_t bucket_count, owner_count, slot_count, slab_count;
    char apart0[64 * 3 - 8 * 7 - 8 - 16 - 16 - 16 - 16];
    pgs_hit_line line;
    uint64_t reserve; /* the event that is being written is the one before this */
    char apart1[56];
    pthread_mutex_t mutex;
    uint32_t dirty;
    char apart2[64 * 2 - sizeof(pthread_mutex_t) - 4];
    uint64_t number; /* of the leader */
    int64_t beat;    /* node time */
    uint32_t leader, unused;
    int64_t proved_until, longest;
    uint32_t nodes, bell;
    int64_t registered; /* the `longest` that the leader has told the other nodes of */
    uint64_t leaving;   /* the number of a leader that goes and waits for another one to be ready */
    uint64_t facts_turn;
    char incarnation[PGS_INCARNATION];
    int64_t known; /* the longest staleness of any node that the leader has heard of */
    char apart4[48];
    /* under the lock */
    uint32_t free_slot, live, hand, slab_hand, free_slabs, unused2;
    uint32_t free_block[PGS_CLASSES]; /* in units of 64 bytes from at_slabs; PGS_NONE: none */
    uint64_t inserts, evictions, refused, expirations, resets, slabs_taken;
} pgs_arena_header;

typedef struct { uint32_t class_of, used; } pgs_slab; /* class_of: PGS_NONE: free */

typedef struct { /* one process's view */
    char *base;
    pgs_arena_header *header;
    pgs_hit_line *line;
    pgs_bucket *buckets;
    uint32_t *owners[2];
    pgs_entry *slots;
    pgs_entry_links *links;
    pgs_slab *slab_states;
    pgs_event *ring;
    char *slabs;
} pgs_arena;

static const uint32_t pgs_class_size[PGS_CLASSES] = {
    128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1216, 1408, 1600, 1856, 2176,
    2624, 3264, 4096, 5056, 5952, 6528, 7232, 8128, 9344, 10880, 13056, 16384, 21824, 32768, 65536};

#define pgs_fence_acquire() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define pgs_fence_release() __atomic_thread_fence(__ATOMIC_RELEASE)
#define pgs_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
/* What a process did before it was killed is seen by all: it is the compiler alone that must not move things. */
#define pgs_in_this_order() __atomic_signal_fence(__ATOMIC_SEQ_CST)

_Static_assert(sizeof(pgs_hit_line) == 64 && sizeof(pgs_event) == 64 && sizeof(pgs_entry) == 128, "whole cache lines");
_Static_assert(offsetof(pgs_arena_header, line) % 64 == 0 && offsetof(pgs_arena_header, reserve) % 64 == 0 &&
                   offsetof(pgs_arena_header, mutex) % 64 == 0 && offsetof(pgs_arena_header, number) % 64 == 0,
               "what different processes write lies in different cache lines");
_Static_assert(sizeof(pgs_arena_header) <= PGS_HEADER, "the ring begins after the header");

/* ---- numbers ---- */

static inline uint64_t pgs_mixed(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ x >> 27) * 0x94D049BB133111EBULL;
    return x ^ x >> 31;
}

/* What has to be the same for two processes to share one. */
static inline uint64_t pgs_arena_layout_of(uint64_t encoding) {
    uint64_t x = PGS_FORMAT;
    x = pgs_mixed(x ^ encoding);
    x = pgs_mixed(x ^ sizeof(void *));
    x = pgs_mixed(x ^ sizeof(pthread_mutex_t));
    x = pgs_mixed(x ^ sizeof(pgs_arena_header));
    x = pgs_mixed(x ^ offsetof(pgs_arena_header, line) ^ offsetof(pgs_arena_header, mutex) << 20);
    x = pgs_mixed(x ^ sizeof(pgs_entry) ^ sizeof(pgs_event) << 20 ^ (uint64_t)PGS_RING << 40);
#ifdef __GLIBC__
    x = pgs_mixed(x ^ ((uint64_t)__GLIBC__ << 32 | __GLIBC_MINOR__));
#else
    x = pgs_mixed(x ^ 0x6C736D75);
#endif
    return pgs_mixed(x ^ 0x01020304u);
}

static inline uint64_t pgs_key_hash(const pgs_arena *a, uint64_t high, uint64_t low) {
    return pgs_mixed(pgs_mixed(high ^ a->header->seed[0]) ^ low ^ a->header->seed[1]);
}

/* What stands for a user's or a group's name here, never 0. Two names with the same one leave together. */
static inline uint64_t pgs_owner_hash(const pgs_arena *a, int which, const char *text, uint32_t length) {
    uint64_t x = a->header->seed[which] ^ length, word;
    for (; length >= 8; text += 8, length -= 8) {
        memcpy(&word, text, 8);
        x = pgs_mixed(x ^ word);
    }
    word = 0;
    memcpy(&word, text, length);
    x = pgs_mixed(x ^ word);
    return x ? x : 1;
}

static inline uint32_t pgs_cell_tag(uint64_t hash) { return (uint32_t)(hash >> 32) | 1; }

static inline void pgs_two_buckets(const pgs_arena *a, uint64_t hash, uint32_t bucket[2]) {
    uint32_t mask = a->header->bucket_count - 1;
    bucket[0] = (uint32_t)hash & mask;
    bucket[1] = ((uint32_t)hash ^ pgs_cell_tag(hash) * 0x5BD1E995u) & mask;
}

static inline int64_t pgs_monotonic_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

/* ---- making and finding one ---- */

static inline uint64_t pgs_up(uint64_t at, uint64_t to) { return (at + to - 1) / to * to; }

/* Fills in what follows from the size; 0 where that is too small. */
static inline int pgs_arena_plan(pgs_arena_header *h, uint64_t size) {
    uint64_t at = PGS_HEADER, rest, slots;
    h->size = size;
    h->at_ring = at;
    at += (uint64_t)PGS_RING * sizeof(pgs_event);
    if (size < at + 16 * PGS_SLAB)
        return 0;
    rest = size - at;
    slots = rest / 896;
    if (slots > 0x3FFFFFFF)
        slots = 0x3FFFFFFF;
    h->slot_count = (uint32_t)slots;
    h->bucket_count = 1;
    while ((uint64_t)h->bucket_count * PGS_CELLS * 3 < slots * 4)
        h->bucket_count *= 2;
    h->owner_count = h->bucket_count * 4;
    h->at_buckets = at;
    at += (uint64_t)h->bucket_count * sizeof(pgs_bucket);
    h->at_slots = pgs_up(at, 128);
    at = h->at_slots + slots * sizeof(pgs_entry);
    h->at_links = at;
    at += slots * sizeof(pgs_entry_links);
    h->at_owners = pgs_up(at, 64);
    at = h->at_owners + (uint64_t)h->owner_count * 2 * sizeof(uint32_t);
    h->at_slabs_state = pgs_up(at, 64);
    at = pgs_up(h->at_slabs_state + size / PGS_SLAB * sizeof(pgs_slab), 4096);
    h->at_slabs = at;
    if (at + 4 * (uint64_t)PGS_SLAB > size)
        return 0;
    rest = (size - at) / PGS_SLAB;
    h->slab_count = rest < 0x3FFFFF ? (uint32_t)rest : 0x3FFFFF; /* blocks are numbered by 32 bits */
    return 1;
}

static inline uint64_t pgs_arena_smallest(void) { return PGS_HEADER + (uint64_t)PGS_RING * sizeof(pgs_event) + 32 * PGS_SLAB; }

static inline void pgs_arena_point(pgs_arena *a, void *base) {
    pgs_arena_header *h = (pgs_arena_header *)base;
    a->base = (char *)base;
    a->header = h;
    a->line = &h->line;
    a->buckets = (pgs_bucket *)(a->base + h->at_buckets);
    a->owners[0] = (uint32_t *)(a->base + h->at_owners);
    a->owners[1] = a->owners[0] + h->owner_count;
    a->slots = (pgs_entry *)(a->base + h->at_slots);
    a->links = (pgs_entry_links *)(a->base + h->at_links);
    a->slab_states = (pgs_slab *)(a->base + h->at_slabs_state);
    a->ring = (pgs_event *)(a->base + h->at_ring);
    a->slabs = a->base + h->at_slabs;
}

/* Throws away all records; the lock is held, or nobody else knows this arena yet. What readers took for good is odd
 * before anything is used again (S5). */
static inline void pgs_arena_clear(pgs_arena *a) {
    pgs_arena_header *h = a->header;
    uint32_t i;
    for (i = 0; i < h->slot_count; i++) {
        pgs_entry *slot = &a->slots[i];
        if (!(slot->seq & 1))
            pgs_store(&slot->seq, slot->seq + 1);
        a->links[i].live = 0;
        a->links[i].next_free = i + 1 < h->slot_count ? i + 1 : PGS_NONE;
    }
    pgs_fence_release();
    PGS_CRASH_POINT(15);
    for (i = 0; i < h->bucket_count; i++) {
        int j;
        for (j = 0; j < PGS_CELLS; j++)
            pgs_store(&a->buckets[i].cell[j], 0);
    }
    memset(a->owners[0], 0xFF, (size_t)h->owner_count * 2 * sizeof(uint32_t));
    for (i = 0; i < h->slab_count; i++)
        a->slab_states[i].class_of = PGS_NONE, a->slab_states[i].used = 0;
    for (i = 0; i < PGS_CLASSES; i++)
        h->free_block[i] = PGS_NONE;
    h->free_slabs = h->slab_count;
    h->slab_hand = 0;
    h->free_slot = 0;
    h->live = 0;
    h->hand = 0;
}

static inline int pgs_mutex_init(pthread_mutex_t *mutex) {
    pthread_mutexattr_t how;
    int error = pthread_mutexattr_init(&how);
    if (!error)
        error = pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
    if (!error)
        error = pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
    if (!error)
        error = pthread_mutex_init(mutex, &how);
    return error;
}

/* Makes an arena of zeroed memory; `random` are its id and its seeds. */
static inline int pgs_arena_format(pgs_arena *a, void *base, uint64_t size, uint64_t encoding, const uint64_t random[4]) {
    pgs_arena_header *h = (pgs_arena_header *)base;
    uint32_t i;
    if (!pgs_arena_plan(h, size))
        return PGS_ARENA_SIZE;
    h->layout = pgs_arena_layout_of(encoding);
    memcpy(h->id, random, 16);
    h->seed[0] = random[2];
    h->seed[1] = random[3];
    pgs_arena_point(a, base);
    for (i = 0; i < h->slot_count; i++)
        a->slots[i].seq = 1;
    pgs_arena_clear(a);
    if (pgs_mutex_init(&h->mutex))
        return PGS_ARENA_MUTEX;
    pgs_fence();
    memcpy(h->magic, "PGSARENA", 8);
    return PGS_ARENA_OK;
}

/* Looks whether what is mapped there is an arena that this library can use. */
static inline int pgs_arena_bind(pgs_arena *a, void *base, uint64_t size, uint64_t encoding) {
    pgs_arena_header *h = (pgs_arena_header *)base;
    pgs_arena_header planned;
    if (size < sizeof *h || memcmp(h->magic, "PGSARENA", 8) != 0)
        return PGS_ARENA_NOT_ONE;
    pgs_fence_acquire();
    if (h->layout != pgs_arena_layout_of(encoding))
        return PGS_ARENA_LAYOUT;
    memset(&planned, 0, sizeof planned);
    if (h->size != size || !pgs_arena_plan(&planned, size) || planned.at_slabs != h->at_slabs ||
        planned.slot_count != h->slot_count || planned.bucket_count != h->bucket_count ||
        planned.slab_count != h->slab_count || planned.at_slots != h->at_slots || planned.at_links != h->at_links ||
        planned.at_owners != h->at_owners || planned.at_ring != h->at_ring || planned.at_buckets != h->at_buckets ||
        planned.at_slabs_state != h->at_slabs_state || planned.owner_count != h->owner_count)
        return PGS_ARENA_SIZE;
    pgs_arena_point(a, base);
    return PGS_ARENA_OK;
}

static void *pgs_end_with(void *mutex) {
    pthread_mutex_lock((pthread_mutex_t *)mutex);
    return NULL;
}

/* Sees that a mutex tells when its owner ended with it: it did not in some older libraries. */
static inline int pgs_arena_self_test(void) {
    pthread_mutex_t mutex;
    pthread_t thread;
    int error;
    if (pgs_mutex_init(&mutex) || pthread_create(&thread, NULL, pgs_end_with, &mutex))
        return PGS_ARENA_MUTEX;
    pthread_join(thread, NULL);
    error = pthread_mutex_trylock(&mutex);
    if (error != EOWNERDEAD)
        return PGS_ARENA_MUTEX;
    error = pthread_mutex_consistent(&mutex);
    pthread_mutex_unlock(&mutex);
    pthread_mutex_destroy(&mutex);
    return error ? PGS_ARENA_MUTEX : PGS_ARENA_OK;
}

/* ---- the bell ---- */

static inline uint32_t pgs_arena_bell(const pgs_arena *a) { return pgs_load_acquire(&a->header->bell); }

static inline void pgs_arena_ring_bell(pgs_arena *a) {
    __atomic_fetch_add(&a->header->bell, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &a->header->bell, FUTEX_WAKE, 0x7FFFFFFF, NULL, NULL, 0);
}

/* Waits until the bell has rung since it was `seen`; returns what it is then. */
static inline uint32_t pgs_arena_wait_bell(pgs_arena *a, uint32_t seen, int64_t timeout_us) {
    struct timespec time;
    time.tv_sec = (time_t)(timeout_us / 1000000);
    time.tv_nsec = (long)(timeout_us % 1000000) * 1000;
    if (timeout_us > 0 && pgs_arena_bell(a) == seen)
        syscall(SYS_futex, &a->header->bell, FUTEX_WAIT, seen, &time, NULL, 0);
    return pgs_arena_bell(a);
}

/* ---- the lock ---- */

static inline int pgs_arena_poisoned(const pgs_arena *a) { return (pgs_load_acquire(&a->line->head) & PGS_POISONED) != 0; }

static inline void pgs_arena_poison(pgs_arena *a) {
    __atomic_fetch_or(&a->line->head, PGS_POISONED, __ATOMIC_SEQ_CST);
    pgs_arena_ring_bell(a);
}

/* All in pieces is thrown away, and everybody's place in the ring is overrun: private caches are emptied, leases are
 * void. L2 first: what a reader copies after it has seen the new head must be new. */
static inline void pgs_arena_reset(pgs_arena *a) {
    pgs_arena_header *h = a->header;
    uint64_t head = pgs_load(&a->line->head), beyond;
    pgs_arena_clear(a);
    h->resets++;
    beyond = (head & ~PGS_POISONED) + 3 * (uint64_t)PGS_RING;
    pgs_fence();
    pgs_store(&h->reserve, beyond);
    pgs_fence();
    while (!(head & PGS_POISONED) &&
           !__atomic_compare_exchange_n(&a->line->head, &head, beyond, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
}

static inline void pgs_arena_unlock(pgs_arena *a) {
    PGS_CRASH_POINT(9);
    pgs_store_release(&a->header->dirty, 0);
    PGS_CRASH_POINT(10);
    pthread_mutex_unlock(&a->header->mutex);
}

static inline int pgs_arena_got(pgs_arena *a, int error) {
    pgs_arena_header *h = a->header;
    int reset = 0;
    if (error == EBUSY || error == ETIMEDOUT)
        return PGS_BUSY;
    if (error == EOWNERDEAD) {
        reset = pgs_load_acquire(&h->dirty) != 0;
        pgs_store(&h->dirty, 1);
        pgs_in_this_order();
        if (reset)
            pgs_arena_reset(a);
        if (pthread_mutex_consistent(&h->mutex))
            pgs_arena_poison(a);
    } else if (error) {
        pgs_arena_poison(a);
        return PGS_ARENA_POISONED;
    }
    pgs_store(&h->dirty, 1);
    pgs_in_this_order();
    if (pgs_arena_poisoned(a)) {
        pgs_arena_unlock(a);
        return PGS_ARENA_POISONED;
    }
    return reset ? PGS_HELD_AFTER_RESET : PGS_HELD;
}

static inline int pgs_arena_try(pgs_arena *a) {
    if (pgs_arena_poisoned(a))
        return PGS_ARENA_POISONED;
    return pgs_arena_got(a, pthread_mutex_trylock(&a->header->mutex));
}

/* Waits ten times a tenth of a second; then whoever holds it is stopped, and the arena is given up. A wait that took
 * far longer does not count: it is this process that was stopped. */
static inline int pgs_arena_lock(pgs_arena *a) {
    enum { SLICE = 100000, PATIENCE = 10 };
    int waits = 0, got;
    while (waits < PATIENCE) {
        struct timespec end;
        int64_t before;
        got = pgs_arena_try(a);
        if (got != PGS_BUSY)
            return got;
        before = pgs_monotonic_us();
        clock_gettime(CLOCK_REALTIME, &end);
        end.tv_nsec += SLICE * 1000;
        if (end.tv_nsec >= 1000000000)
            end.tv_sec++, end.tv_nsec -= 1000000000;
        got = pgs_arena_got(a, pthread_mutex_timedlock(&a->header->mutex, &end));
        if (got != PGS_BUSY)
            return got;
        if (pgs_monotonic_us() - before < 2 * SLICE)
            waits++;
    }
    pgs_arena_poison(a);
    return PGS_ARENA_POISONED;
}

/* ---- events ---- */

/* Appends an event; the lock is held, and what it tells of has left L2 already (S1, S2). */
static inline int pgs_arena_append(pgs_arena *a, const pgs_event *event) {
    uint64_t words[sizeof(pgs_event) / 8], *to;
    uint64_t head = pgs_load(&a->line->head);
    size_t i;
    if (head & PGS_POISONED)
        return PGS_ARENA_POISONED;
    memcpy(words, event, sizeof words);
    to = (uint64_t *)&a->ring[head % PGS_RING];
    pgs_store(&a->header->reserve, head + 1);
    pgs_fence_release();
    PGS_CRASH_POINT(1);
    for (i = 0; i < sizeof words / 8; i++)
        pgs_store(&to[i], words[i]);
    PGS_CRASH_POINT(2);
    if (!__atomic_compare_exchange_n(&a->line->head, &head, head + 1, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
        return PGS_ARENA_POISONED;
    return PGS_ARENA_OK;
}

/* Takes the next event: 1; 0: there is none; -1: they were overrun, and `tail` is where the next will be. */
static inline int pgs_arena_next(const pgs_arena *a, uint64_t *tail, pgs_event *event) {
    uint64_t words[sizeof(pgs_event) / 8];
    uint64_t head = pgs_load_acquire(&a->line->head);
    const uint64_t *from;
    size_t i;
    if (head & PGS_POISONED)
        return PGS_ARENA_POISONED;
    if (*tail == head)
        return 0;
    if (head - *tail > PGS_RING) {
        *tail = head;
        return -1;
    }
    from = (const uint64_t *)&a->ring[*tail % PGS_RING];
    for (i = 0; i < sizeof words / 8; i++)
        words[i] = pgs_load(&from[i]);
    PGS_CRASH_POINT(13);
    pgs_fence_acquire();
    if (pgs_load(&a->header->reserve) - *tail > PGS_RING) {
        *tail = pgs_load_acquire(&a->line->head) & ~PGS_POISONED;
        return -1;
    }
    memcpy(event, words, sizeof words);
    ++*tail;
    return 1;
}

/* ---- reading ---- */

/* Copies a record: its length; 0: it is not there, or somebody changes it, which is the same to a reader; less than 0:
 * there is no room for so many bytes. */
static inline int pgs_arena_read(const pgs_arena *a, uint64_t high, uint64_t low, void *out, uint32_t room, pgs_shared *what) {
    const pgs_arena_header *h = a->header;
    uint64_t hash = pgs_key_hash(a, high, low);
    uint32_t tag = pgs_cell_tag(hash), bucket[2];
    int i, j, tries;
    pgs_two_buckets(a, hash, bucket);
    for (i = 0; i < 2; i++)
        for (j = 0; j < PGS_CELLS; j++) {
            uint64_t cell = pgs_load_acquire(&a->buckets[bucket[i]].cell[j]);
            uint32_t n = (uint32_t)cell - 1;
            pgs_entry *slot;
            if ((uint32_t)(cell >> 32) != tag || n >= h->slot_count)
                continue;
            slot = &a->slots[n];
            for (tries = 0; tries < 4; tries++) {
                uint64_t seq = pgs_load_acquire(&slot->seq), blob;
                uint32_t length;
                int good;
                if (seq & 1 || pgs_load(&slot->high) != high || pgs_load(&slot->low) != low)
                    break;
                what->high = high;
                what->low = low;
                what->version = pgs_load(&slot->version);
                what->generation = pgs_load(&slot->generation);
                what->expires_at = pgs_load(&slot->expires_at);
                what->inactivity = pgs_load(&slot->inactivity);
                what->last_accessed = pgs_load(&slot->last_accessed);
                what->cached_at = pgs_load(&slot->cached_at);
                what->user = pgs_load(&slot->user);
                what->group = pgs_load(&slot->group);
                blob = pgs_load(&slot->blob);
                length = pgs_load(&slot->length);
                PGS_CRASH_POINT(12);
                /* What is torn may say anything: it must not lead out of the arena. */
                good = blob >= h->at_slabs && length <= PGS_SLAB && blob <= h->size - length;
                if (good && length <= room)
                    memcpy(out, a->base + blob, length);
                PGS_CRASH_POINT(11);
                pgs_fence_acquire();
                if (pgs_load(&slot->seq) != seq || !good)
                    continue;
                if (!pgs_load(&slot->visited))
                    pgs_store(&slot->visited, 1);
                if (length > room)
                    return -(int)length;
                return (int)length;
            }
        }
    return 0;
}

/* ---- changes of L2; the lock is held ---- */

static inline uint32_t pgs_arena_find(const pgs_arena *a, uint64_t high, uint64_t low) {
    uint64_t hash = pgs_key_hash(a, high, low);
    uint32_t tag = pgs_cell_tag(hash), bucket[2];
    int i, j;
    pgs_two_buckets(a, hash, bucket);
    for (i = 0; i < 2; i++)
        for (j = 0; j < PGS_CELLS; j++) {
            uint64_t cell = a->buckets[bucket[i]].cell[j];
            uint32_t n = (uint32_t)cell - 1;
            if (cell && (uint32_t)(cell >> 32) == tag && a->slots[n].high == high && a->slots[n].low == low)
                return n;
        }
    return PGS_NONE;
}

/* Marks a record as used, for those who have it in a cache of their own. */
static inline void pgs_arena_visit(pgs_arena *a, uint64_t high, uint64_t low) {
    pgs_shared ignored;
    pgs_arena_read(a, high, low, &ignored, 0, &ignored);
}

static inline pgs_block *pgs_block_at(const pgs_arena *a, uint32_t unit) { return (pgs_block *)(a->slabs + (uint64_t)unit * 64); }

static inline void pgs_block_free(pgs_arena *a, uint64_t blob) {
    uint32_t unit = (uint32_t)((blob - PGS_BLOCK_HEADER - a->header->at_slabs) / 64);
    pgs_slab *slab = &a->slab_states[unit / (PGS_SLAB / 64)];
    pgs_block *block = pgs_block_at(a, unit);
    block->slot = PGS_NONE;
    block->next = a->header->free_block[slab->class_of];
    a->header->free_block[slab->class_of] = unit;
    slab->used--;
}

static inline void pgs_owner_unlink(pgs_arena *a, uint32_t n, int which) {
    pgs_entry_links *links = &a->links[n];
    uint64_t owner = which ? a->slots[n].group : a->slots[n].user;
    if (!owner)
        return;
    if (links->next[which] != PGS_NONE)
        a->links[links->next[which]].prev[which] = links->prev[which];
    if (links->prev[which] != PGS_NONE)
        a->links[links->prev[which]].next[which] = links->next[which];
    else
        a->owners[which][owner & (a->header->owner_count - 1)] = links->next[which];
}

static inline void pgs_owner_link(pgs_arena *a, uint32_t n, int which, uint64_t owner) {
    pgs_entry_links *links = &a->links[n];
    uint32_t *first = &a->owners[which][owner & (a->header->owner_count - 1)];
    if (!owner)
        return;
    links->prev[which] = PGS_NONE;
    links->next[which] = *first;
    if (*first != PGS_NONE)
        a->links[*first].prev[which] = n;
    *first = n;
}

static inline void pgs_arena_remove(pgs_arena *a, uint32_t n) {
    pgs_entry *slot = &a->slots[n];
    pgs_entry_links *links = &a->links[n];
    pgs_store(&slot->seq, slot->seq + 1); /* odd from here on (S5) */
    pgs_fence_release();
    PGS_CRASH_POINT(3);
    pgs_store(&a->buckets[links->cell / PGS_CELLS].cell[links->cell % PGS_CELLS], 0);
    pgs_owner_unlink(a, n, 0);
    PGS_CRASH_POINT(4);
    pgs_owner_unlink(a, n, 1);
    pgs_block_free(a, slot->blob);
    links->live = 0;
    links->next_free = a->header->free_slot;
    a->header->free_slot = n;
    a->header->live--;
}

/* Drops a record that is older than a version; returns how many left. */
static inline int pgs_arena_discard_older(pgs_arena *a, uint64_t high, uint64_t low, int64_t version) {
    uint32_t n = pgs_arena_find(a, high, low);
    if (n == PGS_NONE || a->slots[n].version >= version)
        return 0;
    pgs_arena_remove(a, n);
    return 1;
}

static inline int pgs_arena_discard(pgs_arena *a, uint64_t high, uint64_t low) {
    uint32_t n = pgs_arena_find(a, high, low);
    if (n == PGS_NONE)
        return 0;
    pgs_arena_remove(a, n);
    return 1;
}

static inline int pgs_arena_discard_owner(pgs_arena *a, int which, const char *text, uint32_t length) {
    uint64_t owner = pgs_owner_hash(a, which, text, length);
    uint32_t n = a->owners[which][owner & (a->header->owner_count - 1)];
    int count = 0;
    while (n != PGS_NONE) {
        uint32_t next = a->links[n].next[which];
        if ((which ? a->slots[n].group : a->slots[n].user) == owner) {
            pgs_arena_remove(a, n);
            count++;
        }
        n = next;
    }
    return count;
}

static inline int pgs_arena_discard_user(pgs_arena *a, const char *text, uint32_t length) {
    return pgs_arena_discard_owner(a, 0, text, length);
}

static inline int pgs_arena_discard_group(pgs_arena *a, const char *text, uint32_t length) {
    return pgs_arena_discard_owner(a, 1, text, length);
}

/* CLOCK: readers set `visited`, the hand takes it away, and what has none leaves. */
static inline int pgs_arena_evict_one(pgs_arena *a) {
    pgs_arena_header *h = a->header;
    uint64_t looks = 2 * (uint64_t)h->slot_count + 1;
    if (!h->live)
        return 0;
    while (looks--) {
        uint32_t n = h->hand;
        h->hand = n + 1 < h->slot_count ? n + 1 : 0;
        if (!a->links[n].live)
            continue;
        if (pgs_load(&a->slots[n].visited)) {
            pgs_store(&a->slots[n].visited, 0);
            continue;
        }
        pgs_arena_remove(a, n);
        h->evictions++;
        return 1;
    }
    return 0;
}

/* Cuts a free slab into blocks of a class. */
static inline void pgs_slab_cut(pgs_arena *a, uint32_t slab, uint32_t class_of) {
    uint32_t size = pgs_class_size[class_of], at;
    a->slab_states[slab].class_of = class_of;
    a->slab_states[slab].used = 0;
    for (at = 0; at + size <= PGS_SLAB; at += size) {
        uint32_t unit = slab * (PGS_SLAB / 64) + at / 64;
        pgs_block *block = pgs_block_at(a, unit);
        block->slot = PGS_NONE;
        block->next = a->header->free_block[class_of];
        a->header->free_block[class_of] = unit;
    }
}

/* Empties a slab of another class: what is in it leaves, and its blocks leave the list of their class. */
static inline void pgs_slab_take(pgs_arena *a, uint32_t slab) {
    pgs_slab *state = &a->slab_states[slab];
    uint32_t class_of = state->class_of, size = pgs_class_size[class_of], at, *link;
    uint32_t first = slab * (PGS_SLAB / 64), last = first + PGS_SLAB / 64;
    for (at = 0; at + size <= PGS_SLAB; at += size) {
        uint32_t owner = pgs_block_at(a, first + at / 64)->slot;
        if (owner != PGS_NONE) {
            pgs_arena_remove(a, owner);
            a->header->evictions++;
        }
    }
    for (link = &a->header->free_block[class_of]; *link != PGS_NONE;) {
        if (*link >= first && *link < last)
            *link = pgs_block_at(a, *link)->next;
        else
            link = &pgs_block_at(a, *link)->next;
    }
    state->class_of = PGS_NONE;
    a->header->slabs_taken++;
}

static inline uint32_t pgs_free_slab(const pgs_arena *a) {
    uint32_t i;
    if (a->header->free_slabs)
        for (i = 0; i < a->header->slab_count; i++)
            if (a->slab_states[i].class_of == PGS_NONE)
                return i;
    return PGS_NONE;
}

/* Returns a block of a class, taken off its list; PGS_NONE: there is none to be had. */
static inline uint32_t pgs_block_take(pgs_arena *a, uint32_t class_of) {
    pgs_arena_header *h = a->header;
    uint32_t unit, slab, evicted;
    for (evicted = 0; h->free_block[class_of] == PGS_NONE; evicted++) {
        slab = pgs_free_slab(a);
        if (slab != PGS_NONE) {
            h->free_slabs--;
            pgs_slab_cut(a, slab, class_of);
        } else if (evicted >= PGS_MOST_EVICTED || !pgs_arena_evict_one(a)) {
            slab = h->slab_hand;
            h->slab_hand = slab + 1 < h->slab_count ? slab + 1 : 0;
            pgs_slab_take(a, slab);
            pgs_slab_cut(a, slab, class_of);
        }
    }
    unit = h->free_block[class_of];
    h->free_block[class_of] = pgs_block_at(a, unit)->next;
    a->slab_states[unit / (PGS_SLAB / 64)].used++;
    return unit;
}

/* Puts a record in; returns 1, or 0 where there is something newer, or where it is too large. */
static inline int pgs_arena_insert(pgs_arena *a, const pgs_shared *what, const void *blob, uint32_t length) {
    pgs_arena_header *h = a->header;
    uint64_t hash = pgs_key_hash(a, what->high, what->low), *cell = NULL;
    uint32_t bucket[2], n, unit, class_of = 0, cell_number = 0;
    int used[2] = {0, 0}, hole[2] = {-1, -1}, i, j;
    pgs_block *block;
    pgs_entry *slot;
    n = pgs_arena_find(a, what->high, what->low);
    if (n != PGS_NONE && a->slots[n].version > what->version) {
        h->refused++;
        return 0;
    }
    if (n != PGS_NONE)
        pgs_arena_remove(a, n);
    while (class_of < PGS_CLASSES && pgs_class_size[class_of] < (uint64_t)length + PGS_BLOCK_HEADER)
        class_of++;
    if (class_of == PGS_CLASSES) {
        h->refused++;
        return 0;
    }
    PGS_CRASH_POINT(5);
    while (h->free_slot == PGS_NONE)
        if (!pgs_arena_evict_one(a))
            return 0;
    unit = pgs_block_take(a, class_of);
    block = pgs_block_at(a, unit);
    pgs_two_buckets(a, hash, bucket);
    for (i = 0; i < 2; i++)
        for (j = 0; j < PGS_CELLS; j++) {
            if (a->buckets[bucket[i]].cell[j])
                used[i]++;
            else
                hole[i] = j;
        }
    i = used[1] < used[0];
    if (used[i] == PGS_CELLS) { /* both are full: one that nobody has used leaves, or any */
        j = (int)(h->hand % PGS_CELLS);
        for (n = 0; n < PGS_CELLS; n++)
            if (!pgs_load(&a->slots[(uint32_t)a->buckets[bucket[i]].cell[n] - 1].visited)) {
                j = (int)n;
                break;
            }
        pgs_arena_remove(a, (uint32_t)a->buckets[bucket[i]].cell[j] - 1);
        h->evictions++;
    } else
        j = hole[i];
    cell_number = bucket[i] * PGS_CELLS + (uint32_t)j;
    cell = &a->buckets[bucket[i]].cell[j];
    n = h->free_slot;
    h->free_slot = a->links[n].next_free;
    slot = &a->slots[n];
    pgs_fence_release(); /* whoever was in this memory is odd to its readers (S5) */
    PGS_CRASH_POINT(6);
    block->slot = n;
    block->next = PGS_NONE;
    memcpy(block + 1, blob, length);
    PGS_CRASH_POINT(7);
    pgs_store(&slot->high, what->high);
    pgs_store(&slot->low, what->low);
    pgs_store(&slot->version, what->version);
    pgs_store(&slot->generation, what->generation);
    pgs_store(&slot->expires_at, what->expires_at);
    pgs_store(&slot->inactivity, what->inactivity);
    pgs_store(&slot->last_accessed, what->last_accessed);
    pgs_store(&slot->cached_at, what->cached_at);
    pgs_store(&slot->user, what->user);
    pgs_store(&slot->group, what->group);
    pgs_store(&slot->blob, h->at_slabs + (uint64_t)unit * 64 + PGS_BLOCK_HEADER);
    pgs_store(&slot->length, length);
    pgs_store(&slot->visited, 0);
    a->links[n].live = 1;
    a->links[n].cell = cell_number;
    pgs_owner_link(a, n, 0, what->user);
    pgs_owner_link(a, n, 1, what->group);
    h->live++;
    PGS_CRASH_POINT(8);
    pgs_store_release(&slot->seq, slot->seq + 1); /* even */
    pgs_store_release(cell, (uint64_t)pgs_cell_tag(hash) << 32 | (n + 1));
    h->inserts++;
    return 1;
}

/* Looks at up to so many slots from where the cursor stands, and drops what is over; returns how many. */
static inline uint32_t pgs_arena_expire(pgs_arena *a, uint32_t *cursor, int64_t now, uint32_t limit) {
    uint32_t count = 0, n;
    if (limit > a->header->slot_count)
        limit = a->header->slot_count;
    while (limit--) {
        n = *cursor < a->header->slot_count ? *cursor : 0;
        *cursor = n + 1;
        if (a->links[n].live && a->slots[n].expires_at <= now) {
            pgs_arena_remove(a, n);
            a->header->expirations++;
            count++;
        }
    }
    return count;
}

/* Tells of the next record, from cursor 0: 1, or 0 at the end. */
static inline int pgs_arena_walk(const pgs_arena *a, uint32_t *cursor, pgs_shared *what) {
    while (*cursor < a->header->slot_count) {
        uint32_t n = (*cursor)++;
        const pgs_entry *slot = &a->slots[n];
        if (!a->links[n].live)
            continue;
        what->high = slot->high;
        what->low = slot->low;
        what->version = slot->version;
        what->generation = slot->generation;
        what->expires_at = slot->expires_at;
        what->inactivity = slot->inactivity;
        what->last_accessed = slot->last_accessed;
        what->cached_at = slot->cached_at;
        what->user = slot->user;
        what->group = slot->group;
        return 1;
    }
    return 0;
}

/* ---- the leader ---- */

static inline uint64_t pgs_arena_number(const pgs_arena *a) { return pgs_load_acquire(&a->header->number); }

/* Makes this process the leader after the one of that number; the lock is held. Returns the new number; 0: another was
 * faster. With `lost` the one before is not known to have told all: nothing enters until there is a new epoch. */
static inline uint64_t pgs_arena_take_lead(pgs_arena *a, uint64_t expected, uint32_t pid, int64_t now, int lost) {
    if (pgs_arena_number(a) != expected)
        return 0;
    if (lost)
        pgs_store_release(&a->line->state, PGS_LOST);
    pgs_store(&a->header->leader, pid);
    pgs_store(&a->header->beat, now);
    pgs_store_release(&a->header->number, expected + 1);
    return expected + 1;
}

static inline int pgs_arena_beat(pgs_arena *a, uint64_t number, int64_t now) {
    if (pgs_arena_number(a) != number)
        return 0;
    pgs_store(&a->header->beat, now);
    return 1;
}

/* Says until when memory may be served, and what the database's clock is; the lock is held (S6). Everything that the
 * proof stands for has been appended (S3). Returns 1; 0: another leads, or it is poisoned. */
static inline int pgs_arena_vouch(pgs_arena *a, uint64_t number, int64_t until, int64_t proved_until, int64_t offset, int64_t lag) {
    pgs_hit_line *line = a->line;
    uint64_t turn;
    if (pgs_arena_number(a) != number || pgs_arena_poisoned(a))
        return 0;
    turn = pgs_load(&line->clock_turn) | 1; /* odd already where one who wrote it died */
    pgs_store(&line->clock_turn, turn);
    pgs_fence_release();
    pgs_store(&line->offset, offset);
    PGS_CRASH_POINT(14);
    pgs_store(&line->lag, lag);
    pgs_store_release(&line->clock_turn, turn + 1);
    pgs_store_release(&a->header->proved_until, proved_until);
    pgs_store_release(&line->state, PGS_SYNCED);
    pgs_store_release(&line->in_sync_until, until);
    return 1;
}

static inline int pgs_line_clock(const pgs_hit_line *line, int64_t *offset, int64_t *lag) {
    int tries;
    for (tries = 0; tries < 100; tries++) {
        uint64_t turn = pgs_load_acquire(&line->clock_turn);
        *offset = pgs_load(&line->offset);
        *lag = pgs_load(&line->lag);
        pgs_fence_acquire();
        if (!(turn & 1) && pgs_load(&line->clock_turn) == turn)
            return 1;
    }
    return 0; /* its writer died meanwhile */
}

static inline void pgs_arena_raise_longest(pgs_arena *a, int64_t longest) {
    int64_t known = pgs_load(&a->header->longest);
    while (known < longest && !__atomic_compare_exchange_n(&a->header->longest, &known, longest, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
}

#endif
#endif
