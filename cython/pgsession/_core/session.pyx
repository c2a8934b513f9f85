# cython: binding=False
# cython: embedsignature=True
# cython: embedsignature.format=clinic
"""A session is a shared record, and what one caller has read or changed of it.

What is read and immutable is shared through the record. Everything else that a session knows of its own is an Edit
(session_edits.pyx): a mutable value that was read (and may have been changed since), a value that was set, or a deletion.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t

from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE

from pgsession._core.session_changing cimport delete_attribute, put
from pgsession._core.clock cimport expiry, moment
from pgsession._core.cpython_tricks cimport pgs_enter_by, pgs_method
from pgsession._core.session_edits cimport SET, Edit, begin_iteration, cache_of, edit_of, known_key, live_place, record_of, usable
from pgsession._core.session_reading cimport (
    decode_fresh, is_same, is_there, last_key, live_keys, looks_so_far, read,
)
from pgsession._core.record cimport Record, decoded_at, expiry_of, place_of, uuid_of, version_of
from pgsession._core.session_saving cimport Changes, become, changes_of, check_limits, seal_changes
from pgsession._core.values cimport is_plain, plan_of

from collections.abc import ItemsView, KeysView, Mapping, MutableMapping, ValuesView
from datetime import timedelta
from sys import intern
from typing import Any

from pgsession._core.session_edits import MISSING
from pgsession._short_names import short_name
from pgsession.attribute import Attribute
from pgsession.typed import TypedAttributes, is_struct, is_typed_dict, struct_of

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject *)

cdef object ANY = Any                  # the same, without looking up a global name
cdef object NOTHING = MISSING
cdef object TYPE = intern("type")
cdef object MAKER = object()           # nobody else has it
cdef enum:
    TRIES = 100


@cython.final
cdef class Session(SessionState):
    """A Session is the mapping of one session's attributes, for one request.

    Reading gives what is live now; changes are this object's own until `update_session` saves them. What an iteration
    has named can be read for a second more where it expires meanwhile, so that `dict(session)` is of one moment. A slower
    loop over `items()` or `values()` passes by what has expired before its turn.

    What was set is read as it is until it is saved. From then on it is what others read: a value that JSON turns into
    another (a datetime, a tuple) is that other, and `get(type=)` gives the type back. Nested changes are found in both.

    Attributes:
        from_cache: True where this object was made without a query, of a record in memory.
    """

    def __cinit__(self, maker=None):
        self.tracked = True     # as every new object is
        if maker is not MAKER:
            raise TypeError("sessions come from a manager")

    @property
    def _record(self):
        return record_of(self)

    # ---- facts ----

    @property
    def id(self):
        """Return the session's id, a UUID."""
        cdef PyObject *record = self.record
        return uuid_of(<Record> record)

    @property
    def user_id(self):
        """Return the id of the user whose session this is, a str; None: an anonymous session, of nobody yet."""
        return record_of(self).user_id

    @property
    def group_id(self):
        """Return the id of the session's group, a str; None: it has none."""
        return record_of(self).group_id

    @property
    def version(self):
        """Return the version of the record, an int, which rises with every saved change."""
        return record_of(self).version

    @property
    def created_at(self):
        """Return when the session was created, in database time, an aware datetime in UTC."""
        return moment(record_of(self).created_at)

    @property
    def updated_at(self):
        """Return when the last change was saved, in database time, an aware datetime in UTC."""
        return moment(record_of(self).updated_at)

    @property
    def last_accessed(self):
        """Return the newest access that was known when this object was made or saved, an aware datetime in UTC.

        The access that made this object is included, unless it was read with `touch=False`.
        """
        return moment(max(record_of(self).last_accessed, self.accessed))

    @property
    def expires_at(self):
        """Return when the session ends at the latest, an aware datetime in UTC."""
        return moment(record_of(self).expires_at)

    @property
    def include_inactivity(self):
        """Return True for a session that also ends by inactivity, which is where `inactivity` is not None."""
        return record_of(self).inactivity != 0

    @property
    def inactivity(self):
        """Return after how long without an access the session ends, a timedelta; None: only at `expires_at`."""
        cdef int64_t us = record_of(self).inactivity
        return timedelta(microseconds=us) if us else None

    @property
    def is_modified(self):
        """Return True while `update_session` has something to write; nested changes are found too."""
        return self.tracked and changes_of(self) is not None

    @property
    def is_invalidated(self):
        """Return True once this object refuses every further change and update."""
        return bool(self.invalidated)

    # ---- reading ----

    def __getitem__(self, key):
        cdef PyObject *record = self.record
        cdef PyObject *shared
        cdef Py_ssize_t place = -1
        if not self.tracked and not (<Record> record).expiring:
            place = place_of(<Record> record, key)
        if place >= 0:
            shared = decoded_at(<Record> record, place)
            if shared != NULL and is_plain(<object> shared):
                return <object> shared
            value = decode_fresh(self, <Record> record, <uint32_t> place, key)
        else:
            value = read(self, known_key(key), ANY)
        if value is NOTHING:
            raise KeyError(key)
        return value

    def get(self, key, default=None, *, type=Any):
        """Return the value of `key`, decoded as `type`, or `default` where there is none.

        `key` is the attribute's key, `type` any type that msgspec decodes; without one JSON becomes what Python has for
        it. `default` is returned where there is no live attribute of this key.

        Returns:
            value (Any): The value, or `default`.

        Raises:
            AttributeTypeError: The value is not of that type, or is JSON that only plain SQL can have stored: a number
                that Python cannot hold, half of a surrogate pair, or nesting too deep to decode.
            AttributeCodecError: The codec cannot open the value.
        """
        value = read(self, known_key(key), type)
        return default if value is NOTHING else value

    def attribute(self, key):
        """Return the value of `key` with its version and expiry.

        Args:
            key: The attribute's key.

        Returns:
            An `Attribute`. Of an attribute that was set since, the version is the one that the change is based on.

        Raises:
            KeyError: There is no live attribute of this key.
            AttributeTypeError: The value cannot be decoded, see `get`.
        """
        cdef str known = known_key(key)
        cdef Record record
        cdef Edit edit
        cdef Py_ssize_t place
        cdef int64_t expires_at, version
        cdef int tried
        for tried in range(TRIES):
            record = record_of(self)
            place = place_of(record, known)
            version = version_of(record, place) if place >= 0 else 0
            value = read(self, known, ANY)
            if value is NOTHING:
                raise KeyError(key)
            edit = edit_of(self, known)
            if is_same(self, record, known, version):   # else the version that is there now is of another value
                break
        else:
            raise RuntimeError(f"attribute {key!r} was changed each of the {TRIES} times that it was read")
        if edit is not None and edit.kind == SET:
            return Attribute(value, edit.base, moment(edit.expires_at) if edit.expires_at else None)
        if place < 0:
            raise KeyError(key)
        expires_at = expiry_of(record, <uint32_t> place)
        return Attribute(value, version_of(record, place), moment(expires_at) if expires_at else None)

    def as_type(self, type):
        """Return the attributes as the fields of a TypedDict or a Struct, for a type checker and for you to complete.

        A TypedDict is this session itself, seen so: each value is decoded as its field's type when it is read, what is
        set or changed inside is a change of the session, and attributes that are no fields are there too. (It is a
        mapping, no dict.) A Struct is made of what the attributes are now, all fields decoded and checked; one without
        an attribute has its default. It is to be immutable all the way down, since nothing set in it would be saved.

        Args:
            type: The TypedDict, or a frozen `msgspec.Struct`.

        Returns:
            attributes (TypedDict | Struct): What the session has, so typed.

        Raises:
            TypeError: It is neither, or a Struct that can be changed.
            KeyError: A Struct has a field without a default, and there is no live attribute of this key.
            AttributeTypeError, AttributeCodecError: A value is not of its field's type, or cannot be decoded, see `get`.
        """
        if is_typed_dict(type):
            return TypedAttributes(self, type)
        if not is_struct(type):
            raise TypeError(f"type: a TypedDict or a frozen Struct is needed, not {type!r}")
        if not plan_of(type).shareable:
            raise TypeError(f"type: a Struct that is immutable all the way down is needed, not {type!r}; to change "
                            "attributes, use a TypedDict or the session itself")
        return struct_of(self, type)

    def __contains__(self, key):
        cdef str known = known_key(key)
        return known is not None and is_there(self, known)

    def __len__(self):
        return len(live_keys(self))

    def __iter__(self):
        begin_iteration(self)
        return iter(live_keys(self))

    def __bool__(self):
        return True

    def keys(self):
        """Return a view of the keys of the live attributes."""
        return KeysView(self)

    def items(self):
        """Return a view of the live attributes, as pairs of key and value."""
        return _Items(self)

    def values(self):
        """Return a view of the values of the live attributes."""
        return _Values(self)

    # ---- changing ----

    def __setitem__(self, key, value):
        put(self, key, value, 0)

    def set(self, key, value, *, expires_at=None, expires_in=None):
        """Set the value of `key`. The attribute lives as long as the session, or until its own expiry.

        Args:
            key: The attribute's key.
            value: What msgspec encodes as JSON, or an `Attribute`, which may bring its expiry.
            expires_at: When the attribute ends, an aware datetime; None: with the session.
            expires_in: After how long it ends, a timedelta or seconds from now; None: with the session.

        Raises:
            TypeError: JSON cannot hold the value, or an argument is of a wrong type.
            ValueError: `expires_at` is naive, both expiries are given, or one is out of its range; or the key or value
                has a NUL or a lone surrogate, or the value a number that is not finite or cannot be read again, or a dict of
                which two keys are encoded alike.
            AttributeTooLargeError: The encoded value is longer than `max_attribute_length`.
            AttributeCodecError: The codec has failed.
            SessionInvalidatedError: This object was invalidated.
        """
        put(self, key, value, expiry(cache_of(self).clock, expires_at, expires_in))

    def __delitem__(self, key):
        cdef str known = known_key(key)
        usable(self)
        if known is None or not is_there(self, known):
            raise KeyError(key)
        delete_attribute(self, known)

    def pop(self, key, default=MISSING):
        """Remove `key` and return its value, or `default` where there is none.

        `key` is the attribute's key. `default`, if given, is returned where there is no live attribute of this key.

        Returns:
            value (Any): The value that was there, or `default`.

        Raises:
            KeyError: There is no live attribute of this key, and no `default`.
            AttributeTypeError: The value cannot be decoded, see `get`.
            SessionInvalidatedError: This object was invalidated.
        """
        cdef str known = known_key(key)
        usable(self)
        value = read(self, known, ANY)
        if value is not NOTHING:
            delete_attribute(self, known)
            return value
        if default is NOTHING:
            raise KeyError(key)
        return default

    def popitem(self):
        """Remove and return the last attribute.

        Returns:
            pair (tuple[str, Any]): The pair of its key and its value.

        Raises:
            KeyError: The session has no attributes.
            AttributeTypeError: The value cannot be decoded, see `get`.
            SessionInvalidatedError: This object was invalidated.
        """
        cdef str key
        usable(self)
        while True:
            key = last_key(self)
            if key is None:
                raise KeyError("the session has no attributes")
            value = read(self, key, ANY)
            if value is not NOTHING:
                delete_attribute(self, key)
                return key, value

    def setdefault(self, key, default=None):
        """Return the value of `key`, which is set to `default` where there is none.

        Args:
            key (str): The attribute's key.
            default (Any): The value that is set where there is no live attribute of this key.

        Returns:
            value (Any): The value that was there, or `default`.

        Raises:
            AttributeTypeError: The value cannot be decoded, see `get`.
            TypeError, ValueError, AttributeTooLargeError, SessionInvalidatedError: It cannot be set, see `set`.
        """
        value = read(self, known_key(key), ANY)
        if value is not NOTHING:
            return value
        put(self, key, default, 0)
        return default

    def update(self, other=(), /, **more):
        """Set everything in a mapping, or in pairs of key and value.

        Args:
            other (Mapping[str, Any] | Iterable[tuple[str, Any]]): The mapping, or the pairs.
            more (Any): Further values, by their keys.

        Raises:
            TypeError, ValueError, AttributeTooLargeError, SessionInvalidatedError: A value cannot be set, see `set`;
                those before it are set.
        """
        usable(self)
        pairs = other.items() if isinstance(other, Mapping) else other
        if not isinstance(other, Mapping) and hasattr(other, "keys"):
            pairs = [(key, other[key]) for key in other.keys()]
        for key, value in pairs:
            put(self, key, value, 0)
        for key, value in more.items():
            put(self, key, value, 0)

    def clear(self):
        """Remove every attribute.

        Raises:
            SessionInvalidatedError: This object was invalidated.
        """
        usable(self)
        for key in live_keys(self):
            delete_attribute(self, key)

    def invalidate(self):
        """Let this object refuse every further change and update."""
        self.invalidated = True

    # ---- for the managers ----

    def _check_usable(self):
        """Raise SessionInvalidatedError if this object was invalidated."""
        usable(self)

    def _changes(self):
        """Return what is to be written, or None; nested changes of what was read are found here.

        Raises:
            TooManyAttributesError, SessionTooLargeError: The session would grow beyond its limits.
            TypeError, ValueError, AttributeTooLargeError, AttributeCodecError: A value that has changed cannot be saved.
        """
        cdef Changes changes = changes_of(self)
        if changes is not None:
            seal_changes(self, changes)
            check_limits(self, changes)
        return changes

    @property
    def _by_older_token(self):
        """Return True where whoever has this session may only know an older token than the current one."""
        return bool(self.by_older_token)

    def _saved(self, Changes changes, Record record not None, int64_t accessed, bint rotated=False):
        """Make this session the saved version. Only what is in `changes` is no longer to be saved.

        With `rotated` the record's new generation is this session's own doing.
        """
        become(self, changes, record, accessed, rotated)

    def __reduce_ex__(self, protocol):
        raise TypeError("a session is not pickled or copied: keep its id and get the session again")

    def __repr__(self):
        return f"<Session {short_name(self.id)}, version {self.version}, keys {live_keys(self)}>"


MutableMapping.register(Session)


class _Items(ItemsView):
    """Views the live attributes as pairs; one that goes while they are looked at is passed by."""

    __slots__ = ()

    def __iter__(self):
        return _each(self._mapping, True)


class _Values(ValuesView):
    """Views the values of the live attributes; one that goes while they are looked at is passed by."""

    __slots__ = ()

    def __iter__(self):
        return _each(self._mapping, False)

    def __contains__(self, value):
        return any(value is own or value == own for own in self)


def _each(Session session not None, bint with_key):
    """Yield the live attributes, as pairs or values."""
    cdef str key
    for key in session:
        value = read(session, key, ANY)
        if value is not NOTHING:
            yield (key, value) if with_key else value


def _looks():
    """Return at how many attributes all popitem() have looked so far, for tests."""
    return looks_so_far()


cdef pgs_method get


cdef object enter_get(object self, PyObject *const *args, Py_ssize_t count, PyObject *names):
    """Answer session.get(key) and session.get(key, type=...) the short way."""
    cdef PyObject *key
    cdef PyObject *shared
    cdef PyObject *type_ = <PyObject *> ANY
    if count != 1 or (names != NULL and not only_type(<object> names)):
        return get(self, args, count, names)
    key = args[0]
    if names == NULL:
        shared = shared_plain(<Session> self, <object> key)
        if shared != NULL:
            return <object> shared
    else:
        type_ = args[1]
    value = read(<Session> self, known_key(<object> key), <object> type_)
    return None if value is NOTHING else value


cdef inline PyObject *shared_plain(Session self, object key) noexcept:
    """Return the plain value that the record shares, borrowed; NULL where there is more to do.

    This runs no other code.
    """
    cdef PyObject *record = self.record
    cdef PyObject *shared
    cdef Py_ssize_t place
    if self.tracked or (<Record> record).expiring:
        return NULL
    place = place_of(<Record> record, key)
    if place < 0:
        return NULL
    shared = decoded_at(<Record> record, place)
    return shared if shared != NULL and is_plain(<object> shared) else NULL


cdef bint only_type(object names) noexcept:
    return PyTuple_GET_SIZE(names) == 1 and PyTuple_GET_ITEM(names, 0) == <PyObject *> TYPE


get = pgs_enter_by(<PyTypeObject *> Session, b"get", enter_get)


cdef Session make_session():
    """Return a session that has no record and no cache yet, for hit.pyx.

    The garbage collector does not track it.
    """
    cdef Session session = Session.__new__(Session, MAKER)
    PyObject_GC_UnTrack(<PyObject *> session)
    session.tracked = False
    return session
