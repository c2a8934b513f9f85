# cython: freethreading_compatible=True
"""A record is shared by the processes of a host as bytes: what it is made of, its block as it is, its keys.

    Head
    block          as record.pyx lays it out
    keys           of the attributes, in their order: length (uint32) and UTF-8 of each
    incarnation    its UTF-8, if there is one

Both sides run the same build on the same machine: the layout of the arena names this one (RECORD_ENCODING, to be
counted up with every change here or of the block). So numbers are as this machine has them. What is inside is checked
nonetheless as far as memory could be read beyond its end.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from pgsession._core.lock cimport pgs_dict_get, pgs_read, pgs_set_once
from pgsession._core.record cimport (
    Shape, bare_record, block_of, block_size, set_block, shape_of_keys, text_of,
)

from sys import intern

cdef extern from "Python.h":
    object PyUnicode_DecodeUTF8(const char *data, Py_ssize_t length, const char *errors)

cdef enum:
    SHAPES = 512                # that are found by their bytes,
    LONGEST = 4096              # none of them of more bytes
    NO_INCARNATION = 0xFFFF

cdef dict shapes = {}           # by their keys as bytes


cdef struct Head:
    uint64_t high, low
    int64_t version, generation, created_at, updated_at, last_accessed, expires_at, owner_since, inactivity
    uint32_t count, block, keys         # attributes, and bytes of both
    uint16_t user, group, incarnation   # bytes of each
    uint8_t owned, grouped, expiring, wide, rotated, unused


cdef bytes encoded(Record record):
    """Return a record as bytes."""
    cdef bytes keys = keys_of(record.shape)
    cdef bytes incarnation = b""
    cdef Head head
    cdef char *to
    if record.incarnation is not None:
        incarnation = record.incarnation.encode()
    if len(incarnation) >= NO_INCARNATION:
        raise OverflowError("an incarnation of more than 64 KiB")
    memset(&head, 0, sizeof(Head))
    head.high = record.id.high
    head.low = record.id.low
    head.version = record.version
    head.generation = record.generation
    head.created_at = record.created_at
    head.updated_at = record.updated_at
    head.last_accessed = record.last_accessed
    head.expires_at = record.expires_at
    head.owner_since = record.owner_since
    head.inactivity = record.inactivity
    head.count = record.count
    if block_size(record) > 0xFFFF_FFFFULL:
        raise OverflowError("a session of more than 4 GiB")
    head.block = <uint32_t> block_size(record)
    head.keys = <uint32_t> len(keys)
    head.user = record.user_length
    head.group = record.group_length
    head.incarnation = NO_INCARNATION if record.incarnation is None else <uint16_t> len(incarnation)
    head.owned = record.owned
    head.grouped = record.grouped
    head.expiring = record.expiring
    head.wide = record.wide
    head.rotated = record.rotated
    cdef bytes made = PyBytes_FromStringAndSize(
        NULL, sizeof(Head) + <Py_ssize_t> head.block + len(keys) + len(incarnation))
    to = PyBytes_AS_STRING(made)
    memcpy(to, &head, sizeof(Head))
    to += sizeof(Head)
    memcpy(to, block_of(record), head.block)
    to += head.block
    memcpy(to, PyBytes_AS_STRING(keys), head.keys)
    memcpy(to + head.keys, PyBytes_AS_STRING(incarnation), PyBytes_GET_SIZE(incarnation))
    return made


cdef Record decoded(const char *data, size_t length):
    """Return the record that was made bytes of; ValueError: these are none."""
    cdef Head head
    cdef Record record
    cdef size_t incarnation
    if length < sizeof(Head):
        raise ValueError("too short for a record")
    memcpy(&head, data, sizeof(Head))
    incarnation = 0 if head.incarnation == NO_INCARNATION else head.incarnation
    if length != sizeof(Head) + <size_t> head.block + head.keys + incarnation:
        raise ValueError("a record of another length")
    data += sizeof(Head)
    record = bare_record()
    record.id.high = head.high
    record.id.low = head.low
    record.version = head.version
    record.generation = head.generation
    record.created_at = head.created_at
    record.updated_at = head.updated_at
    record.last_accessed = head.last_accessed
    record.expires_at = head.expires_at
    record.owner_since = head.owner_since
    record.inactivity = head.inactivity
    record.shape = shape_by_bytes(data + head.block, head.keys)
    if <size_t> len(record.shape.keys) != head.count:
        raise ValueError("a record of other keys")
    if head.incarnation != NO_INCARNATION:
        record.incarnation = intern(PyUnicode_DecodeUTF8(data + head.block + head.keys, incarnation, NULL))
    fill_block(record, &head, data)
    return record


cdef int fill_block(Record record, const Head *head, const char *block) except -1:
    """Copy the block of a record whose shape is there; nothing in it may point out of it."""
    cdef size_t rest = head.count * (sizeof(uint32_t) + (sizeof(int64_t) if head.wide else sizeof(uint32_t)))
    cdef uint32_t at, place, end
    rest += (head.count * sizeof(int64_t) if head.expiring else 0) + (3 * sizeof(int64_t) if head.rotated else 0)
    at = <uint32_t> head.user + head.group
    if head.block < rest + at:
        raise ValueError("the block of a record is too short")
    record.count = head.count
    record.user_length = head.user
    record.group_length = head.group
    record.owned = head.owned != 0
    record.grouped = head.grouped != 0
    record.expiring = head.expiring != 0
    record.wide = head.wide != 0
    record.rotated = head.rotated != 0
    set_block(record, head.block - rest)
    memcpy(block_of(record), block, head.block)
    for place in range(head.count):
        end = record.ends[place]
        if end <= at:
            raise ValueError("a record has a value that ends before it begins")
        at = end
    if at != head.block - rest:
        raise ValueError("the values of a record end elsewhere than it does")
    return 0


cdef bytes keys_of(Shape shape):
    """Return the keys of a shape as bytes, made once for all of its records."""
    cdef void *known = pgs_read(&shape.encoded)
    cdef uint32_t length
    cdef list parts = []
    if known != NULL:
        return <bytes> <PyObject *> known
    for key in shape.keys:
        text = (<str> key).encode("utf-8", "surrogatepass")
        length = <uint32_t> len(text)
        parts.append(PyBytes_FromStringAndSize(<char *> &length, sizeof(uint32_t)))
        parts.append(text)
    made = b"".join(parts)
    Py_INCREF(made)
    if not pgs_set_once(&shape.encoded, <void *> <PyObject *> made):
        Py_DECREF(made)
    return made


cdef Shape shape_by_bytes(const char *data, size_t length):
    """Return the shape whose keys these are."""
    cdef bytes keys = PyBytes_FromStringAndSize(data, length)
    known = pgs_dict_get(shapes, keys)
    if known is None:
        known = shape_of_keys(keys_in(keys))
        if length <= LONGEST:
            if len(shapes) >= SHAPES:
                shapes.clear()
            shapes[keys] = known
    return <Shape> known


cdef tuple keys_in(bytes data):
    """Return the keys that keys_of() made bytes of."""
    cdef const char *at = PyBytes_AS_STRING(data)
    cdef size_t left = PyBytes_GET_SIZE(data)
    cdef uint32_t length
    cdef list keys = []
    while left:
        if left < sizeof(uint32_t):
            raise ValueError("a record of other keys")
        memcpy(&length, at, sizeof(uint32_t))
        at += sizeof(uint32_t)
        left -= sizeof(uint32_t)
        if left < length:
            raise ValueError("a record of other keys")
        keys.append(PyUnicode_DecodeUTF8(at, length, "surrogatepass"))
        at += length
        left -= length
    return tuple(keys)


def encode(Record record not None):
    """Return a record as bytes, for `decode` of the same build on the same machine."""
    return encoded(record)


def decode(bytes data not None):
    """Return the record that `encode` made bytes of.

    Raises:
        ValueError: These bytes are no record.
    """
    return decoded(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
