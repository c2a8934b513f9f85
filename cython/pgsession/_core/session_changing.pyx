"""An attribute that is set or deleted is a pending change of the session until that is saved."""

from libc.stdint cimport int64_t, uint32_t

from cpython.object cimport PyObject

from pgsession._core.clock cimport expiry
from pgsession._core.coding cimport encoding_of, is_sealing, sealed
from pgsession._core.session_edits cimport (
    DELETED, SET, Edit, cache_of, drop_edit, edit_of, keep_edit, make_room, new_edit, now_of, usable,
)
from pgsession._core.record cimport Record, is_live, place_of, version_of
from pgsession._core.values cimport checked_key, is_plain

from typing import Any

from pgsession.attribute import Attribute

cdef object ANY = Any

cdef extern from "Python.h":
    bint PyUnicode_CheckExact(object)
    object PyUnicode_FromObject(object)


cdef int put(SessionState session, object key, object value, int64_t expires_at) except -1:
    """Set an attribute, checked and encoded; `expires_at`: when it ends, in database time, 0: with the session."""
    usable(session)
    if not PyUnicode_CheckExact(key) and isinstance(key, str):
        key = PyUnicode_FromObject(key)
    cdef str checked = checked_key(key)
    if type(value) is Attribute:
        if value.expires_at is not None:
            expires_at = expiry(cache_of(session).clock, value.expires_at, None)
        value = value.value
    cdef bytes encoded = encoding_of(session, checked, value)
    cdef Edit edit = new_edit(SET, checked, ANY, value)
    edit.encoded = encoded if is_plain(value) else None
    edit.expires_at = expires_at
    if is_sealing(session):
        sealed(session, edit, encoded)
    return change(session, edit)


cdef int delete_attribute(SessionState session, str key) except -1:
    """Delete an attribute that is there. Of one that was never stored, nothing is left to be saved."""
    if base_of(session, key) == 0 and edit_of(session, key) is not None:
        return drop_edit(session, key)
    return change(session, new_edit(DELETED, key, ANY, None))


cdef int change(SessionState session, Edit edit) except -1:
    make_room(session)
    edit.base = base_of(session, edit.key)
    if edit.kind == SET:
        note_set(session, edit.key)
    return keep_edit(session, edit)


cdef int64_t base_of(SessionState session, str key) except -1:
    """Return the version that a change of `key` is based on: that which this object has read, or its record's.

    An attribute that is not served any more, and may still be there by the database's clock, has its version.
    """
    cdef Edit edit = edit_of(session, key)
    cdef PyObject *record = session.record
    cdef Py_ssize_t place
    if edit is not None:
        return edit.base
    place = place_of(<Record> record, key)
    if place < 0 or not is_live(<Record> record, <uint32_t> place, now_of(session) - 2 * cache_of(session).clock.lag):
        return 0
    return version_of(<Record> record, place)


cdef void note_set(SessionState session, str key) noexcept:
    """Note for last_key() that an attribute is set, which it may have known to be gone."""
    cdef PyObject *record = session.record
    cdef Py_ssize_t place, gone
    session.nothing_added = False
    if session.passed:
        place = place_of(<Record> record, key)
        gone = <Py_ssize_t> (<Record> record).count - 1 - place
        if place >= 0 and gone < <Py_ssize_t> session.passed:
            session.passed = <unsigned int> gone
