from pgsession._core.session_edits cimport SessionState


cdef class Session(SessionState):
    pass


cdef Session make_session()
