"""Runs on shards of which something is broken on purpose: the judge sees it, in calls that really happened.

`test_moving.py`, `test_apart.py` and `test_locks.py` show the same by histories that are made by hand, and at once.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.chaos.run import ROOT, Options
from tests.chaos.runs import run_shards

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32", reason="freezes servers and sends datagrams between processes"
    ),
    pytest.mark.skipif(
        not os.environ.get("PGSESSION_CHAOS"), reason="two minutes for each: PGSESSION_CHAOS=1"
    ),
]


class Broken(NamedTuple):
    """Something that is wrong, what happens meanwhile, and the kind of violation that shows it.

    `wait ` stands for `await `, which the generated shells do not have.
    """

    file: str
    old: str
    new: str
    fault: str
    kind: str


VARIANTS = {
    "a server that is known to be down is so for all": Broken(
        "sharded_manager.py",
        "        self._places.check()\n\n    def _refuse_token(",
        "        self._places.check()\n        for shard in self._all:\n"
        "            if shard.runtime is not None and shard.runtime.is_known_down:\n"
        "                raise shard.runtime._breaker.error()\n\n    def _refuse_token(",
        "server killed",
        "bystander",
    ),
    "visitors go to servers that are down": Broken(
        "sharded_manager.py",
        "if shard.runtime and not shard.runtime.is_known_down]",
        "]",
        "server stopped",
        "bystander",
    ),
    "a login ends the session without a look at its version": Broken(
        "sharded_manager.py",
        'record, check="session", sets=[]',
        "record, check=None, sets=[]",
        "listeners terminated",
        "lost",
    ),
    "a login removes the session without ending it by its version": Broken(
        "sharded_manager.py",
        "                wait self._end_copied(shard, old)\n",
        "                pass\n",
        "listeners terminated",
        "lost",
    ),
    "the copy of a login that failed stays": Broken(
        "sharded_manager.py",
        "                wait _take_back(home, key, error)\n                if not",
        "                if not",
        "connections cut",
        "undone",
    ),
    "all shards are asked one after the other": Broken(
        "of_each.py",
        "started = [(item, _started(background(item), do, item)) for item in items]",
        "started = ((item, _started(background(item), do, item)) for item in items)",
        "server silent",
        "slowed",
    ),
}


@pytest.mark.parametrize("what", VARIANTS)
def test_what_is_broken_is_seen(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = VARIANTS[what]
    copy = tmp_path / "src"
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for folder, wait in (("_async", "await "), ("_sync", "")):
        file = copy / "pgsession" / folder / broken.file
        old, new = (text.replace("wait ", wait) for text in (broken.old, broken.new))
        assert file.read_text().count(old) == 1
        file.write_text(file.read_text().replace(old, new))
    monkeypatch.setenv("PYTHONPATH", str(copy))  # of the processes that the run starts
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    options = Options(seconds=30, seed=seed, kinds=(broken.fault,), quiet=True)
    outcome = run_shards(options, programs=os.environ.get("PGSESSION_TEST_POSTGRES") or None)
    assert outcome.verdict.count(broken.kind), outcome.verdict.violations
