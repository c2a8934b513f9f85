"""What users' tests see of the fixtures, as mypy and pyright see it; never run."""

from __future__ import annotations

from datetime import timedelta

import pgsession
from pgsession.testing import Clock, Outage


def test_time(pgsession_manager: pgsession.SessionManager, pgsession_clock: Clock) -> None:
    pgsession_clock.advance(timedelta(minutes=31))
    pgsession_clock.advance(90.5)
    pgsession_clock.advance("1 h")  # type: ignore[arg-type]
    Clock().advance(1)


async def test_outages(
    pgsession_async_manager: pgsession.AsyncSessionManager, pgsession_clock: Clock, pgsession_outage: Outage
) -> None:
    await pgsession_clock.async_advance(31)
    async with pgsession_outage.database():
        await pgsession_async_manager.check_health()
    async with pgsession_outage.listener(pgsession_async_manager), pgsession_outage.listener():
        pass
    with pgsession_outage.listener(1):  # type: ignore[arg-type]
        pass
