/* The machine's clocks in microseconds.
 *
 * Node time must go on while the host sleeps (C6: a stopped and resumed host must find its proof of sync too old) and
 * must not follow steps of the wall clock. That is CLOCK_BOOTTIME on Linux, CLOCK_MONOTONIC on macOS (which goes on
 * in sleep there) and GetTickCount64 on Windows.
 *
 * CLOCK_BOOTTIME costs 23 ns, a third of a whole hit, so a hit asks the processor's counter first, which costs a third
 * of that: within a window of the last exact reading (about a third of a millisecond) that reading is used again, and
 * `slack` allows for its age. Only where the kernel itself keeps time by that counter, having found it to be constant,
 * never stopping and the same on all processors. (The kernel's coarse clocks are cheaper still, but were seen 10 ms
 * behind where their resolution says 4: their lag has no bound to allow for.) A counter that starts anew after sleep
 * is outside of the window. */
#ifndef PGSESSION_CLOCK_H
#define PGSESSION_CLOCK_H

#include <stdint.h>

typedef struct {
    uint64_t stamp; /* the counter just before the last exact reading, */
    int64_t now;    /* and that reading */
    int counted;    /* whether the counter may be used */
} pgs_recent;

#if defined(_WIN32)

#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>

/* Goes on in sleep and hibernation; moves in steps of 10 to 16 ms. */
static inline int64_t pgs_clock_now(void) { return (int64_t)GetTickCount64() * 1000; }

static inline int64_t pgs_clock_wall(void) {
    FILETIME time;
    ULARGE_INTEGER ticks; /* 100 ns since 1601 */
    GetSystemTimeAsFileTime(&time);
    ticks.LowPart = time.dwLowDateTime;
    ticks.HighPart = time.dwHighDateTime;
    return (int64_t)(ticks.QuadPart / 10ULL) - 11644473600000000LL;
}

static inline int64_t pgs_clock_recent(pgs_recent *memory) {
    (void)memory;
    return pgs_clock_now();
}

static inline int64_t pgs_clock_start(pgs_recent *memory) {
    (void)memory;
    return 0;
}

#else

#include <time.h>

static inline int64_t pgs_clock_read(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000000LL + time.tv_nsec;
}

static inline int64_t pgs_clock_wall(void) { return pgs_clock_read(CLOCK_REALTIME) / 1000; }

#if defined(__linux__) && defined(CLOCK_BOOTTIME)

static inline int64_t pgs_clock_now(void) { return pgs_clock_read(CLOCK_BOOTTIME) / 1000; }

#else

static inline int64_t pgs_clock_now(void) { return pgs_clock_read(CLOCK_MONOTONIC) / 1000; }

#endif

/* Without the GIL the two halves of the memory could be torn apart: such builds read the exact clock. */
#if defined(__linux__) && defined(CLOCK_BOOTTIME) && defined(__x86_64__) &&                                            \
    (defined(__GNUC__) || defined(__clang__)) && !defined(Py_GIL_DISABLED)

#include <stdio.h>
#include <string.h>
#include <x86intrin.h>

#define PGS_WINDOW (1ULL << 20) /* ticks: 0.35 ms at 3 GHz */
#define PGS_SLACK 2000          /* microseconds: enough down to 0.5 GHz */

static inline int64_t pgs_clock_recent(pgs_recent *memory) {
    uint64_t stamp;
    if (!memory->counted)
        return pgs_clock_now();
    stamp = __rdtsc();
    if (stamp - memory->stamp < PGS_WINDOW)
        return memory->now;
    memory->now = pgs_clock_now();
    memory->stamp = stamp;
    return memory->now;
}

/* Returns how far the recent clock may lag behind the exact one. */
static inline int64_t pgs_clock_start(pgs_recent *memory) {
    char name[8] = "";
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");
    if (file != NULL) {
        memory->counted = fgets(name, sizeof(name), file) != NULL && strcmp(name, "tsc\n") == 0;
        fclose(file);
    }
    return memory->counted ? PGS_SLACK : 0;
}

#else

static inline int64_t pgs_clock_recent(pgs_recent *memory) {
    (void)memory;
    return pgs_clock_now();
}

static inline int64_t pgs_clock_start(pgs_recent *memory) {
    (void)memory;
    return 0;
}

#endif
#endif
#endif
