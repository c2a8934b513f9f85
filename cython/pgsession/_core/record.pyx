# cython: freethreading_compatible=True
"""A record is the immutable snapshot of one session at one version (C4).

A record is not tracked by the garbage collector: it refers to its shape (strings) and to decoded values that are
immutable all the way down, so it cannot be part of a cycle. Most of a cache's memory is records, so what is long or rare is
in one block, which has no pointers and is as long as it has to be:

    Rotation                                           only where `rotated`
    int64  expiry of each attribute, 0 for never       only where `expiring`
    uint32 age of each attribute: the record's version less its own; where one does not fit, the record is `wide` and
           this is int64, the version
    uint32 end of each value in the text               `ends` points here
    text   user id, group id, then the values as JSON, in the order of the keys

What readers make of a record, and share, is in memory of its own, made when it is needed first.
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
    def __dealloc__(self):
        Py_XDECREF(<PyObject *> self.encoded)


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


cdef Shape shape_of_keys(tuple keys):
    """Return the shape of these keys, which are sorted."""
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
        if incarnation is not None:
            self.incarnation = intern(incarnation)
        fill(self, user_id, group_id, Rotation(previous_generation, previous_until, rotated_at),
             sorted(plain(attributes), key=BY_KEY))

    def __dealloc__(self):
        drop_shared(self)
        if self.ends != NULL:
            PyMem_Free(block_of(self))

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

    @property
    def previous_generation(self):
        """Return the generation of the tokens of before the last rotation; 0: there was none."""
        return rotation_of(self).previous_generation

    @property
    def previous_until(self):
        """Return until when tokens of the previous generation are good; 0: not any more."""
        return rotation_of(self).previous_until

    @property
    def rotated_at(self):
        """Return when the tokens were rotated last; 0: never."""
        return rotation_of(self).rotated_at

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
                record.updated_at = updated_at
                record.last_accessed = last_accessed
                record.expires_at = expires_at
                record.inactivity = inactivity
                inherit(record, self)
                return record
        cdef dict items = {item[0]: item for item in self.attributes()}
        for key in deletes:
            items.pop(key, None)
        for key, value, expiry in sets:
            items[key] = (key, version, expiry, value)
        cdef Rotation rotation = rotation_of(self)
        record = Record(self.key, version, self.user_id, group_id, self.created_at, updated_at,
                        last_accessed, expires_at, inactivity, list(items.values()),
                        generation=self.generation, owner_since=self.owner_since,
                        previous_generation=rotation.previous_generation, previous_until=rotation.previous_until,
                        rotated_at=rotation.rotated_at, incarnation=self.incarnation)
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


cdef Record bare_record():
    """Return a record without a block, for one who fills it."""
    return Record.__new__(Record, BARE, 0, None, None, 0, 0, 0, 0, 0)


cdef list plain(object items):
    """Return the items as tuples with keys that are exactly str: hashing and comparing those runs nobody's code."""
    return [item if type(item) is tuple and PyUnicode_CheckExact(item[0]) else (PyUnicode_FromObject(item[0]), *item[1:])
            for item in items]


cdef int fill(Record record, str user_id, str group_id, Rotation rotation, list attributes) except -1:
    """Lay out the block of a record; `attributes` are sorted by key.

    All that can fail comes before the first pointer is kept.
    """
    cdef Py_ssize_t user_length = 0, group_length = 0, total, place, count = len(attributes)
    cdef const char *user = NULL
    cdef const char *group = NULL
    cdef bint expiring = False, wide = False
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
        wide = wide or not is_near(record.version, version)
        values.append((version, 0 if expiry is None else <int64_t> expiry, <bytes?> value))
        if not value:
            raise ValueError("the value of an attribute is JSON, which is not empty")
        total += len(<bytes> value)
    if total > 0xFFFF_FFFFLL or count > 0xFFFF_FFFFLL:
        raise OverflowError("a session of more than 4 GiB")
    record.shape = shape_of_keys(tuple([item[0] for item in attributes]))
    record.count = <uint32_t> count
    record.user_length = <uint16_t> user_length
    record.group_length = <uint16_t> group_length
    record.owned = user_id is not None
    record.grouped = group_id is not None
    record.expiring = expiring
    record.wide = wide
    record.rotated = rotation.previous_generation != 0 or rotation.previous_until != 0 or rotation.rotated_at != 0
    set_block(record, total)
    if record.rotated:
        memcpy(block_of(record), &rotation, sizeof(Rotation))
    cdef char *text = text_of(record)
    if user_length:
        memcpy(text, user, user_length)
    if group_length:
        memcpy(text + user_length, group, group_length)
    cdef Py_ssize_t at = user_length + group_length, length
    for place in range(count):
        version, expiry, value = values[place]
        set_version(record, place, version)
        if expiring:
            expiries_of(record)[place] = expiry
        length = PyBytes_GET_SIZE(value)
        memcpy(text + at, PyBytes_AS_STRING(value), length)
        at += length
        record.ends[place] = <uint32_t> at
    return 0


cdef int set_block(Record record, size_t text) except -1:
    """Make the block of a record whose count and flags are set, with room for so many bytes of text."""
    cdef size_t versions = record.count * (sizeof(int64_t) if record.wide else sizeof(uint32_t))
    if record.expiring:
        versions += record.count * sizeof(int64_t)
    if record.rotated:
        versions += sizeof(Rotation)
    cdef char *block = <char *> PyMem_Malloc(versions + record.count * sizeof(uint32_t) + text)
    if block == NULL:
        raise MemoryError
    record.ends = <uint32_t *> (block + versions)
    return 0


cdef inline bint is_near(int64_t version, int64_t older) noexcept:
    """Return True where the age of an attribute of an older version fits."""
    return older <= version and <uint64_t> version - <uint64_t> older <= 0xFFFF_FFFFULL


cdef inline void set_version(Record record, Py_ssize_t place, int64_t version) noexcept:
    cdef char *versions = versions_of(record)
    if record.wide:
        (<int64_t *> versions)[place] = version
    else:
        (<uint32_t *> versions)[place] = <uint32_t> (record.version - version)


cdef Record with_values(Record old, int64_t version, list sets):
    """Return a record of the same owner with other values for keys that it has; None where that is not all.

    Most updates change a value or two, and need not take the whole record apart.
    """
    cdef Py_ssize_t place, total
    total = text_end(old)
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
    if not old.wide:
        for place in range(old.count):
            if place not in values and not is_near(version, version_of(old, place)):
                return None
    cdef Record record = bare_record()
    record.id = old.id
    record.version = version
    record.generation = old.generation
    record.created_at = old.created_at
    record.owner_since = old.owner_since
    record.incarnation = old.incarnation
    record.shape = old.shape
    record.count = old.count
    record.user_length = old.user_length
    record.group_length = old.group_length
    record.owned = old.owned
    record.grouped = old.grouped
    record.expiring = old.expiring
    record.wide = old.wide
    record.rotated = old.rotated
    set_block(record, total)
    cdef Py_ssize_t at = <Py_ssize_t> old.user_length + old.group_length
    memcpy(block_of(record), block_of(old), text_of(old) + at - block_of(old))
    cdef Span span
    for place in range(old.count):
        span = value_of(old, <uint32_t> place)
        if place in values:
            value = values[place]
            span.data = PyBytes_AS_STRING(value)
            span.length = <uint32_t> PyBytes_GET_SIZE(value)
            set_version(record, place, version)
            if old.expiring:
                expiries_of(record)[place] = 0
        else:
            set_version(record, place, version_of(old, place))
        memcpy(text_of(record) + at, span.data, span.length)
        at += span.length
        record.ends[place] = <uint32_t> at
    return record


cdef object owner(Record record, int which):
    cdef Span span = owner_of(record, which)
    return None if span.data == NULL else PyUnicode_FromStringAndSize(span.data, span.length)


cdef tuple item_at(Record record, uint32_t place):
    cdef Span span = value_of(record, place)
    cdef int64_t expires_at = expiry_of(record, place)
    return (record.shape.keys[place], version_of(record, place), expires_at or None,
            PyBytes_FromStringAndSize(span.data, span.length))


# ---- decoded values, shared by every reader ----
#
# `shared` has room for a value of each attribute: read without a type, or of the type that it was read as, where
# without one it would be mutable. Its `typed`, made when it is needed first, holds two pointers for each attribute: a type,
# and the value read as that type, where the value does not say which that was or the place for it is taken. Only
# what is immutable all the way down is put there; session_reading.pyx decides.
#
# The first value alone needs no such memory: the record has the pointer to it, with the lowest bit set, and its place.
#
# A reader takes no lock for it. Where there is no GIL a pointer is therefore set once and stays as long as the record,
# which the reader holds: it can take its own reference at any time. (Elsewhere the type asked for last is kept, and the first
# value is as said.)

cdef Shared *all_shared(Record record) except NULL:
    """Return what the readers of a record share, in memory of its own from now on."""
    cdef Shared *shared = shared_of(record)
    cdef PyObject *lone = lone_of(record)
    if shared == NULL:
        shared = <Shared *> PyMem_Malloc(sizeof(Shared) + record.count * sizeof(PyObject *))
        if shared == NULL:
            raise MemoryError
        memset(shared, 0, sizeof(Shared) + record.count * sizeof(PyObject *))
        if lone != NULL:
            values_of(shared)[record.lone] = lone
            record.shared = shared
        elif not pgs_set_once(&record.shared, shared):
            PyMem_Free(shared)
            shared = shared_of(record)
    return shared


cdef object make_uuid(Record record):
    cdef Record held = record           # making a UUID runs Python code
    return keep_uuid(held, key_uuid(held.id))


cdef object keep_uuid(Record record, object uuid):
    """Keep a UUID in its record; return the one that all others get too, which may have been made meanwhile."""
    cdef Shared *shared = all_shared(record)
    Py_INCREF(uuid)
    if not pgs_set_once(&shared.uuid, <PyObject *> uuid):
        Py_DECREF(uuid)
    return <object> <PyObject *> pgs_read(&shared.uuid)


cdef int share(Record record, uint32_t place, object value) except -1:
    cdef PyObject **at
    cdef PyObject *old
    if not PGS_FREE_THREADED and record.shared == NULL and place <= 0xFFFF:
        Py_INCREF(value)
        record.lone = <uint16_t> place
        record.shared = <char *> <PyObject *> value + 1
        return 0
    at = values_of(all_shared(record)) + place
    Py_INCREF(value)
    if PGS_FREE_THREADED:
        if not pgs_set_once(at, <PyObject *> value):
            Py_DECREF(value)
        return 0
    old = at[0]
    at[0] = <PyObject *> value
    Py_XDECREF(old)
    return 0


cdef PyObject **typed_of(Record record) except NULL:
    """Return the pairs of type and value that readers by type share, made where there are none yet."""
    cdef Shared *shared = all_shared(record)
    cdef PyObject **typed
    if pgs_read(&shared.typed) == NULL:
        typed = <PyObject **> PyMem_Calloc(record.count, 2 * sizeof(PyObject *))
        if typed == NULL:
            raise MemoryError
        if not pgs_set_once(&shared.typed, typed):
            PyMem_Free(typed)
    return <PyObject **> pgs_read(&shared.typed)


cdef int share_typed(Record record, uint32_t place, object type_, object value) except -1:
    cdef PyObject **pair = typed_of(record) + 2 * <size_t> place
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
    cdef Shared *shared = shared_of(record)
    cdef PyObject **pair = NULL if shared == NULL else <PyObject **> pgs_read(&shared.typed)
    if pair == NULL:
        return NULL
    pair += 2 * <size_t> place
    return pair[1] if <PyObject *> pgs_read(&pair[0]) == <PyObject *> type_ else NULL


cdef int inherit(Record record, Record old) except -1:
    """Take over what is decoded of the attributes that are the same (same version, C4)."""
    cdef Shared *shared = shared_of(old)
    cdef uint32_t place
    cdef Py_ssize_t before
    cdef PyObject *decoded
    cdef PyObject **pair = NULL if shared == NULL else <PyObject **> pgs_read(&shared.typed)
    if old.shared == NULL:
        return 0
    if shared != NULL and pgs_read(&shared.uuid) != NULL:
        keep_uuid(record, <object> <PyObject *> pgs_read(&shared.uuid))
    for place in range(record.count):
        before = place_of(old, record.shape.keys[place])
        if before < 0 or version_of(old, before) != version_of(record, place):
            continue
        decoded = decoded_at(old, before)
        if decoded != NULL:
            share(record, place, <object> decoded)
        if pair != NULL and pgs_read(&pair[2 * before]) != NULL:
            share_typed(record, place, <object> pair[2 * before], <object> pair[2 * before + 1])
    return 0


cdef void drop_shared(Record record) noexcept:
    """Release what readers share of a record that nobody refers to any more, not even its values."""
    cdef Shared *shared = shared_of(record)
    cdef size_t i, count = record.count
    Py_XDECREF(lone_of(record))
    if shared == NULL:
        return
    for i in range(count):
        Py_XDECREF(values_of(shared)[i])
    if shared.typed != NULL:
        for i in range(2 * count):
            Py_XDECREF(shared.typed[i])
        PyMem_Free(shared.typed)
    Py_XDECREF(shared.uuid)
    PyMem_Free(shared)
