"""Sessions: a shared record, and what one caller has read or changed of it.

What is read and immutable is shared through the record. Everything else that a session knows of its own is an Edit:
a mutable value that was read (and may have been changed since), a value that was set, or a deletion.
"""

cimport cython
from libc.stdint cimport uint32_t

from cpython.object cimport PyObject, PyTypeObject

from pgsession._clock cimport exact, expiry, moment, recent
from pgsession._key cimport key_uuid
from pgsession._record cimport (
    Span, expiry_of, is_live, place_of, share, share_typed, shared_typed, value_of, versions_of,
)
from pgsession._values cimport (
    Plan, checked_key, decode_plain, decode_typed, encode, is_plain, plan_of, reencode,
)

from collections.abc import ItemsView, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any

from pgsession.attribute import Attribute
from pgsession.errors import SessionInvalidatedError

cdef extern from "Python.h":
    PyTypeObject *Py_TYPE(object)

cdef object MISSING = object()


cdef enum Kind:
    READ
    SET
    DELETED


@cython.final
cdef class View:
    """One object that a caller holds for an attribute."""
    cdef object type            # that it was read as; Any for what was set
    cdef object value
    cdef bytes before           # its encoding when it was made, None: to be had by decoding what is stored
    cdef bytes source           # what it was decoded from, where that was not what is stored


@cython.final
cdef class Edit:
    cdef Kind kind
    cdef list views             # READ: what was read; SET: what was set, then what was read of that
    cdef bytes encoded          # SET, of an immutable value
    cdef int64_t expires_at     # SET; 0: never
    cdef int64_t base           # version of the attribute that this is based on; 0: there was none


@cython.final
cdef class Changes:
    """What an update has to write: `sets` as (key, JSON, expires_at or None, base version) and `deletes` as
    (key, base version). Base version 0: the caller's record had no such attribute."""

    def __cinit__(self):
        self.sets = []
        self.deletes = []
        self.taken = []


@cython.final
@cython.freelist(64)
cdef class Session:
    """One session as a mapping of its attributes, for one request.

    Reading gives what is live now; changes are this object's own until `update_session` saves them.
    """

    # ---- facts ----

    @property
    def id(self):
        """The session's UUID."""
        return key_uuid(self._record.id)

    @property
    def user_id(self):
        return self._record.user_id

    @property
    def group_id(self):
        return self._record.group_id

    @property
    def version(self):
        """Rises with every saved change."""
        return self._record.version

    @property
    def created_at(self):
        return moment(self._record.created_at)

    @property
    def updated_at(self):
        return moment(self._record.updated_at)

    @property
    def last_accessed(self):
        """The newest access known when this object was made, itself included."""
        return moment(max(self._record.last_accessed, self.accessed))

    @property
    def expires_at(self):
        return moment(self._record.expires_at)

    @property
    def include_inactivity(self):
        """Whether the session also ends by inactivity."""
        return bool(self._record.include_inactivity)

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
        cdef Record record = self._record
        if self.edits is None and record.decoded != NULL and not record.expiring:
            place = place_of(record.shape, key)
            if place >= 0 and record.decoded[place] != NULL:
                return <object> record.decoded[place]
        value = read(self, key, Any)
        if value is MISSING:
            raise KeyError(key)
        return value

    def get(self, key, default=None, *, type=Any):
        """The value of `key`, decoded as `type`, or `default` where there is none.

        Raises AttributeTypeError where the value is not of that type.
        """
        value = read(self, key, type)
        return default if value is MISSING else value

    def attribute(self, key):
        """The value of `key` with its version and expiry. Raises KeyError where there is none."""
        value = self[key]
        cdef Edit edit = edit_of(self, key)
        cdef Py_ssize_t place = place_of(self._record.shape, key)
        cdef int64_t expires_at
        if edit is not None and edit.kind == SET:
            return Attribute(value, edit.base, moment(edit.expires_at) if edit.expires_at else None)
        expires_at = expiry_of(self._record, place)
        return Attribute(value, versions_of(self._record)[place], moment(expires_at) if expires_at else None)

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
        put(self, key, value, expiry(self.cache.clock, expires_at, expires_in))

    def __delitem__(self, key):
        usable(self)
        if not is_there(self, key):
            raise KeyError(key)
        forget(self, key)

    def pop(self, key, default=MISSING):
        """Remove `key` and return its value, or `default`."""
        usable(self)
        value = read(self, key, Any)
        if value is not MISSING:
            forget(self, key)
            return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def popitem(self):
        """Remove and return the last (key, value). Raises KeyError where there is none."""
        usable(self)
        cdef list keys = live_keys(self)
        if not keys:
            raise KeyError("the session has no attributes")
        key = keys[len(keys) - 1]
        return key, self.pop(key)

    def setdefault(self, key, default=None):
        """The value of `key`, which is set to `default` where there is none."""
        value = read(self, key, Any)
        if value is not MISSING:
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
        if self.edits is None:
            return None
        for key, edit in self.edits.items():
            collect(self, changes, key, edit)
        return changes if changes.taken else None

    def _saved(self, Changes changes, Record record not None, int64_t accessed):
        """Become a saved version. Only what is in `changes` stops being pending."""
        cdef dict before = self.edits or {}
        cdef dict taken = {} if changes is None else {part.key: part for part in changes.taken}
        cdef dict after = {}
        cdef Edit kept
        for key in {**before, **taken}:
            kept = after_save(self, record, key, before.get(key), taken.get(key))
            if kept is not None:
                after[key] = kept
        self._record = record
        self.accessed = max(self.accessed, accessed)
        self.edits = after or None

    def __reduce_ex__(self, protocol):
        raise TypeError("a session is not pickled or copied: keep its id and get the session again")

    def __repr__(self):
        return f"<Session of {self._record.user_id!r}, version {self._record.version}, keys {live_keys(self)}>"


MutableMapping.register(Session)


def session_of(Cache cache not None, Record record not None, bint from_cache, accessed=None):
    """A session on a record; `accessed` as in `Session.last_accessed`."""
    return new_session(cache, record, from_cache, 0 if accessed is None else accessed)


# ---- what is there ----

cdef int usable(Session session) except -1:
    if session.invalidated:
        raise SessionInvalidatedError("this session object was invalidated; get the session again")
    return 0


cdef int64_t now_of(Session session) noexcept:
    return recent(session.cache.clock) + session.cache.clock.slack + session.cache.clock.offset


cdef Edit edit_of(Session session, object key):
    return None if session.edits is None else session.edits.get(key)


cdef Py_ssize_t live_place(Session session, object key) except -2:
    """Where the record has a live attribute of this key, or -1."""
    cdef Record record = session._record
    cdef Py_ssize_t place = place_of(record.shape, key)
    if place >= 0 and record.expiring and not is_live(record, <uint32_t> place, now_of(session)):
        return -1
    return place


cdef bint is_there(Session session, object key) except -1:
    cdef Edit edit = edit_of(session, key)
    if edit is None or edit.kind == READ:
        return live_place(session, key) >= 0
    return edit.kind == SET and (edit.expires_at == 0 or now_of(session) < edit.expires_at)


cdef list live_keys(Session session):
    cdef list keys = [key for key in session._record.shape.keys if is_there(session, key)]
    cdef Edit edit
    if session.edits is not None:
        for key, edit in session.edits.items():
            if edit.kind == SET and place_of(session._record.shape, key) < 0 and is_there(session, key):
                keys.append(key)
    return keys


# ---- reading ----

cdef object read(Session session, object key, object type_):
    cdef Edit edit = edit_of(session, key)
    cdef Py_ssize_t place
    if edit is not None and edit.kind != READ:
        return read_set(session, key, edit, type_) if is_there(session, key) else MISSING
    place = live_place(session, key)
    if place < 0:
        return MISSING
    if edit is not None:
        return read_again(session, key, edit, <uint32_t> place, type_)
    return read_stored(session, key, <uint32_t> place, type_)


cdef object read_stored(Session session, object key, uint32_t place, object type_):
    cdef Record record = session._record
    cdef PyObject *shared = NULL
    if record.decoded != NULL:
        shared = record.decoded[place]
        if type_ is not Any and (shared == NULL or <PyObject *> Py_TYPE(<object> shared) != <PyObject *> type_):
            shared = shared_typed(record, place, type_)
    if shared != NULL:
        return <object> shared
    return decode_untyped(session, place) if type_ is Any else decode_as(session, key, place, type_)


cdef object decode_untyped(Session session, uint32_t place):
    cdef Record record = session._record
    value = decode_plain(value_of(record, place))
    if is_plain(value):
        share(record, place, value)
    else:
        keep_view(read_edit(session, place), Any, value, None, None)
    return value


cdef object decode_as(Session session, object key, uint32_t place, object type_):
    cdef Record record = session._record
    cdef Plan plan = plan_of(type_)
    value = decode_typed(key, value_of(record, place), plan)
    if plan.shareable:
        share_typed(record, place, type_, value)
    else:
        keep_view(read_edit(session, place), type_, value, None if plan.repeatable else reencode(value), None)
    return value


cdef Edit read_edit(Session session, uint32_t place):
    """The edit that holds what this session has read of an attribute."""
    cdef object key = session._record.shape.keys[place]
    if session.edits is None:
        session.edits = {}
    cdef Edit edit = session.edits.get(key)
    if edit is None:
        edit = Edit.__new__(Edit)
        edit.kind = READ
        edit.base = versions_of(session._record)[place]
        edit.views = []
        session.edits[key] = edit
    return edit


cdef int keep_view(Edit edit, object type_, object value, bytes before, bytes source) except -1:
    """A mutable value belongs to this session, which finds at save whether it was changed."""
    cdef View view = View.__new__(View)
    view.type = type_
    view.value = value
    view.before = before
    view.source = source
    edit.views.append(view)
    return 0


cdef object read_again(Session session, object key, Edit edit, uint32_t place, object type_):
    """This session has read a mutable value of the attribute before; it sees its own changes to that."""
    cdef View view
    for view in edit.views:
        if view.type is type_ or view.type == type_:
            return view.value
    cdef Found found = nested_change(session, key, edit)
    if found is None:
        return read_stored(session, key, place, type_)
    return convert(key, edit, found.encoded, type_)


cdef object read_set(Session session, object key, Edit edit, object type_):
    """A value that was set is the caller's own object; as another type it is a conversion of that."""
    cdef View view = edit.views[0]
    if type_ is Any or <PyObject *> Py_TYPE(view.value) == <PyObject *> type_:
        return view.value
    cdef Found found = current_value(session, key, edit)
    for view in edit.views[1:]:
        if view.type == type_ and (view is found.view or view.source == found.encoded):
            return view.value
    edit.views = [view for view in edit.views if view.type != type_ or view is edit.views[0]]
    return convert(key, edit, found.encoded, type_)


cdef object convert(str key, Edit edit, bytes encoded, object type_):
    cdef Plan plan = plan_of(type_)
    cdef Span span
    span.data = encoded
    span.length = <uint32_t> len(encoded)
    value = decode_typed(key, span, plan)
    if not plan.shareable:
        keep_view(edit, type_, value, reencode(value), encoded)
    return value


# ---- changing ----

cdef int64_t base_of(Session session, object key) except -1:
    """The version that a change of `key` is based on: what this object has read of it, or its record."""
    cdef Edit edit = edit_of(session, key)
    if edit is not None:
        return edit.base
    cdef Py_ssize_t place = live_place(session, key)
    return versions_of(session._record)[place] if place >= 0 else 0


cdef int change(Session session, str key, Kind kind, object value, bytes encoded, int64_t expires_at) except -1:
    cdef Edit edit = Edit.__new__(Edit)
    edit.kind = kind
    edit.views = []
    edit.encoded = encoded
    edit.expires_at = expires_at
    edit.base = base_of(session, key)
    if kind == SET:
        keep_view(edit, Any, value, None, None)
    if session.edits is None:
        session.edits = {}
    session.edits[key] = edit
    return 0


cdef int put(Session session, object key, object value, int64_t expires_at) except -1:
    usable(session)
    cdef str checked = checked_key(key)
    if type(value) is Attribute:
        if value.expires_at is not None:
            expires_at = expiry(session.cache.clock, value.expires_at, None)
        value = value.value
    cdef bytes encoded = encode(checked, value, session.cache.max_attribute_length)
    return change(session, checked, SET, value, encoded if is_plain(value) else None, expires_at)


cdef int forget(Session session, object key) except -1:
    """Delete an attribute that is there; what was never stored just goes."""
    if base_of(session, key) == 0 and session.edits is not None:
        session.edits.pop(key, None)
        return 0
    return change(session, key, DELETED, None, None, 0)


# ---- saving ----

@cython.final
cdef class Found:
    """What an attribute is now, and which of a caller's objects says so."""
    cdef View view
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
        expires_at = expiry_of(session._record, <uint32_t> place_of(session._record.shape, key))
    if part.found is not None:
        changes.sets.append((key, part.found.encoded, expires_at or None, edit.base))
    changes.taken.append(part)
    return 0


cdef Found found_in(View view, bytes encoded):
    cdef Found found = Found.__new__(Found)
    found.view = view
    found.encoded = encoded
    return found


cdef bytes encoded_if_changed(Session session, str key, View view, bytes before):
    """Checked as when it is set, but only if it has changed: what was only read is never refused."""
    try:
        if reencode(view.value) == before:
            return None
    except Exception:
        pass                    # encode() says it by the attribute's name
    return encode(key, view.value, session.cache.max_attribute_length)


cdef Found nested_change(Session session, str key, Edit edit):
    """What was read and has changed since; None if nothing has, or if the attribute is gone."""
    cdef Found found = None
    cdef View view
    cdef bytes now
    cdef Py_ssize_t place = live_place(session, key)
    if place < 0:
        return None
    for view in edit.views:
        now = encoded_if_changed(session, key, view, encoded_before(session._record, <uint32_t> place, key, view))
        if now is None:
            continue
        if found is not None and found.encoded != now and found.encoded != view.source:
            raise ValueError(f"attribute {key!r} was changed in two ways, through values read as different types")
        found = found_in(view, now)
    return found


cdef Found current_value(Session session, str key, Edit edit):
    """What was set, as it is now: a mutable value may have changed since, also through a view of another type."""
    cdef View view = edit.views[0]
    cdef bytes now
    if edit.encoded is not None and len(edit.views) == 1:
        return found_in(view, edit.encoded)
    cdef Found found = found_in(view, encode(key, view.value, session.cache.max_attribute_length))
    for view in edit.views[1:]:
        now = encoded_if_changed(session, key, view, view.before)
        if now is None:
            continue
        if found.encoded != now and found.encoded != view.source:
            raise ValueError(f"attribute {key!r} was changed in two ways, through values read as different types")
        found = found_in(view, now)
    return found


cdef bytes encoded_before(Record record, uint32_t place, str key, View view):
    """Not the stored bytes: psql may have spaced them otherwise, and a type may leave fields out."""
    if view.before is None:
        if view.type is Any:
            view.before = reencode(decode_plain(value_of(record, place)))
        else:
            view.before = reencode(decode_typed(key, value_of(record, place), plan_of(view.type)))
    return view.before


cdef Edit after_save(Session session, Record record, str key, Edit edit, Part part):
    """What is left of an edit after a save; `part` is what the save took of it, or None."""
    cdef Py_ssize_t place = place_of(record.shape, key)
    if part is None:
        return unsaved(session, record, key, edit, place)
    if part.edit is edit:
        if part.found is None or place < 0 or edit.encoded is not None:
            return None
        return still_held(record, <uint32_t> place, edit, part.found)
    if edit is None:            # set, saved, and deleted while it was being saved
        edit = Edit.__new__(Edit)
        edit.kind = DELETED
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
        found = found_in(edit.views[0], None)
    if found is None:
        return None             # somebody else's value takes the place of what was only read
    cdef Edit pending = Edit.__new__(Edit)
    pending.kind = SET
    pending.views = []
    pending.base = edit.base
    pending.expires_at = expiry_of(session._record, <uint32_t> place_of(session._record.shape, key))
    keep_view(pending, Any, found.view.value, None, None)
    return pending


cdef Edit still_held(Record record, uint32_t place, Edit edit, Found found):
    """The caller may go on changing the objects that say what was saved: they are now something read, as saved."""
    cdef Edit now = Edit.__new__(Edit)
    cdef View view
    now.kind = READ
    now.base = versions_of(record)[place]
    now.views = []
    for view in edit.views:
        if view is found.view or reencode(view.value) == found.encoded:
            keep_view(now, view.type, view.value, found.encoded, None)
    return now
