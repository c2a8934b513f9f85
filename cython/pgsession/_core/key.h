/* A session id as two 64-bit halves, from each of its forms. */
#ifndef PGSESSION_KEY_H
#define PGSESSION_KEY_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "cpython_tricks.h"

/* ---- 16 bytes, most significant first; compilers make one load and one swap of it ---- */

static inline uint64_t pgs_load_big(const unsigned char *p) {
    return (uint64_t)p[0] << 56 | (uint64_t)p[1] << 48 | (uint64_t)p[2] << 40 | (uint64_t)p[3] << 32 |
           (uint64_t)p[4] << 24 | (uint64_t)p[5] << 16 | (uint64_t)p[6] << 8 | (uint64_t)p[7];
}

static inline void pgs_store_big(unsigned char *p, uint64_t value) {
    int i;
    for (i = 7; i >= 0; i--, value >>= 8)
        p[i] = (unsigned char)value;
}

/* ---- the text form: 36 characters, hexadecimal in both cases, hyphens where they belong ---- */

#define PGS_EACH(byte) ((uint64_t)(byte)*0x0101010101010101ULL)

static inline uint64_t pgs_load_4(const unsigned char *p) {
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24;
}

/* Eight characters at once, the first in the lowest byte; whatever is wrong leaves bits in *wrong. */
static inline uint64_t pgs_hex_8(uint64_t text, uint64_t *wrong) {
    uint64_t letter = text >> 6 & PGS_EACH(0x01);
    uint64_t nibble = (text & PGS_EACH(0x0F)) + letter * 9;
    *wrong |= (text & PGS_EACH(0xD0)) ^ (PGS_EACH(0x10) + letter * 0x30); /* 3x a digit, 4x or 6x a letter */
    *wrong |= ~(text | letter << 5) & PGS_EACH(0x20);                     /* not 1x */
    *wrong |= ((nibble + PGS_EACH(0x06)) >> 4 & PGS_EACH(0x01)) ^ letter; /* 0 to 9 a digit, 10 to 15 a letter */
    *wrong |= nibble & PGS_EACH(0xF0);
    nibble = (nibble << 4 | nibble >> 8) & 0x00FF00FF00FF00FFULL;
    nibble = (nibble | nibble >> 8) & 0x0000FFFF0000FFFFULL;
    nibble = (nibble | nibble >> 16) & 0x00000000FFFFFFFFULL;
    return (nibble & 0xFF) << 24 | (nibble & 0xFF00) << 8 | (nibble >> 8 & 0xFF00) | nibble >> 24;
}

static inline int pgs_parse_text(const unsigned char *s, uint64_t *high, uint64_t *low) {
    uint64_t wrong = (uint64_t)((s[8] ^ '-') | (s[13] ^ '-') | (s[18] ^ '-') | (s[23] ^ '-'));
    uint64_t a = pgs_hex_8(pgs_load_4(s) | pgs_load_4(s + 4) << 32, &wrong);
    uint64_t b = pgs_hex_8(pgs_load_4(s + 9) | pgs_load_4(s + 14) << 32, &wrong);
    uint64_t c = pgs_hex_8(pgs_load_4(s + 19) | pgs_load_4(s + 24) << 32, &wrong);
    uint64_t d = pgs_hex_8(pgs_load_4(s + 28) | pgs_load_4(s + 32) << 32, &wrong);
    *high = a << 32 | b;
    *low = c << 32 | d;
    return wrong == 0;
}

/* 32 hexadecimal digits, as notifications have them. */
static inline int pgs_parse_hex(const unsigned char *s, uint64_t *high, uint64_t *low) {
    uint64_t wrong = 0;
    uint64_t a = pgs_hex_8(pgs_load_4(s) | pgs_load_4(s + 4) << 32, &wrong);
    uint64_t b = pgs_hex_8(pgs_load_4(s + 8) | pgs_load_4(s + 12) << 32, &wrong);
    uint64_t c = pgs_hex_8(pgs_load_4(s + 16) | pgs_load_4(s + 20) << 32, &wrong);
    uint64_t d = pgs_hex_8(pgs_load_4(s + 24) | pgs_load_4(s + 28) << 32, &wrong);
    *high = a << 32 | b;
    *low = c << 32 | d;
    return wrong == 0;
}

/* The text behind a str of ASCII characters, or NULL. */
static inline const unsigned char *pgs_text_ascii(PyObject *text) {
    return PyUnicode_IS_COMPACT_ASCII(text) ? (const unsigned char *)PyUnicode_DATA(text) : NULL;
}

/* The same of 36 characters. */
static inline const unsigned char *pgs_text_36(PyObject *text) {
    return PyUnicode_GET_LENGTH(text) == 36 ? pgs_text_ascii(text) : NULL;
}

/* ---- a Python int of up to 128 bits ---- */

/* The slow way, right on every build of Python: int.to_bytes, and not a method of that name of something else. Returns
 * -1 with TypeError or ValueError set. */
static inline int pgs_int_portable(PyObject *number, uint64_t *high, uint64_t *low) {
    PyObject *bytes;
    Py_INCREF(number); /* a UUID may be given another one by what a collection runs */
    bytes = PyObject_CallMethod((PyObject *)&PyLong_Type, "to_bytes", "Ois", number, 16, "big");
    Py_DECREF(number);
    if (bytes == NULL) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            PyErr_SetString(PyExc_ValueError, "session_id: must be a number of 128 bits");
        return -1;
    }
    *high = pgs_load_big((const unsigned char *)PyBytes_AS_STRING(bytes));
    *low = pgs_load_big((const unsigned char *)PyBytes_AS_STRING(bytes) + 8);
    Py_DECREF(bytes);
    return 0;
}

static inline int pgs_int_halves(PyObject *number, uint64_t *high, uint64_t *low) {
    if (PyLong_CheckExact(number) && pgs_int_direct(number, high, low))
        return 0;
    return pgs_int_portable(number, high, low);
}

#endif
