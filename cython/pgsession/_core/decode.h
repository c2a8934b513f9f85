/* Calling a msgspec decoder, which takes JSON as an object: the bytes of a record are handed to it in one that is used
 * again and again. It is never handed to two: while it is in use, or where somebody has kept it, others are made. */
#ifndef PGSESSION_DECODE_H
#define PGSESSION_DECODE_H

#include "cpython_tricks.h"

#define PGS_TEXT 2048

static PyObject *pgs_spare_text;

/* `kept`: the value may refer to the object, as a msgspec.Raw does. */
static inline PyObject *pgs_decode(PyObject *decode, const char *data, Py_ssize_t length, int kept) {
    PyObject *spare = pgs_spare_text, *text, *value;
    if (spare != NULL && length <= PGS_TEXT && !kept) {
        pgs_spare_text = NULL;
        text = spare;
        pgs_refill(text, data, length);
    } else {
        text = PyBytes_FromStringAndSize(data, length);
        if (text == NULL)
            return NULL;
    }
    value = PyObject_Vectorcall(decode, &text, 1, NULL);
    if (text == spare && Py_REFCNT(text) == 1)
        pgs_spare_text = text;
    else
        Py_DECREF(text);
    return value;
}

/* Where bytes are not to be changed there is none to be used again. */
static inline int pgs_make_spare_text(void) {
#if PGS_REUSES_BYTES
    pgs_spare_text = PyBytes_FromStringAndSize(NULL, PGS_TEXT);
    if (pgs_spare_text == NULL)
        return -1;
#endif
    return 0;
}

/* Raises, in Cython, the exception that a call from C has left. */
static inline int pgs_raise_left(void) { return -1; }

#endif
