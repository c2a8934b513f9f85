"""An arena survives the death of whoever uses it, at any moment; and these tests would notice where it did not."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.kill.programs import compiled, compiler, kill_run
from tests.kill.wrong import RUNS, STEPS

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler, or no arenas on this system")


def failures(program: Path) -> str:
    """Run steps.c; return what it says beside that all is well, which it has to say: a thread may end it before."""
    try:
        run = subprocess.run([program], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "it waits for ever"
    return (
        "" if run.returncode == 0 and run.stdout == "0 failed\n" else f"status {run.returncode}: {run.stdout}"
    )


def test_step_by_step(tmp_path: Path) -> None:
    assert not failures(compiled("steps.c", tmp_path))


@pytest.mark.parametrize("name", STEPS)
def test_a_wrong_step_is_noticed(name: str, tmp_path: Path) -> None:
    assert failures(compiled("steps.c", tmp_path, STEPS[name], ("-O0",))), STEPS[name].harm


def test_kills(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    outcome = kill_run(compiled("kill.c", tmp_path), seconds=5, seed=seed)
    print(f"seed {seed}: {outcome.figures}")
    assert outcome.violations == 0, outcome.said
    assert outcome.figures["killed inside"] > 0 and outcome.figures["from L2"] > 0


@pytest.mark.parametrize("name", ["copies-enter-late"])
def test_a_wrong_run_is_noticed(name: str, tmp_path: Path) -> None:
    """The others are run by `make kill`: each may take seconds."""
    program = compiled("kill.c", tmp_path, RUNS[name])
    for seed in range(4):
        if kill_run(program, seconds=1.5, seed=seed).violations:
            return
    pytest.fail(RUNS[name].harm)
