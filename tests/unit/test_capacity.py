"""The cost model of `pgsession plan` against figures computed by hand, and by what cannot be otherwise."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import msgspec
import pytest

from pgsession.cli._capacity import (
    ABSENCES_BYTES,
    BUSY,
    Constants,
    Demand,
    hit_rate,
    plan,
    recorded,
    requests_at_most,
)

COSTS = Constants(
    read_server_us=100, update_server_us=300, create_server_us=400, access_server_us=20, notification_server_us=30,
    listener_server_us=10, proof_server_us=50, hit_client_us=1, read_client_us=200, update_client_us=250,
    create_client_us=350, event_client_us=5, session_bytes=400, connection_bytes=3_000_000, connections_at_rest=2,
)  # fmt: skip
DEMAND = Demand(
    hosts=10, workers=8, sessions=200_000, active=20_000, requests=5000, writes=0.05, logins=20, spread=80,
    cache_size=10_000, session_size=500, hit_rate=None, pool_max_size=8, max_staleness=10, access_interval=600,
    max_connections=100, server_cores=4, host_memory=8 * 2**30,
)  # fmt: skip
IDLE = msgspec.structs.replace(DEMAND, requests=0, logins=0)


def test_what_memory_answers() -> None:
    # Half of the active sessions fit; 79 others save, each at 5 % of the rate of requests: 1 of 4.95 is fresh.
    assert hit_rate(DEMAND) == pytest.approx(0.5 / 4.95)
    alone = msgspec.structs.replace(DEMAND, spread=1)
    assert hit_rate(alone) == 1
    assert hit_rate(msgspec.structs.replace(DEMAND, hit_rate=0.9)) == 0.9


def test_a_load_by_hand() -> None:
    found = plan(msgspec.structs.replace(DEMAND, hit_rate=0.9), COSTS)
    assert (found.connections_at_rest, found.connections_at_most) == (160, 720)
    assert found.misses == pytest.approx(500)
    assert (found.events, found.beacons, found.wake_ups) == (270, 0, 270 * 80)
    assert found.server_cores == pytest.approx(
        {
            "reads": 500 * 100e-6,
            "updates": 250 * 300e-6,
            "logins": 20 * 400e-6,
            "notifications": 270 * (30 + 80 * 10) * 1e-6,
            "proofs": 80 * 0.4 * 50e-6,
            "accesses": 20_000 * 80 / 600 * 20e-6,
        }
    )
    assert found.host_cores == pytest.approx(
        {
            "reads": (500 * 1 + 50 * 200) * 1e-6,
            "updates": 25 * 250e-6,
            "logins": 2 * 350e-6,
            "events": 270 * 8 * 5e-6,
        }
    )
    assert found.process_bytes == 10_000 * 900 + 256 * 1024
    assert found.host_bytes == 8 * found.process_bytes
    few = msgspec.structs.replace(DEMAND, sessions=4_000, active=2_000, spread=8)
    assert plan(few, COSTS).process_bytes == 400 * 900 + 256 * 1024  # all that come to a worker in time
    assert found.server_bytes == 720 * 3_000_000
    assert found.limits[0].name == "connections" and found.limits[0].share == pytest.approx(720 / 97)
    assert found.most_nodes == 10  # of nine connections each, within 97
    assert found.most_cached == (2**30 - 256 * 1024) // 900


def test_idle_nodes_share_four_beacons_in_a_bound() -> None:
    for hosts in (1, 100):
        found = plan(msgspec.structs.replace(IDLE, hosts=hosts, spread=8), COSTS)
        assert (found.events, found.beacons) == (0, 0.4)
        assert found.wake_ups == pytest.approx(hosts * 8 * 0.4)
    some = plan(msgspec.structs.replace(IDLE, logins=0.1), COSTS)
    assert some.beacons == pytest.approx(0.3)


def test_processors_are_used_up_where_it_says() -> None:
    most = requests_at_most(DEMAND, COSTS)
    scaled = msgspec.structs.replace(DEMAND, requests=most, logins=20 * most / 5000)
    used = sum(plan(scaled, COSTS).server_cores.values())
    assert used == pytest.approx(BUSY * 4)
    assert requests_at_most(IDLE, COSTS) == 0
    assert requests_at_most(msgspec.structs.replace(DEMAND, server_cores=0.001), COSTS) == 0


@pytest.mark.parametrize(
    ("changes", "first", "remedy"),
    [
        ({"pool_max_size": 100}, "connections", "PgBouncer"),
        ({"requests": 1e6, "cache_size": 10, "writes": 0}, "server cores", "cache_size"),
        ({"requests": 1e6, "hosts": 1, "workers": 2, "spread": 2, "hit_rate": 0, "writes": 0.0}, "host cores", "hosts"),
        ({"requests": 1e5, "hit_rate": 0.9}, "server cores", "fewer workers"),
        ({"requests": 1e5}, "server cores", "on one host"),
        ({"logins": 1e5, "hosts": 1, "workers": 1, "spread": 1, "server_cores": 1}, "server cores", "faster cores"),
        ({"max_staleness": 0.001}, "server cores", "max_staleness"),
        ({"host_memory": 2**20}, "host memory", "more memory"),
    ],
)  # fmt: skip
def test_what_binds_first_has_its_remedy(changes: dict[str, float], first: str, remedy: str) -> None:
    roomy = msgspec.structs.replace(DEMAND, max_connections=5000)
    (limit, *_) = plan(msgspec.structs.replace(roomy, **changes), COSTS).limits
    assert limit.name == first
    assert remedy in limit.remedy


def test_more_is_never_less() -> None:
    seed = Random().randrange(2**32)
    print(f"seed {seed}")
    random = Random(seed)
    for _ in range(300):
        nodes = random.randint(1, 50), random.randint(1, 16)
        sessions = random.randint(1, 10**6)
        demand = msgspec.structs.replace(
            DEMAND, hosts=nodes[0], workers=nodes[1], spread=random.randint(1, nodes[0] * nodes[1]), sessions=sessions,
            active=random.randint(1, sessions), requests=random.uniform(0, 1e5), writes=random.random(),
            logins=random.uniform(0, 1000), cache_size=random.randint(1, 10**5),
        )  # fmt: skip
        for field, more in (("requests", 2), ("logins", 2), ("writes", 1 / max(demand.writes, 0.01))):
            larger = msgspec.structs.replace(demand, **{field: getattr(demand, field) * more})
            assert server(larger) >= server(demand) * (1 - 1e-9), field
            assert plan(larger, COSTS).events >= plan(demand, COSTS).events * (1 - 1e-9)
        larger = msgspec.structs.replace(demand, cache_size=2 * demand.cache_size)
        assert server(larger) <= server(demand) * (1 + 1e-9)
        assert plan(larger, COSTS).process_bytes >= plan(demand, COSTS).process_bytes
        larger = msgspec.structs.replace(demand, pool_max_size=2 * demand.pool_max_size)
        assert plan(larger, COSTS).connections_at_most > plan(demand, COSTS).connections_at_most
        less_spread = msgspec.structs.replace(demand, spread=1)
        assert hit_rate(less_spread) >= hit_rate(demand)
        assert 0 <= hit_rate(demand) <= 1


def server(demand: Demand) -> float:
    return sum(plan(demand, COSTS).server_cores.values())


def test_the_recorded_costs_are_costs() -> None:
    measured = recorded()
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", measured.date) and measured.machine
    for name in Constants.__struct_fields__:
        assert getattr(measured.constants, name) > 0, name


def test_the_room_for_absences_is_that_of_the_core() -> None:
    source = Path(__file__).parents[2] / "cython" / "pgsession" / "_core" / "absences.pyx"
    if not source.exists():
        pytest.skip("an installed package has no Cython sources")
    assert f"# {ABSENCES_BYTES // 1024} KiB" in source.read_text(encoding="utf-8")
