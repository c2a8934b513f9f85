from cpython.object cimport PyObject, PyTypeObject


cdef extern from "cpython_tricks.h":
    bint PGS_TRICKS
    bint PGS_REUSES_SESSIONS
    bint PGS_REUSES_STOP
    ctypedef enum PySendResult:
        PYGEN_RETURN, PYGEN_ERROR, PYGEN_NEXT
    ctypedef object (*pgs_method)(object self, PyObject *const *args, Py_ssize_t count, PyObject *names)
    ctypedef void (*destructor)(PyObject *) noexcept

    PyObject *pgs_hold(PyObject *object)
    void pgs_revive(PyObject *object)
    destructor pgs_release_by(PyTypeObject *type, destructor release)
    pgs_method pgs_enter_by(PyTypeObject *type, const char *name, pgs_method entry)
    void pgs_resume_by(PyTypeObject *type, PyObject *(*next)(PyObject *) noexcept,
                       PySendResult (*send)(PyObject *, PyObject *, PyObject **) noexcept)
    void pgs_raise(PyObject *stop)
    bint pgs_is_clean(PyObject *stop) noexcept
    void pgs_set_result(PyObject *stop, PyObject *result)
