"""A completed awaitable has its result already: the async managers return it on a hit.

It has everything of a coroutine that asyncio asks for (`collections.abc.Coroutine`), without a frame and without the
warning of one that is never awaited. Python 3.11 and asyncio's tasks resume it through `am_send`, which hands the
result over as it is. The interpreter of 3.12 and later calls `tp_iternext` instead, whose only way to hand over a
result is a StopIteration: made anew, that costs more than a whole look-up, so exceptions that nobody else has kept
are used again.
"""

cimport cython

from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from pgsession._core.cpython_tricks cimport (
    PGS_REUSES_STOP, PYGEN_ERROR, PYGEN_RETURN, PySendResult, pgs_is_clean, pgs_raise, pgs_resume_by, pgs_set_result,
)

cdef enum:
    SPARE = 16
cdef PyObject *spare[SPARE]
cdef int spares = 0


@cython.final
@cython.no_gc
@cython.freelist(16)
cdef class Completed:
    """A completed awaitable is, to asyncio, a coroutine that ends in its first step and gives its result."""

    cdef object result
    cdef PyObject *stop
    cdef bint over

    def __await__(self):
        return self

    def __next__(self):
        return self.finish()

    def send(self, value):
        """Raise the StopIteration that holds the result."""
        return self.finish()

    def throw(self, kind, value=None, traceback=None):
        """Raise an error at the point where it waits, which is before it has begun."""
        self.close()
        error = kind if value is None else value
        if isinstance(error, type):
            error = error()
        raise error if traceback is None else error.with_traceback(traceback)

    def close(self):
        """Drop the result."""
        result = self.result            # released when nothing refers to it here any more
        self.over = True
        self.result = None

    cdef object finish(self):
        """Raise the StopIteration that holds the result, as the C slots do where they are not called."""
        if self.over:
            raise RuntimeError("cannot reuse an awaitable that was awaited already")
        self.over = True
        result, self.result = self.result, None
        raise StopIteration(result)

    def __dealloc__(self):
        if self.stop != NULL:
            put_back(self.stop)

    @property
    def __name__(self):
        return "get_session"

    @property
    def __qualname__(self):
        return "AsyncSessionManager.get_session"


cdef void put_back(PyObject *stop) noexcept:
    """Keep an exception that nobody else has, to be used again; takes over the reference."""
    global spares
    if spares < SPARE and pgs_is_clean(stop):
        pgs_set_result(stop, NULL)
        spare[spares] = stop
        spares += 1
    else:
        Py_DECREF(<object> stop)


cdef PyObject *take_stop() except NULL:
    """Return a new reference to a StopIteration without a result, a spare one if there is one."""
    global spares
    if spares > 0:
        spares -= 1
        return spare[spares]
    stop = StopIteration()
    Py_INCREF(stop)
    return <PyObject *> stop


cdef PySendResult completed_send(PyObject *self, PyObject *value, PyObject **result) noexcept:
    """Hand the result over as it is, without a StopIteration."""
    cdef Completed completed = <Completed> self
    result[0] = NULL
    if completed.over:
        set_reused()
        return PYGEN_ERROR
    completed.over = True
    Py_INCREF(completed.result)
    result[0] = <PyObject *> completed.result
    return PYGEN_RETURN


cdef PyObject *completed_next(PyObject *self) noexcept:
    """Raise the StopIteration that holds the result, once."""
    cdef Completed completed = <Completed> self
    if completed.over:
        set_reused()
        return NULL
    completed.over = True
    return raise_result(completed)


cdef PyObject *raise_result(Completed completed) noexcept:
    """Raise a StopIteration with the result, which `completed` keeps, to put it back in the end."""
    cdef PyObject *stop
    try:
        stop = take_stop()
    except MemoryError:
        return NULL
    pgs_set_result(stop, <PyObject *> completed.result)
    if PGS_REUSES_STOP:
        Py_INCREF(<object> stop)
        completed.stop = stop
    pgs_raise(stop)
    return NULL


cdef extern from *:
    """
    static void set_reused(void) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse an awaitable that was awaited already");
    }
    """
    void set_reused()


pgs_resume_by(<PyTypeObject *> Completed, completed_next, completed_send)


cdef object completed(object result):
    """Return an awaitable whose result is there already."""
    cdef Completed awaitable = Completed.__new__(Completed)
    awaitable.result = result
    return awaitable
