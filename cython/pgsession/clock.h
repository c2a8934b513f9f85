/* The machine's clocks in microseconds.
 *
 * Node time must go on while the host sleeps (C6: a stopped and resumed host must find its proof of sync too old) and
 * must not follow steps of the wall clock. That is CLOCK_BOOTTIME on Linux, CLOCK_MONOTONIC on macOS (which goes on
 * in sleep there) and GetTickCount64 on Windows.
 *
 * CLOCK_BOOTTIME costs 23 ns, a third of a whole hit. Two coarse clocks cost 5 ns each, and tell together what one
 * cannot: the kernel adds the time asleep to the wall clock and not to the monotonic one, so while their difference
 * is what it was, the host has not slept and the remembered distance from monotonic to boot time still holds. Any
 * change of the difference (sleep, a stepped wall clock, a tick between the two readings) takes the slow way. It is
 * looked at once a tick: the time is never older than a tick, which `slack` allows for. */
#ifndef PGSESSION_CLOCK_H
#define PGSESSION_CLOCK_H

#include <stdint.h>

typedef struct {
    int64_t difference; /* coarse wall minus coarse monotonic, ns, when `distance` was measured */
    int64_t distance;   /* boot time minus monotonic, ns */
    int64_t tick;       /* the coarse monotonic time that was read last, ns, */
    int64_t now;        /* and the node time that it was, us */
    int known;
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

static inline int64_t pgs_clock_slack(void) { return 0; }

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
#if defined(__linux__) && defined(CLOCK_BOOTTIME) && defined(CLOCK_MONOTONIC_COARSE) &&                                \
    defined(CLOCK_REALTIME_COARSE) && !defined(Py_GIL_DISABLED)

static inline int64_t pgs_clock_measure(pgs_recent *memory) {
    int64_t before = pgs_clock_read(CLOCK_REALTIME_COARSE) - pgs_clock_read(CLOCK_MONOTONIC_COARSE);
    int64_t boot = pgs_clock_read(CLOCK_BOOTTIME);
    int64_t distance = boot - pgs_clock_read(CLOCK_MONOTONIC);
    int64_t after = pgs_clock_read(CLOCK_REALTIME_COARSE) - pgs_clock_read(CLOCK_MONOTONIC_COARSE);
    memory->known = before == after;
    memory->difference = before;
    memory->distance = distance;
    memory->tick = 0;
    return boot / 1000;
}

static inline int64_t pgs_clock_tick(pgs_recent *memory, int64_t coarse) {
    if (!memory->known || pgs_clock_read(CLOCK_REALTIME_COARSE) - coarse != memory->difference)
        return pgs_clock_measure(memory);
    memory->now = (coarse + memory->distance) / 1000;
    memory->tick = coarse;
    return memory->now;
}

static inline int64_t pgs_clock_recent(pgs_recent *memory) {
    int64_t coarse = pgs_clock_read(CLOCK_MONOTONIC_COARSE);
    return coarse == memory->tick ? memory->now : pgs_clock_tick(memory, coarse);
}

/* How far the recent clock may lag behind the exact one. */
static inline int64_t pgs_clock_slack(void) {
    struct timespec tick;
    clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
    return ((int64_t)tick.tv_sec * 1000000000LL + tick.tv_nsec) / 1000 + 1;
}

#else

static inline int64_t pgs_clock_recent(pgs_recent *memory) {
    (void)memory;
    return pgs_clock_now();
}

static inline int64_t pgs_clock_slack(void) { return 0; }

#endif
#endif
#endif
