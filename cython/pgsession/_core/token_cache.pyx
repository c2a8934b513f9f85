"""The token cache has the tokens that were verified on this node before: what they say need not be computed again.

It is bounded, in two halves: a full young one becomes the old one, whose tokens are dropped unless they come again
meanwhile. Only verified tokens enter, so a flood of forged ones drives nothing out. Whether a token is still the
session's is for the record to say: nothing here is ever outdated.
"""

cimport cython

from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject

from pgsession._core.lock cimport PGS_FREE_THREADED, pgs_lock, pgs_unlock


@cython.final
@cython.no_gc
cdef class Verified:
    """Holds what a verified token says."""


@cython.final
cdef class TokenCache:
    """Holds at most `limit` verified tokens."""

    def __cinit__(self, Py_ssize_t limit):
        self.young = {}
        self.old = {}
        self.half = max(1, limit // 2)

    def __len__(self):
        return len(self.young) + len(self.old)

    cdef Verified find(self, str token):
        """Return what a token says, None if it is not in the cache."""
        if not PGS_FREE_THREADED:
            return self.known(token)
        pgs_lock(&self.mutex)
        try:
            return self.known(token)
        finally:
            pgs_unlock(&self.mutex)

    cdef Verified known(self, str token):
        """Return what a token says, under the mutex; one of the old half joins the young one."""
        cdef PyObject *found = PyDict_GetItemWithError(self.young, token)
        cdef Verified verified
        if found != NULL:
            return <Verified> found
        found = PyDict_GetItemWithError(self.old, token) if self.old else NULL
        if found == NULL:
            return None
        verified = <Verified> found
        self.keep(token, verified)
        return verified

    cdef Verified remember(self, str token, Key key, int64_t generation, int64_t version):
        """Put a verified token into the cache; return what it says."""
        cdef Verified verified = Verified.__new__(Verified)
        verified.key = key
        verified.generation = generation
        verified.version = version
        dropped = None
        pgs_lock(&self.mutex)
        try:
            dropped = self.keep(token, verified)
        finally:
            pgs_unlock(&self.mutex)
        return verified

    cdef dict keep(self, str token, Verified verified):
        """Put a token into the young half, under the mutex; return the half that is dropped for it."""
        cdef dict dropped = None
        if len(self.young) >= self.half:
            dropped = self.old
            self.old = self.young
            self.young = {}
        self.young[token] = verified
        return dropped
