"""`pgsession plan` says what a load takes: connections, processors, memory, and what binds first."""

from __future__ import annotations

import math

import click
import msgspec

from ._capacity import Demand, Measured, Plan, recorded, requests_at_most
from ._capacity import plan as planned
from ._failures import Status
from ._output import Output
from ._parameters import JSON

_MOST = 1e12


class _Number(click.FloatRange):
    """Refuses what is no number, too."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert what was typed."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


_COUNT = click.IntRange(1, 10**6)
_MANY = click.IntRange(1, 10**12)
_RATE = _Number(0, _MOST)
_SHARE = _Number(0, 1)
_POSITIVE = _Number(0, _MOST, min_open=True)


def _option(name: str, kind: click.IntRange | click.FloatRange, default: object, help: str) -> click.Option:
    return click.Option([name], type=kind, default=default, show_default=True, metavar="N", help=help)


_OPTIONS: list[click.Parameter] = [
    _option("--hosts", _COUNT, 1, "Machines that run the service."),
    _option("--workers", _COUNT, 4, "Processes of the service on each host, each with a memory of its own."),
    _option("--sessions", _MANY, 100_000, "Live sessions."),
    _option("--active", _MANY, None, "Those of them that are in use within some hours; all, where it is left out."),
    _option("--requests", _RATE, 1000.0, "Requests a second in all, each of which reads its session."),
    _option("--writes", _SHARE, 0.05, "The part of the requests that saves the session, from 0 to 1."),
    _option("--logins", _RATE, 1.0, "Sessions that begin in a second."),
    _option(
        "--spread", _COUNT, None,
        "Workers that see a session's requests; all, where it is left out. With a sticky balancer: those of a host.",
    ),
    _option("--hit-rate", _SHARE, None, "The part of the reads that memory answers, if it is known; else it follows."),
    _option("--cache-size", click.IntRange(1, 2**30), 10_000, "`Config.cache_size`: sessions in each worker's memory."),
    _option("--session-size", click.IntRange(0, 2**30), 500, "Bytes of a session's values."),
    _option("--pool-max-size", click.IntRange(1, 10_000), 8, "`Config.pool_max_size`."),
    _option("--max-staleness", _POSITIVE, 10.0, "`Config.max_staleness`, in seconds."),
    _option("--access-interval", _POSITIVE, 600.0, "`Config.last_access_update_interval`, in seconds."),
    _option("--max-connections", click.IntRange(4, 10**6), 100, "The server's `max_connections`."),
    _option("--server-cores", _POSITIVE, 4.0, "Cores of the server."),
    _option("--host-memory", _POSITIVE, 8.0, "GiB of each host's memory that sessions may take."),
    JSON,
]  # fmt: skip


@click.command(params=_OPTIONS)
@click.pass_context
def plan(context: click.Context, /, as_json: bool, **given: float | None) -> int:
    """Say what a load takes of connections, processors and memory, what binds first, and what to do then.

    It asks no database. It multiplies the load by what single operations cost where pgsession was measured, so cores
    are those of that machine. docs/capacity.md says how. Processors may be used to 70 %, connections as far as the
    nodes may open them at most.

    Exit status 0: there is room. 1: there is not: even at rest nodes lack connections, or something else is used up. 3:
    connections suffice at rest, and not where all pools are full.
    """
    demand = _demand(context, given)
    measured = recorded()
    found = planned(demand, measured.constants)
    Output(as_json).fields(_told(demand, found, measured))
    return _status(demand, found)


def _demand(context: click.Context, given: dict[str, float | None]) -> Demand:
    demand = msgspec.convert(
        {**given, "active": given["active"] or given["sessions"], "spread": given["spread"] or 0}, Demand
    )
    spread = demand.spread or demand.nodes
    for name, value, most, of in (
        ("active", demand.active, demand.sessions, "--sessions"),
        ("spread", spread, demand.nodes, "--hosts times --workers"),
    ):
        if value > most:
            raise click.UsageError(f"--{name}: must be at most {of} ({most}), not {value}", context)
    return msgspec.structs.replace(demand, spread=spread, host_memory=demand.host_memory * 2**30)


def _status(demand: Demand, found: Plan) -> Status:
    over = {limit.name for limit in found.limits if limit.share > 1}
    if over - {"connections"}:
        return Status.FAILED
    if not over:
        return Status.WELL
    (connections,) = (limit for limit in found.limits if limit.name == "connections")
    return Status.SOMETHING_LEFT if found.connections_at_rest <= connections.available else Status.FAILED


def _rate(value: float) -> float:
    """Return it without what nobody plans by."""
    return round(value) if value >= 10 else round(value, 2)


def _told(demand: Demand, found: Plan, measured: Measured) -> dict[str, object]:
    first = found.limits[0]
    return {
        "costs": {
            "measured": measured.date,
            "machine": measured.machine,
            "provisional": measured.provisional,
            "note": "cores are those of that machine: another one's scale with its speed",
        },
        "nodes": demand.nodes,
        "connections": {
            "at_rest": found.connections_at_rest,
            "at_most": found.connections_at_most,
            "max_connections": demand.max_connections,
        },
        "hit_rate": found.hit_rate,
        "a_second": {
            "reads_of_the_server": _rate(found.misses),
            "events": _rate(found.events),
            "beacons": _rate(found.beacons),
            "wake_ups": _rate(found.wake_ups),
        },
        "server_cores": {**found.server_cores, "in_all": sum(found.server_cores.values())},
        "host_cores": {**found.host_cores, "in_all": sum(found.host_cores.values())},
        "memory": {
            "of_sessions_in_a_process_bytes": found.process_bytes,
            "of_sessions_on_a_host_bytes": found.host_bytes,
            "of_connections_on_the_server_bytes": found.server_bytes,
        },
        "part_used": {limit.name.replace(" ", "_"): limit.share for limit in found.limits},
        "room_for": {
            "requests_a_second": _rate(requests_at_most(demand, measured.constants)),
            "nodes": found.most_nodes,
            "sessions_in_a_process": found.most_cached,
        },
        "binds_first": first.name,
        "then": first.remedy,
    }
