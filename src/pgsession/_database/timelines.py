"""Tells a former primary from the one that took its place: each promotion begins a timeline with a higher number.

A primary that stood still, or was cut off, does not know that another was promoted. Until somebody tells it, it takes
connections, and by several hosts in a conninfo it may be found first.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import psycopg
from psycopg import generators, pq

# A timeline's number is in the names of the files that the server writes to.
_ASK: Final = (
    b"SELECT c.system_identifier, CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN"
    b" pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END"
    b" FROM pg_catalog.pg_control_system() c"
)
_MET: Final = "_pgsession_timeline"  # of a connection: what it was made to


class Timelines:
    """Knows the newest timeline of each database system that one place has led to; any thread may use it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._newest: dict[bytes, int] = {}

    def share(self, other: Timelines) -> None:
        """Know from here on what another one knows, and the other way round."""
        self._guard, self._newest = other._guard, other._newest

    def learn(self, system: bytes, timeline: int) -> bool:
        """Learn of a primary; return False for one in whose place another was promoted."""
        with self._guard:
            newest = self._newest.get(system, 0)
            self._newest[system] = max(newest, timeline)
        return timeline >= newest

    def superseded(self, connection: object) -> bool:
        """Return True if another primary has been met since this connection was made to one."""
        known = getattr(connection, _MET, None)
        return known is not None and known[1] < self._newest[known[0]]

    def checked(self, steps: Any) -> Any:
        """Return the steps of a connection that is made, which end with an error where it leads to a former primary.

        A server that does not tell (not every service that speaks PostgreSQL's protocol has timelines) is let be.

        Raises:
            psycopg.OperationalError: It does; another host of the conninfo is tried then, if there is one.
        """
        connection = yield from steps
        try:
            told = yield from _ask(connection.pgconn)
            if told is not None:
                self._judge(connection, *told)
        except BaseException:
            connection.pgconn.finish()
            raise
        return connection

    def _judge(self, connection: Any, system: bytes, timeline: int) -> None:
        if not self.learn(system, timeline):
            raise psycopg.OperationalError(
                f"a former primary: it is on timeline {timeline}, and one on timeline {self._newest[system]} has"
                " taken its place. Stop it, or rebuild it as a standby; if it is a backup that was restored, start"
                " this process anew"
            )
        setattr(connection, _MET, (system, timeline))


def _ask(connection: Any) -> Any:
    """Return the system's identifier and the timeline; None where the server does not tell, as a standby."""
    connection.send_query(_ASK)
    asking = generators.execute(connection)
    try:
        wanted = next(asking)
        while True:  # while a connection is made, psycopg wants to hear at which socket to wait, too
            wanted = asking.send((yield connection.socket, wanted))
    except StopIteration as end:
        (result,) = end.value
    if result.status != pq.ExecStatus.TUPLES_OK or not result.ntuples:
        if connection.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError("the server went away while it was asked which one it is")
        return None
    timeline = result.get_value(0, 1)
    return None if timeline is None else (result.get_value(0, 0), int(timeline, 16))
