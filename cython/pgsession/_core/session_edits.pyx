"""A session knows by itself the values that were read and are mutable, what was set and what was deleted.

Each is an Edit of one attribute: in a short chain, in a dict beside it once there are more.

Making an object, comparing one, encoding, decoding and releasing a value can run other code: a finalizer, a hook of the
caller's type, another thread. That code may change and save this very session. So whatever is noted here is noted by
its key, keys are exactly `str` (finding one runs nothing), what can run other code comes before the first look at the
structure or after its last change, and who has run other code in between compares and begins anew.

(Cython hands `session.edits` to a function of CPython as it is, without a reference for as long as that runs. So where
the function can run other code, as one that makes an object does, the dict is in a local variable.)
"""

cimport cython

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF

from typing import Any

from pgsession.errors import SessionInvalidatedError

cdef extern from "Python.h":
    str PyUnicode_FromObject(object)
    void PyObject_GC_Track(PyObject *)

MISSING = object()
HELD = object()         # in place of the type of a view that was saved: see still_held() in session_saving.pyx
cdef object ANY = Any


@cython.final
@cython.freelist(256)
cdef class Edit:
    """Holds what a session knows of an attribute by itself: an object that was read or set, or a deletion."""


cdef class SessionState:
    """Holds a record and what one caller has read or changed of it: what a Session is, without its methods."""

    def __dealloc__(self):
        Py_XDECREF(self.record)
        Py_XDECREF(self.cache)


cdef int begin_iteration(SessionState session) except -1:
    """Let what is live now be there for an instant more.

    Time goes on between a key and the question for its value, and `dict(session)` asks for all keys first.
    """
    if session.tracked or record_of(session).expiring:
        track(session)                  # so it is cleared before the session is used again
        session.iterated_at = now_of(session)
    return 0


cdef bint was_named(SessionState session, int64_t expires_at) noexcept:
    """Return True for what has expired since an iteration began, a moment ago."""
    return 0 < session.iterated_at < expires_at and now_of(session) < session.iterated_at + INSTANT


cdef int usable(SessionState session) except -1:
    """Raise SessionInvalidatedError if the session object was invalidated."""
    if session.invalidated:
        raise SessionInvalidatedError("this session object was invalidated; get the session again")
    return 0


cdef str plain_key(object key):
    """Return the text of a key in a subclass of str, or None for what is no key.

    Raises:
        TypeError: It cannot be hashed, as in a dict.
    """
    if isinstance(key, str):
        return PyUnicode_FromObject(key)
    hash(key)
    return None


cdef int track(SessionState session) except -1:
    """Let the garbage collector track the session from now on: what is in edits may refer to anything."""
    if not session.tracked:
        session.tracked = True
        PyObject_GC_Track(<PyObject *> session)
    return 0


cdef int note_older_token(SessionState session) except -1:
    """Note that whoever has this session may only know an older token than the current one.

    A hit does not look at that: the session is tracked, so it is cleared before it is used again.
    """
    session.by_older_token = True
    return track(session)


cdef Edit new_edit(Kind kind, str key, object type_, object value):
    cdef Edit edit = Edit.__new__(Edit)
    edit.kind = kind
    edit.key = key
    edit.type = type_
    edit.value = value
    return edit


cdef int add_view(Edit edit, Edit view) except -1:
    cdef Edit last = edit
    while last.next is not None:
        last = last.next
    last.next = view
    return 0


cdef int settle(SessionState session) except -1:
    """Make an Edit of the lone mutable value, if there is one.

    Most sessions read one such value and are gone: it becomes an Edit when there is more to know of it.
    """
    cdef Edit edit
    if session.lone is None:
        return 0
    edit = new_edit(READ, session.lone_key, ANY, session.lone)
    if session.lone is None:            # making an object may run a finalizer, which may have been here as well
        return 0
    edit.base = session.lone_base
    session.first = edit
    session.lone = None
    return 0


cdef Edit edit_of(SessionState session, object key):
    """Return what is known of an attribute, or None; nothing runs between the look and the return."""
    if session.lone is not None:
        settle(session)
    cdef Edit edit = session.first
    if edit is None:
        return None
    if session.edits is not None:
        return session.edits.get(key)
    while edit is not None:
        if edit.key is key or edit.key == key:
            return edit
        edit = edit.following
    return None


cdef list edits_of(SessionState session):
    """Return all edits, in the order in which their keys were first read or changed."""
    cdef list found = []
    cdef dict edits
    cdef Edit edit
    settle(session)
    edit = session.first
    edits = session.edits       # held: making the view of its values may run a finalizer that saves the session
    if edits is not None:
        return list(edits.values())
    while edit is not None:
        found.append(edit)
        edit = edit.following
    return found


cdef int make_room(SessionState session) except -1:
    """Make room for one more edit.

    This may run the garbage collector, so it comes before what keep_edit() puts in is decided.
    """
    cdef Edit edit, following
    cdef dict edits
    cdef int count = 0
    settle(session)
    edit = session.first
    if edit is None or session.edits is not None:
        return 0
    while edit is not None:
        count += 1
        edit = edit.following
    if count < SHORT:
        return 0
    edits = {}
    if session.edits is not None:
        return 0
    edit = session.first
    while edit is not None:
        edits[edit.key] = edit
        edit = edit.following
    edit = session.first
    while edit is not None:
        following = edit.following
        edit.following = None
        edit = following
    session.edits = edits       # from now on the dict says all; `first` only that there is something
    return 0


cdef int keep_edit(SessionState session, Edit edit) except -1:
    """Put an edit in, in place of the one of its key; after make_room(). What it replaces is released at the end."""
    cdef Edit last = session.first, gone
    cdef dict edits = session.edits     # held: what is replaced may be the last to hold a value of the caller's
    if last is None:
        session.first = edit
        return track(session)
    if edits is not None:
        edits[edit.key] = edit
        return 0
    if last.key == edit.key:
        edit.following = last.following
        session.first = edit
        return 0
    while last.following is not None:
        gone = last.following
        if gone.key == edit.key:
            edit.following = gone.following
            last.following = edit
            return 0
        last = last.following
    last.following = edit
    return 0


cdef int drop_edit(SessionState session, object key) except -1:
    """Remove the edit of an attribute, if there is one."""
    cdef Edit gone = edit_of(session, key)
    cdef Edit last = session.first
    if gone is None:
        return 0
    if session.edits is not None:
        del session.edits[key]
        return 0
    if last is gone:
        session.first = gone.following
    else:
        while last.following is not gone:
            last = last.following
        last.following = gone.following
    gone.following = None
    return 0


# ---- a save ----

cdef int replace(SessionState session, Record record, list before, list after, dict by_key) except -1:
    """Put this record and the edits `after` in the place of all that is there, which is `before`.

    This runs no other code until all is in place.
    """
    cdef PyObject *old = session.record
    cdef Edit edit, last = None
    old_first, old_edits = session.first, session.edits         # released on return
    for edit in before:
        edit.following = None
    session.first = None
    for edit in after:
        if last is None:
            session.first = edit
        elif by_key is None:
            last.following = edit
        last = edit
    session.edits = by_key
    session.passed = 0
    session.nothing_added = False
    Py_INCREF(record)
    session.record = <PyObject *> record
    if last is not None:
        track(session)
    Py_XDECREF(old)
    return 0
