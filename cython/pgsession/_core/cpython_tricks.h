/* Everything in the core that leans on how CPython is made, in one place. Compiled with PGSESSION_PLAIN_CPYTHON (the
 * environment variable of that name set to 1 while `setup.py` runs) none of it is used: all that is lost is speed.
 *
 * trick                     where it is used            it leans on                        3.11  3.12-3.13  3.14-3.15  no GIL
 * ------------------------  --------------------------  ---------------------------------  ----  ---------  ---------  ------
 * 1 a count raised whole    pgs_hold                    layout of the reference count      no    yes        no         no
 * 2 sessions used again     hit.pyx                     tp_dealloc, a count set from 0     yes   yes        yes        no
 * 3 short way in            hit, reader, session        PyMethodDef.ml_meth may change     yes   yes        yes        yes
 * 4 resumed without frames  completed.pyx               tp_iternext, am_send may change    yes   yes        yes        yes
 * 5 StopIteration again     completed.pyx               its fields; a count of 1           no    yes        yes        no
 * 6 bytes used again        decode.h                    bytes may change at a count of 1   yes   yes        yes        no
 * 7 the int of a UUID       key.pxd                     offset in a member descriptor      yes   yes        yes        yes
 * 8 the digits of an int    key.h                       layout of int; 3.14: public API    yes   yes        public     public
 *
 * Without it (always with PGSESSION_PLAIN_CPYTHON, and where the table says no): 1 Py_INCREF; 2 sessions are made and
 * freed as any object is; 3 and 4 Cython's own methods and slots; 5 a new exception each time; 6 a new bytes object each
 * time; 7 the attribute is asked for; 8 int.to_bytes.
 *
 * What is not here because it is documented C API: untracking a session that refers to nothing which could refer back,
 * filling a str that was just made, vectorcall. The atomic pointers of locking.h are CPython's own and have no other form;
 * builds with the GIL do not use them. */
#ifndef PGSESSION_CPYTHON_TRICKS_H
#define PGSESSION_CPYTHON_TRICKS_H

#include <Python.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>

#if defined(PGSESSION_PLAIN_CPYTHON)
#define PGS_TRICKS 0
#else
#define PGS_TRICKS 1
#endif

#if PGS_TRICKS && !defined(Py_GIL_DISABLED)
#define PGS_TRICKS_WITH_GIL 1
#else
#define PGS_TRICKS_WITH_GIL 0
#endif

/* ---- 1: a reference count raised as a whole ----
 *
 * Python 3.12 and 3.13 raise a count by its lower half and lower it as a whole; the processor cannot read the whole
 * before the half has reached the cache. Sessions, records and caches are never immortal, so their count may be raised
 * as a whole. */

static inline PyObject *pgs_hold(PyObject *object) {
#if PGS_TRICKS_WITH_GIL && PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000 && !defined(Py_REF_DEBUG)
    Py_SET_REFCNT(object, Py_REFCNT(object) + 1);
#else
    Py_INCREF(object);
#endif
    return object;
}

/* ---- 2: sessions that were released are used again ---- */

#define PGS_REUSES_SESSIONS PGS_TRICKS_WITH_GIL

#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
#define pgs_revive(object) _Py_NewReference(object)
#else
#define pgs_revive(object) Py_SET_REFCNT(object, 1)
#endif

/* Returns what released the objects of a type before, or NULL where that is left as it is. */
static inline destructor pgs_release_by(PyTypeObject *type, destructor release) {
#if PGS_REUSES_SESSIONS
    destructor before = type->tp_dealloc;
    type->tp_dealloc = release;
    return before;
#else
    (void)type, (void)release;
    return NULL;
#endif
}

/* ---- 3: the short way into a method ----
 *
 * Cython's reading of arguments, made for keywords too, would take a tenth of a hit; so what nearly every call gives is
 * seen to by a function of ours, and all else goes on to Cython's. */

typedef PyObject *(*pgs_method)(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names);

/* Returns what the method was entered by; NULL where it is left as it is, as it must be where it is not of the kind
 * that takes these arguments. */
static inline pgs_method pgs_enter_by(PyTypeObject *type, const char *name, pgs_method entry) {
    pgs_method before = NULL;
#if PGS_TRICKS
    PyObject *method = PyDict_GetItemString(type->tp_dict, name);
    if (method != NULL && Py_IS_TYPE(method, &PyMethodDescr_Type)) {
        PyMethodDef *definition = ((PyMethodDescrObject *)method)->d_method;
        if (definition->ml_flags == (METH_FASTCALL | METH_KEYWORDS)) {
            before = (pgs_method)(void (*)(void))definition->ml_meth;
            definition->ml_meth = (PyCFunction)(void (*)(void))entry;
        }
    }
#else
    (void)type, (void)name, (void)entry;
#endif
    return before;
}

/* ---- 4: an awaitable is resumed through the slots of its type ---- */

static inline void pgs_resume_by(PyTypeObject *type, PyObject *(*next)(PyObject *),
                                 PySendResult (*send)(PyObject *, PyObject *, PyObject **)) {
#if PGS_TRICKS
    if (type->tp_as_async != NULL) {
        type->tp_iternext = next;
        type->tp_as_async->am_send = send;
        PyType_Modified(type);
    }
#else
    (void)type, (void)next, (void)send;
#endif
}

/* ---- 5: a StopIteration is used again ---- */

#if PGS_TRICKS_WITH_GIL && PY_VERSION_HEX >= 0x030C0000
#define PGS_REUSES_STOP 1

/* Takes over the reference to `stop`. */
static inline void pgs_raise(PyObject *stop) { PyErr_SetRaisedException(stop); }

/* Nobody else knows it, and raising it has left nothing in it. */
static inline int pgs_is_clean(PyObject *stop) {
    PyBaseExceptionObject *base = (PyBaseExceptionObject *)stop;
    return Py_REFCNT(stop) == 1 && !base->traceback && !base->context && !base->cause && !base->notes && !base->dict;
}

#else
#define PGS_REUSES_STOP 0

static inline void pgs_raise(PyObject *stop) {
    PyErr_SetObject(PyExc_StopIteration, stop);
    Py_DECREF(stop);
}

static inline int pgs_is_clean(PyObject *stop) {
    (void)stop;
    return 0;
}

#endif

static inline void pgs_set_result(PyObject *stop, PyObject *result) {
    PyObject *old = ((PyStopIterationObject *)stop)->value;
    Py_XINCREF(result);
    ((PyStopIterationObject *)stop)->value = result;
    Py_XDECREF(old);
}

/* ---- 6: a bytes object is filled again and again ---- */

#define PGS_REUSES_BYTES PGS_TRICKS_WITH_GIL

static inline void pgs_refill(PyObject *bytes, const char *data, Py_ssize_t length) {
    memcpy(PyBytes_AS_STRING(bytes), data, (size_t)length);
    PyBytes_AS_STRING(bytes)[length] = '\0';
    Py_SET_SIZE((PyVarObject *)bytes, length);
}

/* ---- 7: uuid.UUID keeps its int in a slot; the slot's member descriptor knows where ---- */

/* The offset of the slot `name` of `type`, or 0 where it is not an object slot. */
static inline Py_ssize_t pgs_slot_offset(PyObject *type, const char *name) {
    Py_ssize_t offset = 0;
    PyObject *descriptor = PGS_TRICKS ? PyObject_GetAttrString(type, name) : NULL;
    if (descriptor == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
        PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
        if (member->type == 16 /* T_OBJECT_EX */)
            offset = member->offset;
    }
    Py_DECREF(descriptor);
    return offset;
}

/* The object in that slot, borrowed, or NULL. */
static inline PyObject *pgs_slot(PyObject *instance, Py_ssize_t offset) {
    return *(PyObject **)((char *)instance + offset);
}

/* ---- 8: the digits of an int ---- */

/* Five digits of 30 bits, lowest first, make 128 bits where the fifth has at most 8. */
static inline int pgs_join_digits(const uint32_t *digit, Py_ssize_t count, uint64_t *high, uint64_t *low) {
    uint64_t d[5] = {0, 0, 0, 0, 0};
    Py_ssize_t i;
    if (count == 5) {
        d[0] = digit[0], d[1] = digit[1], d[2] = digit[2], d[3] = digit[3], d[4] = digit[4];
    } else {
        if (count > 5)
            return 0;
        for (i = 0; i < count; i++)
            d[i] = digit[i];
    }
    *low = d[0] | d[1] << 30 | d[2] << 60;
    *high = d[2] >> 4 | d[3] << 26 | d[4] << 56;
    return d[4] < 256;
}

#if !PGS_TRICKS

static inline int pgs_int_direct(PyObject *number, uint64_t *high, uint64_t *low) {
    (void)number, (void)high, (void)low;
    return 0;
}

#elif PYLONG_BITS_IN_DIGIT == 30 && PY_VERSION_HEX < 0x030C0000

static inline int pgs_int_direct(PyObject *number, uint64_t *high, uint64_t *low) {
    if (Py_SIZE(number) < 0)
        return 0;
    return pgs_join_digits(((PyLongObject *)number)->ob_digit, Py_SIZE(number), high, low);
}

#elif PYLONG_BITS_IN_DIGIT == 30 && PY_VERSION_HEX < 0x030E0000

static inline int pgs_int_direct(PyObject *number, uint64_t *high, uint64_t *low) {
    const _PyLongValue *value = &((PyLongObject *)number)->long_value;
    if ((value->lv_tag & 3) == 2) /* negative */
        return 0;
    return pgs_join_digits(value->ob_digit, (Py_ssize_t)(value->lv_tag >> 3), high, low);
}

#elif PY_VERSION_HEX >= 0x030E0000

static inline int pgs_int_direct(PyObject *number, uint64_t *high, uint64_t *low) {
    PyLongExport parts;
    int fits = 0;
    if (PyLong_Export(number, &parts) < 0) {
        PyErr_Clear();
        return 0;
    }
    if (parts.digits == NULL) {
        if (parts.value >= 0) {
            *high = 0;
            *low = (uint64_t)parts.value;
            fits = 1;
        }
    } else if (!parts.negative && PyLong_GetNativeLayout()->bits_per_digit == 30) {
        fits = pgs_join_digits((const uint32_t *)parts.digits, parts.ndigits, high, low);
    }
    PyLong_FreeExport(&parts);
    return fits;
}

#else

static inline int pgs_int_direct(PyObject *number, uint64_t *high, uint64_t *low) {
    (void)number, (void)high, (void)low;
    return 0;
}

#endif

#endif
