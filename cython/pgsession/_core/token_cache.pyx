"""The token cache has the tokens that were verified on this node before: what they say need not be computed again.

It is bounded, in two halves: a full young one becomes the old one, whose tokens are dropped unless they come again
meanwhile. Only verified tokens enter, so a flood of forged ones drives nothing out. Whether a token is still the
session's is for the record to say: nothing here is ever outdated.

A token comes as a fresh str in each request, of which no hash is known yet. Sixteen characters of its MAC are as good as one: a keyed
hash of them finds the token, and all of it is compared.
"""

cimport cython
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from pgsession._core.lock cimport pgs_lock, pgs_unlock

from secrets import randbits

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    void *PyUnicode_1BYTE_DATA(object text)
cdef extern from "table.h" nogil:
    uint32_t pgs_hash(const uint64_t *seed, uint64_t high, uint64_t low)
    uint32_t pgs_tag(uint64_t cell)
    int pgs_index_reserve(pgs_index *index)
    void pgs_index_add(pgs_index *index, uint32_t tag, uint32_t slot)
    void pgs_lines_free(void *memory)

cdef enum:
    MAC = 56                    # where two words of it begin
    FEWEST = 16                 # entries that there is room for at first


@cython.final
cdef class TokenCache:
    """Holds at most `limit` verified tokens."""

    def __cinit__(self, Py_ssize_t limit):
        self.half = <uint32_t> max(1, min(limit // 2, 0x7FFF_FFFF))
        self.seed[0] = randbits(64)
        self.seed[1] = randbits(64)

    def __dealloc__(self):
        release(&self.young)
        release(&self.old)

    cdef bint find(self, str token, Verified *says) noexcept:
        """Return True for a token that is in the cache, and what it says; one of the old half joins the young one."""
        cdef const char *text = text_of(token)
        cdef uint32_t tag
        cdef const Entry *found
        if text == NULL:
            return False
        tag = tag_of(self, text)
        pgs_lock(&self.mutex)
        found = entry_of(&self.young, tag, text)
        if found == NULL:
            found = entry_of(&self.old, tag, text)
            if found == NULL:
                pgs_unlock(&self.mutex)
                return False
            says[0] = found.says
            keep(self, tag, text, says)             # where there is no memory for it, it stays in the old half
        else:
            says[0] = found.says
        pgs_unlock(&self.mutex)
        return True

    cdef int remember(self, str token, const Verified *says) except -1:
        """Put a verified token into the cache, if it looks like one of ours."""
        cdef const char *text = text_of(token)
        cdef bint kept = True
        if text == NULL:
            return 0
        pgs_lock(&self.mutex)
        kept = keep(self, tag_of(self, text), text, says)
        pgs_unlock(&self.mutex)
        if not kept:
            raise MemoryError
        return 0


cdef inline const char *text_of(str token) noexcept:
    """Return the characters of a token, or null for what cannot be one."""
    if PyUnicode_GET_LENGTH(token) != CHARACTERS or not PyUnicode_IS_COMPACT_ASCII(token):
        return NULL
    return <const char *> PyUnicode_1BYTE_DATA(token)


cdef inline uint32_t tag_of(TokenCache self, const char *text) noexcept:
    cdef uint64_t words[2]
    memcpy(words, text + MAC, sizeof(words))
    return pgs_hash(self.seed, words[0], words[1])


cdef inline const Entry *entry_of(const Half *half, uint32_t tag, const char *text) noexcept:
    """Return the entry of a token in one half, or null."""
    cdef uint64_t at, cell
    cdef const Entry *entry
    if half.count == 0:
        return NULL
    at = tag & half.index.mask
    while True:
        cell = half.index.cells[at]
        if cell == 0:
            return NULL
        if pgs_tag(cell) == tag:
            entry = &half.entries[<uint32_t> cell - 1]
            if memcmp(entry.text, text, CHARACTERS) == 0:
                return entry
        at = (at + 1) & half.index.mask


cdef bint keep(TokenCache self, uint32_t tag, const char *text, const Verified *says) noexcept:
    """Put a token into the young half, under the mutex; return False where there is no memory for it."""
    cdef Half *young = &self.young
    cdef Entry *entries
    cdef uint32_t room
    if young.count >= self.half:
        release(&self.old)
        self.old = young[0]
        memset(young, 0, sizeof(Half))
    if young.count == young.room:
        room = min(max(<uint32_t> FEWEST, 2 * young.room), self.half)
        entries = <Entry *> realloc(young.entries, room * sizeof(Entry))
        if entries == NULL:
            return False
        young.entries = entries
        young.room = room
    if pgs_index_reserve(&young.index):
        return False
    memcpy(young.entries[young.count].text, text, CHARACTERS)
    young.entries[young.count].says = says[0]
    young.count += 1
    pgs_index_add(&young.index, tag, young.count)
    return True


cdef void release(Half *half) noexcept:
    pgs_lines_free(half.index.cells)
    free(half.entries)
    memset(half, 0, sizeof(Half))
