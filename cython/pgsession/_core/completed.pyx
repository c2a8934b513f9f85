"""A completed awaitable has its result already: the async managers return it on a hit.

It has everything of a coroutine that asyncio asks for (`collections.abc.Coroutine`), without a frame and without the
warning of one that is never awaited. Python 3.11 and asyncio's tasks resume it through `am_send`, which hands the
result over as it is. The interpreter of 3.12 and later calls `tp_iternext` instead, whose only way to hand over a
result is a StopIteration: made anew, that costs more than a whole look-up, so exceptions that nobody else has kept
are used again.
"""

cimport cython

from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030C0000 && !defined(Py_GIL_DISABLED)
    #define PGS_REUSE 1
    /* Takes over the reference to `stop`. */
    static void pgs_raise(PyObject *stop) { PyErr_SetRaisedException(stop); }
    /* Nobody else knows it, and raising it has left nothing in it. */
    static int pgs_is_clean(PyObject *stop) {
        PyBaseExceptionObject *base = (PyBaseExceptionObject *)stop;
        return Py_REFCNT(stop) == 1 && !base->traceback && !base->context && !base->cause && !base->notes &&
               !base->dict;
    }
    #else
    #define PGS_REUSE 0
    static void pgs_raise(PyObject *stop) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    static int pgs_is_clean(PyObject *stop) { (void)stop; return 0; }
    #endif
    static void pgs_set_result(PyObject *stop, PyObject *result) {
        PyObject *old = ((PyStopIterationObject *)stop)->value;
        Py_XINCREF(result);
        ((PyStopIterationObject *)stop)->value = result;
        Py_XDECREF(old);
    }
    static void pgs_set_slots(PyTypeObject *type, PyObject *(*next)(PyObject *),
                              PySendResult (*send)(PyObject *, PyObject *, PyObject **)) {
        type->tp_iternext = next;
        type->tp_as_async->am_send = send;
        PyType_Modified(type);
    }
    """
    ctypedef enum PySendResult:
        PYGEN_RETURN, PYGEN_ERROR, PYGEN_NEXT
    bint PGS_REUSE
    void pgs_raise(PyObject *stop)
    bint pgs_is_clean(PyObject *stop) noexcept
    void pgs_set_result(PyObject *stop, PyObject *result)
    void pgs_set_slots(PyTypeObject *type, PyObject *(*next)(PyObject *) noexcept,
                       PySendResult (*send)(PyObject *, PyObject *, PyObject **) noexcept)

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

    def send(self, value):
        """Raise the StopIteration that holds the result."""
        return self.finish()

    def throw(self, kind, value=None, traceback=None):
        """Raise an error at the point where it waits, which is before it has begun."""
        self.over = True
        self.result = None
        error = kind if value is None else value
        if isinstance(error, type):
            error = error()
        raise error if traceback is None else error.with_traceback(traceback)

    def close(self):
        """Drop the result."""
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
    if PGS_REUSE:
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


pgs_set_slots(<PyTypeObject *> Completed, completed_next, completed_send)


cdef object completed(object result):
    """Return an awaitable whose result is there already."""
    cdef Completed awaitable = Completed.__new__(Completed)
    awaitable.result = result
    return awaitable


def make_completed(result):
    """Return an awaitable whose result is there already."""
    return completed(result)
