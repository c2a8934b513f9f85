cimport cython

from pgsession._protocol.operations cimport Create, Operation, Update

cdef _answered(dict waiting, object number)

@cython.locals(update=Update, operation=Operation)
cpdef settle(object text, list creates_sent, list updates_sent, list deletes_sent)

@cython.locals(create=Create)
cdef list _created(dict creates, object answers)
