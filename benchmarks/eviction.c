/* Hit rates of the arena's eviction (CLOCK) against LRU, on traces that are made here. usage: eviction SEED */
#define _GNU_SOURCE
#include "../cython/pgsession/_core/arena.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { KEYS = 40000, REQUESTS = 1500000, BLOB = 600 };

static uint64_t state;
static double uniform(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) / 9007199254740992.0;
}

/* ---- traces ---- */

typedef struct { const char *name; double skew; int drift, scans, visits; } trace;
/* drift: after so many requests all keys move by one rank (0: never); scans: one request in so many is for a key that
 * comes once; visits: a session is asked for in a burst of so many requests. */
static const trace TRACES[] = {
    {"steady, skew 0.6", 0.6, 0, 0, 1},       {"steady, skew 0.8", 0.8, 0, 0, 1},
    {"steady, skew 1.0", 1.0, 0, 0, 1},       {"steady, skew 1.2", 1.2, 0, 0, 1},
    {"slow drift, skew 0.8", 0.8, 200, 0, 1}, {"slow drift, skew 1.0", 1.0, 200, 0, 1},
    {"fast drift, skew 0.8", 0.8, 20, 0, 1},  {"fast drift, skew 1.0", 1.0, 20, 0, 1},
    {"scans, skew 0.8", 0.8, 0, 4, 1},        {"scans, skew 1.0", 1.0, 0, 4, 1},
    {"bursts of 8, skew 0.8", 0.8, 0, 0, 8},  {"bursts and drift, skew 0.8", 0.8, 50, 0, 8}};

static double sums[KEYS];
static uint32_t *requests;

static void make(const trace *t, uint64_t seed) {
    static uint32_t burst[64];
    static int left[64];
    uint64_t once = 1u << 30;
    double sum = 0;
    int i, base = 0;
    state = pgs_mixed(seed) | 1;
    for (i = 0; i < KEYS; i++)
        sums[i] = sum += pow(i + 1, -t->skew);
    memset(left, 0, sizeof left);
    for (i = 0; i < REQUESTS; i++) {
        int low = 0, high = KEYS - 1, place = (int)(uniform() * 64);
        if (t->drift && i % t->drift == 0)
            base++;
        if (t->scans && uniform() * t->scans < 1) {
            requests[i] = (uint32_t)once++;
            continue;
        }
        if (t->visits == 1 || left[place]-- <= 0) {
            double at = uniform() * sum;
            while (low < high) {
                int middle = (low + high) / 2;
                if (sums[middle] < at)
                    low = middle + 1;
                else
                    high = middle;
            }
            burst[place] = (uint32_t)(base + KEYS - low); /* the newest are asked for most */
            left[place] = t->visits - 1;
        }
        requests[i] = burst[place];
    }
}

/* ---- LRU, of as many as the arena had ---- */

static uint32_t *next_of, *previous_of, *place_of;
static double lru(uint32_t capacity, uint32_t names) {
    uint32_t head = names, count = 0, i;
    int hits = 0, n;
    for (i = 0; i <= names; i++)
        next_of[i] = previous_of[i] = i, place_of[i] = 0;
    for (n = 0; n < REQUESTS; n++) {
        uint32_t key = requests[n] & 0x3FFFFFFF;
        if (requests[n] >> 30)
            key += names / 2;
        if (place_of[key]) {
            hits += n > REQUESTS / 3;
            next_of[previous_of[key]] = next_of[key];
            previous_of[next_of[key]] = previous_of[key];
        } else {
            if (count == capacity) {
                uint32_t last = previous_of[head];
                next_of[previous_of[last]] = head;
                previous_of[head] = previous_of[last];
                place_of[last] = 0;
            } else
                count++;
            place_of[key] = 1;
        }
        next_of[key] = next_of[head];
        previous_of[key] = head;
        previous_of[next_of[head]] = key;
        next_of[head] = key;
    }
    return 100.0 * hits / (REQUESTS - REQUESTS / 3 - 1);
}

static double clock_of(uint32_t *capacity) {
    static char blob[BLOB], out[BLOB];
    static const uint64_t random[4] = {1, 2, 3, 4};
    const uint64_t size = 6u << 20;
    uint64_t room = 0;
    int hits = 0, n, counted = 0;
    pgs_arena a;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || pgs_arena_format(&a, base, size, 1, random))
        exit(3);
    for (n = 0; n < REQUESTS; n++) {
        pgs_shared what;
        if (pgs_arena_read(&a, requests[n], 1, out, sizeof out, &what) > 0) {
            hits += n > REQUESTS / 3;
            continue;
        }
        memset(&what, 0, sizeof what);
        what.high = requests[n];
        what.low = 1;
        pgs_arena_insert(&a, &what, blob, BLOB);
        if (n > REQUESTS / 3)
            room += a.header->live, counted++;
    }
    *capacity = (uint32_t)(room / (uint64_t)counted);
    munmap(base, size);
    return 100.0 * hits / (REQUESTS - REQUESTS / 3 - 1);
}

int main(int argc, char **argv) {
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    const uint32_t names = 2 * (KEYS + REQUESTS);
    size_t i;
    requests = malloc(REQUESTS * sizeof *requests);
    next_of = malloc((names + 1) * sizeof *next_of);
    previous_of = malloc((names + 1) * sizeof *previous_of);
    place_of = malloc((names + 1) * sizeof *place_of);
    if (!requests || !next_of || !previous_of || !place_of)
        return 3;
    printf("seed %llu; hits of 100 requests\n%-28s %8s %7s %7s\n", (unsigned long long)seed, "trace", "sessions", "CLOCK", "LRU");
    for (i = 0; i < sizeof TRACES / sizeof *TRACES; i++) {
        uint32_t capacity = 0;
        double ours, lrus;
        make(&TRACES[i], seed + i);
        ours = clock_of(&capacity);
        lrus = lru(capacity, names);
        printf("%-28s %8u %7.2f %7.2f %+6.2f\n", TRACES[i].name, capacity, ours, lrus, ours - lrus);
    }
    return 0;
}
