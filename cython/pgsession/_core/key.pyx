# cython: freethreading_compatible=True
"""The rule for session ids stands here: a UUID, its 36-character str or 16 bytes is read as one 128-bit key."""

from uuid import UUID

cdef PyTypeObject *UUID_TYPE = NULL
cdef Py_ssize_t INT_OFFSET = pgs_slot_offset(UUID, b"int")

if INT_OFFSET > 0:      # else every UUID takes the way of a subclass, by attribute
    UUID_TYPE = <PyTypeObject *> UUID


cdef int parse_other(object session_id, Key *key) except -1:
    """Read subclasses, and refuse what is no id."""
    return parse_named(session_id, key, "session_id")


cdef int parse_named(object session_id, Key *key, str name) except -1:
    """Read the key of every form that there is, subclasses too; what is refused is called `name`."""
    cdef const unsigned char *text
    if isinstance(session_id, str):
        plain = str.__str__(session_id)     # a subclass is laid out in another way
        text = pgs_text_36(plain)
        if text != NULL and pgs_parse_text(text, &key.high, &key.low):
            return 0
        raise ValueError(f"{name}: must be a UUID in its form of 36 characters")
    if isinstance(session_id, bytes):
        if PyBytes_GET_SIZE(session_id) != 16:
            raise ValueError(f"{name}: must be 16 bytes, not {PyBytes_GET_SIZE(session_id)}")
        text = <const unsigned char *> PyBytes_AS_STRING(session_id)
        key.high = pgs_load_big(text)
        key.low = pgs_load_big(text + 8)
        return 0
    if isinstance(session_id, UUID):
        number = getattr(session_id, "int", None)
        return pgs_int_halves(<PyObject *> number, &key.high, &key.low)
    raise TypeError(f"{name}: a UUID, its str of 36 characters or 16 bytes is needed, not {type(session_id).__name__}")


cdef object key_bytes(Key key):
    """Return the 16 bytes of a key."""
    cdef unsigned char raw[16]
    pgs_store_big(raw, key.high)
    pgs_store_big(raw + 8, key.low)
    return (<char *> raw)[:16]


cdef object key_uuid(Key key):
    """Return the UUID of a key."""
    return UUID(int=(<object> key.high << 64) | key.low)


def to_bytes(session_id, str name="session_id"):
    """Return the 16 bytes of a session id given as UUID, 36-character str or 16 bytes.

    Args:
        session_id: The id.
        name: The argument that a refusal names.

    Raises:
        TypeError: It is anything else.
        ValueError: It is a malformed str or a wrong number of bytes.
    """
    cdef Key key
    parse_named(session_id, &key, name)
    return key_bytes(key)


def to_uuid(session_id):
    """Return the UUID of a session id given as UUID, 36-character str or 16 bytes; raise as `to_bytes` does."""
    cdef Key key
    parse(session_id, &key)
    return key_uuid(key)
