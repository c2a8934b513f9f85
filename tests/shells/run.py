"""Runs histories in a loop whose time jumps, with the manager's clock in step.

python -m tests.shells.run [FIRST] [HISTORIES]
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator

import pytest

from pgsession._async import manager, runtime
from pgsession._core.clock import Clock
from tests.fault import virtual_time

from .server import START
from .world import World


def failures(seeds: range) -> Iterator[tuple[int, Exception, World]]:
    """The first history that fails among these seeds, with its error."""
    for seed, error, world in _run(seeds):
        if error is not None:
            yield seed, error, world
            return


def all_of(seeds: range) -> list[World]:
    """The histories of these seeds, none of which fails."""
    ran = _run(seeds)
    for _, error, _ in ran:
        if error is not None:
            raise error
    return [world for _, _, world in ran]


def _run(seeds: range) -> list[tuple[int, Exception | None, World]]:
    """Run one history a seed, up to the first that fails."""
    clock = Clock(manual=START)
    ran: list[tuple[int, Exception | None, World]] = []

    async def checked(*_: object) -> None:
        """There is no catalog to look at."""

    async def work(jump: Callable[[bool], None]) -> None:
        jump(True)
        with tempfile.TemporaryDirectory(prefix="pgs") as folder:
            for seed in seeds:
                world = World(seed, clock.now, f"host={folder} port=5432 user=u dbname=d")
                error = await _history(world, f"{folder}/.s.PGSQL.5432")
                ran.append((seed, error, world))
                if error is not None:
                    return

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manager, "Clock", lambda: clock)
        patch.setattr(runtime, "async_check", checked)
        virtual_time.run(work, patch, quiet=0, on_skip=lambda seconds: clock.advance(round(seconds * 1e6)))
    return ran


async def _history(world: World, socket: str) -> Exception | None:
    server = await asyncio.start_unix_server(world.server.connected, socket)
    try:
        async with server:
            await world.run()
    except Exception as error:
        return error
    return None


def main() -> int:
    """Exit with the number of failures, at most 1."""
    logging.disable()
    first, count = (*map(int, sys.argv[1:]), 0, 1000)[:2] if len(sys.argv) > 1 else (0, 1000)
    began = time.process_time()
    for seed, error, world in failures(range(first, first + count)):
        print(f"seed {seed}, with {sorted(world.troubles)}")
        traceback.print_exception(error)
        return 1
    print(f"{count} histories, {count / (time.process_time() - began):.0f} a second, no promise broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
