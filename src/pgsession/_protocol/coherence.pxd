from pgsession._core.cache cimport Cache
from pgsession._core.clock cimport Clock
from pgsession._core.record cimport Record
cimport pgsession._protocol.in_flight_leases as leases


cdef class Coherence:
    cdef readonly Cache _cache
    cdef readonly Clock _clock
    cdef long long _max_staleness
    cdef long long _stale_if_error
    cdef readonly object _logger
    cdef object _lock
    cdef object _section
    cdef object _attempt
    cdef object _attention
    cdef bint _begun
    cdef bint _owes_lost
    cdef bint _owes_proof
    cdef object _warnings
    cdef readonly leases.Leases _leases
    cdef object _state
    cdef str _incarnation
    cdef object _losses
    cdef object _awaited
    cdef readonly object _proofs
    cdef readonly object _offset
    cdef object _registered_until
    cdef object _counters
    cdef object _malformed_lines
    cdef object _step_lines
    cdef readonly object _arena
    cdef object _proved_until
    cdef long long _number
    cdef bint _candidate
    cdef object _arena_epoch
    cdef bint _was_apart
    cdef long long _after

    cpdef leases.Lease open_write(self, bytes key, bint creates=*)
    cpdef write_saved(self, leases.Lease lease, Record record, str incarnation)
    cdef _close_saved(self, leases.Lease lease, Record record, str incarnation)
    cpdef on_event(self, str payload)
    cdef _apply(self, object item)
    cdef _log(self)
    cdef _keep(self, leases.Lease lease, Record record, str incarnation, bint behind=*)
    cdef _outdate(self, bytes key, object version, str incarnation)
    cdef _gone(self, bytes key)
    cdef _check_origin(self, object asked, str incarnation, object xmax=*)
    cdef _prove(self)
    cdef _extend_sync(self)
    cdef _set_clock(self, long long until)
