/* References on the hot path, where one that is taken and given back at once is what costs most: each time the count has
 * to be read after it was written. Cython does that with an attribute that is handed on, and with what a pointer from
 * elsewhere is cast to; not with a parameter, nor with a pointer in a local variable where that is cast. */
#ifndef PGSESSION_REFERENCE_H
#define PGSESSION_REFERENCE_H

#include <Python.h>

/* Takes a reference. Python 3.12 and 3.13 raise a count by its lower half and lower it as a whole; the processor cannot
 * read the whole before the half has reached the cache. Sessions, records and caches are never immortal, so their count
 * may be raised as a whole. */
static inline PyObject *pgs_hold(PyObject *object) {
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED) && !defined(Py_REF_DEBUG)
    Py_SET_REFCNT(object, Py_REFCNT(object) + 1);
#else
    Py_INCREF(object);
#endif
    return object;
}

/* The object to which the caller has a reference, which Cython takes over; a cast would take another one. */
static inline PyObject *pgs_give(PyObject *object) { return object; }

#endif
