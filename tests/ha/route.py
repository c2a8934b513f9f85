"""A name that leads to the primary, as a load balancer does that asks Patroni and ends connections to who was marked
down (HAProxy: `on-marked-down shutdown-sessions`)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.fault_proxy import FaultProxy
from tests.ha.cluster import Member

INTERVAL = 0.5
"""Seconds between two questions. One that is not answered within a second is a no."""


def chosen(current: str, answers: Mapping[str, bool]) -> str:
    """Return the member to lead to: the one of before while it says yes, else whoever does; "" for none."""
    if answers.get(current):
        return current
    return next((name for name, yes in answers.items() if yes), "")


class Route:
    """Watches the members in a thread of its own, for the `with` block."""

    def __init__(self, members: Sequence[Member], names: Sequence[FaultProxy]) -> None:
        self._members = {member.name: member for member in members}
        self._names = names
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="route", daemon=True)
        self._pool = ThreadPoolExecutor(len(members))

    def __enter__(self) -> Route:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._pool.shutdown()

    def _watch(self) -> None:
        current = ""
        while not self._ended.wait(INTERVAL):
            said = self._pool.map(lambda member: member.is_primary(), self._members.values())
            wanted = chosen(current, dict(zip(self._members, said, strict=True)))
            if wanted != current:
                self._lead_to(wanted)
                current = wanted

    def _lead_to(self, name: str) -> None:
        for proxy in self._names:
            if name:
                proxy.redirect(("127.0.0.1", self._members[name].place.port))
                proxy.forward()
            else:
                proxy.refuse()
                proxy.cut()
