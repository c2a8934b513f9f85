from libc.stdint cimport int64_t

from cpython.object cimport PyObject, PyTypeObject

from pgsession._record cimport Span


cdef class Plan:
    """How values of one type are decoded, decided once for each type."""
    cdef object decode          # a msgspec decoder's method
    cdef bint shareable         # immutable all the way down
    cdef bint repeatable        # decoding the same bytes twice gives equal encodings


cdef Plan plan_of(object type_)
cdef object decode_plain(object key, Span span)
cdef object decode_typed(object key, Span span, Plan plan)
cdef bytes encode(str key, object value, int64_t limit)
cdef bytes reencode(object value)
cdef str checked_key(object key)
cdef bint is_plain(object value) noexcept
