from libc.stdint cimport int64_t, uint32_t

from cpython.object cimport PyObject, PyTypeObject

from pgsession._core.record cimport Record, Span

cdef extern from "Python.h":
    PyTypeObject *Py_TYPE(object)


cdef class Plan:
    """Says how values of one type are decoded, which is decided once for each type."""
    cdef object type
    cdef object decode          # a msgspec decoder's method
    cdef bint shareable         # immutable all the way down
    cdef bint repeatable        # decoding the same bytes twice gives equal encodings


cdef Plan plan_of(object type_)
cdef object decode_plain(Record record, uint32_t place)
cdef object decode_typed(object key, Span span, Plan plan)
cdef bytes encode(str key, object value, int64_t limit)
cdef bytes reencode(object value)
cdef str checked_key(object key)

cdef inline bint is_container(Span span) noexcept:
    """Return True for a JSON object or array.

    The numbers stand for { and [: Cython indents what it generates by the braces in it, also those in a literal.
    """
    return span.data[0] == 0x7B or span.data[0] == 0x5B


cdef inline bint is_plain(object value) noexcept:
    """Return True for a value of exactly a type that is immutable and says all about the value."""
    cdef PyTypeObject *kind = Py_TYPE(value)
    return (kind == <PyTypeObject *> str or kind == <PyTypeObject *> int or kind == <PyTypeObject *> bool
            or kind == <PyTypeObject *> float or value is None)
