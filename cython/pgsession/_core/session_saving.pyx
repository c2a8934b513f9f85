"""A save consists of what there is to write, and of what is left of the session's edits once that is written.

To find out what there is to write the caller's values are encoded, which can run other code: it is collected from one
record and the edits on it. Once it is written nothing may fail any more. So what is left is worked out and put in place
without any other code: no value is encoded, and no collection of garbage begins. Only then, one by one and each with the
save in place, are the values looked at that were read before and of which somebody else has stored another one.
"""

cimport cython
from libc.stdint cimport uint32_t

from cpython.object cimport PyObject

from pgsession._core.session_changing cimport note_set
from pgsession._core.session_edits cimport (
    DELETED, READ, SET, SHORT, add_view, cache_of, edit_of, edits_of, keep_edit, live_place, make_room, new_edit, note_older_token,
    now_of, record_of, replace,
)
from pgsession._core.session_nested_changes cimport current_value, nested_change, says
from pgsession._core.cache cimport Cache
from pgsession._core.coding cimport is_sealing, sealed
from pgsession._core.record cimport expiry_of, is_live, place_of, text_size, value_of, values_size, version_of
from pgsession._core.values cimport is_plain

from typing import Any

from pgsession._core.session_edits import HELD
from pgsession.errors import SessionTooLargeError, TooManyAttributesError

cdef extern from "Python.h":
    bint PyGC_Disable()
    bint PyGC_Enable()

cdef object ANY = Any
cdef object SAVED = HELD
cdef int64_t NOWHERE = -1               # the base of a change that is based on another incarnation: no version there is


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
    changes.record = record
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


cdef int seal_changes(SessionState session, Changes changes) except -1:
    """Put what the codec makes of each value in its place."""
    cdef list sets = []
    cdef dict parts
    cdef Part part
    if not is_sealing(session):
        return 0
    parts = parts_by_key(changes)
    for key, encoded, expires_at, base in changes.sets:
        part = parts[key]
        sets.append((key, sealed(session, part.edit, encoded), expires_at, base))
    changes.sets = sets
    return 0


# ---- whether the session may grow so ----

cdef int check_limits(SessionState session, Changes changes) except -1:
    """Refuse changes by which the session grows beyond its limits, as far as this node knows it.

    One that is beyond them already may shrink, and change as long as it does not grow. What has expired does not count.
    """
    cdef Cache cache = cache_of(session)
    cdef Record record = changes.record
    cdef int64_t size = 0, count = 0        # by how much it grows
    cdef Py_ssize_t place
    for key, encoded, _, _ in changes.sets:
        place = live_place(session, record, key)
        size += len(<bytes> encoded)
        if place >= 0:
            size -= value_of(record, <uint32_t> place).length
        else:
            size += text_size(<str> key)
            count += 1
    for key, _ in changes.deletes:
        place = live_place(session, record, key)
        if place >= 0:
            size -= text_size(<str> key) + value_of(record, <uint32_t> place).length
            count -= 1
    if count > 0 and count + live_count(session, record) > cache.max_attributes:
        raise TooManyAttributesError(count + live_count(session, record), cache.max_attributes)
    if size > 0 and size + live_size(session, record) > cache.max_session_size:
        raise SessionTooLargeError(size + live_size(session, record), cache.max_session_size)
    return 0


cdef int64_t live_count(SessionState session, Record record) noexcept:
    cdef int64_t now, count = 0
    cdef uint32_t place
    if not record.expiring:
        return record.count
    now = now_of(session)
    for place in range(record.count):
        count += is_live(record, place, now)
    return count


cdef int64_t live_size(SessionState session, Record record) except -1:
    """Return the bytes of the keys and values of the live attributes."""
    cdef int64_t now, size = record.shape.size + values_size(record)
    cdef uint32_t place
    if not record.expiring:
        return size
    now = now_of(session)
    for place in range(record.count):
        if not is_live(record, place, now):
            size -= text_size(<str> record.shape.keys[place]) + value_of(record, place).length
    return size


# ---- what is left ----

@cython.final
cdef class Saved:
    """Holds what a save takes out of a session and puts in; all of it is released when the save is in place."""
    cdef Record base            # the record that the changes were collected on
    cdef Record old             # the record before, another one where another save was in between
    cdef list before            # the edits on it
    cdef list after             # those that stay
    cdef list outdated          # those that were read, and of which the new record has another value
    cdef bint elsewhere         # the new record is of another incarnation: the versions of before say nothing


cdef int become(SessionState session, Changes changes, Record record, int64_t accessed, bint rotated) except -1:
    """Make the session the saved version. Only what is in `changes` is no longer to be saved.

    Where somebody else has rotated the session meanwhile, its current token is not for who has this object. What is in
    place afterwards counts, for two saves of one object may be told in another order than they were made in.
    """
    cdef Saved saved = Saved.__new__(Saved)
    cdef Record placed
    cdef bint collects = PyGC_Disable()
    try:
        put_in_place(session, changes, record, saved)
    finally:
        if collects:
            PyGC_Enable()
    session.accessed = max(session.accessed, accessed)
    placed = record_of(session)
    if rotated and placed.generation == record.generation:
        session.by_older_token = False
    elif placed.generation != saved.old.generation:
        note_older_token(session)
    return keep_changes(session, saved)


cdef int put_in_place(SessionState session, Changes changes, Record record, Saved saved) except -1:
    """Put the saved record and what is left of the edits in place. This runs no other code."""
    cdef dict by_key
    cdef Edit edit
    saved.old = record_of(session)
    saved.base = saved.old if changes is None else changes.record
    if saved.old is not saved.base and saved.old.incarnation == record.incarnation and saved.old.version > record.version:
        record = saved.old      # a later save of this object was faster: it has what this one has saved
    saved.elsewhere = saved.old.incarnation != record.incarnation
    saved.before = edits_of(session)
    saved.after = []
    saved.outdated = []
    leave(saved, parts_by_key(changes), record)
    by_key = {edit.key: edit for edit in saved.after} if len(saved.after) > SHORT else None
    return replace(session, record, saved.before, saved.after, by_key)


cdef dict parts_by_key(Changes changes):
    cdef dict parts = {}
    cdef Part part
    if changes is not None:
        for part in changes.taken:
            parts[part.key] = part
    return parts


cdef int leave(Saved saved, dict taken, Record record) except -1:
    """Find out which edits stay after a save, and which are outdated, without changing one of those before."""
    cdef dict known = {edit.key: edit for edit in saved.before}
    cdef Edit edit, left
    cdef Part part
    for key in {**known, **taken}:
        edit, part = known.get(key), taken.get(key)
        if edit is not None and edit.kind == READ and (part is None or part.edit is not edit):
            left = edit if not saved.elsewhere and is_stored(record, edit) else None
            if left is None:
                saved.outdated.append(edit)
        else:
            left = after_save(saved, record, key, edit, part)
        if left is not None:
            saved.after.append(left)
    return 0


cdef bint is_stored(Record record, Edit edit) noexcept:
    """Return True if the record has the very value that was read (C4)."""
    cdef Py_ssize_t place = place_of(record, edit.key)
    return place >= 0 and version_of(record, place) == edit.base


cdef Edit after_save(Saved saved, Record record, str key, Edit edit, Part part):
    """Return what is left of an edit after a save; `part` is what the save took of it, or None."""
    cdef Py_ssize_t place = place_of(record, key)
    if part is None:
        # A pending change stays, based on what it was based on.
        return based_on(edit, NOWHERE) if saved.elsewhere else edit
    if part.edit is edit:
        return None if part.found is None or place < 0 else still_held(version_of(record, place), edit, part.found)
    if edit is None:
        if place < 0 or part.found is None or was_saved_twice(saved, key):
            return None
        return based_on(new_edit(DELETED, key, ANY, None), version_of(record, place))     # deleted while it was saved
    if edit.kind == DELETED and place < 0:
        return None
    return based_on(edit, version_of(record, place) if place >= 0 else 0)     # changed again, on our own version


cdef bint was_saved_twice(Saved saved, str key) noexcept:
    """Return True where another save, which is in place already, has saved the same change."""
    return saved.old is not saved.base and place_of(saved.old, key) >= 0


cdef Edit based_on(Edit edit, int64_t base):
    cdef Edit again = new_edit(edit.kind, edit.key, edit.type, edit.value)
    again.before = edit.before
    again.source = edit.source
    again.next = edit.next
    again.encoded = edit.encoded
    again.expires_at = edit.expires_at
    again.base = base
    return again


cdef Edit still_held(int64_t version, Edit edit, Found found):
    """Return the objects that say what was saved as something read: the caller may go on changing them.

    What a caller has set or changed is HELD: it is not known whether others read the same, see give_view().
    """
    cdef Edit first = None
    cdef Edit view = edit
    cdef Edit held
    cdef bytes before
    while view is not None:
        before = said(found, view)
        if before is not None and not is_plain(view.value):
            held = new_edit(READ, edit.key, SAVED if says(found, view) else view.type, view.value)
            held.base = version
            held.before = before
            if first is None:
                first = held
            else:
                add_view(first, held)
        view = view.next
    return first


cdef bytes said(Found found, Edit view):
    """Return the encoding of an object as it was when it said what was saved; None for one that says something older."""
    if says(found, view):
        return found.encoded
    return view.before if view.source is not None and view.source == found.encoded else None


# ---- what was read and is outdated ----

cdef int keep_changes(SessionState session, Saved saved) except -1:
    """Make pending what the caller has changed in values that are outdated now.

    What was only read gives way to the value that somebody else has stored. The save is done: an error of a value is
    told by the next one, and an interrupt when all have been looked at.
    """
    cdef Edit edit
    cdef int tried
    interrupt = None
    for edit in saved.outdated:
        for tried in range(2):
            try:
                keep_change(session, saved.old, edit)
                break
            except BaseException as error:
                interrupt = error
        else:
            make_pending(session, saved.old, edit, edit)
    if interrupt is not None:
        raise interrupt
    return 0


cdef int keep_change(SessionState session, Record old, Edit edit) except -1:
    cdef Py_ssize_t place = live_place(session, old, edit.key)
    cdef Found found
    if place < 0:
        return 0
    try:
        found = nested_change(session, old, <uint32_t> place, edit)
    except Exception:
        return make_pending(session, old, edit, edit)
    return make_pending(session, old, edit, found.view) if found is not None else 0


cdef int make_pending(SessionState session, Record old, Edit edit, Edit view) except -1:
    """Let an object that was read of the old record be a pending change, unless a newer one is there."""
    cdef Py_ssize_t place = place_of(old, edit.key)
    cdef Edit pending = new_edit(SET, edit.key, ANY, view.value)
    cdef Edit known
    pending.base = edit.base
    pending.expires_at = expiry_of(old, <uint32_t> place) if place >= 0 else 0
    make_room(session)
    known = edit_of(session, edit.key)
    if known is not None and known.kind != READ:
        return 0
    note_set(session, edit.key)
    return keep_edit(session, pending)
