cdef object completed(object result)
