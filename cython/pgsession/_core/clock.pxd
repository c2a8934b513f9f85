from libc.stdint cimport int64_t


cdef extern from "clock.h" nogil:
    ctypedef struct pgs_recent:
        pass
    int64_t pgs_clock_now()
    int64_t pgs_clock_wall()
    int64_t pgs_clock_recent(pgs_recent *memory)
    int64_t pgs_clock_start(pgs_recent *memory)


cdef class Clock:
    cdef readonly bint manual
    cdef public int64_t offset
    cdef public int64_t doubt   # the offset is wrong by at most this
    cdef int64_t time           # a manual clock's
    cdef int64_t slack          # recent() lags behind exact() by at most this
    cdef pgs_recent memory


cdef inline int64_t exact(Clock clock) noexcept:
    """Return node time."""
    return clock.time if clock.manual else pgs_clock_now()


cdef inline int64_t recent(Clock clock) noexcept:
    """Return node time for the hit path: cheaper than exact(), and behind it by at most `slack`."""
    return clock.time if clock.manual else pgs_clock_recent(&clock.memory)


cdef object moment(int64_t us)
cdef int64_t expiry(Clock clock, object expires_at, object expires_in) except? -1
