from cpython.object cimport PyObject


cdef extern from "reference.h":
    object pgs_give(PyObject *object)
