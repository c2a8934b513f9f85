from pgsession._core.edits cimport SessionState


cdef class Session(SessionState):
    pass


cdef Session make_session()
