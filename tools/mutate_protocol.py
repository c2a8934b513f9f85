"""Does the simulation notice when the protocol is wrong? Breaks one rule at a time and asks it.

Each mutation below is one rule of the coherence protocol taken away, as a change of the source text that is loaded in
place of the real module. The simulation must find a violation within a bounded number of histories; how many it took
is printed.

    python tools/mutate_protocol.py [--histories N] [--only NAME] [--show]
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "pgsession" / "_protocol"


class Mutation(NamedTuple):
    """One rule taken away: `old` occurs once in the module, and becomes `new`."""

    name: str
    what: str
    module: str
    old: str
    new: str


MUTATIONS = (
    Mutation(
        "lease-ignored",
        "whatever was read enters the cache, whatever happened meanwhile (C1)",
        "in_flight_leases",
        "return self._is_of_today(lease) and version >= lease.stamp",
        "return True",
    ),
    Mutation(
        "stamp-off-by-one",
        "a record one version below the stamp enters the cache (C1)",
        "in_flight_leases",
        "version >= lease.stamp",
        "version + 1 >= lease.stamp",
    ),
    Mutation(
        "event-does-not-stamp",
        "an event drops what is cached but leaves what is under way (C1)",
        "coherence",
        "self._leases.stamp(item.key, item.version)",
        "pass",
    ),
    Mutation(
        "event-does-not-drop",
        "an event stops what is under way but leaves what is cached (C5)",
        "coherence",
        "self._counters.invalidations += self._cache.discard_older(item.key, item.version)",
        "pass",
    ),
    Mutation(
        "own-events-skipped",
        "events that this node caused are ignored: its write of unknown outcome is done later (C1)",
        "coherence",
        "            changes = _NOTHING\n",
        "            if event.origin == self._node:\n                return Heard(_NOTHING, False)\n"
        "            changes = _NOTHING\n",
    ),
    Mutation(
        "deletion-does-not-void",
        "a fill that read the session before it was deleted brings it back (C7)",
        "coherence",
        "            self._leases.void(item.key)\n",
        "",
    ),
    Mutation(
        "wide-does-not-void",
        "an event for a user, a group or all leaves what is under way (C1, C7)",
        "in_flight_leases",
        "self._wide += 1",
        "pass",
    ),
    Mutation(
        "own-wide-forgotten",
        "after an own delete_user_sessions returned, the sessions are still served until its event arrives (C3)",
        "coherence",
        "        with self._lock:\n            self._apply(item)\n",
        "        pass\n",
    ),
    Mutation(
        "unreadable-event-ignored",
        "a payload of a newer version is skipped in place of emptying the cache (C1)",
        "coherence",
        "            for item in event.items:\n",
        "            for item in () if event.malformed else event.items:\n",
    ),
    Mutation(
        "own-close-does-not-stamp",
        "B returned v6, v6 was evicted, A's v5 closes later and enters (C2)",
        "coherence",
        "        self._leases.stamp(key, version)\n",
        "",
    ),
    Mutation(
        "passed-record-leaves-older",
        "a record that does not enter the cache leaves an older one there, though its callers got it (C2)",
        "coherence",
        "            self._cache.discard_older(key, version)\n        else:",
        "            pass\n        else:",
    ),
    Mutation(
        "found-nothing-is-no-event",
        "a fill that found nothing leaves the cached record and what is under way (C2, C7)",
        "coherence",
        "                self._gone(fill.key)\n",
        "",
    ),
    Mutation(
        "own-delete-leaves-leases",
        "an own deletion stops no fill of that session (C7)",
        "coherence",
        "            self._gone(lease.key)\n\n    def write_conflicted(",
        "            self._cache.discard(lease.key)\n\n    def write_conflicted(",
    ),
    Mutation(
        "conflict-keeps-record",
        "after somebody's notify=False, get and conflict repeat for ever (C2)",
        "coherence",
        "            self._gone(lease.key)\n\n    def write_unknown(",
        "\n    def write_unknown(",
    ),
    Mutation(
        "unknown-outcome-keeps-record",
        "a write that may have been done leaves the version before it in the cache (C3)",
        "coherence",
        "            self._gone(lease.key)\n\n    def write_failed(",
        "\n    def write_failed(",
    ),
    Mutation(
        "list-is-not-observed",
        "a list shows v6, then get_session gives the cached v5 (C2)",
        "coherence",
        "                self._outdate(key, version, incarnation)\n\n    # Writes",
        "                pass\n\n    # Writes",
    ),
    Mutation(
        "joined-when-stamped",
        "a caller that began after an update returned joins a fill that began before it (C2, C3)",
        "in_flight_leases",
        "undisturbed = lease.stamp == 0 and self._is_of_today(lease)",
        "undisturbed = True",
    ),
    Mutation(
        "joined-at-any-age",
        "a caller joins a fill that began longer than max_staleness ago (C6)",
        "coherence",
        "self._leases.joinable(key, now - self._max_staleness)",
        "self._leases.joinable(key, -1)",
    ),
    Mutation(
        "joiners-take-anything",
        "a joiner does not look whether the fill reached its min_version (C3)",
        "coherence",
        "return min_version <= 0 or (record is not None and record.version >= min_version)",
        "return True",
    ),
    Mutation(
        "never-joined",
        "every waiting reader asks the database (C10)",
        "coherence",
        "fill = None if refresh else",
        "fill = None if True else",
    ),
    Mutation(
        "refresh-joins",
        "refresh=True takes what somebody else has begun to read (C10)",
        "coherence",
        "fill = None if refresh else",
        "fill = None if False else",
    ),
    Mutation(
        "floor-not-checked",
        "a fill for any min_version counts as checked for all of them (C3)",
        "coherence",
        "            elif min_version > record.version:\n",
        "            elif (min_version := 1 << 40):\n",
    ),
    Mutation(
        "floor-forgotten",
        "a token whose version was lost in a crash makes every read a miss",
        "coherence",
        "self._cache.set_floor(fill.key, min_version)",
        "pass",
    ),
    Mutation(
        "epoch-ignored",
        "a fill from before the outage, not among what the resync compared, enters after it (C1, C5)",
        "in_flight_leases",
        "return lease.epoch == self.epoch and lease.wide == self._wide",
        "return lease.wide == self._wide",
    ),
    Mutation(
        "loss-ignored",
        "the cache goes on serving while the listener is away (C6)",
        "coherence",
        "        self._cache.in_sync_until = 0\n",
        "",
    ),
    Mutation(
        "served-before-resync",
        "proofs alone make the cache serve again, before it was compared (C5, C6)",
        "coherence",
        "        if self._state is _State.SYNCED:\n            self._cache",
        "        if True:\n            self._cache",
    ),
    Mutation(
        "resync-of-an-older-epoch",
        "the answer to a comparison from before the second outage declares the node in sync (C5, C6)",
        "coherence",
        "if resync.epoch != self._leases.epoch or self._state is _State.LOST:",
        "if self._state is _State.LOST:",
    ),
    Mutation(
        "resync-of-the-newest",
        "only the newest of the cached records are compared, as the reference does by updated_at (C5)",
        "coherence",
        "return Resync(self._leases.epoch, keys, versions)",
        "return Resync(self._leases.epoch, keys[:1], versions[:1])",
    ),
    Mutation(
        "incarnation-ignored",
        "what another server than the listener's returned enters the cache (C6)",
        "coherence",
        "        if incarnation == self._incarnation:\n            if of_today and",
        "        if True:\n            if of_today and",
    ),
    Mutation(
        "new-incarnation-keeps-cache",
        "after a crash a version number is given out again, and the resync takes the old one for it (C4, C5)",
        "coherence",
        'the cache is emptied")\n                self._cache.clear()\n',
        'the cache is emptied")\n',
    ),
    Mutation(
        "incarnations-compared-by-version",
        "a lost v6 stays, since the v5 that callers got from the new server is not higher (C2)",
        "coherence",
        "            self._cache.discard(key)\n\n    def _gone",
        "            self._cache.discard_older(key, version)\n\n    def _gone",
    ),
    Mutation(
        "proof-counts-from-its-return",
        "a proof that comes back late extends the time by as much as it was late (C6)",
        "coherence",
        "            self._counters.proofs += 1\n",
        "            self._counters.proofs += 1\n"
        "            self._proofs._proved = self._proofs._tied = self._clock.now()\n",
    ),
    Mutation(
        "proof-of-an-older-epoch",
        "a proof that was under way before the outage makes the node serve after it (C6)",
        "proofs_of_sync",
        "        self._outstanding.clear()\n",
        "",
    ),
    Mutation(
        "proof-not-through-pool",
        "only the listener sends proofs: behind a transaction pooler they return, and no event does (C6)",
        "proofs_of_sync",
        "through_pool = not self._established or now - self._tied >= interval",
        "through_pool = False; self._established = True; self._tied = now",
    ),
    Mutation(
        "tied-for-ever",
        "after the first proof none goes through the pool: a failover leaves the listener behind (C6)",
        "proofs_of_sync",
        "through_pool = not self._established or now - self._tied >= interval",
        "through_pool = not self._established; self._tied = now",
    ),
    Mutation(
        "stale-if-error-unbounded",
        "the cache answers for a failing database however old it is (C6)",
        "coherence",
        "if self._clock.now() >= self._proofs.proved_until + self._stale_if_error:",
        "if not self._stale_if_error:",
    ),
    Mutation(
        "expired-under-way",
        "a session that expires while the answer is under way is given to those who wait (C8)",
        "coherence",
        "return record.expires_at <= now + latest",
        "return False",
    ),
    Mutation(
        "step-of-the-clock-unseen",
        "an answer that cannot be right beside what is believed is taken for one that says nothing (C8)",
        "database_clock",
        "            if step:\n",
        "            if step:\n                return 0\n            if step:\n",
    ),
    Mutation(
        "lost-before-it-was-identified",
        "a listener that was lost while its server was asked who it is counts as listening (C6)",
        "coherence",
        "            if since not in (None, self._losses):\n                return None\n",
        "",
    ),
    Mutation(
        "silence-unnoticed",
        "a listener whose proofs do not return is never connected again",
        "proofs_of_sync",
        "return now - oldest > self._max_staleness",
        "return False",
    ),
)


class NotOnce(Exception):
    """The text to change does not occur exactly once: the mutation must follow the protocol."""


def mutated(mutation: Mutation) -> ModuleType:
    """`pgsession._protocol.coherence` with this mutation, loaded beside the real one."""
    replaced = {}
    name = f"pgsession._protocol.{mutation.module}"
    text = (SOURCE / f"{mutation.module}.py").read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise NotOnce(f"{mutation.name}: found {text.count(mutation.old)} times in {mutation.module}.py")
    text = text.replace(mutation.old, mutation.new)
    try:
        if mutation.module != "coherence":
            replaced[name] = sys.modules.get(name)
            sys.modules[name] = _load(name, text)
            text = (SOURCE / "coherence.py").read_text(encoding="utf-8")
        return _load("pgsession._protocol.coherence", text)
    finally:
        for name, module in replaced.items():
            if module is not None:
                sys.modules[name] = module


def _load(name: str, text: str) -> ModuleType:
    spec = importlib.util.spec_from_loader(name, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    real = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        exec(compile(text, f"<mutated {name}>", "exec"), module.__dict__)
    finally:
        if real is not None:
            sys.modules[name] = real
    return module


def main() -> int:
    """Print a line for each mutation; exit 1 if one was not noticed."""
    sys.path[:0] = [str(ROOT)]
    from tests.simulation import histories

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--histories", type=int, default=20_000, help="at most as many for each mutation")
    parser.add_argument("--only", metavar="NAME", help="this mutation alone")
    parser.add_argument("--show", action="store_true", help="print the history that noticed it")
    arguments = parser.parse_args()
    missed = 0
    for mutation in MUTATIONS:
        if arguments.only not in (None, mutation.name):
            continue
        module = mutated(mutation)
        began = time.process_time()
        found = next(histories.failures(range(arguments.histories), module), None)
        took = time.process_time() - began
        if found is None:
            missed += 1
            print(
                f"{mutation.name:34} NOT NOTICED in {arguments.histories} histories: {mutation.what}",
                flush=True,
            )
            continue
        seed, failure = found
        print(f"{mutation.name:34}{seed + 1:6} histories {took:6.1f} s  {failure.error[:90]}", flush=True)
        if arguments.show:
            print(histories.report(failure, module, seed=seed))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
