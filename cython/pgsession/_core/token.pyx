"""A session token is opened here, for every request with a token that is new to this node.

It is the kind of the token, the format, the session's id, the generation and the version (big-endian), and the MAC of
all that. There is exactly one spelling for each sequence of bytes: 88 characters of the URL-safe base64 alphabet (RFC
4648, section 5) are 66 bytes, each character six bits of them. The cryptography is the standard library's.
"""

from hmac import compare_digest

try:
    from _hashlib import hmac_digest as digest      # what hmac.digest calls, without its frame
except ImportError:                                 # a Python without OpenSSL
    from hmac import digest

from cpython.bytes cimport PyBytes_FromStringAndSize

from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    void *PyUnicode_1BYTE_DATA(object text)

cdef enum:
    CHARACTERS = 88
    ID = 2                      # where it begins
    GENERATION = 18
    VERSION = 26
    MESSAGE = 34                # the bytes before the MAC
    MAC = 32
    KIND = 115                  # b"s"
    FORMAT = 1

cdef int8_t VALUES[256]


cdef void fill_values() noexcept:
    cdef int i
    cdef const uint8_t *alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for i in range(256):
        VALUES[i] = -1
    for i in range(64):
        VALUES[alphabet[i]] = <int8_t> i


fill_values()


def open_session_token(tuple keys not None, token):
    """Return the 16 bytes of the session id, the generation and the version of a session token that a key signed.

    Anything else gives None.
    """
    cdef const uint8_t *text
    cdef uint8_t sealed[66]
    cdef uint32_t group
    cdef int a, b, c, d, i
    if not isinstance(token, str):
        return None
    token = str.__str__(token)          # a subclass is laid out in another way
    if PyUnicode_GET_LENGTH(token) != CHARACTERS or not PyUnicode_IS_COMPACT_ASCII(token):
        return None
    text = <const uint8_t *> PyUnicode_1BYTE_DATA(token)
    for i in range(22):
        a = VALUES[text[4 * i]]
        b = VALUES[text[4 * i + 1]]
        c = VALUES[text[4 * i + 2]]
        d = VALUES[text[4 * i + 3]]
        if (a | b | c | d) < 0:
            return None
        group = (<uint32_t> a << 18) | (<uint32_t> b << 12) | (<uint32_t> c << 6) | <uint32_t> d
        sealed[3 * i] = <uint8_t> (group >> 16)
        sealed[3 * i + 1] = <uint8_t> ((group >> 8) & 255)
        sealed[3 * i + 2] = <uint8_t> (group & 255)
    if sealed[0] != KIND or sealed[1] != FORMAT or sealed[VERSION] > 127:       # no version is that large
        return None
    message = PyBytes_FromStringAndSize(<const char *> sealed, MESSAGE)
    mac = PyBytes_FromStringAndSize(<const char *> sealed + MESSAGE, MAC)
    for key in keys:
        if compare_digest(mac, digest(key, message, "sha256")):
            return (
                PyBytes_FromStringAndSize(<const char *> sealed + ID, 16),
                number(sealed + GENERATION),
                number(sealed + VERSION),
            )
    return None


cdef int64_t number(const uint8_t *octets) noexcept:
    """Return a number of 8 bytes, with its sign."""
    cdef uint64_t value = 0
    cdef int i
    for i in range(8):
        value = (value << 8) | octets[i]
    return <int64_t> value
