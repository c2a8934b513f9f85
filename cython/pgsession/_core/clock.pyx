# cython: freethreading_compatible=True
"""Time: the node's clock, its distance to the database's, and the way between datetimes and microseconds."""

cimport cython
from cpython.datetime cimport PyDateTime_Check, PyDelta_Check, import_datetime

from datetime import datetime, timedelta, timezone
from math import isfinite

import_datetime()

cdef object EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
cdef int64_t DAY = 86_400_000_000
cdef int64_t LATEST = 253_402_300_799_999_999      # the end of the year 9999


@cython.final
@cython.no_gc
cdef class Clock:
    """The one clock of a node, in microseconds: it goes on while the host sleeps and ignores steps of the wall clock.

    `now()` is node time. `database_now()` adds `offset`, the distance to the database's clock, which starts as the
    distance to this host's wall clock and is set anew whenever it was measured. With `manual` the time stands still
    at that value until `advance` moves it.
    """

    def __cinit__(self, *, manual=None):
        self.manual = manual is not None
        if self.manual:
            self.time = manual
        else:
            self.slack = pgs_clock_start(&self.memory)
            self.offset = pgs_clock_wall() - pgs_clock_now()

    def now(self):
        """Node time, in microseconds since an arbitrary moment."""
        return exact(self)

    def database_now(self):
        """The database's time, in microseconds since the Unix epoch."""
        return exact(self) + self.offset

    def _recent(self):
        """For tests: the node time that hits read."""
        return recent(self)

    def _slack(self):
        return self.slack

    def advance(self, int64_t us):
        """Move a manual clock forward."""
        if not self.manual:
            raise TypeError("only a manual clock can be moved")
        if us < 0:
            raise ValueError("time does not go back")
        self.time += us


cdef object moment(int64_t us):
    return EPOCH + timedelta(microseconds=us)


cdef int64_t micros(object value, str field) except? -1:
    if not PyDateTime_Check(value):
        raise TypeError(f"{field} must be an aware datetime, not {type(value).__name__}")
    if value.tzinfo is None or value.utcoffset() is None:
        raise ValueError(f"{field} must be an aware datetime; {value.isoformat()} has no time zone")
    return span(value - EPOCH)


cdef int64_t span(object delta) except? -1:
    return <int64_t> delta.days * DAY + <int64_t> delta.seconds * 1_000_000 + <int64_t> delta.microseconds


cdef int64_t duration(object value, str field) except? -1:
    """A timedelta or a number of seconds, which must be positive."""
    if not PyDelta_Check(value):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{field} must be a timedelta or a number of seconds, not {type(value).__name__}")
        if not isfinite(value) or value > LATEST / 1e6:
            raise ValueError(f"{field} is not a duration: {value}")
        value = timedelta(seconds=value)
    cdef int64_t us = span(value)
    if us <= 0:
        raise ValueError(f"{field} must be positive")
    return us


cdef int64_t expiry(Clock clock, object expires_at, object expires_in) except? -1:
    """When something expires, in database time; 0 where neither is given."""
    if expires_in is None:
        return 0 if expires_at is None else micros(expires_at, "expires_at")
    if expires_at is not None:
        raise TypeError("give expires_at or expires_in, not both")
    cdef int64_t us = exact(clock) + clock.offset + duration(expires_in, "expires_in")
    if us > LATEST:
        raise ValueError("expires_in goes beyond the year 9999")
    return us


def to_datetime(int64_t us):
    """The aware UTC datetime of `us` microseconds since the Unix epoch."""
    return moment(us)


def to_micros(value, field="value"):
    """Microseconds since the Unix epoch of an aware datetime; a naive one is a ValueError that names `field`."""
    return micros(value, field)


def expiry_micros(Clock clock not None, expires_at=None, expires_in=None):
    """When something given one of `expires_at` and `expires_in` expires, in database time; None without either."""
    cdef int64_t us = expiry(clock, expires_at, expires_in)
    return None if expires_at is None and expires_in is None else us
