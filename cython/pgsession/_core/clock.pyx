# cython: freethreading_compatible=True
"""Time: the node's clock, its distance to the database's, and the rules for moments and durations."""

cimport cython
from cpython.datetime cimport (
    PyDateTime_Check, PyDelta_Check, import_datetime, timedelta_days, timedelta_microseconds, timedelta_seconds,
)

from pgsession._core.arguments cimport shown

from datetime import datetime, timedelta, timezone

import_datetime()

cdef object EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
cdef int64_t DAY = 86_400_000_000
cdef int64_t EARLIEST = -62_135_596_800_000_000     # the beginning of the year 1, the first that one holds
cdef int64_t LATEST = 253_402_300_799_999_999      # the end of the year 9999, the last that a datetime holds
cdef int64_t MOST_DAYS = 36500                      # the longest duration
cdef int64_t MOST_SECONDS = MOST_DAYS * 86_400


@cython.final
@cython.no_gc
cdef class Clock:
    """A node has one clock, in microseconds: it goes on while the host sleeps and ignores steps of the wall clock.

    `now()` is node time. `database_now()` adds `offset`, the distance to the database's clock, which starts as the
    distance to this host's wall clock and is set anew whenever something was learnt of it. With `manual` the time stands
    still at that value until `advance` moves it.
    """

    def __cinit__(self, *, manual=None):
        self.manual = manual is not None
        if self.manual:
            self.time = manual
        else:
            self.lag = self.slack = pgs_clock_start(&self.memory)
            self.offset = pgs_clock_wall() - pgs_clock_now()

    def now(self):
        """Return node time, in microseconds since an arbitrary moment."""
        return exact(self)

    def database_now(self):
        """Return the database's time, as well as it is known, in microseconds since the Unix epoch."""
        return exact(self) + self.offset

    def earliest_database_now(self):
        """Return the earliest that it can be in the database, in microseconds since the Unix epoch."""
        return exact(self) + self.offset - (self.lag - self.slack)

    def set_offset(self, int64_t offset, int64_t error):
        """Set the distance to the database's clock, and by how much that may be wrong."""
        self.offset = offset
        self.lag = self.slack + error

    def _recent(self):
        """Return the node time that hits read, for tests."""
        return recent(self)

    def _slack(self):
        """Return by how much `_recent()` may lag behind `now()`, in microseconds."""
        return self.slack

    def advance(self, int64_t us):
        """Move a manual clock forward."""
        if not self.manual:
            raise TypeError("only a manual clock can be moved")
        if us < 0:
            raise ValueError("time does not go back")
        self.time += us


# ---- rules: moments and durations ----

cdef object moment(int64_t us):
    """Return the aware UTC datetime of `us` microseconds since the Unix epoch, or the first or last that there is.

    Plain SQL may have written another one, and the server counts to 32 microseconds so far off.
    """
    return EPOCH + timedelta(microseconds=max(EARLIEST, min(us, LATEST)))


cdef int64_t micros(object value, str name) except? -1:
    """Return the microseconds since the Unix epoch of an aware datetime."""
    if not PyDateTime_Check(value):
        raise TypeError(f"{name}: an aware datetime is needed, not {type(value).__name__}")
    if datetime.utcoffset(value) is None:
        raise ValueError(f"{name}: must be aware (have a time zone), not naive")
    return span(datetime.__sub__(value, EPOCH))


cdef int64_t span(object delta) except? -1:
    """Return the microseconds of a timedelta of less than 290,000 years; a subclass is not asked what it says."""
    return timedelta_days(delta) * DAY + <int64_t> timedelta_seconds(delta) * 1_000_000 + timedelta_microseconds(delta)


cdef int64_t duration(str name, object value, int64_t least) except? -1:
    """Return the microseconds of a timedelta or of a number of seconds, from `least` to `MOST_DAYS`."""
    cdef int64_t us = -1
    cdef bint some = False              # a number that is not zero
    if PyDelta_Check(value):
        delta = value
    else:
        value = number_of(name, value)
        some = value != 0
        delta = timedelta(seconds=value) if 0 <= value <= MOST_SECONDS else None    # NaN is in no range
    if delta is not None and 0 <= timedelta_days(delta) <= MOST_DAYS:
        us = span(delta)
    if us < least or us > MOST_DAYS * DAY or (us == 0 and some):
        raise ValueError(f"{name}: must be {said(least)} to {MOST_DAYS} days, not {shown(value)}")
    return us


cdef object number_of(str name, object value):
    """Return the plain int or float, whatever a subclass says of itself."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__pos__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    raise TypeError(f"{name}: a timedelta or a number of seconds is needed, not {type(value).__name__}")


cdef str said(int64_t least):
    """Return the words for the lower end of a range of durations."""
    if least == 0:
        return "0 or from 1 microsecond"
    return "from 1 microsecond" if least == 1 else f"from {timedelta(microseconds=least).total_seconds():g} s"


cdef int64_t expiry(Clock clock, object expires_at, object expires_in) except? -1:
    """Return when something expires, in database time; 0 where neither is given."""
    cdef int64_t us
    if expires_at is None:
        if expires_in is None:
            return 0
        return min(exact(clock) + clock.offset + duration("expires_in", expires_in, 1), LATEST)
    if expires_in is not None:
        raise ValueError("expires_at, expires_in: only one of them may be given")
    us = micros(expires_at, "expires_at")
    if not 0 < us <= LATEST:
        raise ValueError(f"expires_at: must be after 1970-01-01 and before the year 10000 (UTC), not {expires_at}")
    return us


def to_datetime(int64_t us):
    """Return the aware UTC datetime of `us` microseconds since the Unix epoch, or the last that there is."""
    return moment(us)


def to_micros(value, str name="value"):
    """Return the microseconds since the Unix epoch of an aware datetime.

    Raises:
        TypeError: It is not a datetime.
        ValueError: It is naive.
    """
    return micros(value, name)


def duration_micros(str name, value, int64_t least=1):
    """Return the microseconds of a timedelta or a number of seconds.

    Args:
        name: The argument that a refusal names.
        value: The duration.
        least: The fewest microseconds. What is more than 0 and less than a microsecond is refused also where this is 0.

    Raises:
        TypeError: It is neither a timedelta nor a number.
        ValueError: It is out of the range, infinite or not a number.
    """
    return duration(name, value, least)


def expiry_micros(Clock clock not None, expires_at=None, expires_in=None):
    """Return when something given one of `expires_at` and `expires_in` expires, in database time; None without either.

    Raises:
        TypeError: One is of a wrong type.
        ValueError: Both are given, `expires_at` is naive, or one is out of its range.
    """
    cdef int64_t us = expiry(clock, expires_at, expires_in)
    return us if us else None
