cpdef parse(str payload)
cdef bint _is_hex(str text) except -1
cdef bytes _hex(str text)
cdef bytes _key(str text)
cdef object _number(str colon, str text)
cdef object _item(str text)
