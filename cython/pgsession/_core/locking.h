/* What the core needs where there is no GIL, in one place. On ordinary builds all of it is nothing, or the plain form
 * of the same: the GIL is the lock there.
 *
 * A mutex here is a leaf: whoever holds it takes no other, releases no reference to a record and calls nothing that
 * could run a user's code. So what leaves a structure is collected under the lock and released after it. Allocating
 * is allowed: without the GIL the collector runs between bytecodes only, never inside an allocation. */
#ifndef PGSESSION_LOCKING_H
#define PGSESSION_LOCKING_H

#include <Python.h>

#if defined(Py_GIL_DISABLED)

#define PGS_FREE_THREADED 1
typedef PyMutex pgs_mutex;

static inline void pgs_lock(pgs_mutex *mutex) { PyMutex_Lock(mutex); }
static inline void pgs_unlock(pgs_mutex *mutex) { PyMutex_Unlock(mutex); }

/* The value of a key as a new reference, None where there is none: a borrowed one could be gone before it is taken. */
static inline PyObject *pgs_dict_get(PyObject *dict, PyObject *key) {
    PyObject *value;
    int found = PyDict_GetItemRef(dict, key, &value);
    if (found == 0)
        return Py_NewRef(Py_None);
    return found < 0 ? NULL : value;
}

/* Pointers that are set once and stay as long as what holds them: whoever is first sets it, anyone may read it. */
static inline int pgs_set_once(void *place, void *value) {
    void *nothing = NULL;
    return _Py_atomic_compare_exchange_ptr(place, &nothing, value);
}
static inline void pgs_set(void *place, void *value) { _Py_atomic_store_ptr_release(place, value); }
static inline void *pgs_read(const void *place) { return _Py_atomic_load_ptr_acquire(place); }

#else

#define PGS_FREE_THREADED 0
typedef char pgs_mutex;

static inline void pgs_lock(pgs_mutex *mutex) { (void)mutex; }
static inline void pgs_unlock(pgs_mutex *mutex) { (void)mutex; }

static inline PyObject *pgs_dict_get(PyObject *dict, PyObject *key) {
    PyObject *value = PyDict_GetItemWithError(dict, key);
    if (value == NULL) {
        if (PyErr_Occurred())
            return NULL;
        value = Py_None;
    }
    return Py_NewRef(value);
}

static inline int pgs_set_once(void *place, void *value) {
    if (*(void **)place != NULL)
        return 0;
    *(void **)place = value;
    return 1;
}
static inline void pgs_set(void *place, void *value) { *(void **)place = value; }
static inline void *pgs_read(const void *place) { return *(void *const *)place; }

#endif

/* A new reference to an object that is found under the lock, which is given up. */
static inline PyObject *pgs_take_and_unlock(void *object, pgs_mutex *mutex) {
    Py_INCREF((PyObject *)object);
    pgs_unlock(mutex);
    return (PyObject *)object;
}

#endif
