"""python -m tests.simulation [--hosts] [--seeds N] [--first N] [--seed N] [--replay HEX]: run histories."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation import histories
from tests.simulation.hosts import HostWorld
from tests.simulation.world import World


def main() -> int:
    """Exit with the number of failures, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20_000, help="how many histories")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--replay", metavar="HEX", help="this history")
    parser.add_argument("--hosts", action="store_true", help="of processes that share a cache")
    arguments = parser.parse_args()
    world = HostWorld if arguments.hosts else World
    if arguments.replay is not None:
        failure = histories.run(bytes.fromhex(arguments.replay), world=world)
        print("nothing fails" if failure is None else histories.report(failure, world=world))
        return failure is not None
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    began = time.process_time()
    for seed, failure in histories.failures(seeds, world=world):
        print(histories.report(failure, seed=seed, world=world))
        return 1
    took = time.process_time() - began
    print(f"{len(seeds)} histories, {len(seeds) / took:.0f} a second, no violation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
