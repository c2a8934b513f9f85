"""The model behind `pgsession plan` multiplies a load by what single operations were measured to cost.

It is arithmetic alone. `capacity.json` holds the costs; `python -m benchmarks.capacity` measures them and writes it.
Costs are those of lone operations: what waits together shares statements and commits, and costs less. So a plan is an
upper bound for the machine on which they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

FILE = Path(__file__).with_name("capacity.json")
RESERVED_CONNECTIONS = 3
"""PostgreSQL's default `superuser_reserved_connections`: nodes do not get these."""
BUSY = 0.7
"""The part of a processor beyond which callers wait for each other, so that a plan ends there."""
LISTENER = 1
"""A node's connections beside those of its pool (`Config.pool_max_size`)."""
ABSENCES_BYTES = 256 * 1024
"""The room of a worker for ids that are not there, fixed in size: `SIZE` of the core's `absences.pyx`."""
PROOFS_IN_A_BOUND = 4
"""Each node reads so often in `max_staleness` (`_protocol/proofs_of_sync.py`)."""


class Constants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Says what single operations cost: `_us` are microseconds of a processor."""

    read_server_us: float
    """The server: a session that memory does not have."""
    update_server_us: float
    """The server: a lone durable update, without what its notification costs."""
    create_server_us: float
    """The server: a lone durable creation."""
    access_server_us: float
    """The server: a noted access, one of many in a statement."""
    notification_server_us: float
    """The server: a notification, whoever listens."""
    listener_server_us: float
    """The server: what each node that hears the notification adds."""
    proof_server_us: float
    """The server: a node's read that asks for a proof, and what else keeps an idle node in sync."""
    hit_client_us: float
    """A worker: a session from memory."""
    read_client_us: float
    """A worker: a session that memory does not have."""
    update_client_us: float
    """A worker: a lone update."""
    create_client_us: float
    """A worker: a lone creation."""
    event_client_us: float
    """A worker: a notification that it hears."""
    session_bytes: float
    """A worker: a cached session, without the bytes of its values."""
    connection_bytes: float
    """The server: the memory of a connection that is its own."""
    connections_at_rest: int
    """A node that does nothing: the listener's, and what the pool keeps."""


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The costs, and where and when they were measured."""

    date: str
    machine: str
    versions: dict[str, str]
    load: float
    """How many processes wanted to run when the measuring began."""
    provisional: bool
    """Other work was going on, so that the costs are too high."""
    constants: Constants


class Demand(msgspec.Struct, frozen=True):
    """Says what is asked of the service. The command's options are the same; `docs/capacity.md` tells them."""

    hosts: int
    workers: int
    sessions: int
    active: int
    requests: float
    writes: float
    logins: float
    spread: int
    cache_size: int
    session_size: int
    hit_rate: float | None
    pool_max_size: int
    max_staleness: float
    access_interval: float
    max_connections: int
    server_cores: float
    host_memory: float

    @property
    def nodes(self) -> int:
        """Return how many processes there are: each has a memory and a listener of its own."""
        return self.hosts * self.workers


class Limit(msgspec.Struct, frozen=True):
    """Something of which there is only so much."""

    name: str
    used: float
    available: float
    remedy: str

    @property
    def share(self) -> float:
        """Return what part of it is used; 1 is all that a plan may use."""
        return self.used / self.available


class Plan(msgspec.Struct, frozen=True):
    """Says what a demand takes."""

    connections_at_rest: int
    connections_at_most: int
    hit_rate: float
    misses: float
    """A second, as all rates."""
    server_cores: Mapping[str, float]
    host_cores: Mapping[str, float]
    events: float
    beacons: float
    wake_ups: float
    process_bytes: float
    host_bytes: float
    server_bytes: float
    most_nodes: int
    """For so many the connections suffice at most."""
    most_cached: int
    """Sessions in a worker for which the hosts' memory suffices."""
    limits: tuple[Limit, ...]
    """The one that binds first comes first."""


def recorded() -> Measured:
    """Return the costs that were measured last."""
    return msgspec.json.decode(FILE.read_bytes(), type=Measured)


def hit_rate(demand: Demand) -> float:
    """Return the part of all requests that memory answers.

    Two things keep one from memory. A worker sees `active * spread / nodes` sessions and holds `cache_size` of them;
    by uniform use memory has that part (real use is less even: memory does better). And a save by one worker makes
    the others of the session's `spread` workers read it again: of what comes to pass with a session, seen from one
    worker, its own requests are `1 / spread` and the others' saves `writes * (spread - 1) / spread`, so that its last
    own request is younger than all others' saves in `1 / (1 + writes * (spread - 1))` of the cases.
    """
    if demand.hit_rate is not None:
        return demand.hit_rate
    return _held(demand) * _fresh(demand)


def _held(demand: Demand) -> float:
    return min(1.0, demand.cache_size / (demand.active * demand.spread / demand.nodes))


def _fresh(demand: Demand) -> float:
    return 1 / (1 + demand.writes * (demand.spread - 1))


def plan(demand: Demand, costs: Constants) -> Plan:
    """Return what the demand takes.

    - Server: each rate times its cost. A save, and the end of each session that a login began (by logout, eviction or
      cleanup), is an event, which costs `notification + nodes * listener`, for each node listens to one channel. Each
      node reads for proof four times in `max_staleness`; where no event comes by itself one of them sends a beacon
      for all, an event like another, so beacons fill up to four in `max_staleness` and not more, whatever the number
      of nodes. A noted access is written once in `access_interval` for each session and worker that saw it: not more
      often than requests come.
    - Memory: what `cache_size` lets a worker hold, but not more than it sees in the long run, active or not: only
      what is used least recently leaves, and only when room is short.
    - Connections: at rest the pool's least and the listener's; at most `pool_max_size` and the listener's.
    - Wake-ups of the server's processes: each event or beacon wakes each node's.
    """
    nodes, rate = demand.nodes, hit_rate(demand)
    misses = demand.requests * (1 - rate)
    updates = demand.requests * demand.writes
    per_second = PROOFS_IN_A_BOUND / demand.max_staleness
    events = updates + demand.logins
    beacons = max(0.0, per_second - events)
    heard = events + beacons
    accesses = min(demand.requests, demand.active * demand.spread / demand.access_interval)
    server = {
        "reads": misses * costs.read_server_us,
        "updates": updates * costs.update_server_us,
        "logins": demand.logins * costs.create_server_us,
        "notifications": heard * (costs.notification_server_us + nodes * costs.listener_server_us),
        "proofs": nodes * per_second * costs.proof_server_us,
        "accesses": accesses * costs.access_server_us,
    }
    host = {
        "reads": (demand.requests * costs.hit_client_us + misses * costs.read_client_us) / demand.hosts,
        "updates": updates * costs.update_client_us / demand.hosts,
        "logins": demand.logins * costs.create_client_us / demand.hosts,
        "events": heard * demand.workers * costs.event_client_us,
    }
    server, host = ({name: us / 1e6 for name, us in cores.items()} for cores in (server, host))
    session_bytes = costs.session_bytes + demand.session_size
    process_bytes = (
        min(demand.cache_size, demand.sessions * demand.spread / nodes) * session_bytes + ABSENCES_BYTES
    )
    at_most = nodes * (demand.pool_max_size + LISTENER)
    connections = demand.max_connections - RESERVED_CONNECTIONS
    limits = (
        Limit("connections", at_most, connections, _FEWER_CONNECTIONS),
        Limit(
            "server cores", sum(server.values()), BUSY * demand.server_cores, _server_remedy(demand, server)
        ),
        Limit("host cores", sum(host.values()), BUSY * demand.workers, _MORE_HOSTS),
        Limit("host memory", process_bytes * demand.workers, demand.host_memory, _LESS_MEMORY),
    )
    return Plan(
        connections_at_rest=nodes * costs.connections_at_rest,
        connections_at_most=at_most,
        hit_rate=rate,
        misses=misses,
        server_cores=server,
        host_cores=host,
        events=events,
        beacons=beacons,
        wake_ups=nodes * heard,
        process_bytes=process_bytes,
        host_bytes=process_bytes * demand.workers,
        server_bytes=at_most * costs.connection_bytes,
        most_nodes=connections // (demand.pool_max_size + LISTENER),
        most_cached=max(0, int((demand.host_memory / demand.workers - ABSENCES_BYTES) / session_bytes)),
        limits=tuple(sorted(limits, key=lambda limit: -limit.share)),
    )


def requests_at_most(demand: Demand, costs: Constants) -> float:
    """Return with how many requests a second, and logins in proportion, the processors are used as far as they may be.

    What takes of a processor grows with these rates, so halving an interval finds it; 0 where even an idle service
    takes too much, or where nothing is asked.
    """

    def fits(factor: float) -> bool:
        scaled = msgspec.structs.replace(
            demand, requests=demand.requests * factor, logins=demand.logins * factor
        )
        return all(limit.share <= 1 for limit in plan(scaled, costs).limits if limit.name.endswith("cores"))

    if not demand.requests or not fits(0):
        return 0.0
    low, high = 0.0, 1.0
    while fits(high) and high < 1e12:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return demand.requests * low


_FEWER_CONNECTIONS = (
    "raise max_connections, lower pool_max_size, run fewer workers with more threads or tasks in each, or lead the pool"
    " through PgBouncer and the listener past it (listener_conninfo): then the server has one connection a worker and"
    " the pooler's"
)
_MORE_HOSTS = "more hosts; or fewer events: save less often, keep a session's requests on one host"
_LESS_MEMORY = "more memory, fewer workers with more threads or tasks in each, or a smaller cache_size"
_LARGER_CACHE = "a larger cache_size: memory does not hold the sessions in use"
_LESS_SPREAD = (
    "keep a session's requests on one host (--spread), as each save makes the other workers read again"
)
_SERVER_REMEDIES = {
    "updates": "save less often, or a server with faster cores",
    "logins": "a server with faster cores or more of them",
    "notifications": "fewer workers with more threads or tasks in each, as each listens; save less often, or with"
    " notify=False what other workers need not know at once",
    "proofs": "fewer workers, or a longer max_staleness",
    "accesses": "a longer last_access_update_interval",
}


def _server_remedy(demand: Demand, server: Mapping[str, float]) -> str:
    """Return what helps most: what lessens the largest part."""
    largest = max(server, key=server.__getitem__)
    if largest != "reads":
        return _SERVER_REMEDIES[largest]
    return _LARGER_CACHE if _held(demand) < _fresh(demand) else _LESS_SPREAD
