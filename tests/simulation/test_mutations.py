"""Each rule of the protocol is taken away once, as tools/mutations/protocol.toml says; the simulation must notice."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.simulation import histories
from tests.simulation.model import EPOCH, Commit, Server
from tools import mutate
from tools.mutate import Mutation

NOTICED_WITH_HOSTS = ("tests/simulation/test_hosts.py::test_no_history_of_a_host_breaks_an_invariant",)
NOTICED_HERE = ("tests/simulation/test_simulation.py::test_no_history_breaks_an_invariant",)
LOADED = ("coherence", "database_clock", "in_flight_leases", "proofs_of_sync")
"""What `mutated` loads beside the real modules; the rest is for `make mutate`."""
ALL = [mutation for mutation in mutate.mutations() if Path(mutation.file).stem in LOADED]
MUTATIONS = [mutation for mutation in ALL if mutation.tests == NOTICED_HERE]
OF_HOSTS = [mutation for mutation in ALL if mutation.tests == NOTICED_WITH_HOSTS]


def mutated(mutation: Mutation) -> ModuleType:
    """`pgsession._protocol.coherence` with this mutation, loaded beside the real one."""
    name = f"pgsession._protocol.{Path(mutation.file).stem}"
    text = mutate.mutated(mutation)
    real = sys.modules[name]
    try:
        module = _load(name, text)
        if name.endswith(".coherence"):
            return module
        coherence = mutate.ROOT / "src" / "pgsession" / "_protocol" / "coherence.py"
        return _load("pgsession._protocol.coherence", coherence.read_text(encoding="utf-8"), keep=False)
    finally:
        sys.modules[name] = real


def _load(name: str, text: str, *, keep: bool = True) -> ModuleType:
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    real = sys.modules[name]
    sys.modules[name] = module  # dataclasses look their module up
    try:
        exec(compile(text, f"<mutated {name}>", "exec"), module.__dict__)
    finally:
        if not keep:
            sys.modules[name] = real
    return module


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_simulation_notices(mutation: Mutation) -> None:
    module = mutated(mutation)
    assert next(histories.failures(range(20_000), module), None) is not None, mutation.harm


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux only")
@pytest.mark.parametrize("mutation", OF_HOSTS, ids=lambda mutation: mutation.name)
def test_the_simulation_of_hosts_notices(mutation: Mutation) -> None:
    from tests.simulation.hosts import HostWorld

    found = next(histories.failures(range(1000), mutated(mutation), world=HostWorld), None)
    assert found is not None, mutation.harm


class OfAnEarlierTransaction(Server):
    """The id in a beacon is of a transaction that has ended before."""

    def send_beacon(self, origin: str, xid: int) -> None:
        self.notify(origin, xid - 20)
        self.complete(xid)


class OfALaterTransaction(Server):
    """The id in a beacon is drawn after it was sent, as that of a sequence, say."""

    def send_beacon(self, origin: str, xid: int) -> None:
        self.complete(xid)
        self.notify(origin, xid + 5)


class ReadsTheOldest(Server):
    """A read returns the oldest transaction that runs, xmin, in place of xmax."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.running: set[int] = set()

    def begin(self) -> int:
        xid = super().begin()
        self.running.add(xid)
        return xid

    def complete(self, xid: int) -> None:
        super().complete(xid)
        self.running.discard(xid)

    def xmax(self) -> int:
        return min(self.running, default=super().xmax())


class SavesWhateverIsHeld(Server):
    """An update is made whoever's the session was when it was read."""

    def saves(self, row: Commit, base: int, owner_since: int) -> bool:
        return True


class ComparesOwnersByVersion(Server):
    """An update is made if its version is not older than the owner, though a crash may have lost that version."""

    def saves(self, row: Commit, base: int, owner_since: int) -> bool:
        return base >= row.identity.owner_since


class RotatesWhoeverWasFaster(Server):
    """Who comes from an older generation rotates too, or binds a user, and ends the token of who was faster."""

    def rotates(self, row: Commit, base: int) -> bool:
        return True


class CountsGenerations(Server):
    """Generations are no random numbers: a crash has the server give one out again."""

    def generation(self, row: Commit | None, drawn: int) -> int:
        return 1 if row is None else row.identity.generation + 1


class RestartsVersions(Server):
    """A session that replaces another one begins anew."""

    def version_again(self, row: Commit, clock: int) -> int:
        return EPOCH


class RotatesToTheNextVersion(Server):
    """A rotation may get a version that a crash has lost, and that was checked for since."""

    def version_rotated(self, row: Commit, clock: int) -> int:
        return row.version + 1


@pytest.mark.parametrize(
    "server",
    [
        OfAnEarlierTransaction,
        OfALaterTransaction,
        ReadsTheOldest,
        SavesWhateverIsHeld,
        ComparesOwnersByVersion,
        RotatesWhoeverWasFaster,
        CountsGenerations,
        RestartsVersions,
        RotatesToTheNextVersion,
    ],
)
def test_what_the_server_must_do_is_noticed_too(server: type[Server]) -> None:
    assert next(histories.failures(range(20_000), server=server), None) is not None


def test_a_failure_can_be_understood_and_repeated() -> None:
    module = mutated(next(m for m in MUTATIONS if m.name == "lease-ignored"))  # which shows soon
    seed, failure = next(histories.failures(range(1000), module))
    text = histories.report(failure, module, seed=seed)
    assert f"seed {seed}: " in text
    replayed = bytes.fromhex(text.rpartition("--replay ")[2])
    assert len(replayed) <= len(failure.history)
    assert histories.run(replayed, module) is not None
    assert histories.run(replayed) is None
