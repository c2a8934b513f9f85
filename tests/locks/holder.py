"""One of the processes that fight for a lock: `python -m tests.locks.holder conninfo schema log`, until its stdin ends.

Every line of the log is one write, "<kind> <pid> <token> <monotonic ns>":
    start  it has acquired the lock
    alive  it was not lost after this moment, so it was held at it
    end    it was released in time
    lost   it was told that the lock is lost
"""

from __future__ import annotations

import os
import sys
import threading
import time

import psycopg

import pgsession
from tests.locks import LEASE, RESOURCE


def write(log: int, kind: str, token: int | None, moment: int) -> None:
    os.write(log, f"{kind} {os.getpid()} {token} {moment}\n".encode())


def hold(lock: pgsession.Lock, log: int) -> None:
    """A critical section of 40 ms that looks, as it must, whether it still may."""
    write(log, "start", lock.token, time.monotonic_ns())
    end = time.monotonic() + 0.04
    while time.monotonic() < end:
        now = time.monotonic_ns()
        if lock.lost.is_set():
            write(log, "lost", lock.token, now)
            return
        write(log, "alive", lock.token, now)
        time.sleep(0.002)


def fight(sessions: pgsession.SessionManager, log: int) -> None:
    lock = sessions.lock(RESOURCE, lease_time=LEASE, heartbeat_interval=LEASE / 4, retry_delay=0.01)
    token: int | None = None
    try:
        if not lock.acquire(timeout=2):
            return
        token = lock.token
        hold(lock, log)
        lock.release()
        write(log, "end", token, time.monotonic_ns())
    except pgsession.LockExpiredError:
        write(log, "lost", token, time.monotonic_ns())
    except (psycopg.OperationalError, pgsession.WriteOutcomeUnknown):
        pass  # its connections are being killed


def main(conninfo: str, schema: str, path: str) -> None:
    log = os.open(path, os.O_WRONLY | os.O_APPEND)
    told = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), told.set()), daemon=True).start()
    config = pgsession.Config(schema_name=schema)
    with pgsession.SessionManager(
        psycopg.conninfo.make_conninfo(conninfo, application_name=f"holder {os.getpid()}"), config
    ) as sessions:
        while not told.is_set():
            fight(sessions, log)


if __name__ == "__main__":
    main(*sys.argv[1:])
