from libc.stdint cimport uint64_t

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.object cimport PyObject, PyTypeObject
from cpython.unicode cimport PyUnicode_CheckExact


cdef extern from "key.h" nogil:
    uint64_t pgs_load_big(const unsigned char *p)
    void pgs_store_big(unsigned char *p, uint64_t value)
    bint pgs_parse_text(const unsigned char *s, uint64_t *high, uint64_t *low)
cdef extern from "key.h":
    const unsigned char *pgs_text_36(object text)
    bint pgs_int_direct(PyObject *number, uint64_t *high, uint64_t *low)
    int pgs_int_portable(PyObject *number, uint64_t *high, uint64_t *low) except -1
    int pgs_int_halves(PyObject *number, uint64_t *high, uint64_t *low) except -1
    Py_ssize_t pgs_slot_offset(object type, const char *name)
    PyObject *pgs_slot(object instance, Py_ssize_t offset)
    PyTypeObject *Py_TYPE(object)


cdef struct Key:
    uint64_t high
    uint64_t low


cdef PyTypeObject *UUID_TYPE
cdef Py_ssize_t INT_OFFSET

cdef int parse_named(object session_id, Key *key, str name) except -1
cdef int parse_other(object session_id, Key *key) except -1
cdef object key_bytes(Key key)
cdef object key_uuid(Key key)


cdef inline int parse(object session_id, Key *key) except -1:
    """Read the 128-bit key of a UUID, a str of 36 characters or 16 bytes; refuse by the name `session_id`."""
    cdef PyObject *number
    cdef const unsigned char *text
    if Py_TYPE(session_id) == UUID_TYPE:
        number = pgs_slot(session_id, INT_OFFSET)
        if number != NULL:
            return pgs_int_halves(number, &key.high, &key.low)
    elif PyUnicode_CheckExact(session_id):
        text = pgs_text_36(session_id)
        if text != NULL and pgs_parse_text(text, &key.high, &key.low):
            return 0
    elif PyBytes_CheckExact(session_id) and PyBytes_GET_SIZE(session_id) == 16:
        key.high = pgs_load_big(<const unsigned char *> PyBytes_AS_STRING(session_id))
        key.low = pgs_load_big(<const unsigned char *> PyBytes_AS_STRING(session_id) + 8)
        return 0
    return parse_other(session_id, key)
