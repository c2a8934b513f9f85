# cython: freethreading_compatible=True
"""Session ids: a UUID, its 36-character str or 16 bytes, read as one 128-bit key without making a Python object."""

from uuid import UUID

cdef PyTypeObject *UUID_TYPE = NULL
cdef Py_ssize_t INT_OFFSET = pgs_slot_offset(UUID, b"int")

if INT_OFFSET > 0:      # else every UUID takes the way of a subclass, by attribute
    UUID_TYPE = <PyTypeObject *> UUID


cdef int parse_other(object session_id, Key *key) except -1:
    """Subclasses, and the errors."""
    cdef const unsigned char *text
    if isinstance(session_id, UUID):
        number = getattr(session_id, "int", None)
        return pgs_int_halves(<PyObject *> number, &key.high, &key.low)
    if isinstance(session_id, str):
        plain = str.__str__(session_id)     # a subclass is laid out in another way
        text = pgs_text_36(plain)
        if text != NULL and pgs_parse_text(text, &key.high, &key.low):
            return 0
        raise ValueError("session_id is not a UUID in its form of 36 characters")
    if isinstance(session_id, bytes):
        if len(session_id) == 16:
            return parse(bytes.__getitem__(session_id, slice(None)), key)
        raise ValueError(f"session_id must be 16 bytes, not {len(session_id)}")
    raise TypeError(f"session_id must be a UUID, its str or 16 bytes, not {type(session_id).__name__}")


cdef object key_bytes(Key key):
    cdef unsigned char raw[16]
    pgs_store_big(raw, key.high)
    pgs_store_big(raw + 8, key.low)
    return (<char *> raw)[:16]


cdef object key_uuid(Key key):
    return UUID(int=(<object> key.high << 64) | key.low)


def to_bytes(session_id):
    """The 16 bytes of a session id given as UUID, 36-character str or 16 bytes.

    Raises TypeError for anything else, ValueError for a malformed str or a wrong number of bytes.
    """
    cdef Key key
    parse(session_id, &key)
    return key_bytes(key)


def to_uuid(session_id):
    """The UUID of a session id given as UUID, 36-character str or 16 bytes; raises as `to_bytes`."""
    cdef Key key
    parse(session_id, &key)
    return key_uuid(key)


def _int_halves(number, bint portable=False):
    """For tests: both ways from an int to a key."""
    cdef Key key
    if portable:
        pgs_int_portable(<PyObject *> number, &key.high, &key.low)
    elif not pgs_int_direct(<PyObject *> number, &key.high, &key.low):
        return None
    return (key.high, key.low)
