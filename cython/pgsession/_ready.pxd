cdef object ready(object result)
