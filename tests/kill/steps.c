/* What arena.h does step by step, in one process: other things happen exactly at its crash points. Prints the names of
 * the checks that fail, and a line at the end. */
#define _GNU_SOURCE
static void crash_point(int where);
#define PGS_CRASH_POINT(number) crash_point(number)
#include <pthread.h>
#ifdef EMULATED /* qemu's user mode has no robust mutexes: musl says so here, glibc where one ends with its lock */
#define pthread_mutexattr_setrobust(how, kind) 0
#endif
#include "arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static int failures;
static pgs_arena a;
static const uint64_t SIZE = 8u << 20;
static int at;
static void (*happens)(void);

static void crash_point(int where) {
    if (where == at) {
        at = 0;
        happens();
    }
}
static void at_point(int where, void (*what)(void)) {
    at = where;
    happens = what;
}

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            printf("%s, line %d: %s\n", __func__, __LINE__, #what);                                                    \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

static void fresh(void) {
    static void *base;
    const uint64_t random[4] = {1, 2, 3, 4};
    if (base)
        munmap(base, SIZE);
    base = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || pgs_arena_format(&a, base, SIZE, 1, random))
        exit(3);
}

static char blob[70000], out[70000];
static pgs_shared found;

static int put(uint64_t key, int64_t version, uint32_t length, char fill) {
    pgs_shared what;
    char name[32];
    memset(&what, 0, sizeof what);
    what.high = key;
    what.low = ~key;
    what.version = version;
    what.expires_at = 1000 + version;
    what.user = pgs_owner_hash(&a, 0, name, (uint32_t)sprintf(name, "user-%d", (int)(key % 10)));
    what.group = pgs_owner_hash(&a, 1, name, (uint32_t)sprintf(name, "group-%d", (int)(key / 10 % 10)));
    memset(blob, fill, length);
    return pgs_arena_insert(&a, &what, blob, length);
}
static int read_one(uint64_t key) { return pgs_arena_read(&a, key, ~key, out, sizeof out, &found); }
static int tell(int64_t version) {
    pgs_event event;
    memset(&event, 0, sizeof event);
    event.kind = PGS_CHANGED;
    event.version = version;
    return pgs_arena_append(&a, &event);
}
static int in_thread(void *(*what)(void *)) {
    pthread_t thread;
    return pthread_create(&thread, NULL, what, NULL) || pthread_join(thread, NULL);
}
static void end_here(void) { pthread_exit(NULL); }

static void making_and_finding(void) {
    pgs_arena other;
    static char nothing[8192];
    fresh();
#ifdef EMULATED
    CHECK(pgs_arena_self_test() == PGS_ARENA_MUTEX); /* so the library would share nothing there */
#else
    CHECK(pgs_arena_self_test() == PGS_ARENA_OK);
#endif
    CHECK(pgs_arena_bind(&other, a.base, SIZE, 1) == PGS_ARENA_OK);
    CHECK(pgs_arena_bind(&other, a.base, SIZE, 2) == PGS_ARENA_LAYOUT);
    CHECK(pgs_arena_bind(&other, a.base, SIZE - 4096, 1) == PGS_ARENA_SIZE);
    CHECK(pgs_arena_bind(&other, a.base, 64, 1) == PGS_ARENA_NOT_ONE);
    CHECK(pgs_arena_bind(&other, nothing, sizeof nothing, 1) == PGS_ARENA_NOT_ONE);
    a.header->slot_count++;
    CHECK(pgs_arena_bind(&other, a.base, SIZE, 1) == PGS_ARENA_SIZE);
    CHECK(pgs_arena_format(&other, nothing, sizeof nothing, 1, (const uint64_t *)(const void *)nothing) == PGS_ARENA_SIZE);
    {
        static const uint64_t random[4] = {1, 2, 3, 4};
        void *base = mmap(NULL, pgs_arena_smallest(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(pgs_arena_format(&other, base, pgs_arena_smallest(), 1, random) == PGS_ARENA_OK);
        munmap(base, pgs_arena_smallest());
    }
}

static void records(void) {
    uint32_t cursor = 0, count = 0;
    pgs_shared what;
    fresh();
    CHECK(pgs_arena_try(&a) == PGS_HELD && pgs_arena_try(&a) == PGS_BUSY);
    CHECK(read_one(1) == 0);
    CHECK(put(1, 5, 100, 'a') && read_one(1) == 100 && found.version == 5 && out[0] == 'a' && out[99] == 'a');
    CHECK(!put(1, 4, 100, 'b') && found.version == 5);
    CHECK(put(1, 6, 3000, 'c') && read_one(1) == 3000 && out[2999] == 'c' && a.header->live == 1);
    CHECK(pgs_arena_read(&a, 1, ~1ULL, out, 2999, &found) == -3000);
    CHECK(put(2, 1, 65528, 'd') && read_one(2) == 65528 && !put(3, 1, 65529, 'e') && read_one(3) == 0);
    CHECK(pgs_arena_read(&a, 1, 1, out, sizeof out, &found) == 0);
    CHECK(pgs_arena_discard_older(&a, 1, ~1ULL, 6) == 0 && pgs_arena_discard_older(&a, 1, ~1ULL, 7) == 1 && !read_one(1));
    CHECK(pgs_arena_discard(&a, 2, ~2ULL) == 1 && pgs_arena_discard(&a, 2, ~2ULL) == 0 && a.header->live == 0);
    for (count = 0; count < 100; count++)
        put(count, count, 50, 'x');
    CHECK(pgs_arena_discard_user(&a, "user-3", 6) == 10 && !read_one(13) && read_one(14));
    CHECK(pgs_arena_discard_group(&a, "group-1", 7) == 9 && !read_one(14) && read_one(24));
    CHECK(pgs_arena_discard_user(&a, "user-3", 6) == 0 && pgs_arena_discard_user(&a, "nobody", 6) == 0);
    for (count = 0; pgs_arena_walk(&a, &cursor, &what); count++)
        CHECK(what.low == ~what.high);
    CHECK(count == 81 && a.header->live == 81);
    cursor = 0;
    CHECK(pgs_arena_expire(&a, &cursor, 1049, 100000) == 36 && !read_one(49) && read_one(50));
    pgs_arena_clear(&a);
    CHECK(a.header->live == 0 && !read_one(50));
    pgs_arena_unlock(&a);
    CHECK(pgs_arena_lock(&a) == PGS_HELD);
    pgs_arena_unlock(&a);
}

static void replace_it(void) {
    pgs_arena_discard(&a, 1, ~1ULL);
    put(2, 1, 3000, 'n');
}
static void replace_after_reset(void) {
    pgs_arena_clear(&a);
    put(1, 2, 3000, 'n');
}
static void s5_a_copy_during_a_change(void) {
    int point, length;
    for (point = 11; point <= 12; point++) {
        fresh();
        put(1, 1, 3000, 'o');
        at_point(point, replace_it);
        CHECK(read_one(1) == 0);
        fresh();
        put(1, 1, 3000, 'o');
        at_point(point, replace_after_reset);
        length = read_one(1);
        CHECK(length == 0 || (found.version == 2 && out[0] == 'n' && out[2999] == 'n'));
    }
}

static void overrun_it(void) {
    int i;
    for (i = 0; i < PGS_RING; i++)
        tell(i);
}
static void ring(void) {
    uint64_t tail = 0;
    pgs_event event;
    int64_t i;
    fresh();
    CHECK(pgs_arena_next(&a, &tail, &event) == 0);
    for (i = 0; i < PGS_RING; i++)
        tell(i);
    for (i = 0; i < PGS_RING; i++)
        CHECK(pgs_arena_next(&a, &tail, &event) == 1 && event.version == i);
    CHECK(pgs_arena_next(&a, &tail, &event) == 0);
    for (i = 0; i <= PGS_RING; i++)
        tell(i);
    CHECK(pgs_arena_next(&a, &tail, &event) == -1 && tail == 2 * PGS_RING + 1 && pgs_arena_next(&a, &tail, &event) == 0);
    tell(1);
    at_point(13, overrun_it);
    CHECK(pgs_arena_next(&a, &tail, &event) == -1 && pgs_arena_next(&a, &tail, &event) == 0);
}

/* The reader of the ring is overrun by an event that its writer has begun, and not finished. */
static uint64_t late_tail;
static int late_got;
static pgs_event late_event;
static void read_late(void) { late_got = pgs_arena_next(&a, &late_tail, &late_event); }
static void an_event_half_written(void) {
    int i;
    fresh();
    for (i = 0; i < PGS_RING; i++)
        tell(i);
    late_tail = 0;
    at_point(1, read_late);
    tell(77);
    CHECK(late_got == -1);
}

static void *dies_inside(void *nothing) {
    if (pgs_arena_try(&a) == PGS_HELD) {
        at_point(7, end_here);
        put(9, 1, 100, 'z');
    }
    return nothing;
}
static void *dies_after(void *nothing) {
    if (pgs_arena_try(&a) == PGS_HELD) {
        put(9, 1, 100, 'z');
        at_point(10, end_here);
        pgs_arena_unlock(&a);
    }
    return nothing;
}
static void *dies_while_it_cleans(void *nothing) {
    at_point(15, end_here);
    pgs_arena_try(&a);
    return nothing;
}
static void deaths(void) {
    uint64_t tail;
    pgs_event event;
    fresh();
    put(1, 1, 100, 'a');
    tell(1);
    tail = a.line->head;
    CHECK(!in_thread(dies_after) && pgs_arena_try(&a) == PGS_HELD && read_one(1) && read_one(9));
    CHECK(pgs_arena_next(&a, &tail, &event) == 0);
    pgs_arena_unlock(&a);
    CHECK(!in_thread(dies_inside) && !in_thread(dies_while_it_cleans) && pgs_arena_lock(&a) == PGS_HELD_AFTER_RESET && !read_one(1) && !read_one(9));
    CHECK(pgs_arena_next(&a, &tail, &event) == -1 && a.header->resets == 1);
    CHECK(put(1, 1, 100, 'b') && read_one(1) && tell(2) == PGS_ARENA_OK && pgs_arena_next(&a, &tail, &event) == 1);
    pgs_arena_unlock(&a);
    CHECK(pgs_arena_try(&a) == PGS_HELD);
    pgs_arena_unlock(&a);
}

static void poison_it(void) { pgs_arena_poison(&a); }
static void *holds_it(void *nothing) {
    pgs_arena_try(&a);
    return nothing;
}
static void poison(void) {
    uint64_t tail = 0;
    uint32_t bell;
    pgs_event event;
    fresh();
    bell = pgs_arena_bell(&a);
    at_point(2, poison_it);
    CHECK(tell(1) == PGS_ARENA_POISONED && pgs_arena_poisoned(&a) && pgs_arena_bell(&a) == bell + 1);
    CHECK(pgs_arena_next(&a, &tail, &event) == PGS_ARENA_POISONED && tell(2) == PGS_ARENA_POISONED);
    CHECK(pgs_arena_try(&a) == PGS_ARENA_POISONED && pgs_arena_lock(&a) == PGS_ARENA_POISONED);
    CHECK(!pgs_arena_vouch(&a, 0, 1, 1, 1, 1) && a.line->in_sync_until == 0);
    CHECK(pgs_arena_wait_bell(&a, bell, 60000000) == bell + 1 && pgs_arena_wait_bell(&a, bell + 1, 1000) == bell + 1);
}
static void poison_after_a_death(void) {
    fresh();
    at_point(15, poison_it); /* while it is emptied */
    CHECK(!in_thread(holds_it) && pgs_arena_try(&a) == PGS_ARENA_POISONED && pgs_arena_poisoned(&a));
}

static void patience(void) { /* nobody comes back who holds it: it is given up, not waited for */
    fresh();
    CHECK(pgs_arena_try(&a) == PGS_HELD);
    CHECK(pgs_arena_lock(&a) == PGS_ARENA_POISONED && pgs_arena_poisoned(&a));
}

static int64_t offset, lag;
static int clock_got;
static void read_clock(void) { clock_got = pgs_line_clock(a.line, &offset, &lag); }
static void *dies_at_the_clock(void *nothing) {
    at_point(14, end_here);
    pgs_arena_vouch(&a, 1, 10, 10, 5, 6);
    return nothing;
}
static void leaders(void) {
    fresh();
    CHECK(pgs_arena_take_lead(&a, 1, 7, 70, 1) == 0 && pgs_arena_take_lead(&a, 0, 7, 70, 1) == 1);
    CHECK(pgs_arena_number(&a) == 1 && a.header->beat == 70 && a.line->state == PGS_LOST);
    CHECK(pgs_arena_beat(&a, 1, 80) && a.header->beat == 80 && !pgs_arena_beat(&a, 2, 90) && a.header->beat == 80);
    CHECK(!pgs_arena_vouch(&a, 2, 10, 10, 5, 6) && a.line->in_sync_until == 0); /* S6 */
    CHECK(pgs_arena_vouch(&a, 1, 10, 9, 5, 6) && a.line->in_sync_until == 10 && a.header->proved_until == 9);
    CHECK(a.line->state == PGS_SYNCED && pgs_line_clock(a.line, &offset, &lag) && offset == 5 && lag == 6);
    CHECK(pgs_arena_take_lead(&a, 1, 8, 90, 0) == 2 && a.line->state == PGS_SYNCED);
    CHECK(!pgs_arena_vouch(&a, 1, 20, 20, 5, 6) && a.line->in_sync_until == 10); /* S6 */
    pgs_arena_raise_longest(&a, 5);
    pgs_arena_raise_longest(&a, 3);
    CHECK(a.header->longest == 5);
    fresh();
    pgs_arena_take_lead(&a, 0, 7, 70, 1);
    in_thread(dies_at_the_clock);
    CHECK(!pgs_line_clock(a.line, &offset, &lag) && a.line->in_sync_until == 0);
    at_point(14, read_clock); /* the next leader writes it */
    CHECK(pgs_arena_vouch(&a, 1, 20, 20, 7, 8) && !clock_got);
    CHECK(pgs_line_clock(a.line, &offset, &lag) && offset == 7 && lag == 8);
}

static void eviction(void) {
    uint64_t key, used = 0, others = 0;
    fresh();
    for (key = 1; key <= 60000; key++) {
        CHECK(put(key, 1, 300 + (uint32_t)(key % 400), 'e'));
        if (key > 100 && key % 50 == 0) { /* as one that has it in a cache of its own */
            uint64_t i;
            for (i = 1; i <= 100; i++)
                pgs_arena_visit(&a, i, ~i);
        }
    }
    for (key = 1; key <= 200; key++)
        if (read_one(key))
            key <= 100 ? used++ : others++;
    CHECK(used >= 90 && others == 0 && a.header->evictions > 40000);
    for (key = 1; key <= 300; key++) /* all memory belongs to another class by now */
        CHECK(put(key, 2, 60000, 'f') && read_one(key) == 60000);
}

int main(void) {
    making_and_finding();
    records();
    s5_a_copy_during_a_change();
    ring();
    an_event_half_written();
#ifndef EMULATED
    deaths();
    poison_after_a_death();
#endif
    poison();
    patience();
    leaders();
    eviction();
    printf("%d failed\n", failures);
    return failures != 0;
}
