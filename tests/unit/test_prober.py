"""When the prober looks, with probes that end as they are told to."""

from __future__ import annotations

import logging
from typing import Any

from pgsession._async.prober import AsyncProber
from pgsession._protocol.breaker import Breaker


class Conninfo:
    """Knows how to connect, and is not asked."""

    def connections(self, given_up: object) -> object:
        return given_up


class Failing(AsyncProber):
    """Its probes end with what nobody expects."""

    probes = 0

    async def _probe(self) -> None:
        self.probes += 1
        raise ZeroDivisionError


async def test_a_probe_that_ends_unforeseen_is_not_the_last() -> None:
    given: Any = Conninfo()
    prober = Failing(
        Breaker(),
        given,
        ask_idle=None,  # type: ignore[arg-type]
        timeout=1,
        on_down=lambda: None,
        logger=logging.getLogger("tests.prober"),
    )
    for probes in (1, 2):
        prober.suspect()
        await prober._background.drain(20)
        assert prober.probes == probes
    assert not prober.breaker.is_open
