from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE

from pgsession._core.key cimport Key
from pgsession._core.lock cimport pgs_read


cdef class Shape:
    """Holds the keys of a record, sorted and interned; all records with these keys share it."""
    cdef readonly tuple keys
    cdef dict places
    cdef Py_ssize_t size        # bytes of the keys in UTF-8


cdef class Record:
    cdef Key id
    cdef readonly int64_t version
    cdef readonly int64_t generation        # of its current tokens
    cdef readonly int64_t created_at
    cdef readonly int64_t updated_at
    cdef readonly int64_t last_accessed
    cdef readonly int64_t expires_at
    cdef readonly int64_t owner_since       # the version at which its user last changed
    cdef readonly int64_t previous_generation
    cdef readonly int64_t previous_until    # so long tokens of the previous generation are good; 0: not any more
    cdef readonly int64_t rotated_at        # 0: never
    cdef readonly int64_t inactivity        # the idle timeout; 0: none
    cdef Shape shape
    cdef char *block            # see record.pyx
    cdef PyObject **typed       # what is shared by those who read as a type, see share_typed()
    cdef PyObject *uuid         # of its id, once it was asked for; see uuid_of()
    cdef uint32_t count
    cdef uint16_t user_length
    cdef uint16_t group_length
    cdef uint8_t owned          # user_id is not None
    cdef uint8_t grouped        # group_id is not None
    cdef uint8_t expiring       # some attribute expires on its own
    cdef readonly str incarnation   # of the tables that it was read from, interned; versions of another say nothing


cdef enum Standing:             # what a record says of a token's generation
    CURRENT
    PREVIOUS                    # as good, for a while
    SUPERSEDED                  # by a rotation that was a moment ago
    ENDED


cdef inline Standing standing_of(Record record, int64_t generation, int64_t earliest, int64_t grace) noexcept:
    """Return what a record says of a token of this generation.

    `earliest` is the earliest that it can be by the database's clock: what is good is refused only once it surely is
    no more.
    """
    if generation == record.generation:
        return CURRENT
    if generation == record.previous_generation and earliest < record.previous_until:
        return PREVIOUS
    return SUPERSEDED if earliest < record.rotated_at + grace else ENDED


cdef struct Span:
    const char *data
    uint32_t length


cdef inline PyObject **decoded_of(Record record) noexcept:
    """Return the values that are shared by those who read without a type, see share()."""
    return <PyObject **> record.block


cdef inline int64_t *versions_of(Record record) noexcept:
    return <int64_t *> (record.block + <size_t> record.count * sizeof(PyObject *))


cdef inline int64_t expiry_of(Record record, uint32_t place) noexcept:
    """Return when an attribute expires on its own, in database time; 0: never."""
    return versions_of(record)[record.count + place] if record.expiring else 0


cdef inline bint is_live(Record record, uint32_t place, int64_t now) noexcept:
    cdef int64_t expires_at = expiry_of(record, place)
    return expires_at == 0 or now < expires_at


cdef inline uint32_t *ends_of(Record record) noexcept:
    return <uint32_t *> (versions_of(record) + <size_t> record.count * (2 if record.expiring else 1))


cdef inline const char *text_of(Record record) noexcept:
    return <const char *> (ends_of(record) + record.count)


cdef inline Span value_of(Record record, uint32_t place) noexcept:
    """Return the JSON of one attribute, inside the block: valid as long as the record."""
    cdef Span span
    cdef uint32_t *ends = ends_of(record)
    cdef uint32_t start = ends[place - 1] if place else <uint32_t> record.user_length + record.group_length
    span.data = text_of(record) + start
    span.length = ends[place] - start
    return span


cdef inline int64_t values_size(Record record) noexcept:
    """Return the bytes of all values."""
    return <int64_t> ends_of(record)[record.count - 1] - record.user_length - record.group_length if record.count else 0


cdef Py_ssize_t text_size(str text) except -1

cdef inline Span owner_of(Record record, int which) noexcept:
    """Return the user id (0) or the group id (1) in UTF-8; a null pointer where there is none."""
    cdef Span span
    if which:
        span.data = text_of(record) + record.user_length if record.grouped else NULL
        span.length = record.group_length
    else:
        span.data = text_of(record) if record.owned else NULL
        span.length = record.user_length
    return span


cdef Py_ssize_t place_by_value(Shape shape, object key) noexcept

cdef inline Py_ssize_t place_of(Record record, object key) noexcept:
    """Return the place of a key in a record, or -1; what is not exactly a str is nowhere.

    This runs no other code. Keys are interned, so a literal is mostly found by identity.
    """
    cdef PyObject *shape = <PyObject *> record.shape
    cdef PyObject *keys = <PyObject *> (<Shape> shape).keys
    cdef Py_ssize_t place, count = PyTuple_GET_SIZE(<object> keys)
    if count <= 8:
        for place in range(count):
            if PyTuple_GET_ITEM(<object> keys, place) == <PyObject *> key:
                return place
    return place_by_value(<Shape> shape, key)


cdef object make_uuid(Record record)

cdef inline object uuid_of(Record record):
    """Return the id as a UUID, made once for all who have this record."""
    cdef PyObject *known = <PyObject *> pgs_read(&record.uuid)
    return <object> known if known != NULL else make_uuid(record)


cdef int share(Record record, uint32_t place, object value) except -1
cdef int share_typed(Record record, uint32_t place, object type_, object value) except -1
cdef PyObject *shared_typed(Record record, uint32_t place, object type_) noexcept
