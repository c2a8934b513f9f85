# cython: freethreading_compatible=True
"""Reads items about changed sessions, of which nearly every notification is made, all at once.

The format is that of `pgsession._protocol.events`, which reads all else, and what is unusual here.
"""

from libc.stdint cimport uint64_t

from pgsession._core.key cimport Key, key_bytes

cdef extern from "key.h":
    const unsigned char *pgs_text_ascii(object text)
    bint pgs_parse_hex(const unsigned char *s, uint64_t *high, uint64_t *low)

cdef enum:
    KEY = 32            # hexadecimal digits
    LEAST = KEY + 3     # characters of an item: u, the key, a colon, a digit
    MOST_DIGITS = 18    # of a version that cannot be too large for the server's bigint


def changes_of(str items not None, make):
    """Return what items tell that are all of the form `u<32 hex>:<version>`, with a space between two of them.

    Args:
        items: The items, in text.
        make: Called with the key, 16 bytes, and the version of each.

    Returns:
        A list of what `make` returns; None where an item is of another form, or its version has many digits.
    """
    cdef const unsigned char *text = pgs_text_ascii(items)
    cdef Py_ssize_t at = 0, end = len(items), digits
    cdef uint64_t version
    cdef Key key
    if text == NULL:
        return None
    changes = []
    while end - at >= LEAST and text[at] == c"u" and text[at + 1 + KEY] == c":":
        if not pgs_parse_hex(text + at + 1, &key.high, &key.low):
            return None
        at += LEAST - 1
        version = digits = 0
        while at < end and c"0" <= text[at] <= c"9":
            version = version * 10 + (text[at] - c"0")
            digits += 1
            at += 1
        if not 0 < digits <= MOST_DIGITS:
            return None
        changes.append(make(key_bytes(key), version))
        if at == end:
            return changes
        if text[at] != c" ":
            return None
        at += 1
    return None
