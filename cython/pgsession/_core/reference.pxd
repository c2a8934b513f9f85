from cpython.object cimport PyObject


cdef extern from "reference.h":
    PyObject *pgs_hold(PyObject *object)
    object pgs_give(PyObject *object)
