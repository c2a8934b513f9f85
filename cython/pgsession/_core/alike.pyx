"""Two values may be encoded alike and still be two things to who reads them: a tuple and a list, a date and its text.

A caller's own object is given back after a save only where others read the same (session_reading.pyx).
"""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

from pgsession._core.values cimport is_plain

cdef frozenset SIMPLE = frozenset((bytes, bytearray, date, datetime, time, timedelta, Decimal, UUID))


cdef bint looks_alike(object one, object other) except -1:
    """Return True if two values of the same encoding are of the same types at each level.

    This may run the code of the values' types. What is not known here (a set, whose order is anybody's) is not alike.
    """
    kind = type(one)
    if type(other) is not kind:
        return False
    if is_plain(one) or kind in SIMPLE:
        return True
    if kind is list or kind is tuple:
        return all_alike(one, other)
    if kind is dict:
        return all_alike(list(one), list(other)) and all_alike(list(one.values()), list(other.values()))
    if isinstance(one, Enum):
        return one is other
    names = getattr(kind, "__struct_fields__", None) or tuple(getattr(kind, "__dataclass_fields__", ()))
    return len(names) > 0 and all_alike(
        [getattr(one, name, None) for name in names], [getattr(other, name, None) for name in names]
    )


cdef bint all_alike(object some, object others) except -1:
    if len(some) != len(others):
        return False
    for one, other in zip(some, others):
        if not looks_alike(one, other):
            return False
    return True
