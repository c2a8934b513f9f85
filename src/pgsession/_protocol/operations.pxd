from pgsession._core.record cimport Record

cdef int _NOTIFY, _NOTIFY_ON_CONFLICT, _CHANGE_GROUP, _CHANGE_INACTIVITY, _KEEP_INACTIVITY, _CHANGE_USER


cdef class Operation:
    cdef public double deadline
    cdef public bint finished
    cdef public object future
    cdef public bint given_up
    cdef public bytes key
    cdef public object lease
    cdef public int locked
    cdef public bint sent
    cdef public Py_ssize_t size


cdef class Create(Operation):
    cdef object _room
    cdef public list attributes
    cdef public object expires_at
    cdef public object generation
    cdef public str group_id
    cdef public str if_exists
    cdef public object inactivity
    cdef public object replaced
    cdef public str user_id

    cpdef tuple row(self)
    cpdef Record saved(self, object created_at, str incarnation, object version=*)


cdef class Update(Operation):
    cdef public list deletes
    cdef public object expires_at
    cdef public int flags
    cdef public str group_id
    cdef public object inactivity
    cdef public Record record
    cdef public object rotation
    cdef public list sets

    cpdef tuple row(self)
    cpdef Record saved(self, object version, object updated_at)


cdef class Delete(Operation):
    cdef public str group_id
    cdef public str user_id
