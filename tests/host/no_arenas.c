/* The headers as macOS and Windows see them: the hit line is there, and all else says that it is not supported. */
#include "sharing.h"

#include "mapping.h"

#include <stdio.h>

#define CHECK(what)                                                                                                    \
    if (!(what))                                                                                                       \
    printf("%s\n", #what), failed = 1

int main(void) {
    static pgs_hit_line line;
    static char text[64];
    pgs_arena a = {&line};
    pgs_shared what;
    pgs_event event;
    pgs_arena_counters counters;
    uint64_t tail = 0, random[4] = {0};
    uint32_t cursor = 0;
    int failed = 0;
    memset(&event, 0, sizeof event);
    CHECK(!PGS_HAS_ARENA);
    CHECK(pgs_map(0, 4096) == NULL);
    CHECK(pgs_arena_self_test() == PGS_ARENA_UNSUPPORTED);
    CHECK(pgs_arena_format(&a, text, 64, 1, random) == PGS_ARENA_UNSUPPORTED);
    CHECK(pgs_arena_bind(&a, text, 64, 1) == PGS_ARENA_UNSUPPORTED);
    CHECK(pgs_arena_try(&a) == PGS_ARENA_UNSUPPORTED && pgs_arena_lock(&a) == PGS_ARENA_UNSUPPORTED);
    CHECK(pgs_arena_append(&a, &event) == PGS_ARENA_UNSUPPORTED);
    CHECK(pgs_arena_read(&a, 1, 2, text, 64, &what) == 0 && pgs_arena_walk(&a, &cursor, &what) == 0);
    CHECK(pgs_arena_next(&a, &tail, &event) == PGS_ARENA_UNSUPPORTED);
    CHECK(!pgs_arena_vouch(&a, 1, 2, 2, 3, 4) && !pgs_arena_take_lead(&a, 0, 1, 2, 0) && line.in_sync_until == 0);
    CHECK(!pgs_line_clock(&line, (int64_t *)random, (int64_t *)random));
    memset(&counters, 1, sizeof counters);
    pgs_arena_count(&a, &counters);
    CHECK(counters.sessions == 0 && counters.inserts == 0);
    printf("done\n");
    return failed;
}
