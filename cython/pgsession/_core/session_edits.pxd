from libc.stdint cimport int64_t, uint32_t

from cpython.object cimport PyObject

from cpython.unicode cimport PyUnicode_CheckExact

from pgsession._core.cache cimport Cache
from pgsession._core.clock cimport recent
from pgsession._core.record cimport Record, expiry_of, is_live, place_of


cdef enum:
    SHORT = 8                   # edits in a chain; more are in a dict
    INSTANT = 1_000_000         # for so long what an iteration has named is still there, see begin_iteration()

cdef enum Kind:
    READ
    SET
    DELETED


cdef class Edit:
    cdef Kind kind
    cdef readonly str key
    cdef Edit following         # of another attribute
    cdef object type            # that it was read as; Any for what was set; HELD for what was set or changed and saved
    cdef object value
    cdef bytes before           # its encoding when it was made, None: to be had by decoding what is stored
    cdef bytes source           # what it was decoded from, where that was not what is stored
    cdef Edit next              # another object for the same attribute, read later as another type
    cdef bytes encoded          # SET, of an immutable value
    cdef bytes sealed           # what the codec has made of an encoding, to be stored;
    cdef bytes sealed_of        # and of which
    cdef int64_t expires_at     # SET; 0: never
    cdef int64_t base           # version of the attribute that this is based on; 0: there was none


cdef class SessionState:
    cdef PyObject *record       # a Record; both are references of our own
    cdef PyObject *cache        # a Cache
    cdef object lone            # a mutable value that is all that this session has of its own, see settle(); or None
    cdef str lone_key           # of which attribute it is,
    cdef int64_t lone_base      # and of which version of that
    cdef Edit first             # what this session has of its own, None: nothing; see edits_of()
    cdef dict edits
    cdef int64_t accessed
    cdef readonly bint from_cache
    cdef bint invalidated
    cdef bint by_older_token    # it was opened by, or its record has been rotated since: no token is given for it
    cdef bint tracked           # by the garbage collector: it has something of its own, or had
    cdef uint32_t passed        # for popitem(): so many of the record's last attributes are known to be gone
    cdef bint nothing_added     # and no attribute is known that the record has not
    cdef int64_t iterated_at    # database time at which the last iteration began, where attributes may expire; 0: none


cdef inline Record record_of(SessionState session):
    return <Record> session.record


cdef inline Cache cache_of(SessionState session):
    return <Cache> session.cache


cdef inline int64_t now_of(SessionState session) noexcept:
    cdef PyObject *cache = session.cache
    return recent((<Cache> cache).clock) + (<Cache> cache).clock.offset + (<Cache> cache).clock.lag


cdef str plain_key(object key)

cdef bint was_named(SessionState session, int64_t expires_at) noexcept

cdef inline str known_key(object key):
    """Return the key as exactly a str, or None for what is no key."""
    return <str> key if PyUnicode_CheckExact(key) else plain_key(key)


cdef inline Py_ssize_t live_place(SessionState session, Record record, object key) noexcept:
    """Return the place of a live attribute of this key in the record, or -1. This runs no other code."""
    cdef Py_ssize_t place = place_of(record, key)
    if place >= 0 and record.expiring and not is_live(record, <uint32_t> place, now_of(session)):
        return place if was_named(session, expiry_of(record, <uint32_t> place)) else -1
    return place


cdef inline bint is_set(SessionState session, Edit edit) noexcept:
    """Return True for a value that was set and is live."""
    return edit.kind == SET and (
        edit.expires_at == 0 or now_of(session) < edit.expires_at or was_named(session, edit.expires_at)
    )


cdef int begin_iteration(SessionState session) except -1
cdef int usable(SessionState session) except -1
cdef int track(SessionState session) except -1
cdef int note_older_token(SessionState session) except -1
cdef Edit new_edit(Kind kind, str key, object type_, object value)
cdef int add_view(Edit edit, Edit view) except -1
cdef Edit edit_of(SessionState session, object key)
cdef list edits_of(SessionState session)
cdef int make_room(SessionState session) except -1
cdef int keep_edit(SessionState session, Edit edit) except -1
cdef int drop_edit(SessionState session, object key) except -1
cdef int replace(SessionState session, Record record, list before, list after, dict by_key) except -1
