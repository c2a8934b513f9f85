from cpython.object cimport PyObject, PyTypeObject


cdef extern from "entry.h":
    ctypedef object (*pgs_method)(object self, PyObject *const *args, Py_ssize_t count, PyObject *names)
    pgs_method pgs_enter_by(PyTypeObject *type, const char *name, pgs_method entry)
