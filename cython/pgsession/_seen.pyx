"""Tokens that were verified on this node before: what they say need not be computed again.

Bounded in two generations: a full young one becomes the old one, whose tokens are forgotten unless they come again
meanwhile. Only verified tokens enter, so a flood of forged ones drives nothing out.
"""

cimport cython

from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject

from pgsession._lock cimport PGS_FREE_THREADED, pgs_lock, pgs_unlock


@cython.final
@cython.no_gc
cdef class Proven:
    """What a verified token says."""


@cython.final
cdef class Seen:
    def __cinit__(self, Py_ssize_t limit):
        self.young = {}
        self.old = {}
        self.half = max(1, limit // 2)

    def __len__(self):
        return len(self.young) + len(self.old)

    cdef Proven find(self, str token):
        if not PGS_FREE_THREADED:
            return self.known(token)
        pgs_lock(&self.mutex)
        try:
            return self.known(token)
        finally:
            pgs_unlock(&self.mutex)

    cdef Proven known(self, str token):
        cdef PyObject *found = PyDict_GetItemWithError(self.young, token)
        cdef Proven proven
        if found != NULL:
            return <Proven> found
        found = PyDict_GetItemWithError(self.old, token) if self.old else NULL
        if found == NULL:
            return None
        proven = <Proven> found
        self.keep(token, proven)
        return proven

    cdef Proven remember(self, str token, Key key, int64_t version):
        cdef Proven proven = Proven.__new__(Proven)
        proven.key = key
        proven.version = version
        forgotten = None
        pgs_lock(&self.mutex)
        try:
            forgotten = self.keep(token, proven)
        finally:
            pgs_unlock(&self.mutex)
        return proven

    cdef dict keep(self, str token, Proven proven):
        """Returns a generation that is forgotten for it."""
        cdef dict forgotten = None
        if len(self.young) >= self.half:
            forgotten = self.old
            self.old = self.young
            self.young = {}
        self.young[token] = proven
        return forgotten
