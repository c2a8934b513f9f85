/* Processes, each with several threads, that read, fill, update, delete and lead by way of one arena, while their parent
 * kills, stops and continues them, and they themselves die at the crash points of arena.h. The database is a mapping with
 * one word a key, which no kill can tear: its version. docs/host-cache-testing.md says what is checked.
 *
 * usage: kill SECONDS PROCESSES SEED CRASHES_ONE_IN FOLDER; with 0 nobody is killed or stopped */
#define _GNU_SOURCE
static void crash_point(int where);
#define PGS_CRASH_POINT(number) crash_point(number)
#include <pthread.h>
#ifdef EMULATED /* see steps.c */
#define pthread_mutexattr_setrobust(how, kind) 0
#endif
#include "arena.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum {
    KEYS = 300,
    OWNERS = 10,
    THREADS = 3,
    MOST = 16, /* processes */
    L1_SIZE = 64,
    ROOM = 65536,
    HISTORY = 256,
    MAX_STALENESS = 30000, /* us */
    BEAT_OVERDUE = 45000,
    POINTS = 16
};
static const uint64_t SIZE = 3u << 20;
#define CLOCKS_DIFFER 0x5A5A5A5A5A5ALL

typedef struct {
    int64_t word[KEYS];
    uint64_t committed[KEYS][HISTORY]; /* version << 40 | when */
    int64_t returned[KEYS];            /* the newest version that any call of any process has returned */
    uint32_t generation, stop;
    uint64_t crash_one_in;
    uint32_t holding[MOST][THREADS]; /* is inside a critical section */
    uint64_t crashes[POINTS];
    uint64_t reads, from_l1, from_l2, fills, updates, owners, refused, leaders, deposed, poisoned, overruns, resets;
    uint64_t torn, c2, c6, future, s6, clock, unsound, checked_c6;
} database;
static database *db;
static const char *folder;

#define COUNT(what) __atomic_fetch_add(&db->what, 1, __ATOMIC_RELAXED)
#define LOOK(what) __atomic_load_n(&(what), __ATOMIC_SEQ_CST)

static __thread uint64_t state;
static __thread int thread_number = -1;
static int process_number;

static uint64_t mixed(uint64_t x) { return pgs_mixed(x + 0x9E3779B97F4A7C15ULL); }
static uint64_t random_number(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
static int one_in(uint64_t n) { return random_number() % n == 0; }

static void sleep_us(uint64_t us) {
    struct timespec time = {0, (long)us * 1000};
    nanosleep(&time, NULL);
}

static void crash_point(int where) {
    if (thread_number < 0)
        return;
    if (db->crash_one_in && one_in(db->crash_one_in)) {
        __atomic_fetch_add(&db->crashes[where], 1, __ATOMIC_RELAXED);
        if (where == 9 || where == 10)
            db->holding[process_number][thread_number] = 1;
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    if (one_in(512)) { /* every window is wide at times */
        if (one_in(2))
            sched_yield();
        else
            sleep_us(random_number() % 200);
    }
}

static void pause_a_bit(void) {
    uint64_t n = random_number() % 8;
    if (n == 0)
        sched_yield();
    else if (n == 1)
        sleep_us(random_number() % 300);
}

/* ---- keys, versions, contents ---- */

static uint64_t high_of(int key) { return mixed((uint64_t)key); }
static uint64_t low_of(int key) { return mixed((uint64_t)key + 1000003); }
static int key_of(uint64_t high) {
    int key;
    for (key = 0; key < KEYS; key++)
        if (high_of(key) == high)
            return key;
    return -1;
}
static int is_gone(int64_t version) { return version % 16 == 0; }
static uint32_t length_of(int key, int64_t version) {
    uint32_t most = key % 16 == 0 ? 60000 : key % 5 == 0 ? 8000 : 900;
    return 16 + (uint32_t)(mixed((uint64_t)key * 7919 + (uint64_t)version) % most);
}
/* Writes the one right content, or compares with it. */
static int content(unsigned char *bytes, uint32_t length, int key, int64_t version, int write) {
    uint64_t word = mixed((uint64_t)key * 1000003 + (uint64_t)version);
    uint32_t at;
    if (length != length_of(key, version))
        return 0;
    for (at = 0; at < length; at += 8) {
        uint32_t n = length - at < 8 ? length - at : 8;
        word = word * 6364136223846793005ULL + 1442695040888963407ULL;
        if (write)
            memcpy(bytes + at, &word, n);
        else if (memcmp(bytes + at, &word, n))
            return 0;
    }
    return 1;
}
static uint32_t user_text(int key, char *text) { return (uint32_t)sprintf(text, "user-%d", key % OWNERS); }
static uint32_t group_text(int key, char *text) { return (uint32_t)sprintf(text, "group-%d", key / OWNERS % OWNERS); }

/* ---- the database ---- */

static int64_t commit(int key) {
    int64_t version = __atomic_add_fetch(&db->word[key], 1, __ATOMIC_SEQ_CST);
    uint64_t when = (uint64_t)pgs_monotonic_us() & 0xFFFFFFFFFFULL;
    __atomic_store_n(&db->committed[key][version % HISTORY], (uint64_t)version << 40 | when, __ATOMIC_SEQ_CST);
    return version;
}
static void returns(int key, int64_t version) {
    int64_t known = LOOK(db->returned[key]);
    while (known < version &&
           !__atomic_compare_exchange_n(&db->returned[key], &known, version, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
}

/* ---- a process: its view of the arena, its own cache, its leases ---- */

typedef struct { pgs_arena a; uint32_t generation; } view;
typedef struct { int key; int64_t version; uint32_t length; unsigned char *bytes; } entry;
typedef struct { int key, open; int64_t stamp; uint64_t wide, epoch; } lease;

static pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER; /* taken after the arena's */
static view *current;
static uint64_t tail, wide, epoch;
static entry l1[L1_SIZE];
static lease leases[THREADS];

static void void_all(void) {
    int i;
    for (i = 0; i < L1_SIZE; i++)
        l1[i].key = -1;
    wide++;
    epoch++;
}

static void drop_owned(const pgs_event *event) {
    char text[64];
    int i;
    wide++;
    for (i = 0; i < L1_SIZE; i++)
        if (l1[i].key >= 0) {
            uint32_t length = event->kind == PGS_USER_CHANGED ? user_text(l1[i].key, text) : group_text(l1[i].key, text);
            if (length == event->length && !memcmp(text, event->text, length))
                l1[i].key = -1;
        }
}

static void apply(const pgs_event *event) {
    int64_t version = event->kind == PGS_GONE ? INT64_MAX : event->version;
    int key, i;
    switch (event->kind) {
    case PGS_CHANGED:
    case PGS_GONE:
        key = key_of(event->high);
        if (key < 0 || event->low != low_of(key)) {
            COUNT(torn);
            fprintf(stderr, "an event of no key\n");
            return;
        }
        if (l1[key % L1_SIZE].key == key && l1[key % L1_SIZE].version < version)
            l1[key % L1_SIZE].key = -1;
        for (i = 0; i < THREADS; i++)
            if (leases[i].open && leases[i].key == key && leases[i].stamp < version)
                leases[i].stamp = version;
        break;
    case PGS_USER_CHANGED:
    case PGS_GROUP_CHANGED:
        drop_owned(event);
        break;
    case PGS_ALL_CHANGED:
    case PGS_EPOCH:
        void_all();
        break;
    default:
        COUNT(torn);
        fprintf(stderr, "an event of kind %u\n", event->kind);
    }
}

/* Reads the ring to its head; 0: the arena was given up. Own lock. */
static int hear(view *v) {
    pgs_event event;
    for (;;)
        switch (pgs_arena_next(&v->a, &tail, &event)) {
        case 1:
            apply(&event);
            break;
        case 0:
            return 1;
        case -1:
            COUNT(overruns);
            void_all();
            break;
        default:
            return 0;
        }
}

/* Opens the arena of now, or makes it. */
static view *attach(void) {
    char path[256], temporary[300];
    view *v = calloc(1, sizeof *v);
    uint64_t random[4];
    void *base;
    int control, file, made = 0;
    snprintf(path, sizeof path, "%s/control", folder);
    control = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    flock(control, LOCK_EX);
    v->generation = LOOK(db->generation);
    snprintf(path, sizeof path, "%s/arena.%u", folder, v->generation);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) {
        made = 1;
        file = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (posix_fallocate(file, 0, (off_t)SIZE))
            _exit(3);
    }
    base = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (base == MAP_FAILED)
        _exit(3);
    if (made) {
        random[0] = v->generation;
        random[1] = random[2] = random[3] = mixed(v->generation);
        if (pgs_arena_format(&v->a, base, SIZE, 1, random) || rename(temporary, path))
            _exit(3);
        snprintf(temporary, sizeof temporary, "%s/arena.%u", folder, v->generation - 1);
        unlink(temporary);
    } else if (pgs_arena_bind(&v->a, base, SIZE, 1))
        _exit(3);
    close(file);
    close(control);
    return v;
}

static void use(view *v) {
    void_all();
    tail = pgs_load_acquire(&v->a.line->head) & ~PGS_POISONED;
    __atomic_store_n(&current, v, __ATOMIC_RELEASE);
}

/* An arena was given up. It stays mapped: another thread may be in it. */
static void renew(view *v) {
    uint32_t generation = v->generation;
    pthread_mutex_lock(&own);
    if (current == v) {
        if (__atomic_compare_exchange_n(&db->generation, &generation, v->generation + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            COUNT(poisoned);
        use(attach());
    }
    pthread_mutex_unlock(&own);
}

static void leave(view *v) {
    pthread_mutex_unlock(&own);
    db->holding[process_number][thread_number] = 0;
    pgs_arena_unlock(&v->a);
}

/* Begins a section: the arena's lock, the own one, the ring is read to its head. */
static view *enter(void) {
    for (;;) {
        view *v = LOOK(current);
        int got = pgs_arena_lock(&v->a);
        if (got < 0) {
            renew(v);
            continue;
        }
        db->holding[process_number][thread_number] = 1;
        if (got == PGS_HELD_AFTER_RESET)
            COUNT(resets);
        pthread_mutex_lock(&own);
        if (v == current && hear(v))
            return v;
        leave(v);
        renew(v);
    }
}

/* Appends an event; 0: the arena was given up meanwhile. */
static int tell(view *v, uint32_t kind, int key, int64_t version, const char *text, uint32_t length) {
    pgs_event event;
    memset(&event, 0, sizeof event);
    event.kind = kind;
    event.length = length;
    if (text)
        memcpy(event.text, text, length);
    if (key >= 0) {
        event.high = high_of(key);
        event.low = low_of(key);
    }
    event.version = version;
    return pgs_arena_append(&v->a, &event) == PGS_ARENA_OK && hear(v);
}

static lease *open_lease(int key) {
    lease *mine = &leases[thread_number];
    pthread_mutex_lock(&own);
    mine->key = key;
    mine->stamp = 0;
    mine->wide = wide;
    mine->epoch = epoch;
    mine->open = 1;
    pthread_mutex_unlock(&own);
    return mine;
}

static void enter_l1(int key, int64_t version, const unsigned char *bytes, uint32_t length) {
    entry *e = &l1[key % L1_SIZE];
    e->key = key;
    e->version = version;
    e->length = length;
    memcpy(e->bytes, bytes, length);
}

static void nothing(view *v) { (void)v; }
static __attribute__((unused)) void open_the_section(view *v) { /* what a wrong variant does */
    leave(v);
    pause_a_bit();
    pgs_arena_lock(&v->a);
    db->holding[process_number][thread_number] = 1;
    pthread_mutex_lock(&own);
}

/* What a fill or a write does with what it has got, in a section; 0: the arena was given up. */
static int keep(view *v, lease *mine, int key, int64_t version) {
    static __thread unsigned char bytes[ROOM];
    char text[64];
    pgs_shared what;
    uint32_t length = length_of(key, version);
    if (is_gone(version)) {
        pgs_arena_discard(&v->a, high_of(key), low_of(key));
        return tell(v, PGS_GONE, key, version, NULL, 0);
    }
    pgs_arena_discard_older(&v->a, high_of(key), low_of(key), version);
    if (!tell(v, PGS_CHANGED, key, version, NULL, 0))
        return 0;
    if (v->a.line->state == PGS_LOST || mine->wide != wide || mine->epoch != epoch || version < mine->stamp) {
        COUNT(refused);
        return 1;
    }
    nothing(v); /* S1: still the same section */
    content(bytes, length, key, version, 1);
    memset(&what, 0, sizeof what);
    what.high = high_of(key);
    what.low = low_of(key);
    what.version = version;
    what.expires_at = INT64_MAX;
    what.user = pgs_owner_hash(&v->a, 0, text, user_text(key, text));
    what.group = pgs_owner_hash(&v->a, 1, text, group_text(key, text));
    if (pgs_arena_insert(&v->a, &what, bytes, length))
        enter_l1(key, version, bytes, length);
    return 1;
}

static void close_lease(lease *mine, int key, int64_t version) {
    int done;
    do {
        view *v = enter();
        done = keep(v, mine, key, version);
        mine->open = !done;
        leave(v);
    } while (!done);
}

static int64_t fill(int key) {
    lease *mine = open_lease(key);
    int64_t version;
    COUNT(fills);
    pause_a_bit();
    version = LOOK(db->word[key]);
    pause_a_bit();
    close_lease(mine, key, version);
    return version;
}

static void update(int key) {
    lease *mine = open_lease(key);
    int64_t version = commit(key);
    pause_a_bit();
    close_lease(mine, key, version);
    returns(key, version); /* S4: after its event */
    COUNT(updates);
}

static void change_owner(int key, int which) {
    int64_t version[KEYS];
    char text[64], other[64];
    uint32_t length = which ? group_text(key, text) : user_text(key, text);
    int done, i;
    for (i = 0; i < KEYS; i++) {
        uint32_t n = which ? group_text(i, other) : user_text(i, other);
        version[i] = n == length && !memcmp(text, other, n) ? commit(i) : 0;
    }
    do {
        view *v = enter();
        pgs_arena_discard_owner(&v->a, which, text, length); /* S2: first what is shared, then the event */
        done = tell(v, which ? PGS_GROUP_CHANGED : PGS_USER_CHANGED, -1, 0, text, length);
        leave(v);
    } while (!done);
    for (i = 0; i < KEYS; i++)
        if (version[i])
            returns(i, version[i]);
    COUNT(owners);
}

static int right(const unsigned char *bytes, uint32_t length, int key, int64_t version, const char *where) {
    if (content((unsigned char *)(uintptr_t)bytes, length, key, version, 0))
        return 1;
    COUNT(torn);
    fprintf(stderr, "torn in %s: key %d, version %lld, %u bytes\n", where, key, (long long)version, length);
    return 0;
}

static int64_t get(int key) {
    static __thread unsigned char bytes[ROOM];
    pgs_shared what;
    int64_t until, offset, lag, version = -1;
    uint64_t before;
    int length, alive, fresh;
    entry *e = &l1[key % L1_SIZE];
    view *v;
    pthread_mutex_lock(&own);
    v = current;
    until = pgs_load_acquire(&v->a.line->in_sync_until); /* S3: first */
    crash_point(0);
    alive = hear(v);
    crash_point(0);
    fresh = alive && pgs_monotonic_us() < until;
    if (fresh && pgs_line_clock(v->a.line, &offset, &lag) && (offset ^ lag) != CLOCKS_DIFFER)
        COUNT(clock);
    if (fresh && e->key == key) {
        version = e->version;
        right(e->bytes, e->length, key, version, "L1");
        COUNT(from_l1);
    }
    before = tail;
    pthread_mutex_unlock(&own);
    if (!alive)
        renew(v);
    if (!fresh)
        return fill(key);
    if (version >= 0)
        return version;
    length = pgs_arena_read(&v->a, high_of(key), low_of(key), bytes, ROOM, &what);
    if (length <= 0)
        return fill(key);
    COUNT(from_l2);
    right(bytes, (uint32_t)length, key, what.version, "L2");
    crash_point(0);
    pthread_mutex_lock(&own);
    if (v == current && hear(v) && tail == before) /* S9 */
        enter_l1(key, what.version, bytes, (uint32_t)length);
    pthread_mutex_unlock(&own);
    return what.version;
}

static void checked_get(int key) {
    int64_t start = pgs_monotonic_us(), known = LOOK(db->returned[key]);
    int64_t version = get(key);
    uint64_t next = LOOK(db->committed[key][(version + 1) % HISTORY]);
    COUNT(reads);
    if (version < known) {
        COUNT(c2);
        fprintf(stderr, "C2: key %d: %lld after %lld\n", key, (long long)version, (long long)known);
    }
    if (version > LOOK(db->word[key]))
        COUNT(future);
    if (next >> 40 == (uint64_t)(version + 1)) {
        int64_t age = (int64_t)((uint64_t)start & 0xFFFFFFFFFFULL) - (int64_t)(next & 0xFFFFFFFFFFULL);
        COUNT(checked_c6);
        if (age > MAX_STALENESS) {
            COUNT(c6);
            fprintf(stderr, "C6: key %d: version %lld was replaced %lld us before\n", key, (long long)version, (long long)age);
        }
    }
    returns(key, version);
}

/* Looks at all that writers keep. In a section. */
static int is_sound(const pgs_arena *a) {
    const pgs_arena_header *h = a->header;
    uint32_t n, live = 0, free_slots = 0, slab, i, blocks = 0, kept = 0;
    for (n = 0; n < h->slot_count; n++) {
        const pgs_entry *slot = &a->slots[n];
        uint32_t cell = a->links[n].cell;
        int key;
        if (!a->links[n].live) {
            if (!(slot->seq & 1))
                return 0;
            continue;
        }
        live++;
        key = key_of(slot->high);
        if (slot->seq & 1 || key < 0 || slot->low != low_of(key) ||
            (uint32_t)a->buckets[cell / PGS_CELLS].cell[cell % PGS_CELLS] != n + 1 ||
            pgs_arena_find(a, slot->high, slot->low) != n || ((pgs_block *)(void *)(a->base + slot->blob) - 1)->slot != n ||
            !content((unsigned char *)a->base + slot->blob, slot->length, key, slot->version, 0))
            return 0;
    }
    for (n = h->free_slot; n != PGS_NONE && free_slots <= h->slot_count; n = a->links[n].next_free)
        free_slots++;
    for (i = 0; i < PGS_CLASSES; i++)
        for (n = h->free_block[i]; n != PGS_NONE && blocks <= SIZE / 64; n = pgs_block_at(a, n)->next)
            blocks++;
    for (slab = 0; slab < h->slab_count; slab++)
        if (a->slab_states[slab].class_of != PGS_NONE) {
            kept += a->slab_states[slab].used;
            blocks -= PGS_SLAB / pgs_class_size[a->slab_states[slab].class_of] - a->slab_states[slab].used;
        }
    return live == h->live && live == kept && live + free_slots == h->slot_count && blocks == 0;
}

static void rare_things(void) {
    static __thread uint32_t cursor;
    int done = 1;
    do {
        view *v = enter();
        switch (random_number() % 4) {
        case 0:
            pgs_arena_expire(&v->a, &cursor, 0, 100);
            break;
        case 1:
            pgs_arena_clear(&v->a);
            done = tell(v, PGS_ALL_CHANGED, -1, 0, NULL, 0);
            break;
        case 2: /* S7: readers may say what they like */
            pgs_store(&v->a.slots[random_number() % v->a.header->slot_count].visited, (uint32_t)random_number());
            break;
        default:
            if (!is_sound(&v->a)) {
                COUNT(unsound);
                fprintf(stderr, "what writers keep is unsound\n");
            }
        }
        leave(v);
    } while (!done);
}

/* ---- leading ---- */

static int lock_file = -1;
static uint64_t leading;
static view *leading_in;
static int64_t next_look, told[KEYS];

static int number_byte(view *v, uint64_t number, short type, int command) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_len = 1};
    lock.l_start = (off_t)v->generation << 24 | (off_t)(number & 0xFFFFFF);
    return fcntl(lock_file, command, &lock) ? -1 : lock.l_type == F_UNLCK;
}

static int announce(view *v, int key, int64_t version) {
    if (is_gone(version))
        pgs_arena_discard(&v->a, high_of(key), low_of(key));
    else
        pgs_arena_discard_older(&v->a, high_of(key), low_of(key), version);
    return tell(v, is_gone(version) ? PGS_GONE : PGS_CHANGED, key, version, NULL, 0);
}

static void take_over(void) {
    view *v = LOOK(current);
    uint64_t number = pgs_arena_number(&v->a), mine;
    int64_t now = pgs_monotonic_us();
    int dead = number_byte(v, number, F_WRLCK, F_OFD_GETLK) == 1, key, alive;
    if (!dead && now < pgs_load(&v->a.header->beat) + BEAT_OVERDUE)
        return;
    v = enter();
    mine = pgs_arena_take_lead(&v->a, number, (uint32_t)getpid(), now, 1);
    if (mine)
        number_byte(v, mine, F_WRLCK, F_OFD_SETLK);
    leave(v);
    if (!mine)
        return;
    leading = mine;
    leading_in = v;
    COUNT(leaders);
    if (!dead)
        COUNT(deposed);
    pause_a_bit(); /* it listens from now on: leases of before are void, and what is there is compared */
    v = enter();
    alive = v == leading_in && pgs_arena_number(&v->a) == leading && tell(v, PGS_EPOCH, -1, 0, NULL, 0);
    if (alive)
        pgs_store_release(&v->a.line->state, PGS_LISTENING);
    for (key = 0; key < KEYS; key++)
        told[key] = LOOK(db->word[key]);
    leave(v);
    for (key = 0; alive && key < KEYS; key++) {
        v = enter();
        alive = v == leading_in && pgs_arena_number(&v->a) == leading && announce(v, key, told[key]);
        leave(v);
    }
    if (!alive)
        leading = 0;
}

static void lead(void) {
    int64_t version[KEYS], now = pgs_monotonic_us();
    int key, alive;
    view *v;
    if (leading && leading_in != LOOK(current))
        leading = 0;
    if (!leading) {
        if (now < next_look)
            return;
        next_look = now + 1000 + (int64_t)(random_number() % 2000);
        take_over();
        if (!leading)
            return;
        now = pgs_monotonic_us();
    }
    pgs_arena_beat(&leading_in->a, leading, now);
    for (key = 0; key < KEYS; key++)
        version[key] = LOOK(db->word[key]);
    pause_a_bit();
    v = enter();
    alive = v == leading_in;
    for (key = 0; alive && key < KEYS; key++)
        if (version[key] != told[key]) {
            alive = announce(v, key, version[key]);
            told[key] = version[key];
        }
    if (alive && pgs_arena_vouch(&v->a, leading, now + MAX_STALENESS, now, now, now ^ CLOCKS_DIFFER)) {
        if (pgs_arena_number(&v->a) != leading) { /* S6 */
            COUNT(s6);
            fprintf(stderr, "S6: a former leader has vouched\n");
        }
    } else
        alive = 0;
    leave(v);
    if (!alive) {
        number_byte(leading_in, leading, F_UNLCK, F_OFD_SETLK);
        leading = 0;
    }
}

/* ---- processes and their parent ---- */

typedef struct { uint64_t seed; int number; } start;

static void *thread_main(void *argument) {
    start *mine = argument;
    int i;
    state = mixed(mine->seed) | 1;
    thread_number = mine->number;
    while (!LOOK(db->stop)) {
        if (thread_number == 0)
            lead();
        for (i = 0; i < 20; i++) {
            int key = (int)(one_in(4) ? random_number() % KEYS : random_number() % 40);
            uint64_t what = random_number() % 2000;
            if (what < 80)
                update(key);
            else if (what < 82)
                change_owner(key, one_in(2));
            else if (what < 84)
                rare_things();
            else if (what < 100)
                commit(key); /* somebody else's: the leader tells of it */
            else
                checked_get(key);
        }
    }
    return NULL;
}

static void process_main(uint64_t seed, int number) {
    pthread_t thread[THREADS];
    start starts[THREADS];
    char path[256];
    int i;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    process_number = number;
    for (i = 0; i < L1_SIZE; i++)
        l1[i].bytes = malloc(ROOM);
    snprintf(path, sizeof path, "%s/numbers", folder);
    lock_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    use(attach());
    for (i = 0; i < THREADS; i++) {
        starts[i].seed = seed * THREADS + (uint64_t)i;
        starts[i].number = i;
        if (pthread_create(&thread[i], NULL, thread_main, &starts[i]))
            _exit(3);
    }
    for (i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    _exit(0);
}

static uint64_t born;
static pid_t start_process(uint64_t seed, int number) {
    pid_t pid;
    memset(db->holding[number], 0, sizeof db->holding[number]);
    born++;
    pid = fork();
    if (pid == 0)
        process_main(seed * 1000003 + born, number);
    return pid;
}

int main(int argc, char **argv) {
    pid_t pid[MOST];
    int64_t wake[MOST] = {0}, end;
    uint64_t seed, kills = 0, stops = 0, inside = 0, bad;
    int count, i, t, status, failed = 0;
    if (argc != 6)
        return 2;
    count = atoi(argv[2]) < MOST ? atoi(argv[2]) : MOST;
    seed = strtoull(argv[3], NULL, 10);
    folder = argv[5];
    db = mmap(NULL, sizeof *db, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (db == MAP_FAILED)
        return 2;
    db->crash_one_in = strtoull(argv[4], NULL, 10);
    for (i = 0; i < KEYS; i++)
        db->word[i] = 1;
    state = mixed(seed) | 1;
    end = pgs_monotonic_us() + (int64_t)(atof(argv[1]) * 1e6);
    for (i = 0; i < count; i++)
        pid[i] = start_process(seed, i);
    while (pgs_monotonic_us() < end && !failed) {
        uint64_t what = random_number() % 100;
        if (!db->crash_one_in || !one_in(db->crash_one_in / 300 + 1))
            what = 100; /* where crashes are rare, so is what the parent does */
        sleep_us(200 + random_number() % 2000);
        i = (int)(random_number() % (uint64_t)count);
        if (what < 30 && !wake[i]) {
            kill(pid[i], SIGKILL);
            kills++;
        } else if (what < 40 && !wake[i]) {
            kill(pid[i], SIGSTOP);
            stops++;
            wake[i] = pgs_monotonic_us() + 1000 + (int64_t)(random_number() % (one_in(8) ? 120000 : 20000));
        }
        for (i = 0; i < count; i++) {
            if (wake[i] && pgs_monotonic_us() > wake[i]) {
                kill(pid[i], SIGCONT);
                wake[i] = 0;
            }
            if (waitpid(pid[i], &status, WNOHANG) == pid[i]) {
                if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
                    failed = 1;
                    fprintf(stderr, "a process ended by itself: status %d\n", status);
                }
                for (t = 0; t < THREADS; t++)
                    if (db->holding[i][t]) {
                        inside++;
                        break;
                    }
                wake[i] = 0;
                pid[i] = start_process(seed, i);
            }
        }
    }
    db->stop = 1;
    for (i = 0; i < count; i++)
        kill(pid[i], SIGCONT);
    sleep_us(300000);
    for (i = 0; i < count; i++) {
        kill(pid[i], SIGKILL);
        waitpid(pid[i], NULL, 0);
    }
    current = attach();
    if (pgs_arena_lock(&current->a) >= 0 && !is_sound(&current->a)) {
        db->unsound++;
        fprintf(stderr, "the last arena is unsound\n");
    }
    bad = db->torn + db->c2 + db->c6 + db->future + db->s6 + db->clock + db->unsound + (uint64_t)failed;
#define SAY(name, value) printf("\"%s\": %llu, ", name, (unsigned long long)(value))
    printf("{");
    SAY("killed inside", inside);
    SAY("kills", kills);
    for (i = 0, kills = 0; i < POINTS; i++)
        kills += db->crashes[i];
    SAY("crashes", kills);
    SAY("stops", stops);
    SAY("processes", born);
    SAY("reads", db->reads);
    SAY("from L1", db->from_l1);
    SAY("from L2", db->from_l2);
    SAY("fills", db->fills);
    SAY("not kept", db->refused);
    SAY("updates", db->updates);
    SAY("owners", db->owners);
    SAY("leaders", db->leaders);
    SAY("deposed", db->deposed);
    SAY("given up", db->poisoned);
    SAY("resets", db->resets);
    SAY("overruns", db->overruns);
    SAY("evictions in the last", current->a.header->evictions);
    SAY("torn", db->torn);
    SAY("C2", db->c2);
    SAY("C6", db->c6);
    SAY("C6 checked", db->checked_c6);
    SAY("of the future", db->future);
    SAY("S6", db->s6);
    SAY("clock", db->clock);
    SAY("unsound", db->unsound);
    printf("\"crash points\": {");
    for (i = 0; i < POINTS; i++)
        printf("%s\"%d\": %llu", i ? ", " : "", i, (unsigned long long)db->crashes[i]);
    printf("}, \"bad\": %llu}\n", (unsigned long long)bad);
    return bad != 0;
}
