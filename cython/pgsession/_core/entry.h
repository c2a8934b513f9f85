/* The short way into a method. Cython's reading of arguments, made for keywords too, would take a tenth of a hit; so what
 * nearly every call gives is seen to by a function of ours, and all else goes on to Cython's. */
#ifndef PGSESSION_ENTRY_H
#define PGSESSION_ENTRY_H

#include <Python.h>

typedef PyObject *(*pgs_method)(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);

/* Returns what the method was entered by. */
static inline pgs_method pgs_enter_by(PyTypeObject *type, const char *name, pgs_method entry) {
    PyObject *method = PyDict_GetItemString(type->tp_dict, name);
    PyMethodDef *definition = ((PyMethodDescrObject *)method)->d_method;
    pgs_method before = (pgs_method)(void (*)(void))definition->ml_meth;
    definition->ml_meth = (PyCFunction)(void (*)(void))entry;
    return before;
}

#endif
