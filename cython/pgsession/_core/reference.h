/* References on the hot path, where one that is taken and given back at once is what costs most: each time the count has
 * to be read after it was written. Cython does that with an attribute that is handed on, and with what a pointer from
 * elsewhere is cast to; not with a parameter, nor with a pointer in a local variable where that is cast. (pgs_hold, which
 * takes a reference, is in cpython_tricks.h.) */
#ifndef PGSESSION_REFERENCE_H
#define PGSESSION_REFERENCE_H

#include <Python.h>

/* The object to which the caller has a reference, which Cython takes over; a cast would take another one. */
static inline PyObject *pgs_give(PyObject *object) { return object; }

#endif
