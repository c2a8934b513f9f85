from libc.stdint cimport uint32_t

from pgsession._core.record cimport Record


cdef bytes encoded(Record record)
cdef Record decoded(const char *data, size_t length)
