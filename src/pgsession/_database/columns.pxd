cdef str _incarnations(object bases)
cdef list _ends(object lists)
cdef object _transposed(list rows, int width)
