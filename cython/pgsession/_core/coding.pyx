"""Values go through the codec of their manager, if it has one, on their way to the database and back.

All that is kept and compared is what it was before it was sealed, since sealing twice gives two results. Each function
here calls the codec, which is the caller's code and may change and save the session: so whoever calls one has nothing of
the session half changed, and looks at it anew afterwards.
"""

from libc.stdint cimport int64_t

from cpython.bytes cimport PyBytes_GET_SIZE

from pgsession._core.record cimport Span, uuid_of, value_of
from pgsession._core.session_edits cimport cache_of, record_of
from pgsession._core.values cimport decode_plain, encode, reencode

from binascii import a2b_base64, b2a_base64

from pgsession.errors import AttributeCodecError, AttributeTooLargeError

cdef int64_t NO_LIMIT = 0x7FFF_FFFF_FFFF_FFFFLL


# ---- values ----

cdef bytes encoding_of(SessionState session, str key, object value):
    """Return the JSON of a value, not sealed; everything that cannot be stored raises here."""
    cdef Cache cache = cache_of(session)
    cdef int64_t limit = NO_LIMIT if cache.seals else cache.max_attribute_length
    if not cache.has_codec:
        return encode(key, value, limit)
    plain = to_plain(cache, key, value)
    if plain is value:
        return encode(key, value, limit)
    try:
        return encode(key, plain, limit)
    except AttributeTooLargeError:
        raise
    except (TypeError, ValueError) as error:
        reason = str(error).removeprefix(f"attribute {key!r}: ")
        raise AttributeCodecError(key, f"the codec's to_plain() returned what cannot be stored: {reason}") from error


cdef bytes comparable(SessionState session, str key, object value):
    """Return the JSON of a value, for comparing only: nothing is checked."""
    cdef Cache cache = cache_of(session)
    if not cache.has_codec:
        return reencode(value)
    plain = to_plain(cache, key, value)
    try:
        return reencode(plain)
    except Exception as error:
        raise AttributeCodecError(
            key,
            f"the codec's to_plain() makes no JSON of what its from_plain() returned: {type(error).__name__}",
        ) from error


cdef object to_plain(Cache cache, str key, object value):
    try:
        return cache.codec.to_plain(value)
    except Exception as error:
        raise failed(key, "to_plain", error) from error


cdef object from_plain(SessionState session, str key, object value):
    """Return a value as a caller reads it who names no type."""
    cdef Cache cache = cache_of(session)
    try:
        return cache.codec.from_plain(value)
    except Exception as error:
        raise failed(key, "from_plain", error) from error


# ---- bytes ----

cdef bytes sealed(SessionState session, Edit edit, bytes encoded):
    """Return the JSON string that is stored in place of the JSON of a value.

    It is made once: what is checked when a value is set is what is sent, again where a save has to be tried again.
    """
    cdef Cache cache = cache_of(session)
    if edit.sealed is not None and edit.sealed_of == encoded:
        return edit.sealed
    try:
        data = cache.codec.seal(uuid_of(record_of(session)), edit.key, encoded)
    except Exception as error:
        raise failed(edit.key, "seal", error) from error
    check_bytes(edit.key, "seal", data)
    cdef bytes text = b'"' + b2a_base64(data, newline=False) + b'"'
    if PyBytes_GET_SIZE(text) > cache.max_attribute_length:
        raise AttributeTooLargeError(edit.key, PyBytes_GET_SIZE(text), cache.max_attribute_length)
    edit.sealed_of = encoded
    edit.sealed = text
    return text


cdef bytes opened(SessionState session, Record record, uint32_t place):
    """Return the JSON of a value that is stored."""
    cdef Cache cache = cache_of(session)
    cdef str key = record.shape.keys[place]
    cdef Span span = value_of(record, place)
    if not cache.seals:
        return span.data[:span.length]
    data = sealed_bytes(decode_plain(record, place))
    if data is None:
        raise AttributeCodecError(key, "what is stored was not sealed")
    try:
        data = cache.codec.open(uuid_of(record), key, data)
    except Exception as error:
        raise failed(key, "open", error) from error
    check_bytes(key, "open", data)
    return data


cdef bytes sealed_bytes(object text):
    if type(text) is not str:
        return None
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError:
        return None


cdef int check_bytes(str key, str name, object data) except -1:
    if type(data) is not bytes:
        raise AttributeCodecError(key, f"the codec's {name}() must return bytes, not {type(data).__name__}")
    return 0


cdef object failed(str key, str name, object error):
    """Return the error for one that the codec has raised, whose text may hold the value."""
    return AttributeCodecError(key, f"the codec's {name}() raised {type(error).__name__}")
