/* A file in memory, shared with other processes; where there are no arenas none is mapped. */
#ifndef PGSESSION_MAPPING_H
#define PGSESSION_MAPPING_H

#include <stddef.h>
#include <stdint.h>

#if defined(__linux__)

#include <sys/mman.h>

/* Returns NULL with errno set. */
static inline void *pgs_map(int file, uint64_t size) {
    void *base = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return base == MAP_FAILED ? NULL : base;
}

static inline void pgs_unmap(void *base, uint64_t size) { (void)munmap(base, (size_t)size); }

#else

static inline void *pgs_map(int file, uint64_t size) {
    (void)file;
    (void)size;
    return NULL;
}

static inline void pgs_unmap(void *base, uint64_t size) {
    (void)base;
    (void)size;
}

#endif
#endif
