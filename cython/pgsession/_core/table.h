/* The memory of the cache: pure C, no Python, nothing here calls out.
 *
 *   index      cells of 8 bytes (32 bits of hash, 32 of slot), open addressing, linear probing, no tombstones
 *   hot[slot]  one cache line: key, record, order of use, deadline
 *   cold[slot] what only writes need: the list of a user, of a group, of accesses to be written
 *
 * Slots are dense, 1 to count; slot 0 is the sentinel of the circular lists. A removed slot is filled with the last
 * one, so that the memory in use follows the count, down as well as up. Whatever can fail (memory) is reserved before
 * the first change of a structure. */
#ifndef PGSESSION_TABLE_H
#define PGSESSION_TABLE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(__GNUC__) || defined(__clang__)
#define PGS_PREFETCH(address) __builtin_prefetch(address)
#define PGS_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#else
#define PGS_PREFETCH(address) ((void)0)
#define PGS_UNLIKELY(condition) (condition)
#endif

/* ---- index: hash -> slot ---- */

typedef struct {
    uint64_t *cells;
    uint64_t mask;
    uint64_t used;
} pgs_index;

static inline uint64_t pgs_cell(uint32_t tag, uint32_t slot) { return (uint64_t)tag << 32 | slot; }
static inline uint32_t pgs_tag(uint64_t cell) { return (uint32_t)(cell >> 32); }

/* Large arrays start on huge pages where the system has them: random access then misses the TLB far less. */
#define PGS_HUGE ((size_t)2 << 20)

static inline void *pgs_lines_new(size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    void *memory = NULL;
    if (posix_memalign(&memory, size >= PGS_HUGE ? PGS_HUGE : 64, size) != 0)
        return NULL;
    if (size >= PGS_HUGE)
        (void)madvise(memory, size, MADV_HUGEPAGE);
    return memory;
#else
    char *raw = (char *)malloc(size + 64);
    char *lines;
    if (raw == NULL)
        return NULL;
    lines = (char *)(((uintptr_t)raw + 64) & ~(uintptr_t)63);
    ((unsigned char *)lines)[-1] = (unsigned char)(lines - raw);
    return lines;
#endif
}

static inline void pgs_lines_free(void *memory) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    free(memory);
#else
    if (memory != NULL)
        free((char *)memory - ((unsigned char *)memory)[-1]);
#endif
}

static inline void pgs_index_place(pgs_index *index, uint64_t cell) {
    uint64_t i = pgs_tag(cell) & index->mask;
    while (index->cells[i] != 0)
        i = (i + 1) & index->mask;
    index->cells[i] = cell;
}

static inline int pgs_index_resize(pgs_index *index, uint64_t size) {
    pgs_index next;
    uint64_t i;
    next.cells = (uint64_t *)pgs_lines_new((size_t)size * sizeof(uint64_t));
    if (next.cells == NULL)
        return -1;
    memset(next.cells, 0, (size_t)size * sizeof(uint64_t));
    next.mask = size - 1;
    next.used = index->used;
    if (index->cells != NULL)
        for (i = 0; i <= index->mask; i++)
            if (index->cells[i] != 0)
                pgs_index_place(&next, index->cells[i]);
    pgs_lines_free(index->cells);
    *index = next;
    return 0;
}

/* Room for one more; at most `part` of `whole` full. */
static inline int pgs_index_reserve_in(pgs_index *index, uint64_t part, uint64_t whole) {
    if (index->cells == NULL)
        return pgs_index_resize(index, 8);
    if ((index->used + 1) * whole > (index->mask + 1) * part)
        return pgs_index_resize(index, (index->mask + 1) * 2);
    return 0;
}

static inline int pgs_index_reserve(pgs_index *index) { return pgs_index_reserve_in(index, 2, 3); }

static inline void pgs_index_add(pgs_index *index, uint32_t tag, uint32_t slot) {
    pgs_index_place(index, pgs_cell(tag, slot));
    index->used++;
}

static inline uint64_t pgs_index_where(const pgs_index *index, uint64_t cell) {
    uint64_t i = pgs_tag(cell) & index->mask;
    while (index->cells[i] != cell)
        i = (i + 1) & index->mask;
    return i;
}

static inline void pgs_index_rename(pgs_index *index, uint32_t tag, uint32_t slot, uint32_t now) {
    index->cells[pgs_index_where(index, pgs_cell(tag, slot))] = pgs_cell(tag, now);
}

/* The hole is closed by moving back what probed over it. */
static inline void pgs_index_remove(pgs_index *index, uint32_t tag, uint32_t slot) {
    uint64_t hole = pgs_index_where(index, pgs_cell(tag, slot));
    uint64_t i = hole, home;
    for (;;) {
        i = (i + 1) & index->mask;
        if (index->cells[i] == 0)
            break;
        home = pgs_tag(index->cells[i]) & index->mask;
        if (((i - home) & index->mask) >= ((i - hole) & index->mask)) {
            index->cells[hole] = index->cells[i];
            hole = i;
        }
    }
    index->cells[hole] = 0;
    index->used--;
    if (index->mask >= 64 && index->used * 8 < index->mask)
        (void)pgs_index_resize(index, (index->mask + 1) / 2); /* no memory to shrink: stays as it is */
}

/* ---- slots ---- */

enum { PGS_USER = 0, PGS_GROUP = 1 };
enum { PGS_ACCESSED = 1, PGS_ASKED = 2 };

typedef struct {
    uint64_t high, low;
    void *record;
    int64_t version;
    int64_t deadline; /* database time: until then a hit needs no other look */
    int64_t accessed; /* database time of the newest access known here */
    uint32_t newer, older;
    uint32_t tag;
    uint32_t flags;
} pgs_hot;

typedef struct {
    uint32_t prev, next;
} pgs_link;

typedef struct {
    int64_t cached_at; /* database time */
    int64_t stored;    /* the newest access that the database is known to have */
    int64_t floor;     /* a version that was checked against the database */
    pgs_link access;
    pgs_link member[2];
    uint32_t owner_tag[2];
} pgs_cold;

typedef struct {
    const char *data;
    uint32_t length;
} pgs_text;

typedef struct {
    pgs_index keys;
    pgs_index owners[2]; /* hash of user or group -> first slot of its list; a list is not circular, 0 ends it */
    pgs_hot *hot;
    pgs_cold *cold;
    uint32_t count, room;
    uint32_t access; /* length of the list of accesses to be written */
    uint64_t seed[2];
    void (*owner_of)(void *record, int which, pgs_text *text);
} pgs_table;

static inline uint32_t pgs_hash(const uint64_t *seed, uint64_t high, uint64_t low) {
    uint64_t x = (high ^ seed[0]) * 0x9E3779B97F4A7C15ULL;
    x ^= x >> 32;
    x = (x ^ low ^ seed[1]) * 0xD6E8FEB86659FD93ULL;
    return (uint32_t)(x >> 32);
}

static inline uint32_t pgs_key_tag(const pgs_table *t, uint64_t high, uint64_t low) {
    return pgs_hash(t->seed, high, low);
}

static inline uint32_t pgs_text_tag(const pgs_table *t, pgs_text text) {
    uint64_t x = t->seed[0] ^ text.length;
    uint32_t i;
    for (i = 0; i < text.length; i++) {
        x = (x ^ (unsigned char)text.data[i] ^ t->seed[1]) * 0x9E3779B97F4A7C15ULL;
        x ^= x >> 32;
    }
    return (uint32_t)(x >> 16);
}

/* The slot of a key, 0 for none. */
static inline uint32_t pgs_find_tag(const pgs_table *t, uint32_t tag, uint64_t high, uint64_t low) {
    uint64_t i = tag & t->keys.mask, cell;
    for (;;) {
        cell = t->keys.cells[i];
        if (pgs_tag(cell) == tag && cell != 0) {
            const pgs_hot *h = &t->hot[(uint32_t)cell];
            if (h->high == high && h->low == low)
                return (uint32_t)cell;
        }
        if (cell == 0)
            return 0;
        i = (i + 1) & t->keys.mask;
    }
}

static inline uint32_t pgs_find(const pgs_table *t, uint64_t high, uint64_t low) {
    return pgs_find_tag(t, pgs_key_tag(t, high, low), high, low);
}

static inline int pgs_resize(pgs_table *t, uint32_t room) {
    pgs_hot *hot = (pgs_hot *)pgs_lines_new(((size_t)room + 1) * sizeof(pgs_hot));
    pgs_cold *cold = (pgs_cold *)pgs_lines_new(((size_t)room + 1) * sizeof(pgs_cold));
    if (hot == NULL || cold == NULL) {
        pgs_lines_free(hot);
        pgs_lines_free(cold);
        return -1;
    }
    if (t->hot != NULL) {
        memcpy(hot, t->hot, ((size_t)t->count + 1) * sizeof(pgs_hot));
        memcpy(cold, t->cold, ((size_t)t->count + 1) * sizeof(pgs_cold));
        pgs_lines_free(t->hot);
        pgs_lines_free(t->cold);
    } else {
        memset(hot, 0, sizeof(pgs_hot));
        memset(cold, 0, sizeof(pgs_cold));
    }
    t->hot = hot;
    t->cold = cold;
    t->room = room;
    return 0;
}

/* Room for one more in each index. Every hit goes through that of the keys, whose runs are therefore kept shorter. */
static inline int pgs_indexes_reserve(pgs_table *t) {
    return pgs_index_reserve(&t->keys) || pgs_index_reserve_in(&t->owners[PGS_USER], 4, 5) ||
           pgs_index_reserve_in(&t->owners[PGS_GROUP], 4, 5);
}

static inline void pgs_table_clear(pgs_table *t) { memset(t, 0, sizeof(*t)); }

static inline int pgs_table_init(pgs_table *t, uint64_t seed0, uint64_t seed1) {
    t->seed[0] = seed0;
    t->seed[1] = seed1;
    if (pgs_indexes_reserve(t))
        return -1;
    return pgs_resize(t, 8);
}

static inline void pgs_table_free(pgs_table *t) {
    pgs_lines_free(t->keys.cells);
    pgs_lines_free(t->owners[0].cells);
    pgs_lines_free(t->owners[1].cells);
    pgs_lines_free(t->hot);
    pgs_lines_free(t->cold);
    pgs_table_clear(t);
}

/* ---- order of use: newest after the sentinel, oldest before it ---- */

static inline void pgs_use_unlink(pgs_hot *hot, uint32_t slot) {
    uint32_t newer = hot[slot].newer, older = hot[slot].older;
    hot[newer].older = older;
    hot[older].newer = newer;
}

static inline void pgs_use_first(pgs_hot *hot, uint32_t slot) {
    uint32_t first = hot[0].older;
    hot[slot].newer = 0;
    hot[slot].older = first;
    hot[first].newer = slot;
    hot[0].older = slot;
}

/* Used before all others: the first to leave. */
static inline void pgs_use_last(pgs_table *t, uint32_t slot) {
    pgs_hot *hot = t->hot;
    uint32_t last;
    pgs_use_unlink(hot, slot);
    last = hot[0].newer;
    hot[slot].older = 0;
    hot[slot].newer = last;
    hot[last].older = slot;
    hot[0].newer = slot;
}

static inline void pgs_use(pgs_table *t, uint32_t slot) {
    if (t->hot[0].older != slot) {
        pgs_use_unlink(t->hot, slot);
        pgs_use_first(t->hot, slot);
    }
}

/* ---- accesses to be written: first those that are asked for, then the others, oldest first ---- */

static inline void pgs_access_add(pgs_table *t, uint32_t slot) {
    pgs_cold *cold = t->cold;
    uint32_t last = cold[0].access.prev;
    if (t->hot[slot].flags & PGS_ACCESSED)
        return;
    t->hot[slot].flags |= PGS_ACCESSED;
    t->access++;
    cold[slot].access.prev = last;
    cold[slot].access.next = 0;
    cold[last].access.next = slot;
    cold[0].access.prev = slot;
}

static inline void pgs_access_add_first(pgs_table *t, uint32_t slot) {
    pgs_cold *cold = t->cold;
    uint32_t first = cold[0].access.next;
    if (t->hot[slot].flags & PGS_ACCESSED)
        return;
    t->hot[slot].flags |= PGS_ACCESSED;
    t->access++;
    cold[slot].access.prev = 0;
    cold[slot].access.next = first;
    cold[first].access.prev = slot;
    cold[0].access.next = slot;
}

static inline void pgs_access_remove(pgs_table *t, uint32_t slot) {
    pgs_cold *cold = t->cold;
    pgs_link link = cold[slot].access;
    if (!(t->hot[slot].flags & PGS_ACCESSED))
        return;
    t->hot[slot].flags &= ~(uint32_t)PGS_ACCESSED;
    t->access--;
    cold[link.prev].access.next = link.next;
    cold[link.next].access.prev = link.prev;
}

/* ---- the lists of users and groups ---- */

static inline uint32_t pgs_members(const pgs_table *t, int which, pgs_text text, uint32_t tag) {
    const pgs_index *index = &t->owners[which];
    uint64_t i = tag & index->mask, cell;
    for (; (cell = index->cells[i]) != 0; i = (i + 1) & index->mask) {
        if (pgs_tag(cell) == tag) {
            pgs_text other;
            t->owner_of(t->hot[(uint32_t)cell].record, which, &other);
            if (other.length == text.length && memcmp(other.data, text.data, text.length) == 0)
                return (uint32_t)cell;
        }
    }
    return 0;
}

/* Room in the index must have been reserved. */
static inline void pgs_member_add(pgs_table *t, int which, uint32_t slot) {
    pgs_text text;
    pgs_link *link = &t->cold[slot].member[which];
    uint32_t tag, head;
    link->prev = link->next = 0;
    t->owner_of(t->hot[slot].record, which, &text);
    if (text.data == NULL)
        return;
    tag = pgs_text_tag(t, text);
    t->cold[slot].owner_tag[which] = tag;
    head = pgs_members(t, which, text, tag);
    if (head == 0) {
        pgs_index_add(&t->owners[which], tag, slot);
        return;
    }
    link->prev = head; /* second place: the index goes on naming the head */
    link->next = t->cold[head].member[which].next;
    t->cold[head].member[which].next = slot;
    if (link->next != 0)
        t->cold[link->next].member[which].prev = slot;
}

static inline void pgs_member_remove(pgs_table *t, int which, uint32_t slot) {
    pgs_link link = t->cold[slot].member[which];
    pgs_text text;
    t->owner_of(t->hot[slot].record, which, &text);
    if (text.data == NULL)
        return;
    if (link.next != 0)
        t->cold[link.next].member[which].prev = link.prev;
    if (link.prev != 0)
        t->cold[link.prev].member[which].next = link.next;
    else if (link.next != 0)
        pgs_index_rename(&t->owners[which], t->cold[slot].owner_tag[which], slot, link.next);
    else
        pgs_index_remove(&t->owners[which], t->cold[slot].owner_tag[which], slot);
}

/* ---- insert and remove ---- */

/* Room for one more slot, in at most `capacity`. */
static inline int pgs_reserve(pgs_table *t, uint32_t capacity) {
    uint32_t room;
    if (pgs_indexes_reserve(t))
        return -1;
    if (t->count < t->room)
        return 0;
    room = t->room > capacity / 2 ? capacity : t->room * 2;
    return pgs_resize(t, room > t->count ? room : t->count + 1);
}

/* A key that is not there, after pgs_reserve; becomes the newest. The caller sets times and version. */
static inline uint32_t pgs_insert(pgs_table *t, uint64_t high, uint64_t low, void *record) {
    uint32_t slot = ++t->count;
    pgs_hot *h = &t->hot[slot];
    memset(h, 0, sizeof(*h));
    memset(&t->cold[slot], 0, sizeof(pgs_cold));
    h->high = high;
    h->low = low;
    h->record = record;
    h->tag = pgs_key_tag(t, high, low);
    pgs_index_add(&t->keys, h->tag, slot);
    pgs_use_first(t->hot, slot);
    pgs_member_add(t, PGS_USER, slot);
    pgs_member_add(t, PGS_GROUP, slot);
    return slot;
}

/* Put another record in a slot; room for its group must have been reserved. Returns the old one, to be released. */
static inline void *pgs_replace(pgs_table *t, uint32_t slot, void *record) {
    void *old = t->hot[slot].record;
    pgs_member_remove(t, PGS_USER, slot);
    pgs_member_remove(t, PGS_GROUP, slot);
    t->hot[slot].record = record;
    pgs_member_add(t, PGS_USER, slot);
    pgs_member_add(t, PGS_GROUP, slot);
    return old;
}

static inline void pgs_move(pgs_table *t, uint32_t from, uint32_t to) {
    int which;
    t->hot[to] = t->hot[from];
    t->cold[to] = t->cold[from];
    pgs_index_rename(&t->keys, t->hot[to].tag, from, to);
    t->hot[t->hot[to].newer].older = to;
    t->hot[t->hot[to].older].newer = to;
    if (t->hot[to].flags & PGS_ACCESSED) {
        t->cold[t->cold[to].access.prev].access.next = to;
        t->cold[t->cold[to].access.next].access.prev = to;
    }
    for (which = 0; which < 2; which++) {
        pgs_link link = t->cold[to].member[which];
        pgs_text text;
        t->owner_of(t->hot[to].record, which, &text);
        if (text.data == NULL)
            continue;
        if (link.next != 0)
            t->cold[link.next].member[which].prev = to;
        if (link.prev != 0)
            t->cold[link.prev].member[which].next = to;
        else
            pgs_index_rename(&t->owners[which], t->cold[to].owner_tag[which], from, to);
    }
}

/* Returns the record, to be released once the caller is done with the table. */
static inline void *pgs_remove(pgs_table *t, uint32_t slot) {
    void *record = t->hot[slot].record;
    pgs_access_remove(t, slot);
    pgs_use_unlink(t->hot, slot);
    pgs_member_remove(t, PGS_USER, slot);
    pgs_member_remove(t, PGS_GROUP, slot);
    pgs_index_remove(&t->keys, t->hot[slot].tag, slot);
    if (slot != t->count)
        pgs_move(t, t->count, slot);
    t->count--;
    if (t->room > 64 && t->count < t->room / 4)
        (void)pgs_resize(t, t->room / 2);
    return record;
}

#endif
