from libc.stdint cimport int64_t

cdef str checked_text(str name, object value, Py_ssize_t least, Py_ssize_t most)
cdef str shown(object value)
cdef int refuse_flag(str name, object value) except -1
cdef int64_t checked_count(str name, object value, object least, object most) except? -1

cdef enum:
    MAX_TEXT_BYTES = 512        # an index row must hold it

cdef inline bint checked_flag(str name, object value) except -1:
    """Return a plain bool as C has it."""
    if value is True:
        return True
    if value is False:
        return False
    return refuse_flag(name, value)
