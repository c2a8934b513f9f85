# cython: freethreading_compatible=True
"""Evicted accesses are still to be written, though their session has left the cache."""

cimport cython


@cython.final
cdef class EvictedAccesses:
    """Holds the database times of accesses by session key, at most `limit` of them; a time never moves back (C11).

    Beyond the limit those that were noted longest ago are given up: a database that takes no writes must not fill the
    memory of its clients.
    """

    def __cinit__(self, Py_ssize_t limit):
        self.limit = limit
        self.owners = {}
        self.times = {}

    def __len__(self):
        return len(self.owners)

    cdef int note(self, bytes key, int64_t us, object user_id) except -1:
        """Note an access of a session; `user_id` is None where it is not known."""
        cdef int64_t before = self.pop(key)
        cdef dict times = self.times.setdefault(user_id, {})
        times[key] = max(us, before)
        self.owners[key] = user_id
        if len(self.owners) > self.limit:       # many at once: the first of a dict is slow to find after deletions
            self.given_up += len(self.take(self.limit // 16 + 1))
        return 0

    cdef int64_t pop(self, bytes key) except -1:
        """Take out the time that is noted for a key, and return it; 0 for none."""
        if key not in self.owners:
            return 0
        user_id = self.owners.pop(key)
        cdef dict times = self.times[user_id]
        cdef int64_t us = times.pop(key)
        if not times:
            del self.times[user_id]
        return us

    cdef list take(self, Py_ssize_t limit):
        """Take out at most `limit` accesses, those noted longest ago first; return pairs of key and time."""
        cdef list keys = []
        for key in self.owners:
            if len(keys) >= limit:
                break
            keys.append(key)
        return [(key, self.pop(key)) for key in keys]

    cdef list of_user(self, str user_id):
        """Return the pairs of key and time of a user's accesses."""
        return list(self.times.get(user_id, {}).items())
