"""The values of one cookie are found here, in the headers of every request; no other cookie is taken apart."""

from libc.string cimport memchr, memcmp

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

cdef extern from "Python.h":
    enum:
        PyUnicode_1BYTE_KIND
    int PyUnicode_KIND(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    void *PyUnicode_1BYTE_DATA(object text)
    str PyUnicode_DecodeLatin1(const char *text, Py_ssize_t size, const char *errors)

cdef enum:
    MOST = 4                    # values of one name in a request; each unknown one may cost a query


def cookie_values(bytes name not None, cookies):
    """Return the values of a cookie, without blanks and quotes around them, each once, in their order, the first four.

    A browser sends several where other hosts of the domain, or other paths, have set some.

    Args:
        name: The cookie's name.
        cookies: The value of the Cookie header; or all headers of a request, pairs of bytes, the names in lower case.
    """
    cdef list found = []
    if isinstance(cookies, str):
        if PyUnicode_KIND(cookies) == PyUnicode_1BYTE_KIND:
            collect(found, name, <const char *> PyUnicode_1BYTE_DATA(cookies), PyUnicode_GET_LENGTH(cookies))
        else:
            collect_from_bytes(found, name, (<str> cookies).encode("latin-1", "replace"))
        return found
    for field, value in cookies:
        if field == b"cookie":
            collect_from_bytes(found, name, value)
    return found


cdef int collect_from_bytes(list found, bytes name, bytes header) except -1:
    if header is None:
        raise TypeError("a header's value is bytes, not None")
    return collect(found, name, PyBytes_AS_STRING(header), PyBytes_GET_SIZE(header))


cdef int collect(list found, bytes name, const char *at, Py_ssize_t length) except -1:
    """Put the values of a name that stand in a header into the list."""
    cdef const char *wanted = PyBytes_AS_STRING(name)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    cdef const char *end = at + length
    cdef const char *next
    cdef const char *last
    while at < end and len(found) < MOST:
        next = <const char *> memchr(at, c";", end - at)
        if next == NULL:
            next = end
        if at[0] == c" ":       # more, or others, may be in the name or value of another cookie, which any host of the domain sets
            at += 1
        if next - at > size and memcmp(at, wanted, size) == 0:
            at = behind_blanks(at + size, next)
            if at < next and at[0] == c"=":
                at = behind_blanks(at + 1, next)
                if at < next and at[0] == c'"':
                    at += 1
                last = next
                while last > at and ((last - 1)[0] == c" " or (last - 1)[0] == c"\t" or (last - 1)[0] == c'"'):
                    last -= 1
                value = PyUnicode_DecodeLatin1(at, last - at, NULL)
                if value not in found:
                    found.append(value)
        at = next + 1
    return 0


cdef inline const char *behind_blanks(const char *at, const char *end) noexcept:
    while at < end and (at[0] == c" " or at[0] == c"\t"):
        at += 1
    return at
