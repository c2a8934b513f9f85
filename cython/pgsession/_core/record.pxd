from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE

from pgsession._core.key cimport Key
from pgsession._core.lock cimport pgs_read


cdef class Shape:
    """Holds the keys of a record, sorted and interned; all records with these keys share it."""
    cdef readonly tuple keys
    cdef dict places
    cdef Py_ssize_t size        # bytes of the keys in UTF-8
    cdef void *encoded          # the keys as record_bytes.pyx writes them, made when they are needed first


cdef struct Rotation:           # of the tokens of a session
    int64_t previous_generation
    int64_t previous_until      # so long tokens of the previous generation are good; 0: not any more
    int64_t rotated_at          # 0: never


cdef struct Shared:             # and behind it a value of each attribute, for those who read without a type; see share()
    PyObject *uuid              # of the record's id
    PyObject **typed            # for those who read as a type, see share_typed()


cdef class Record:
    cdef Key id
    cdef readonly int64_t version
    cdef readonly int64_t generation        # of its current tokens
    cdef readonly int64_t created_at
    cdef readonly int64_t updated_at
    cdef readonly int64_t last_accessed
    cdef readonly int64_t expires_at
    cdef readonly int64_t owner_since       # the version at which its user last changed
    cdef readonly int64_t inactivity        # the idle timeout; 0: none
    cdef Shape shape
    cdef uint32_t *ends         # where the values end, in the middle of the block: see record.pyx
    cdef void *shared           # what its readers have made of it, see shared_of() and lone_of(); NULL: nothing yet
    cdef uint32_t count
    cdef uint16_t user_length
    cdef uint16_t group_length
    cdef uint16_t lone          # the place of the only value that is decoded
    cdef uint8_t owned          # user_id is not None
    cdef uint8_t grouped        # group_id is not None
    cdef uint8_t expiring       # some attribute expires on its own
    cdef uint8_t wide           # a version is so far from the record's that its age would not fit
    cdef uint8_t rotated        # it has a Rotation
    cdef readonly str incarnation   # of the tables that it was read from, interned; versions of another say nothing


cdef Shape shape_of_keys(tuple keys)
cdef Record bare_record()
cdef int set_block(Record record, size_t text) except -1


# ---- the block, see record.pyx ----

cdef inline char *versions_of(Record record) noexcept:
    """Return where the versions are: each as it is where the record is `wide`, else its age."""
    return <char *> record.ends - record.count * (sizeof(int64_t) if record.wide else sizeof(uint32_t))


cdef inline int64_t version_of(Record record, Py_ssize_t place) noexcept:
    """Return the version of an attribute."""
    cdef char *versions = versions_of(record)
    return (<int64_t *> versions)[place] if record.wide else record.version - (<uint32_t *> versions)[place]


cdef inline int64_t *expiries_of(Record record) noexcept:
    """Return where the expiries are, of a record that has some."""
    return <int64_t *> versions_of(record) - <Py_ssize_t> record.count


cdef inline char *block_of(Record record) noexcept:
    """Return where the block begins."""
    cdef char *begin = <char *> expiries_of(record) if record.expiring else versions_of(record)
    return begin - sizeof(Rotation) if record.rotated else begin


cdef inline char *text_of(Record record) noexcept:
    return <char *> (record.ends + record.count)


cdef inline uint32_t text_end(Record record) noexcept:
    """Return where the text ends, counted as the values' ends are."""
    return record.ends[record.count - 1] if record.count else <uint32_t> record.user_length + record.group_length


cdef inline size_t block_size(Record record) noexcept:
    """Return the bytes of the block, which has no pointers."""
    return <size_t> (text_of(record) + text_end(record) - block_of(record))


cdef inline Rotation rotation_of(Record record) noexcept:
    """Return how the tokens were rotated; all of it is 0 where they never were."""
    cdef Rotation never = Rotation(0, 0, 0)
    return (<Rotation *> block_of(record))[0] if record.rotated else never


cdef inline int64_t expiry_of(Record record, uint32_t place) noexcept:
    """Return when an attribute expires on its own, in database time; 0: never."""
    return expiries_of(record)[place] if record.expiring else 0


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
    cdef Rotation rotation = rotation_of(record)
    if generation == record.generation:
        return CURRENT
    if generation == rotation.previous_generation and earliest < rotation.previous_until:
        return PREVIOUS
    return SUPERSEDED if earliest < rotation.rotated_at + grace else ENDED


cdef struct Span:
    const char *data
    uint32_t length


cdef inline bint is_live(Record record, uint32_t place, int64_t now) noexcept:
    cdef int64_t expires_at = expiry_of(record, place)
    return expires_at == 0 or now < expires_at


cdef inline Span value_of(Record record, uint32_t place) noexcept:
    """Return the JSON of one attribute, inside the block: valid as long as the record."""
    cdef Span span
    cdef uint32_t *ends = record.ends
    cdef uint32_t start = ends[place - 1] if place else <uint32_t> record.user_length + record.group_length
    span.data = text_of(record) + start
    span.length = ends[place] - start
    return span


cdef inline int64_t values_size(Record record) noexcept:
    """Return the bytes of all values."""
    return <int64_t> text_end(record) - record.user_length - record.group_length


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


# ---- what its readers share ----

cdef inline Shared *shared_of(Record record) noexcept:
    """Return what readers share of a record, or NULL where that is nothing, or a lone value."""
    cdef void *shared = pgs_read(&record.shared)
    return NULL if <size_t> shared & 1 else <Shared *> shared


cdef inline PyObject *lone_of(Record record) noexcept:
    """Return the only value that is decoded, where nothing else is shared, or NULL."""
    cdef void *shared = pgs_read(&record.shared)
    return <PyObject *> (<char *> shared - 1) if <size_t> shared & 1 else NULL


cdef inline PyObject **values_of(Shared *shared) noexcept:
    return <PyObject **> (shared + 1)


cdef inline PyObject *decoded_at(Record record, Py_ssize_t place) noexcept:
    """Return the value that is shared by those who read an attribute without a type, borrowed, or NULL."""
    cdef Shared *shared = shared_of(record)
    if shared != NULL:
        return values_of(shared)[place]
    return lone_of(record) if record.lone == place else NULL


cdef object make_uuid(Record record)

cdef inline object uuid_of(Record record):
    """Return the id as a UUID, made once for all who have this record."""
    cdef Shared *shared = shared_of(record)
    cdef PyObject *known = NULL if shared == NULL else <PyObject *> pgs_read(&shared.uuid)
    return <object> known if known != NULL else make_uuid(record)


cdef int share(Record record, uint32_t place, object value) except -1
cdef int share_typed(Record record, uint32_t place, object type_, object value) except -1
cdef PyObject *shared_typed(Record record, uint32_t place, object type_) noexcept
