"""The main job, shown: two nodes, each a process of its own, share sessions through one PostgreSQL.

    make demo            (or: python examples/demo.py [--conninfo "postgresql://..."])

Every step checks itself; a wrong one ends the demo with exit status 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import signal
import statistics
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from tempfile import TemporaryDirectory
from typing import Any, NoReturn
from uuid import UUID

from relay import Relay
from rich.console import Console
from rich.table import Table

import pgsession
from pgsession.embedded import EmbeddedServer

CHANGES = 200
READS = 200_000
STEP_TIMEOUT = 20.0
MAX_STALENESS = 2.0  # seconds; 10 by default


class Node:
    """What runs in each of the two processes: a manager, and the few things the demo asks of it."""

    def __init__(self, conninfo: str, signing_key: bytes, folder: str | None) -> None:
        self._relay = Relay(conninfo)
        config = pgsession.Config(
            create_schema_if_missing=True,
            max_sessions=0,
            table_prefix="demo_",
            max_staleness=MAX_STALENESS,
            listener_conninfo=self._relay.conninfo,
            shared_cache=folder,
            shared_cache_size=2**24,
        )
        signer = pgsession.Signer(signing_key)
        self.sessions = pgsession.SessionManager(conninfo, config, signer=signer)
        self.sessions.open()

    def visit(self) -> str | None:
        return self.sessions.token(self.sessions.create_session(attributes={"cart": ["book"]}))

    def log_visitor_in(self, token: str, user: str) -> str | None:
        session = self.sessions.get_session_by_token(token)
        assert session is not None
        session["cart"].append("pen")
        return self.sessions.token(self.sessions.rotate_session(session, user_id=user))

    def state(self, token: str) -> str:
        return self.sessions.open_token(token).state

    def devices(self, user: str) -> list[UUID]:
        return [session.id for session in self.sessions.list_user_sessions(user)]

    def revoke(self, session_id: UUID) -> bool:
        return self.sessions.delete_session(session_id, wait=STEP_TIMEOUT)

    def leads(self) -> bool:
        return self.sessions.stats().leader

    def freeze(self) -> None:
        self._relay.freeze()

    def thaw(self) -> None:
        self._relay.thaw()

    def log_in(self, user: str) -> str | None:
        session = self.sessions.create_session(user, {"role": "admin", "theme": "dark", "visits": 0})
        return self.sessions.token(session)

    def read(self, token: str) -> dict[str, Any] | None:
        session = self.sessions.get_session_by_token(token)
        if session is None:
            return None
        return {"attributes": dict(session), "version": session.version, "from_cache": session.from_cache}

    def change(self, token: str, key: str, value: Any, seconds: float | None = None) -> tuple[int, int]:
        """The new version, and when the update had returned."""
        session = self.sessions.get_session_by_token(token)
        assert session is not None
        session.set(key, value, expires_in=None if seconds is None else timedelta(seconds=seconds))
        self.sessions.update_session(session)
        return session.version, time.monotonic_ns()

    def see(self, token: str, version: int) -> int:
        """When this node first returned that version: it asks again and again, as requests would."""
        deadline = time.monotonic() + STEP_TIMEOUT
        while time.monotonic() < deadline:
            session = self.sessions.get_session_by_token(token)
            if session is not None and session.version >= version:
                return time.monotonic_ns()
            time.sleep(0)
        raise TimeoutError(f"version {version} was not seen within {STEP_TIMEOUT:g} s")

    def log_out_everywhere(self, user: str) -> tuple[int, int]:
        return self.sessions.delete_user_sessions(user), time.monotonic_ns()

    def see_gone(self, token: str) -> int:
        deadline = time.monotonic() + STEP_TIMEOUT
        while time.monotonic() < deadline:
            if self.sessions.get_session_by_token(token) is None:
                return time.monotonic_ns()
            time.sleep(0)
        raise TimeoutError(f"the session was still there after {STEP_TIMEOUT:g} s")

    def rates(self, token: str) -> tuple[float, float]:
        """Sessions read from memory a second, beside a plain dict's look-ups in the same run."""
        session = self.sessions.get_session_by_token(token)
        assert session is not None
        key = session.id
        plain = {key.bytes: object()}

        def rate(function: Callable[[Any], Any], argument: Any) -> float:
            rounds = range(READS)
            start = time.perf_counter()
            for _ in rounds:
                function(argument)
            return READS / (time.perf_counter() - start)

        pairs = [(rate(self.sessions.get_session, key), rate(plain.get, key.bytes)) for _ in range(5)]
        return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)

    def close(self) -> None:
        self.sessions.close()


def serve(link: Connection, conninfo: str, signing_key: bytes, folder: str | None) -> None:
    """A node process: answers the demo's calls until told to stop, or until the demo is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the demo, which then ends its nodes
    try:
        node = Node(conninfo, signing_key, folder)
        link.send(("done", None))
        while True:
            method, arguments = link.recv()
            try:
                link.send(("done", getattr(node, method)(*arguments)))
            except Exception as error:
                link.send(("failed", f"{type(error).__name__}: {error}"))
            if method == "close":
                return
    except EOFError:
        return
    except Exception as error:
        link.send(("failed", f"{type(error).__name__}: {error}"))


class Wrong(Exception):
    """A step did not do what it must."""


def fail(reason: str) -> NoReturn:
    raise Wrong(reason)


def check(condition: bool, reason: str) -> None:
    if not condition:
        fail(reason)


class Remote:
    """The demo's handle on a node process."""

    def __init__(self, name: str, conninfo: str, signing_key: bytes, folder: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.link, theirs = context.Pipe()
        self.name = name
        self.process = context.Process(
            target=serve, args=(theirs, conninfo, signing_key, folder), daemon=True
        )
        self.process.start()
        theirs.close()

    def send(self, method: str, *arguments: Any) -> None:
        self.link.send((method, arguments))

    def answer(self) -> Any:
        if not self.link.poll(2 * STEP_TIMEOUT):
            fail(f"{self.name} did not answer within {2 * STEP_TIMEOUT:g} s")
        try:
            status, value = self.link.recv()
        except EOFError:
            fail(f"{self.name} ended unexpectedly")
        if status == "failed":
            fail(f"{self.name}: {value}")
        return value

    def __call__(self, method: str, *arguments: Any) -> Any:
        self.send(method, *arguments)
        return self.answer()

    def stop(self) -> None:
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.link.close()


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def timed(call: Callable[[], Any]) -> tuple[Any, str]:
    start = time.perf_counter()
    result = call()
    return result, f"{(time.perf_counter() - start) * 1e3:.2f} ms"


def log_in_and_read(a: Remote, b: Remote, table: Table) -> tuple[str, int]:
    token, took = timed(lambda: a("log_in", "alice"))
    table.add_row("log in", "A", f"cookie token of {len(token)} characters", took)

    first, took = timed(lambda: b("read", token))
    check(bool(first) and first["attributes"]["role"] == "admin", f"B read {first}")
    check(not first["from_cache"], "B's first read must come from the database")
    table.add_row("read by token, first time", "B", "from the database", took)

    again, took = timed(lambda: b("read", token))
    check(again["from_cache"] and again["attributes"] == first["attributes"], f"B's second read was {again}")
    table.add_row("read by token, again", "B", "from memory", took)

    forged = ("B" if token[0] == "A" else "A") + token[1:]
    check(b("read", forged) is None, "a forged token must not be accepted")
    table.add_row("a forged token", "B", "refused without a query", "")
    return token, again["version"]


def change_and_see(a: Remote, b: Remote, table: Table, token: str, version: int) -> None:
    delays: list[float] = []
    for visit in range(1, CHANGES + 1):
        b.send("see", token, version + visit)
        changed, returned = a("change", token, "visits", visit)
        check(changed == version + visit, f"change {visit} gave version {changed}")
        delays.append(max(0.0, (b.answer() - returned) / 1e6))
    check(b("read", token)["attributes"]["visits"] == CHANGES, "B must see the last change")
    delays.sort()
    table.add_row(
        f"change on A until B returns it, {CHANGES} times", "A, B", "counted from when the update had returned",
        f"p50 {percentile(delays, 0.5):.2f} ms, p99 {percentile(delays, 0.99):.2f} ms",
    )  # fmt: skip


def expire_an_attribute(a: Remote, b: Remote, table: Table, token: str) -> None:
    version, _ = a("change", token, "elevated_access", True, 1.0)
    b("see", token, version)
    check(
        b("read", token)["attributes"].get("elevated_access") is True,
        "B must see the attribute while it lives",
    )
    start = time.perf_counter()
    while "elevated_access" in b("read", token)["attributes"]:
        check(time.perf_counter() - start < STEP_TIMEOUT, "the attribute outlived its second")
        time.sleep(0.01)
    check(b("read", token)["from_cache"], "the expiry of an attribute needs no query")
    table.add_row("an attribute that lives for 1 s", "A, B", "gone on B, without a query", "")


def shop_then_log_in(a: Remote, b: Remote, table: Table) -> None:
    visitor = a("visit")
    check(b("read", visitor)["attributes"] == {"cart": ["book"]}, "B must see the visitor's cart")
    table.add_row("a visitor's cart", "A, B", "an anonymous session, seen on B", "")

    token, took = timed(lambda: b("log_visitor_in", visitor, "bob"))
    check(a("read", token)["attributes"] == {"cart": ["book", "pen"]}, "A must see the whole cart")
    check(a("state", visitor) == "superseded", "the visitor's token must have ended on A")
    table.add_row("the visitor logs in", "B", "same cart, new token; that of before opens nothing on A", took)

    phone = a("log_in", "bob")
    devices = b("devices", "bob")
    check(len(devices) == 2, f"bob has two devices, not {len(devices)}")
    b("read", phone)
    check(b("read", phone)["from_cache"], "B must have the phone in memory")
    ended, took = timed(lambda: a("revoke", devices[0]))
    check(ended and b("read", phone) is None, "B served the phone after all nodes had confirmed its end")
    check(b("read", token) is not None, "the other device must stay")
    table.add_row(
        "end one of two devices, wait=", "A", "all nodes have confirmed: B's next read is none", took
    )


def freeze_a_listener(a: Remote, b: Remote, table: Table, token: str) -> None:
    check(b("read", token)["from_cache"], "B must answer from memory before")
    b("freeze")
    version, returned = a("change", token, "theme", "light")
    late = (b("see", token, version) - returned) / 1e9
    check(late < 3 * MAX_STALENESS, f"B served what was old for {late:.1f} s")
    check(not b("read", token)["from_cache"], "B hears nothing, and must ask the database")
    table.add_row(
        "B's listener is frozen, A changes", "B", f"old for {MAX_STALENESS:g} s at most, then from the database",
        f"{late:.2f} s later",
    )  # fmt: skip
    b("thaw")
    start = time.perf_counter()
    while not b("read", token)["from_cache"]:
        check(time.perf_counter() - start < STEP_TIMEOUT, "B did not come back to memory")
        time.sleep(0.01)
    table.add_row(
        "the listener is back", "B", "from memory again", f"{time.perf_counter() - start:.2f} s later"
    )


def measure_reads(a: Remote, b: Remote, table: Table, token: str) -> None:
    for node in (a, b):
        node("read", token)
        ours, plain = node("rates", token)
        table.add_row(
            "reads from memory", node.name[-1], f"a plain dict.get in the same run: {plain / 1e6:.1f} million/s",
            f"{ours / 1e6:.1f} million/s",
        )  # fmt: skip


def log_out_everywhere(a: Remote, b: Remote, table: Table, token: str) -> None:
    tokens = [token] + [b("log_in", "alice") for _ in range(3)]
    b.send("see_gone", token)
    count, returned = a("log_out_everywhere", "alice")
    check(count == len(tokens), f"logging out ended {count} sessions instead of {len(tokens)}")
    gone = max(0.0, (b.answer() - returned) / 1e6)
    for each in tokens:
        b("see_gone", each)
        check(a("read", each) is None, "a session outlived its user's logging out on the very node")
    table.add_row("log out everywhere", "A", f"{count} sessions ended; gone on B", f"{gone:.2f} ms later")


def share_a_cache(c: Remote, d: Remote, table: Table) -> None:
    """Two processes of one host: what one has read or written the other has in memory, and one listens for both."""
    token = c("log_in", "carol")
    first, took = timed(lambda: d("read", token))
    check(first["from_cache"], "what C has logged in must be in the memory that D shares with it")
    table.add_row(
        "one host: read by token, first time", "C, D", "from memory, which the processes share", took
    )
    for visit in range(1, CHANGES + 1):
        changed, _ = c("change", token, "visits", visit)
        seen = d("read", token)
        check(seen["version"] == changed and seen["from_cache"], f"D read {seen} after {changed}")
    check(c("leads") != d("leads"), "one of them must listen for both")
    table.add_row(
        f"one host: change on C, {CHANGES} times", "C, D", "D has it when C's call returns", "one listener"
    )


def run(a: Remote, b: Remote, table: Table) -> None:
    """The steps, one row each."""
    token, version = log_in_and_read(a, b, table)
    change_and_see(a, b, table, token, version)
    expire_an_attribute(a, b, table, token)
    shop_then_log_in(a, b, table)
    freeze_a_listener(a, b, table, token)
    measure_reads(a, b, table, token)
    log_out_everywhere(a, b, table, token)


@contextmanager
def nodes(conninfo: str, names: str, folder: str | None = None) -> Generator[tuple[Remote, Remote]]:
    """Two nodes, ended in whatever way the demo ends; with a folder they share one cache, which lies there."""
    with ExitStack() as stack:
        key = secrets.token_bytes(32)
        started: list[Remote] = []
        for name in names:
            remote = Remote(f"node {name}", conninfo, key, folder)
            stack.callback(remote.stop)
            started.append(remote)
        for remote in started:
            remote.answer()
        yield started[0], started[1]
        for remote in started:
            remote("close")
            remote.process.join(STEP_TIMEOUT)


def end(*_: object) -> NoReturn:
    sys.exit(143)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conninfo", help="a PostgreSQL to use instead of an embedded one (tables demo_*)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    console = Console()
    table = Table(title="pgsession: two processes, one PostgreSQL", title_style="bold")
    for column, style in (("step", ""), ("node", "cyan"), ("what happened", ""), ("took", "green")):
        table.add_column(column, style=style, justify="right" if column == "took" else "left")
    start = time.perf_counter()
    try:
        with ExitStack() as stack:
            with console.status("starting PostgreSQL and two nodes"):
                conninfo = options.conninfo or stack.enter_context(EmbeddedServer()).conninfo
                a, b = stack.enter_context(nodes(conninfo, "AB"))
            with console.status("running"):
                run(a, b, table)
                if sys.platform == "linux":
                    folder = stack.enter_context(TemporaryDirectory())
                    c, d = stack.enter_context(nodes(conninfo, "CD", folder))
                    share_a_cache(c, d, table)
    except Wrong as wrong:
        console.print(table)
        console.print(f"[bold red]WRONG[/] {wrong}")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    console.print(table)
    console.print(f"[bold green]all steps right[/], {time.perf_counter() - start:.1f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
