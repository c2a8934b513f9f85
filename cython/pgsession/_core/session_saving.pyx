"""A save consists of what there is to write, and of what is left of the session's edits once that is written.

Both encode the caller's values, which can run other code. What is to be written is collected from one record and the
edits on it; what is left is worked out on the side and put in place at once, if the session has not changed meanwhile.
"""

cimport cython
from libc.stdint cimport uint32_t

from cpython.object cimport PyObject

from pgsession._core.session_edits cimport (
    DELETED, READ, SET, SHORT, add_view, edits_of, is_current, live_place, new_edit, record_of, replace,
)
from pgsession._core.session_nested_changes cimport current_value, found_in, nested_change
from pgsession._core.record cimport expiry_of, place_of, versions_of
from pgsession._core.values cimport reencode

from typing import Any

cdef object ANY = Any
cdef enum:
    TRIES = 100


@cython.final
cdef class Changes:
    """Holds what an update has to write.

    `sets` are (key, JSON, expires_at or None, base version), `deletes` are (key, base version). Base version 0: the
    caller's record had no such attribute.
    """

    def __cinit__(self):
        self.sets = []
        self.deletes = []
        self.taken = []


@cython.final
cdef class Part:
    """Holds the part of one attribute in what is being saved."""


# ---- what is to be written ----

cdef Changes changes_of(SessionState session):
    """Return what is to be written, or None; nested changes of what was read are found here."""
    cdef Changes changes = Changes()
    cdef list edits = []
    cdef Record record = edits_and_record(session, edits)
    cdef Edit edit
    for edit in edits:
        collect(session, record, changes, edit)
    return changes if changes.taken else None


cdef Record edits_and_record(SessionState session, list edits):
    """Return the record, and put the edits on it into the list."""
    cdef Record record
    cdef list found
    while True:
        record = record_of(session)
        found = edits_of(session)
        if session.record == <PyObject *> record:
            edits[:] = found
            return record


cdef int collect(SessionState session, Record record, Changes changes, Edit edit) except -1:
    cdef Part part = Part.__new__(Part)
    cdef int64_t expires_at = edit.expires_at
    cdef Py_ssize_t place
    part.key = edit.key
    part.edit = edit
    if edit.kind == DELETED:
        changes.deletes.append((edit.key, edit.base))
    elif edit.kind == SET:
        part.found = current_value(session, edit)
    else:
        place = live_place(session, record, edit.key)
        part.found = None if place < 0 else nested_change(session, record, <uint32_t> place, edit)
        if part.found is None:
            return 0
        expires_at = expiry_of(record, <uint32_t> place)
    if part.found is not None:
        changes.sets.append((edit.key, part.found.encoded, expires_at or None, edit.base))
    changes.taken.append(part)
    return 0


# ---- what is left ----

cdef int become(SessionState session, Changes changes, Record record, int64_t accessed) except -1:
    """Make the session the saved version. Only what is in `changes` is no longer to be saved."""
    cdef dict taken = parts_by_key(changes)
    cdef list before = [], after
    cdef dict by_key
    cdef Record old
    cdef Edit edit
    cdef int tried
    for tried in range(TRIES):
        old = edits_and_record(session, before)
        after = left_of(session, old, before, taken, record)
        by_key = {edit.key: edit for edit in after} if len(after) > SHORT else None
        if is_current(session, old, before):
            replace(session, record, before, after, by_key)
            session.accessed = max(session.accessed, accessed)
            return 0
    raise RuntimeError(f"the session was changed each of the {TRIES} times that its values were encoded")


cdef dict parts_by_key(Changes changes):
    cdef dict parts = {}
    cdef Part part
    if changes is not None:
        for part in changes.taken:
            parts[part.key] = part
    return parts


cdef list left_of(SessionState session, Record old, list before, dict taken, Record record):
    """Return the edits that stay after a save, without changing one of those before."""
    cdef dict known = {edit.key: edit for edit in before}
    cdef list after = []
    cdef Edit left
    for key in {**known, **taken}:
        left = after_save(session, old, record, key, known.get(key), taken.get(key))
        if left is not None:
            after.append(left)
    return after


cdef Edit after_save(SessionState session, Record old, Record record, str key, Edit edit, Part part):
    """Return what is left of an edit after a save; `part` is what the save took of it, or None."""
    cdef Py_ssize_t place = place_of(record, key)
    if part is None or edit is not None and edit.kind == READ and part.edit is not edit:
        return unsaved(session, old, record, edit, place)
    if part.edit is edit:
        if part.found is None or place < 0 or edit.encoded is not None:
            return None
        return still_held(record, <uint32_t> place, edit, part.found)
    if edit is None:            # set, saved, and deleted while it was being saved
        return None if place < 0 else based_on(new_edit(DELETED, key, ANY, None), versions_of(record)[place])
    if edit.kind == DELETED and place < 0:
        return None
    return based_on(edit, versions_of(record)[place] if place >= 0 else 0)     # changed again, on our own version


cdef Edit based_on(Edit edit, int64_t base):
    cdef Edit again = new_edit(edit.kind, edit.key, edit.type, edit.value)
    again.before = edit.before
    again.source = edit.source
    again.next = edit.next
    again.encoded = edit.encoded
    again.expires_at = edit.expires_at
    again.base = base
    return again


cdef Edit unsaved(SessionState session, Record old, Record record, Edit edit, Py_ssize_t place):
    """Return what is left of an edit that was not part of the save.

    A pending change stays, based on what it was based on.
    """
    cdef Found found
    cdef Edit pending
    cdef Py_ssize_t before
    if edit.kind != READ:
        return edit
    if place >= 0 and versions_of(record)[place] == edit.base:
        return edit             # the same value (C4)
    before = live_place(session, old, edit.key)
    if before < 0:
        return None
    try:
        found = nested_change(session, old, <uint32_t> before, edit)
    except Exception:           # the save is done; the next one will tell the caller
        found = found_in(edit, None)
    if found is None:
        return None             # somebody else's value takes the place of what was only read
    pending = new_edit(SET, edit.key, ANY, found.view.value)
    pending.base = edit.base
    pending.expires_at = expiry_of(old, <uint32_t> before)
    return pending


cdef Edit still_held(Record record, uint32_t place, Edit edit, Found found):
    """Return the objects that say what was saved as something read, as saved: the caller may go on changing them."""
    cdef Edit first = None
    cdef Edit view = edit
    cdef Edit held
    while view is not None:
        if view is found.view or reencode(view.value) == found.encoded:
            held = new_edit(READ, edit.key, view.type, view.value)
            held.base = versions_of(record)[place]
            held.before = found.encoded
            if first is None:
                first = held
            else:
                add_view(first, held)
        view = view.next
    return first
