"""A nested change is one that a caller has made inside of a value that was read or set.

A value is encoded and compared with its encoding before. The functions here run the caller's code (encoding and decoding
do), which may save the session meanwhile: they are given the record that a value was read from, and look at no other.
"""

cimport cython

from pgsession._core.coding cimport comparable, encoding_of
from pgsession._core.record cimport value_of
from pgsession._core.values cimport decode_plain, decode_typed, plan_of, reencode

from typing import Any

cdef object ANY = Any


@cython.final
cdef class Found:
    """Holds what an attribute is now, and which of a caller's objects says so."""


cdef Found found_in(Edit view, bytes encoded):
    cdef Found found = Found.__new__(Found)
    found.view = view
    found.encoded = encoded
    return found


cdef bint says(Found found, Edit view) noexcept:
    """Return True if this object, perhaps with others, says what an attribute is now."""
    cdef Found look = found
    while look is not None:
        if look.view is view:
            return True
        look = look.alike
    return False


cdef Found nested_change(SessionState session, Record record, uint32_t place, Edit edit):
    """Return the value that was read of this record and has changed since; None if it has not."""
    cdef Found found = None
    cdef Edit view = edit
    cdef bytes before
    while view is not None:
        before = encoded_before(record, place, edit.key, view)
        found = newest(found, view, encoded_if_changed(session, edit.key, view, before), edit.key)
        view = view.next
    return found


cdef Found current_value(SessionState session, Edit edit):
    """Return the value that was set as it is now.

    A mutable value may have changed since, also through a view of another type.
    """
    if edit.encoded is not None and edit.next is None:
        return found_in(edit, edit.encoded)
    cdef str key = edit.key
    cdef Found found = found_in(edit, encoding_of(session, key, edit.value))
    cdef Edit view = edit.next
    while view is not None:
        found = newest(found, view, encoded_if_changed(session, key, view, view.before), key)
        view = view.next
    return found


cdef bytes encoded_before(Record record, uint32_t place, str key, Edit view):
    """Return the encoding of a value as it was when it was read.

    The stored bytes may differ from it: psql may have spaced them otherwise, and a type may leave fields out. (With a
    codec it is known, so that nothing is opened twice.)
    """
    if view.before is None:
        if view.type is ANY:
            view.before = reencode(decode_plain(record, place))
        else:
            view.before = reencode(decode_typed(key, value_of(record, place), plan_of(view.type)))
    return view.before


cdef bytes encoded_if_changed(SessionState session, str key, Edit view, bytes before):
    """Return the encoding of a value that has changed, or None.

    It is checked as when it is set, but only if it has changed: what was only read is never refused.
    """
    try:
        if comparable(session, key, view.value) == before:
            return None
    except Exception:
        pass                    # encode() says it by the attribute's name
    return encoding_of(session, key, view.value)


cdef Found newest(Found found, Edit view, bytes changed, str key):
    """Return what the views up to this one say; a view that was made from an earlier one may differ from that."""
    if changed is None:
        return found
    if found is not None and found.encoded != changed and found.encoded != view.source:
        raise ValueError(f"attribute {key!r} was changed in two ways, through values read as different types")
    cdef Found now = found_in(view, changed)
    if found is not None and found.encoded == changed:
        now.alike = found
    return now
