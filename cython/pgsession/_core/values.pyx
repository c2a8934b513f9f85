"""Attribute values are checked, encoded as JSON and decoded here, which also says what may be shared.

PostgreSQL's json type takes what msgspec makes, with exceptions that would poison a whole batch of writes or lose
something silently; those are refused here, in the caller, by the name of their key.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

import json
import re

import msgspec
from math import isfinite
from msgspec import inspect

from pgsession._core.arguments cimport MAX_TEXT_BYTES, checked_text
from pgsession._core.lock cimport PGS_FREE_THREADED, pgs_dict_get
from pgsession._core.record cimport Record, Span, value_of
from pgsession._core.reference cimport pgs_give

from pgsession.errors import AttributeTooLargeError, AttributeTypeError

cdef extern from "decode.h":
    PyObject *pgs_decode(PyObject *decode, const char *data, Py_ssize_t length, bint kept)
    int pgs_make_spare_text() except -1
    int pgs_raise_left() except -1

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 largest)
    void *PyUnicode_DATA(object text)

cdef Py_ssize_t LONG_INTEGER = 19   # digits and a sign that every reader takes
cdef Py_ssize_t PLANS = 256         # in each of two generations, as the shapes in record.pyx
cdef dict plans = {}, old_plans = {}
cdef Plan last_plan = None
cdef object encode_json = msgspec.json.Encoder().encode
cdef object decode_json = msgspec.json.Decoder().decode
cdef object to_builtins = msgspec.to_builtins
# What JSON that is stored cannot be decoded for: its type, a number that Python cannot hold, and what only plain SQL can
# store: half of a surrogate pair, or more levels than msgspec goes down.
cdef tuple UNREADABLE = (msgspec.DecodeError, RecursionError)
# What msgspec says, without the value that it quotes: errors end in logs.
cdef object QUOTING = re.compile(
    r"^(Invalid (?:enum )?value|Object contains unknown field) .*?( - at `[^`]*`(?: in `[^`]*`)?)?$", re.DOTALL
)

pgs_make_spare_text()


# ---- decoding ----

cdef object decode_plain(Record record, uint32_t place):
    """Return a value read without a type. The short forms of scalars are read here, all else by msgspec."""
    cdef Span span = value_of(record, place)
    cdef const char *data = span.data
    cdef uint8_t first = <uint8_t> data[0]
    if first == c'"':
        value = ascii_text(span)
        if value is not None:
            return value
    elif first == c"-" or (first >= c"0" and first <= c"9"):
        value = short_integer(span)
        if value is not None:
            return value
    elif first == c"t" and span.length == 4:
        return True
    elif first == c"f" and span.length == 5:
        return False
    elif first == c"n" and span.length == 4:
        return None
    cdef PyObject *decoded = pgs_decode(<PyObject *> decode_json, data, span.length, False)
    if decoded == NULL:
        raise_unreadable(record.shape.keys[place])
    return pgs_give(decoded)


cdef object ascii_text(Span span):
    """Return a string without escapes, all ASCII; None for any other."""
    cdef const uint8_t *data = <const uint8_t *> span.data
    cdef Py_ssize_t i, end = <Py_ssize_t> span.length - 1
    cdef uint8_t odd = 0
    if end < 1 or data[end] != c'"':
        return None
    for i in range(1, end):
        odd |= (data[i] & 0x80) | (data[i] == 0x5C) | (data[i] == 0x22) | (data[i] < 0x20)
    if odd:
        return None
    text = PyUnicode_New(end - 1, 127)
    memcpy(PyUnicode_DATA(text), data + 1, end - 1)
    return text


cdef object short_integer(Span span):
    """Return an integer of up to 18 digits; None for any other number."""
    cdef const uint8_t *data = <const uint8_t *> span.data
    cdef Py_ssize_t i, start = data[0] == c"-", count = span.length
    cdef int64_t number = 0
    if count - start > 18 or count == start or (data[start] == c"0" and count > start + 1):
        return None
    for i in range(start, count):
        if data[i] < c"0" or data[i] > c"9":
            return None
        number = number * 10 + (data[i] - c"0")
    return -number if start else number


cdef int raise_unreadable(object key) except -1:
    cdef str reason = None
    try:
        pgs_raise_left()
    except UNREADABLE as error:         # which may hold the value
        reason = QUOTING.sub(r"\1\2", str(error))
    if reason is not None:
        raise AttributeTypeError(key, reason)
    return 0


cdef object decode_typed(object key, Span span, Plan plan):
    cdef PyObject *decode = <PyObject *> plan.decode
    cdef PyObject *value = pgs_decode(decode, span.data, span.length, not plan.repeatable)
    if value == NULL:
        raise_unreadable(key)
    return pgs_give(value)


@cython.final
cdef class Plan:
    pass


cdef Plan plan_of(object type_):
    """Return the plan of a type.

    Mostly it is the same type as the last time, whose plan is found without a look at the table.
    """
    global last_plan
    cdef Plan plan = last_plan
    if not PGS_FREE_THREADED and plan is not None and plan.type is type_:
        return plan
    plan = planned(type_)
    if not PGS_FREE_THREADED:
        last_plan = plan
    return plan


cdef Plan planned(object type_):
    try:
        known = pgs_dict_get(plans, type_)
        if known is None:
            known = pgs_dict_get(old_plans, type_)
    except TypeError:           # not hashable: decided anew each time
        return make_plan(type_)
    if known is not None:
        return <Plan> known
    cdef Plan plan = make_plan(type_)
    if len(plans) >= PLANS:
        old_plans.clear()
        old_plans.update(plans)
        plans.clear()
    plans[type_] = plan
    return plan


cdef Plan make_plan(object type_):
    cdef Plan plan = Plan.__new__(Plan)
    plan.type = type_
    plan.decode = msgspec.json.Decoder(type_).decode
    info = inspect.type_info(type_)
    plan.shareable = all_of(info, is_immutable, set())
    plan.repeatable = plan.shareable or all_of(info, is_repeatable, set())
    return plan


cdef tuple IMMUTABLE = (
    inspect.NoneType, inspect.BoolType, inspect.IntType, inspect.FloatType, inspect.StrType, inspect.BytesType,
    inspect.DateTimeType, inspect.DateType, inspect.TimeType, inspect.TimeDeltaType, inspect.UUIDType,
    inspect.DecimalType, inspect.EnumType, inspect.LiteralType,
    inspect.TupleType, inspect.VarTupleType, inspect.FrozenSetType, inspect.UnionType,
)
cdef tuple CONTAINERS = (
    inspect.AnyType, inspect.ListType, inspect.SetType, inspect.DictType, inspect.TypedDictType,
    inspect.ByteArrayType,
)
cdef object NAIVE_DEFAULTS = (list, dict, set, bytearray)


def is_immutable(info):
    """Return True if no value of this type can be changed, and it holds nothing but its declared fields.

    This is about this level only; all_of() goes down.
    """
    if isinstance(info, inspect.Metadata):
        return True
    if isinstance(info, inspect.StructType):
        return info.cls.__struct_config__.frozen and not info.cls.__struct_config__.dict
    return isinstance(info, IMMUTABLE)


def is_repeatable(info):
    """Return True if decoding the same bytes twice gives values that encode the same.

    This is about this level only; all_of() goes down.
    """
    if isinstance(info, inspect.Metadata) or isinstance(info, IMMUTABLE) or isinstance(info, CONTAINERS):
        return True
    if not isinstance(info, inspect.StructType) or hasattr(info.cls, "__post_init__"):
        return False
    return all(field.default_factory is msgspec.NODEFAULT or field.default_factory in NAIVE_DEFAULTS
               for field in info.fields)


cdef bint all_of(object info, object rule, set known) except -1:
    """Return True if a rule holds for a type and all the types in it; types may contain themselves."""
    if id(info) in known:
        return True
    known.add(id(info))
    if not rule(info):
        return False
    for part in parts_of(info):
        if not all_of(part, rule, known):
            return False
    return True


cdef list parts_of(object info):
    cdef list parts = []
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, inspect.Field):
                parts.append(item.type)
            elif isinstance(item, inspect.Type):
                parts.append(item)
    return parts


# ---- encoding ----

cdef bytes reencode(object value):
    """Return the JSON of a value, for comparing only: nothing is checked."""
    return encode_json(value)


cdef bytes encode(str key, object value, int64_t limit):
    """Return the JSON to be stored; everything that cannot be stored as it is raises here."""
    cdef bytes encoded = None
    try:
        encoded = encode_json(value)
    except UnicodeEncodeError:          # it holds the value
        pass
    except ValueError as error:         # a number of more digits than Python prints
        raise ValueError(f"attribute {key!r}: must be a value that JSON can hold: {error}") from error
    except (TypeError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise TypeError(f"attribute {key!r}: a value that JSON can hold is needed: {error}") from error
    if encoded is None:
        raise ValueError(f"attribute {key!r}: must not contain lone surrogates, which UTF-8 cannot carry")
    if PyBytes_GET_SIZE(encoded) > limit:
        raise AttributeTooLargeError(key, PyBytes_GET_SIZE(encoded), limit)
    check_text(key, encoded)
    if not is_plain(value) or (type(value) is int and PyBytes_GET_SIZE(encoded) > LONG_INTEGER):
        check_json(key, encoded)
    if encoded.find(b"null") >= 0 and value is not None:    # `in` raises, and catches, an error in there
        check_finite(key, to_builtins(value))
    return encoded


cdef int check_text(str key, bytes encoded) except -1:
    """Raise ValueError for a NUL, which PostgreSQL's text does not have.

    In JSON it is an escape, which is one only after an even number of backslashes.
    """
    cdef Py_ssize_t at = encoded.find(b"\\u0000"), start
    cdef const char *data = PyBytes_AS_STRING(encoded)
    while at >= 0:
        start = at
        while start > 0 and data[start - 1] == 0x5C:
            start -= 1
        if (at - start) % 2 == 0:
            raise ValueError(f"attribute {key!r}: must not contain NUL, which PostgreSQL cannot store")
        at = encoded.find(b"\\u0000", at + 1)
    return 0


cdef int check_json(str key, bytes encoded) except -1:
    """Raise TypeError for what is not JSON, and ValueError for what would not be read again as it was written.

    A msgspec.Raw goes out as it is, so what it holds is not known to be JSON.
    """
    cdef str reason
    cdef bint unreadable = False
    try:
        decoded = decode_json(encoded)
        if encoded.find(b"{") < 0 or encode_json(decoded) == encoded:
            return 0
    except msgspec.ValidationError as error:    # without a type that is about numbers only
        reason = str(error)
        unreadable = True
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        reason = str(error)             # the error of a decoder may hold all of the value
    else:
        return check_keys(key, encoded)
    if unreadable:
        raise ValueError(f"attribute {key!r}: must not contain a number that cannot be read again: {reason}")
    raise TypeError(f"attribute {key!r}: a value that JSON can hold is needed: {reason}")


cdef int check_keys(str key, bytes encoded) except -1:
    """Raise ValueError for a dict of which two keys are encoded alike, as 1 and "1": only one would be read again."""
    cdef list clash = []

    def unique(list pairs):
        known = dict(pairs)
        if len(known) != len(pairs):
            clash.append(True)
        return known

    try:
        json.loads(encoded, object_pairs_hook=unique, parse_int=str)
    except RecursionError as error:
        raise TypeError(f"attribute {key!r}: a value that JSON can hold is needed: {error}") from error
    if clash:
        raise ValueError(f"attribute {key!r}: must not contain a dict with two keys that are encoded alike")
    return 0


cdef int check_finite(str key, object value) except -1:
    """Raise ValueError for infinity and NaN: msgspec writes them as null, so they would be lost without a word."""
    if isinstance(value, float):
        if not isfinite(value):
            raise ValueError(f"attribute {key!r}: must not contain {value}, which JSON cannot hold")
    elif isinstance(value, dict):
        for part in value.values():
            check_finite(key, part)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            check_finite(key, part)
    return 0


cdef str checked_key(object key):
    """Return the key of an attribute as plain text."""
    return checked_text("key", key, 1, MAX_TEXT_BYTES)
