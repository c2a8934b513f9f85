from libc.stdint cimport uint32_t

from pgsession._core.record cimport Record


cdef enum:
    RECORD_ENCODING = 1         # of what encoded() makes: to be counted up with every change of it, or of a record's block

cdef bytes encoded(Record record)
cdef Record decoded(const char *data, size_t length)
