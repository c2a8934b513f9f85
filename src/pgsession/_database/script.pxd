cpdef _bound(object parameter)
cdef _value(object result, int column)
