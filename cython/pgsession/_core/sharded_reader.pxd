from pgsession._core.reader cimport AsyncReader, Reader


cdef class Shards:
    cdef readonly tuple readers
    cdef readonly Py_ssize_t legacy


cdef class ShardedReader(Reader):
    cdef readonly Shards _shards


cdef class AsyncShardedReader(AsyncReader):
    cdef readonly Shards _shards
