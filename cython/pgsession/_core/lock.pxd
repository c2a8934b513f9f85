cdef extern from "locking.h":
    bint PGS_FREE_THREADED
    ctypedef struct pgs_mutex:
        pass
    void pgs_lock(pgs_mutex *mutex) noexcept
    void pgs_unlock(pgs_mutex *mutex) noexcept
    object pgs_take_and_unlock(void *object, pgs_mutex *mutex)
    object pgs_dict_get(dict table, object key)
    bint pgs_set_once(void *place, void *value) noexcept
    void pgs_set(void *place, void *value) noexcept
    void *pgs_read(const void *place) noexcept
