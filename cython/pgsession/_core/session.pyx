# cython: binding=False
# cython: embedsignature=True
# cython: embedsignature.format=clinic
"""Sessions: a shared record, and what one caller has read or changed of it.

What is read and immutable is shared through the record. Everything else that a session knows of its own is an Edit:
a mutable value that was read (and may have been changed since), a value that was set, or a deletion.
"""

cimport cython
from libc.stdint cimport uint32_t

from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE

from pgsession._core.clock cimport exact, expiry, moment, recent
from pgsession._core.entry cimport pgs_enter_by, pgs_method
from pgsession._core.key cimport key_uuid
from pgsession._core.record cimport (
    Span, decoded_of, expiry_of, is_live, place_of, share, share_typed, shared_typed, value_of, versions_of,
)
from pgsession._core.reference cimport pgs_give, pgs_hold
from pgsession._core.values cimport (
    Plan, Py_TYPE, checked_key, decode_plain, decode_typed, encode, is_container, is_plain, plan_of, reencode,
)

from collections.abc import ItemsView, KeysView, Mapping, MutableMapping, ValuesView
from sys import intern
from typing import Any

from pgsession.attribute import Attribute
from pgsession.errors import SessionInvalidatedError

MISSING = object()
cdef object ANY = Any                  # the same, without looking up a global name
cdef object NOTHING = MISSING
cdef object TYPE = intern("type")


@cython.final
@cython.freelist(256)
cdef class Edit:
    """What a session knows of an attribute by itself: an object that was read or set, or a deletion."""

@cython.final
cdef class Changes:
    """What an update has to write: `sets` as (key, JSON, expires_at or None, base version) and `deletes` as
    (key, base version). Base version 0: the caller's record had no such attribute."""

    def __cinit__(self):
        self.sets = []
        self.deletes = []
        self.taken = []


@cython.final
cdef class Session:
    """One session as a mapping of its attributes, for one request.

    Reading gives what is live now; changes are this object's own until `update_session` saves them.
    """

    def __cinit__(self):
        self.tracked = True     # as every new object is

    @property
    def _record(self):
        return record_of(self)

    # ---- facts ----

    @property
    def id(self):
        """The session's UUID."""
        return key_uuid(record_of(self).id)

    @property
    def user_id(self):
        return record_of(self).user_id

    @property
    def group_id(self):
        return record_of(self).group_id

    @property
    def version(self):
        """Rises with every saved change."""
        return record_of(self).version

    @property
    def created_at(self):
        return moment(record_of(self).created_at)

    @property
    def updated_at(self):
        return moment(record_of(self).updated_at)

    @property
    def last_accessed(self):
        """The newest access known when this object was made, itself included."""
        return moment(max(record_of(self).last_accessed, self.accessed))

    @property
    def expires_at(self):
        return moment(record_of(self).expires_at)

    @property
    def include_inactivity(self):
        """Whether the session also ends by inactivity."""
        return bool(record_of(self).include_inactivity)

    @property
    def is_modified(self):
        """Whether `update_session` would have something to write; finds nested changes too."""
        return self._changes() is not None

    @property
    def is_invalidated(self):
        return bool(self.invalidated)

    # ---- reading ----

    def __getitem__(self, key):
        cdef Py_ssize_t place
        cdef PyObject *record = self.record
        cdef PyObject *shared
        if not self.tracked and not (<Record> record).expiring:
            place = place_of(<Record> record, key)
            if place >= 0:
                shared = decoded_of(<Record> record)[place]
                if shared != NULL and is_plain(<object> shared):
                    return <object> shared
                return decode_untyped(self, <uint32_t> place)
        value = read(self, key, ANY)
        if value is NOTHING:
            raise KeyError(key)
        return value

    def get(self, key, default=None, *, type=Any):
        """The value of `key`, decoded as `type`, or `default` where there is none.

        Raises AttributeTypeError where the value is not of that type, or is JSON that only plain SQL can have stored:
        a number that Python cannot hold, half of a surrogate pair, or nesting too deep to decode.
        """
        value = read(self, key, type)
        return default if value is NOTHING else value

    def attribute(self, key):
        """The value of `key` with its version and expiry. Raises KeyError where there is none."""
        value = self[key]
        cdef Edit edit = edit_of(self, key)
        cdef Py_ssize_t place = place_of(record_of(self), key)
        cdef int64_t expires_at
        if edit is not None and edit.kind == SET:
            return Attribute(value, edit.base, moment(edit.expires_at) if edit.expires_at else None)
        expires_at = expiry_of(record_of(self), place)
        return Attribute(value, versions_of(record_of(self))[place], moment(expires_at) if expires_at else None)

    def __contains__(self, key):
        return is_there(self, key)

    def __len__(self):
        return len(live_keys(self))

    def __iter__(self):
        return iter(live_keys(self))

    def __bool__(self):
        return True

    def keys(self):
        return KeysView(self)

    def items(self):
        return ItemsView(self)

    def values(self):
        return ValuesView(self)

    # ---- changing ----

    def __setitem__(self, key, value):
        put(self, key, value, 0)

    def set(self, key, value, *, expires_at=None, expires_in=None):
        """Set `key`; the attribute lives as long as the session, or until then (a timedelta or seconds from now).

        Raises TypeError for what JSON cannot hold, ValueError for a naive `expires_at`, a NUL, a lone surrogate or a
        number that is not finite, AttributeTooLargeError beyond `max_attribute_length`.
        """
        put(self, key, value, expiry(cache_of(self).clock, expires_at, expires_in))

    def __delitem__(self, key):
        usable(self)
        if not is_there(self, key):
            raise KeyError(key)
        forget(self, key)

    def pop(self, key, default=MISSING):
        """Remove `key` and return its value, or `default`."""
        usable(self)
        value = read(self, key, ANY)
        if value is not NOTHING:
            forget(self, key)
            return value
        if default is NOTHING:
            raise KeyError(key)
        return default

    def popitem(self):
        """Remove and return the last (key, value). Raises KeyError where there is none."""
        usable(self)
        cdef list keys = live_keys(self)
        if not keys:
            raise KeyError("the session has no attributes")
        key = keys.pop()
        return key, self.pop(key)

    def setdefault(self, key, default=None):
        """The value of `key`, which is set to `default` where there is none."""
        value = read(self, key, ANY)
        if value is not NOTHING:
            return value
        put(self, key, default, 0)
        return default

    def update(self, other=(), /, **more):
        """Set everything in a mapping or in pairs of key and value."""
        usable(self)
        pairs = other.items() if isinstance(other, Mapping) else other
        if not isinstance(other, Mapping) and hasattr(other, "keys"):
            pairs = [(key, other[key]) for key in other.keys()]
        for key, value in pairs:
            put(self, key, value, 0)
        for key, value in more.items():
            put(self, key, value, 0)

    def clear(self):
        """Remove every attribute."""
        usable(self)
        for key in live_keys(self):
            forget(self, key)

    def invalidate(self):
        """Let this object refuse every further change and update."""
        self.invalidated = True

    # ---- for the managers ----

    def _check_usable(self):
        usable(self)

    def _changes(self):
        """What is to be written, or None; nested changes of what was read are found here."""
        cdef Changes changes = Changes()
        cdef Edit edit
        for edit in edits_of(self):
            collect(self, changes, edit.key, edit)
        return changes if changes.taken else None

    def _saved(self, Changes changes, Record record not None, int64_t accessed):
        """Become a saved version. Only what is in `changes` stops being pending."""
        cdef dict before = {edit.key: edit for edit in edits_of(self)}
        cdef dict taken = {} if changes is None else {part.key: part for part in changes.taken}
        cdef list after = [
            after_save(self, record, key, before.get(key), taken.get(key)) for key in {**before, **taken}
        ]
        set_record(self, record)
        self.accessed = max(self.accessed, accessed)
        forget_edits(self)
        for edit in after:
            if edit is not None:
                keep_edit(self, edit)

    def __reduce_ex__(self, protocol):
        raise TypeError("a session is not pickled or copied: keep its id and get the session again")

    def __repr__(self):
        return f"<Session of {record_of(self).user_id!r}, version {record_of(self).version}, keys {live_keys(self)}>"


MutableMapping.register(Session)

cdef pgs_method get


cdef object enter_get(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    """session.get(key) and session.get(key, type=...), the short way."""
    cdef PyObject *key
    cdef PyObject *type_ = <PyObject *> ANY
    if count != 1 or (names != NULL and not only_type(<object> names)):
        return get(self, args, count, names)
    key = args[0]
    if names != NULL:
        type_ = args[1]
    value = read(<Session> self, <object> key, <object> type_)
    return None if value is NOTHING else value


cdef bint only_type(object names) noexcept:
    return PyTuple_GET_SIZE(names) == 1 and PyTuple_GET_ITEM(names, 0) == <PyObject *> TYPE


get = pgs_enter_by(<PyTypeObject *> Session, b"get", enter_get)


# ---- making and releasing ----
#
# A session is made at every hit, so the last few that were released are kept to be used again. One that has nothing
# of its own is not tracked by the garbage collector: it refers to its record and its cache, which refer to no
# session. With the first edit it is tracked, since a caller's values may refer to anything.

cdef extern from *:
    """
    #if defined(Py_GIL_DISABLED)
    #define PGS_SPARE_SESSIONS 0
    #else
    #define PGS_SPARE_SESSIONS 64
    #endif
    #if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
    #define pgs_revive(object) _Py_NewReference(object)
    #else
    #define pgs_revive(object) Py_SET_REFCNT(object, 1)
    #endif
    static destructor pgs_ordinary_dealloc;
    /* Only new_session() makes sessions; it does not go by the type's slot. */
    static PyObject *pgs_refuse_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
        (void)type, (void)args, (void)kwargs;
        PyErr_SetString(PyExc_TypeError, "sessions come from a manager");
        return NULL;
    }
    static void pgs_refuse(PyTypeObject *type) {
        type->tp_new = pgs_refuse_new;
        type->tp_vectorcall = NULL;
    }
    static void pgs_set_dealloc(PyTypeObject *type, destructor dealloc) {
        pgs_ordinary_dealloc = type->tp_dealloc;
        type->tp_dealloc = dealloc;
    }
    """
    int PGS_SPARE_SESSIONS
    void pgs_refuse(PyTypeObject *)
    void pgs_ordinary_dealloc(PyObject *)
    void pgs_set_dealloc(PyTypeObject *type, void (*dealloc)(PyObject *) noexcept)
    void pgs_revive(PyObject *)
    void PyObject_GC_Track(PyObject *)
    void PyObject_GC_UnTrack(PyObject *)

cdef PyObject *spare[64]
cdef int spares = 0


cdef PyObject *new_session(Cache cache, Record record, bint from_cache, int64_t accessed) except NULL:
    """A new reference. The record may be the cache's own, which a collection could make it drop."""
    global spares
    cdef PyObject *session
    cdef Record kept
    if spares > 0:
        spares -= 1
        session = spare[spares]
        pgs_revive(session)
    else:
        kept = record
        session = make_session()
    (<Session> session).record = pgs_hold(<PyObject *> record)
    (<Session> session).cache = pgs_hold(<PyObject *> cache)
    (<Session> session).accessed = accessed
    (<Session> session).from_cache = from_cache
    (<Session> session).invalidated = False
    return session


cdef PyObject *make_session() except NULL:
    cdef Session session = Session.__new__(Session)
    PyObject_GC_UnTrack(<PyObject *> session)
    session.tracked = False
    return pgs_hold(<PyObject *> session)


cdef void release_session(PyObject *session) noexcept:
    global spares
    cdef PyObject *record = (<Session> session).record
    cdef PyObject *cache = (<Session> session).cache
    cdef bint edited = (<Session> session).tracked
    if edited:
        PyObject_GC_UnTrack(session)
        (<Session> session).tracked = False
    if spares >= PGS_SPARE_SESSIONS:
        pgs_ordinary_dealloc(session)
    elif edited:
        release_edited(session)
    else:
        spare[spares] = session
        spares += 1
    Py_XDECREF(record)
    Py_XDECREF(cache)


cdef void release_edited(PyObject *session) noexcept:
    """The edits go last: releasing a caller's values may run code that makes sessions."""
    global spares
    lone, first, edits = (<Session> session).lone, (<Session> session).first, (<Session> session).edits
    (<Session> session).lone = None
    (<Session> session).first = None
    (<Session> session).edits = None
    spare[spares] = session
    spares += 1


pgs_set_dealloc(<PyTypeObject *> Session, release_session)
pgs_refuse(<PyTypeObject *> Session)


cdef int set_record(Session session, Record record) except -1:
    old = record_of(session)
    Py_INCREF(record)
    session.record = <PyObject *> record
    Py_DECREF(old)
    return 0


# ---- the edits of a session: a short chain, and a dict beside it once it gets longer ----

cdef enum:
    SHORT = 8


cdef int track(Session session) except -1:
    if not session.tracked:
        session.tracked = True
        PyObject_GC_Track(<PyObject *> session)
    return 0


cdef int settle(Session session) except -1:
    """Most sessions read one mutable value and are gone: it becomes an Edit when there is more to know of it."""
    cdef Record record
    cdef Edit edit
    if session.lone is None:
        return 0
    record = record_of(session)
    edit = new_edit(READ, record.shape.keys[session.lone_place], ANY, session.lone)
    edit.base = versions_of(record)[session.lone_place]
    if session.lone is not None:        # making an object may run a finalizer, which may have been here as well
        session.first = edit
        session.lone = None
    return 0


cdef Edit edit_of(Session session, object key):
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


cdef list edits_of(Session session):
    """In the order in which their keys were first read or changed."""
    settle(session)
    cdef list found = []
    cdef Edit edit = session.first
    if session.edits is not None:
        return list(session.edits.values())
    while edit is not None:
        found.append(edit)
        edit = edit.following
    return found


cdef int keep_edit(Session session, Edit edit) except -1:
    """Put an edit in, in place of the one of its key."""
    settle(session)
    cdef Edit last = session.first
    cdef int count = 1
    if last is None:
        session.first = edit
        return track(session)
    if session.edits is not None:
        session.edits[edit.key] = edit
        return 0
    if last.key == edit.key:
        edit.following = last.following
        session.first = edit
        return 0
    while last.following is not None:
        if last.following.key == edit.key:
            edit.following = last.following.following
            last.following = edit
            return 0
        last = last.following
        count += 1
    if count < SHORT:
        last.following = edit
    else:
        lengthen(session, edit)
    return 0


cdef int lengthen(Session session, Edit edit) except -1:
    """From now on the dict says all; `first` only that there is something."""
    cdef dict edits = {known.key: known for known in edits_of(session)}
    cdef Edit known
    edits[edit.key] = edit
    for known in edits.values():
        known.following = None
    session.edits = edits
    return 0


cdef int drop_edit(Session session, object key) except -1:
    cdef list edits = [edit for edit in edits_of(session) if edit.key != key]
    if session.edits is not None:
        session.edits.pop(key, None)
        return 0
    forget_edits(session)
    for edit in edits:
        keep_edit(session, edit)
    return 0


cdef int forget_edits(Session session) except -1:
    cdef list edits = edits_of(session)
    session.first = None
    session.edits = None
    for edit in edits:
        (<Edit> edit).following = None
    return 0


def session_of(Cache cache not None, Record record not None, bint from_cache, accessed=None):
    """A session on a record; `accessed` as in `Session.last_accessed`."""
    cdef int64_t us = 0 if accessed is None else accessed
    return pgs_give(new_session(cache, record, from_cache, us))


# ---- what is there ----

cdef int usable(Session session) except -1:
    if session.invalidated:
        raise SessionInvalidatedError("this session object was invalidated; get the session again")
    return 0


cdef int64_t now_of(Session session) noexcept:
    return recent(cache_of(session).clock) + cache_of(session).clock.slack + cache_of(session).clock.offset


cdef inline Py_ssize_t live_place(Session session, object key) except -2:
    """Where the record has a live attribute of this key, or -1."""
    cdef PyObject *record = session.record
    cdef Py_ssize_t place = place_of(<Record> record, key)
    if place >= 0 and (<Record> record).expiring and not is_live(<Record> record, <uint32_t> place, now_of(session)):
        return -1
    return place


cdef bint is_there(Session session, object key) except -1:
    cdef Edit edit = edit_of(session, key)
    if edit is None or edit.kind == READ:
        return live_place(session, key) >= 0
    return edit.kind == SET and (edit.expires_at == 0 or now_of(session) < edit.expires_at)


cdef list live_keys(Session session):
    cdef list keys = [key for key in record_of(session).shape.keys if is_there(session, key)]
    cdef Edit edit
    for edit in edits_of(session):
        if edit.kind == SET and place_of(record_of(session), edit.key) < 0 and is_there(session, edit.key):
            keys.append(edit.key)
    return keys


# ---- reading ----

cdef object read(Session session, object key, object type_):
    cdef Py_ssize_t place
    if session.tracked:
        return read_edited(session, key, type_)
    place = live_place(session, key)
    return NOTHING if place < 0 else read_stored(session, key, <uint32_t> place, type_)


cdef object read_edited(Session session, object key, object type_):
    cdef Edit edit = edit_of(session, key)
    cdef Py_ssize_t place
    if edit is not None and edit.kind != READ:
        return read_set(session, key, edit, type_) if is_there(session, key) else NOTHING
    place = live_place(session, key)
    if place < 0:
        return NOTHING
    if edit is not None:
        return read_again(session, key, edit, <uint32_t> place, type_)
    return read_stored(session, key, <uint32_t> place, type_)


cdef object read_stored(Session session, object key, uint32_t place, object type_):
    cdef PyObject *record = session.record
    cdef PyObject *shared = decoded_of(<Record> record)[place]
    if type_ is ANY:
        return <object> shared if shared != NULL and is_plain(<object> shared) else decode_untyped(session, place)
    if shared == NULL or <PyObject *> Py_TYPE(<object> shared) != <PyObject *> type_:
        shared = shared_typed(<Record> record, place, type_)
    return <object> shared if shared != NULL else decode_as(session, key, place, type_)


cdef object decode_untyped(Session session, uint32_t place):
    cdef PyObject *record = session.record
    value = decode_plain(<Record> record, place)
    if is_plain(value):
        share(<Record> record, place, value)
    else:
        keep_read(session, place, ANY, value, None)
    return value


cdef object decode_as(Session session, object key, uint32_t place, object type_):
    cdef PyObject *record = session.record
    cdef Plan plan = plan_of(type_)
    cdef Span span = value_of(<Record> record, place)
    value = decode_typed(key, span, plan)
    if not plan.shareable:
        keep_read(session, place, type_, value, None if plan.repeatable else reencode(value))
    elif <PyObject *> Py_TYPE(value) == <PyObject *> type_ and is_container(span):
        share(<Record> record, place, value)        # without a type it is mutable, so the place is free
    else:
        share_typed(<Record> record, place, type_, value)
    return value


cdef int keep_read(Session session, uint32_t place, object type_, object value, bytes before) except -1:
    """A mutable value belongs to this session, which finds at save whether it was changed."""
    cdef PyObject *record = session.record
    if not session.tracked and type_ is ANY:
        session.lone = value
        session.lone_place = place
        track(session)
        return 0
    cdef str key = (<Record> record).shape.keys[place]
    cdef Edit edit = edit_of(session, key)
    if edit is not None:
        return add_view(edit, type_, value, before, None)
    edit = new_edit(READ, key, type_, value)
    edit.base = versions_of(<Record> record)[place]
    edit.before = before
    return keep_edit(session, edit)


cdef Edit new_edit(Kind kind, str key, object type_, object value):
    cdef Edit edit = Edit.__new__(Edit)
    edit.kind = kind
    edit.key = key
    edit.type = type_
    edit.value = value
    return edit


cdef int add_view(Edit edit, object type_, object value, bytes before, bytes source) except -1:
    cdef Edit view = Edit.__new__(Edit), last = edit
    view.type = type_
    view.value = value
    view.before = before
    view.source = source
    while last.next is not None:
        last = last.next
    last.next = view
    return 0


cdef object read_again(Session session, object key, Edit edit, uint32_t place, object type_):
    """This session has read a mutable value of the attribute before; it sees its own changes to that."""
    cdef Edit view = edit
    while view is not None:
        if view.type is type_ or view.type == type_:
            return view.value
        view = view.next
    cdef Found found = nested_change(session, key, edit)
    if found is None:
        return read_stored(session, key, place, type_)
    return convert(key, edit, found.encoded, type_)


cdef object read_set(Session session, object key, Edit edit, object type_):
    """A value that was set is the caller's own object; as another type it is a conversion of that."""
    if type_ is ANY or <PyObject *> Py_TYPE(edit.value) == <PyObject *> type_:
        return edit.value
    cdef Found found = current_value(session, key, edit)
    cdef Edit view = edit
    while view.next is not None:
        if view.next.type == type_:
            if view.next is found.view or view.next.source == found.encoded:
                return view.next.value
            view.next = view.next.next          # what it was made of has changed
            break
        view = view.next
    return convert(key, edit, found.encoded, type_)


cdef object convert(str key, Edit edit, bytes encoded, object type_):
    cdef Plan plan = plan_of(type_)
    cdef Span span
    span.data = encoded
    span.length = <uint32_t> len(encoded)
    value = decode_typed(key, span, plan)
    if not plan.shareable:
        add_view(edit, type_, value, reencode(value), encoded)
    return value


# ---- changing ----

cdef int64_t base_of(Session session, object key) except -1:
    """The version that a change of `key` is based on: what this object has read of it, or its record."""
    cdef Edit edit = edit_of(session, key)
    if edit is not None:
        return edit.base
    cdef Py_ssize_t place = live_place(session, key)
    return versions_of(record_of(session))[place] if place >= 0 else 0


cdef int change(Session session, str key, Kind kind, object value, bytes encoded, int64_t expires_at) except -1:
    cdef Edit edit = new_edit(kind, key, ANY, value)
    edit.encoded = encoded
    edit.expires_at = expires_at
    edit.base = base_of(session, key)
    return keep_edit(session, edit)


cdef int put(Session session, object key, object value, int64_t expires_at) except -1:
    usable(session)
    cdef str checked = checked_key(key)
    if type(value) is Attribute:
        if value.expires_at is not None:
            expires_at = expiry(cache_of(session).clock, value.expires_at, None)
        value = value.value
    cdef bytes encoded = encode(checked, value, cache_of(session).max_attribute_length)
    return change(session, checked, SET, value, encoded if is_plain(value) else None, expires_at)


cdef int forget(Session session, object key) except -1:
    """Delete an attribute that is there; what was never stored just goes."""
    if base_of(session, key) == 0 and edit_of(session, key) is not None:
        return drop_edit(session, key)
    return change(session, key, DELETED, None, None, 0)


# ---- saving ----

@cython.final
cdef class Found:
    """What an attribute is now, and which of a caller's objects says so."""
    cdef Edit view
    cdef bytes encoded


@cython.final
cdef class Part:
    """The part of one attribute in what is being saved."""
    cdef readonly str key
    cdef Edit edit
    cdef Found found            # None: a deletion


cdef int collect(Session session, Changes changes, str key, Edit edit) except -1:
    cdef Part part = Part.__new__(Part)
    cdef int64_t expires_at = edit.expires_at
    part.key = key
    part.edit = edit
    if edit.kind == DELETED:
        changes.deletes.append((key, edit.base))
    elif edit.kind == SET:
        part.found = current_value(session, key, edit)
    else:
        part.found = nested_change(session, key, edit)
        if part.found is None:
            return 0
        expires_at = expiry_of(record_of(session), <uint32_t> place_of(record_of(session), key))
    if part.found is not None:
        changes.sets.append((key, part.found.encoded, expires_at or None, edit.base))
    changes.taken.append(part)
    return 0


cdef Found found_in(Edit view, bytes encoded):
    cdef Found found = Found.__new__(Found)
    found.view = view
    found.encoded = encoded
    return found


cdef bytes encoded_if_changed(Session session, str key, Edit view, bytes before):
    """Checked as when it is set, but only if it has changed: what was only read is never refused."""
    try:
        if reencode(view.value) == before:
            return None
    except Exception:
        pass                    # encode() says it by the attribute's name
    return encode(key, view.value, cache_of(session).max_attribute_length)


cdef Found nested_change(Session session, str key, Edit edit):
    """What was read and has changed since; None if nothing has, or if the attribute is gone."""
    cdef Found found = None
    cdef Edit view = edit
    cdef bytes before
    cdef Py_ssize_t place = live_place(session, key)
    if place < 0:
        return None
    while view is not None:
        before = encoded_before(record_of(session), <uint32_t> place, key, view)
        found = newest(found, view, encoded_if_changed(session, key, view, before), key)
        view = view.next
    return found


cdef Found newest(Found found, Edit view, bytes changed, str key):
    """What the views up to this one say; a view that was made from an earlier one may differ from that."""
    if changed is None:
        return found
    if found is not None and found.encoded != changed and found.encoded != view.source:
        raise ValueError(f"attribute {key!r} was changed in two ways, through values read as different types")
    return found_in(view, changed)


cdef Found current_value(Session session, str key, Edit edit):
    """What was set, as it is now: a mutable value may have changed since, also through a view of another type."""
    if edit.encoded is not None and edit.next is None:
        return found_in(edit, edit.encoded)
    cdef Found found = found_in(edit, encode(key, edit.value, cache_of(session).max_attribute_length))
    cdef Edit view = edit.next
    while view is not None:
        found = newest(found, view, encoded_if_changed(session, key, view, view.before), key)
        view = view.next
    return found


cdef bytes encoded_before(Record record, uint32_t place, str key, Edit view):
    """Not the stored bytes: psql may have spaced them otherwise, and a type may leave fields out."""
    if view.before is None:
        if view.type is ANY:
            view.before = reencode(decode_plain(record, place))
        else:
            view.before = reencode(decode_typed(key, value_of(record, place), plan_of(view.type)))
    return view.before


cdef Edit after_save(Session session, Record record, str key, Edit edit, Part part):
    """What is left of an edit after a save; `part` is what the save took of it, or None."""
    cdef Py_ssize_t place = place_of(record, key)
    if part is None:
        return unsaved(session, record, key, edit, place)
    if part.edit is edit:
        if part.found is None or place < 0 or edit.encoded is not None:
            return None
        return still_held(record, <uint32_t> place, edit, part.found)
    if edit is None:            # set, saved, and deleted while it was being saved
        edit = new_edit(DELETED, key, ANY, None)
    edit.base = versions_of(record)[place] if place >= 0 else 0         # changed again, on our own version
    return None if edit.kind == DELETED and place < 0 else edit


cdef Edit unsaved(Session session, Record record, str key, Edit edit, Py_ssize_t place):
    """Not part of the save: a pending change stays, based on what it was based on."""
    if edit.kind != READ:
        return edit
    if place >= 0 and versions_of(record)[place] == edit.base:
        return edit             # the same value (C4)
    cdef Found found
    try:
        found = nested_change(session, key, edit)
    except Exception:           # the save is done; the next one will tell the caller
        found = found_in(edit, None)
    if found is None:
        return None             # somebody else's value takes the place of what was only read
    cdef Edit pending = new_edit(SET, key, ANY, found.view.value)
    pending.base = edit.base
    pending.expires_at = expiry_of(record_of(session), <uint32_t> place_of(record_of(session), key))
    return pending


cdef Edit still_held(Record record, uint32_t place, Edit edit, Found found):
    """The caller may go on changing the objects that say what was saved: they are now something read, as saved."""
    cdef Edit now = None
    cdef Edit view = edit
    while view is not None:
        if view is found.view or reencode(view.value) == found.encoded:
            if now is None:
                now = new_edit(READ, edit.key, view.type, view.value)
                now.base = versions_of(record)[place]
                now.before = found.encoded
            else:
                add_view(now, view.type, view.value, found.encoded, None)
        view = view.next
    return now
