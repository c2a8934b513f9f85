# cython: freethreading_compatible=True
"""A record is the immutable snapshot of one session at one version (C4).

A record is not tracked by the garbage collector: it refers to its shape (strings) and to decoded values that are
immutable all the way down, so it cannot be part of a cycle. Everything else is in one block of memory:

    pointer to the value of each attribute, if it is decoded and shared
    int64  version of each attribute
    int64  expiry of each attribute, 0 for never       only where `expiring`
    uint32 end of each value in the text
    text   user id, group id, then the values as JSON, in the order of the keys
"""

cimport cython
from libc.string cimport memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF

from pgsession._core.key cimport key_bytes, key_uuid, parse
from pgsession._core.lock cimport PGS_FREE_THREADED, pgs_dict_get, pgs_read, pgs_set, pgs_set_once

from operator import itemgetter
from sys import intern

from pgsession._short_names import short_name

cdef extern from "Python.h":
    bint PyUnicode_CheckExact(object)
    object PyUnicode_FromObject(object)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *length) except NULL
    object PyUnicode_FromStringAndSize(const char *data, Py_ssize_t length)

cdef object BY_KEY = itemgetter(0)
cdef tuple STANDINGS = ("current", "previous", "superseded", "ended")
cdef object BARE = object()             # makes a record that with_values() lays out; nobody else has it


# ---- keys and shapes, shared by all records ----
#
# Both tables are bounded, by number and by size, whatever keys a service makes up. Each is of two generations: a full
# young one becomes the old one, of which only what comes again meanwhile stays. The dicts themselves stay the same, since
# threads without the GIL read them all the time.

cdef Py_ssize_t SHAPES = 512                # in each generation
cdef Py_ssize_t SHAPED = 16384              # and so many keys in all of their shapes together
cdef Py_ssize_t LONGEST = 4096              # a shape of more keys is not shared
cdef Py_ssize_t INTERNED = 2048
cdef dict shapes = {}, old_shapes = {}
cdef dict interned = {}, old_interned = {}
cdef Py_ssize_t shaped = 0


@cython.final
@cython.no_gc
cdef class Shape:
    pass


cdef str shared_key(str key):
    """Return an attribute key as one object for all records.

    It is interned, so that a literal in the caller's code is the same object.
    """
    known = pgs_dict_get(interned, key)
    if known is not None:
        return <str> known
    known = pgs_dict_get(old_interned, key)
    if known is None:
        known = intern(key)
    if len(interned) >= INTERNED:
        grow_old(interned, old_interned)
    interned[known] = known
    return <str> known


cdef Shape shape_of(list attributes):
    cdef tuple keys = tuple([item[0] for item in attributes])
    known = pgs_dict_get(shapes, keys)
    if known is None:
        known = pgs_dict_get(old_shapes, keys)
        if known is None:
            known = new_shape(keys)
        keep_shape(<Shape> known)
    return <Shape> known


cdef Shape new_shape(tuple keys):
    cdef Shape shape = Shape.__new__(Shape)
    shape.keys = tuple([shared_key(key) for key in keys])
    shape.places = {key: place for place, key in enumerate(shape.keys)}
    for key in shape.keys:
        shape.size += text_size(key)
    if len(shape.places) != len(keys):
        raise ValueError("a key is there twice")
    return shape


cdef Py_ssize_t text_size(str text) except -1:
    """Return the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


cdef int keep_shape(Shape shape) except -1:
    global shaped
    cdef Py_ssize_t count = len(shape.keys)
    if count > LONGEST:
        return 0
    if len(shapes) >= SHAPES or shaped + count > SHAPED:
        grow_old(shapes, old_shapes)
        shaped = 0
    shapes[shape.keys] = shape
    shaped += count
    return 0


cdef int grow_old(dict young, dict old) except -1:
    old.clear()
    old.update(young)
    young.clear()
    return 0


cdef Py_ssize_t place_by_value(Shape shape, object key) noexcept:
    cdef PyObject *place
    if not PyUnicode_CheckExact(key):
        return -1
    place = PyDict_GetItemWithError(shape.places, key)
    return -1 if place == NULL else <Py_ssize_t> <object> place


@cython.final
@cython.no_gc
cdef class Record:
    """Holds one session as the database held it at one version. Times are microseconds since the epoch.

    `inactivity` is the idle timeout in microseconds, 0 or None where there is none.
    """

    def __cinit__(self, key, int64_t version, str user_id, str group_id, int64_t created_at,
                 int64_t updated_at, int64_t last_accessed, int64_t expires_at, inactivity,
                 attributes=(), *, int64_t generation=0, int64_t owner_since=0, int64_t previous_generation=0,
                 int64_t previous_until=0, int64_t rotated_at=0, str incarnation=None):
        if key is BARE:
            return
        parse(key, &self.id)
        self.version = version
        self.created_at = created_at
        self.updated_at = updated_at
        self.last_accessed = last_accessed
        self.expires_at = expires_at
        self.inactivity = 0 if inactivity is None else inactivity
        self.generation = generation
        self.owner_since = owner_since
        self.previous_generation = previous_generation
        self.previous_until = previous_until
        self.rotated_at = rotated_at
        if incarnation is not None:
            self.incarnation = intern(incarnation)
        fill(self, user_id, group_id, sorted(plain(attributes), key=BY_KEY))

    def __dealloc__(self):
        drop_decoded(self)
        PyMem_Free(self.block)
        Py_XDECREF(self.uuid)

    @property
    def key(self):
        """Return the session's id as 16 bytes."""
        return key_bytes(self.id)

    @property
    def user_id(self):
        """Return the id of the user, a str, or None."""
        return owner(self, 0)

    @property
    def group_id(self):
        """Return the id of the group, a str, or None."""
        return owner(self, 1)

    def attributes(self):
        """Return all attributes as (key, version, expires_at or None, JSON bytes), in the order of their keys."""
        cdef uint32_t place
        return [item_at(self, place) for place in range(self.count)]

    def changed(self, *, version, updated_at, last_accessed, expires_at, inactivity, group_id, sets, deletes):
        """Return the record that these changes make of this one; attributes that are set take the new version."""
        cdef Record record
        sets = plain(sets)
        if not deletes and group_id == self.group_id:
            record = with_values(self, version, sets)
            if record is not None:
                record.version = version
                record.created_at = self.created_at
                record.updated_at = updated_at
                record.last_accessed = last_accessed
                record.expires_at = expires_at
                record.inactivity = inactivity
                stay_rotated(record, self)
                record.incarnation = self.incarnation
                inherit(record, self)
                return record
        cdef dict items = {item[0]: item for item in self.attributes()}
        for key in deletes:
            items.pop(key, None)
        for key, value, expiry in sets:
            items[key] = (key, version, expiry, value)
        record = Record(self.key, version, self.user_id, group_id, self.created_at, updated_at,
                        last_accessed, expires_at, inactivity, list(items.values()),
                        incarnation=self.incarnation)
        stay_rotated(record, self)
        inherit(record, self)
        return record

    def standing(self, int64_t generation, int64_t earliest, int64_t grace):
        """Return what this record says of a token of that generation: "current", "previous", "superseded" or "ended".

        Args:
            generation: The token's generation.
            earliest: The earliest that it can be by the database's clock.
            grace: For how long after a rotation older tokens are superseded.
        """
        return STANDINGS[<int> standing_of(self, generation, earliest, grace)]

    def __reduce__(self):
        raise TypeError("a record is not pickled")

    def __repr__(self):
        return f"<Record {short_name(uuid_of(self))}, version {self.version}, {self.count} attributes>"


cdef void stay_rotated(Record record, Record old) noexcept:
    """Take over what says whose session it is, and which tokens are good."""
    record.generation = old.generation
    record.owner_since = old.owner_since
    record.previous_generation = old.previous_generation
    record.previous_until = old.previous_until
    record.rotated_at = old.rotated_at


cdef list plain(object items):
    """Return the items as tuples with keys that are exactly str: hashing and comparing those runs nobody's code."""
    return [item if type(item) is tuple and PyUnicode_CheckExact(item[0]) else (PyUnicode_FromObject(item[0]), *item[1:])
            for item in items]


cdef int fill(Record record, str user_id, str group_id, list attributes) except -1:
    """Lay out the block of a record; `attributes` are sorted by key.

    All that can fail comes before the first pointer is kept.
    """
    cdef Py_ssize_t user_length = 0, group_length = 0, total, place, count = len(attributes)
    cdef const char *user = NULL
    cdef const char *group = NULL
    cdef bint expiring = False
    if user_id is not None:
        user = PyUnicode_AsUTF8AndSize(user_id, &user_length)
    if group_id is not None:
        group = PyUnicode_AsUTF8AndSize(group_id, &group_length)
    cdef int64_t version
    if user_length > 0xFFFF or group_length > 0xFFFF:
        raise ValueError("user_id or group_id is too long")
    total = user_length + group_length
    cdef list values = []
    for _, attribute_version, expiry, value in attributes:
        expiring = expiring or expiry is not None
        version = attribute_version
        values.append((version, 0 if expiry is None else <int64_t> expiry, <bytes?> value))
        if not value:
            raise ValueError("the value of an attribute is JSON, which is not empty")
        total += len(<bytes> value)
    if total > 0xFFFF_FFFFLL or count > 0xFFFF_FFFFLL:
        raise OverflowError("a session of more than 4 GiB")
    record.shape = shape_of(attributes)
    cdef char *block = <char *> PyMem_Malloc(count * fixed_size(expiring) + total)
    if block == NULL:
        raise MemoryError
    memset(block, 0, count * sizeof(PyObject *))
    record.block = block
    record.count = <uint32_t> count
    record.user_length = <uint16_t> user_length
    record.group_length = <uint16_t> group_length
    record.owned = user_id is not None
    record.grouped = group_id is not None
    record.expiring = expiring
    cdef char *text = <char *> text_of(record)
    if user_length:
        memcpy(text, user, user_length)
    if group_length:
        memcpy(text + user_length, group, group_length)
    cdef Py_ssize_t at = user_length + group_length, length
    for place in range(count):
        attribute_version, expiry, value = values[place]
        versions_of(record)[place] = attribute_version
        if expiring:
            versions_of(record)[count + place] = expiry
        length = PyBytes_GET_SIZE(value)
        memcpy(text + at, PyBytes_AS_STRING(value), length)
        at += length
        ends_of(record)[place] = <uint32_t> at
    return 0


cdef inline size_t fixed_size(bint expiring) noexcept:
    """Return how many bytes of the block are for each attribute, without its value."""
    return sizeof(PyObject *) + (2 if expiring else 1) * sizeof(int64_t) + sizeof(uint32_t)


cdef Record with_values(Record old, int64_t version, list sets):
    """Return a record of the same owner with other values for keys that it has; None where that is not all.

    Most updates change a value or two, and need not take the whole record apart.
    """
    cdef Py_ssize_t place, total
    if old.count == 0:          # where the text ends is noted with the attributes
        return None
    total = ends_of(old)[old.count - 1]
    cdef dict values = {}
    for key, value, expiry in sets:
        place = place_of(old, key)
        if place < 0 or expiry is not None:
            return None
        if not value:
            raise ValueError("the value of an attribute is JSON, which is not empty")
        values[place] = value
        total += PyBytes_GET_SIZE(<bytes?> value) - value_of(old, <uint32_t> place).length
    if total > 0xFFFF_FFFFLL or len(values) != len(sets):
        return None
    cdef size_t fixed = <size_t> old.count * fixed_size(old.expiring)
    cdef char *block = <char *> PyMem_Malloc(fixed + total)
    if block == NULL:
        raise MemoryError
    cdef Record record
    try:
        record = Record.__new__(Record, BARE, 0, None, None, 0, 0, 0, 0, 0)
    except BaseException:
        PyMem_Free(block)
        raise
    record.id = old.id
    record.shape = old.shape
    record.block = block
    record.count = old.count
    record.user_length = old.user_length
    record.group_length = old.group_length
    record.owned = old.owned
    record.grouped = old.grouped
    record.expiring = old.expiring
    cdef Py_ssize_t at = <Py_ssize_t> old.user_length + old.group_length
    memcpy(block, old.block, fixed + at)
    memset(block, 0, old.count * sizeof(PyObject *))
    cdef Span span
    for place in range(old.count):
        span = value_of(old, <uint32_t> place)
        if place in values:
            value = values[place]
            span.data = PyBytes_AS_STRING(value)
            span.length = <uint32_t> PyBytes_GET_SIZE(value)
            versions_of(record)[place] = version
            if old.expiring:
                versions_of(record)[old.count + place] = 0
        memcpy(block + fixed + at, span.data, span.length)
        at += span.length
        ends_of(record)[place] = <uint32_t> at
    return record


cdef object owner(Record record, int which):
    cdef Span span = owner_of(record, which)
    return None if span.data == NULL else PyUnicode_FromStringAndSize(span.data, span.length)


cdef tuple item_at(Record record, uint32_t place):
    cdef Span span = value_of(record, place)
    cdef int64_t expires_at = expiry_of(record, place)
    return (record.shape.keys[place], versions_of(record)[place], expires_at or None,
            PyBytes_FromStringAndSize(span.data, span.length))


# ---- decoded values, shared by every reader ----
#
# The block has room for a value of each attribute: read without a type, or of the type that it was read as, where
# without one it would be mutable. `typed`, made when it is needed first, holds two pointers for each attribute: a type,
# and the value read as that type, where the value does not say which that was or the block has room for one only. Only
# what is immutable all the way down is put there; session_reading.pyx decides.
#
# A reader takes no lock for it. Where there is no GIL a pointer is therefore set once and stays as long as the record,
# which the reader holds: it can take its own reference at any time. (Elsewhere the type asked for last is kept.)

cdef object make_uuid(Record record):
    cdef Record held = record           # making a UUID runs Python code
    return keep_uuid(held, key_uuid(held.id))


cdef object keep_uuid(Record record, object uuid):
    """Keep a UUID in its record; return the one that all others get too, which may have been made meanwhile."""
    Py_INCREF(uuid)
    if not pgs_set_once(&record.uuid, <PyObject *> uuid):
        Py_DECREF(uuid)
    return <object> <PyObject *> pgs_read(&record.uuid)


cdef int share(Record record, uint32_t place, object value) except -1:
    cdef PyObject **shared = decoded_of(record) + place
    cdef PyObject *old
    Py_INCREF(value)
    if PGS_FREE_THREADED:
        if not pgs_set_once(shared, <PyObject *> value):
            Py_DECREF(value)
        return 0
    old = shared[0]
    shared[0] = <PyObject *> value
    Py_XDECREF(old)
    return 0


cdef int reserve_typed(Record record) except -1:
    cdef PyObject **typed = <PyObject **> PyMem_Calloc(record.count, 2 * sizeof(PyObject *))
    if typed == NULL:
        raise MemoryError
    if not pgs_set_once(&record.typed, typed):
        PyMem_Free(typed)
    return 0


cdef int share_typed(Record record, uint32_t place, object type_, object value) except -1:
    if record.typed == NULL:
        reserve_typed(record)
    cdef PyObject **pair = record.typed + 2 * <size_t> place
    if PGS_FREE_THREADED:
        Py_INCREF(value)
        if pgs_set_once(&pair[1], <PyObject *> value):
            Py_INCREF(type_)
            pgs_set(&pair[0], <PyObject *> type_)       # last: who sees the type sees its value
        else:
            Py_DECREF(value)
        return 0
    cdef PyObject *old_type = pair[0]
    cdef PyObject *old_value = pair[1]
    Py_INCREF(type_)
    Py_INCREF(value)
    pair[0] = <PyObject *> type_
    pair[1] = <PyObject *> value
    Py_XDECREF(old_type)
    Py_XDECREF(old_value)
    return 0


cdef PyObject *shared_typed(Record record, uint32_t place, object type_) noexcept:
    """Return the value shared for exactly this type, borrowed, or NULL."""
    if record.typed == NULL:
        return NULL
    cdef PyObject **pair = record.typed + 2 * <size_t> place
    return pair[1] if <PyObject *> pgs_read(&pair[0]) == <PyObject *> type_ else NULL


cdef int inherit(Record record, Record old) except -1:
    """Take over what is decoded of the attributes that are the same (same version, C4)."""
    cdef uint32_t place
    cdef Py_ssize_t before
    cdef PyObject **pair
    if old.uuid != NULL:
        keep_uuid(record, <object> old.uuid)
    for place in range(record.count):
        before = place_of(old, record.shape.keys[place])
        if before < 0 or versions_of(old)[before] != versions_of(record)[place]:
            continue
        if decoded_of(old)[before] != NULL:
            share(record, place, <object> decoded_of(old)[before])
        if old.typed == NULL:
            continue
        pair = old.typed + 2 * before
        if pgs_read(&pair[0]) != NULL:
            share_typed(record, place, <object> pair[0], <object> pair[1])
    return 0


cdef void drop_decoded(Record record) noexcept:
    """Release the decoded values of a record that nobody refers to any more, not even its values."""
    cdef PyObject **typed = record.typed
    cdef size_t i, count = record.count
    for i in range(count):
        Py_XDECREF(decoded_of(record)[i])
    if typed != NULL:
        for i in range(2 * count):
            Py_XDECREF(typed[i])
        PyMem_Free(typed)
