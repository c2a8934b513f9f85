"""Distributed locks: one worker at a time, among all nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta

from common import manager

from pgsession import LockNotAcquiredError, Session, SessionManager


def nightly_job(sessions: SessionManager, job: Callable[[], None]) -> bool:
    """Whichever node comes first does it. Fail fast: if it is being done already, there is nothing to wait for."""
    lock = sessions.lock("nightly-job")
    if not lock.acquire(blocking=False):
        return False
    try:
        job()
    finally:
        lock.release()
    return True


def checkout(sessions: SessionManager, session: Session, pay: Callable[[], None]) -> bool:
    """Tied to a session: logging out ends the lock too. After the retries somebody else still has it: say so."""
    try:
        with sessions.lock(f"checkout {session.id}", session_id=session.id, max_retries=5, retry_delay=0.1):
            pay()
    except LockNotAcquiredError:
        return False
    return True


def rebuild_index(sessions: SessionManager, parts: Iterable[str], build: Callable[[str, int], None]) -> None:
    """Long work: the lease is renewed by itself. Before each step ask whether the lock was lost.

    The fencing token goes with each write, so that the store can refuse whoever lost the lock without knowing it.
    """
    lock = sessions.lock("index", lease_time=timedelta(seconds=30), heartbeat_interval=timedelta(seconds=5))
    if not lock.acquire(timeout=60):  # woken when it is released
        raise TimeoutError("somebody else has been building the index for a minute")
    with_token = lock.token or 0
    try:
        for part in parts:
            if lock.lost.is_set():
                raise RuntimeError("the lock was lost: somebody else may be building the index")
            build(part, with_token)
    finally:
        lock.release()


def slow_step(sessions: SessionManager, step: Callable[[], None]) -> None:
    """A step during which this process may not get to renew anything: ask for a longer lease beforehand."""
    with sessions.lock("slow") as lock:
        lock.extend(timedelta(minutes=10))
        step()


def main() -> None:
    with manager() as sessions:
        print("nightly job done:", nightly_job(sessions, lambda: print("  working")))
        session = sessions.create_session("alice")
        print("paid:", checkout(sessions, session, lambda: print("  paying")))
        rebuild_index(
            sessions, ["a", "b"], lambda part, token: print(f"  part {part}, fencing token {token}")
        )
        slow_step(sessions, lambda: print("  slowly"))


if __name__ == "__main__":
    main()
