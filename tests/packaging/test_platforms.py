"""docs/platforms.md is the promise; what a release builds, tests and declares is held against it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
CIBUILDWHEEL = {"manylinux": "linux", "musllinux": "linux", "macosx": "macos", "win": "windows"}


class Promise(NamedTuple):
    wheel: str
    runner: str
    pythons: list[str]

    @property
    def platform(self) -> str:
        return CIBUILDWHEEL[self.wheel.split("_")[0]]

    @property
    def arch(self) -> str:
        arch = self.wheel.split("_", 1)[1]
        return arch.upper() if self.platform == "windows" else arch


def promises() -> list[Promise]:
    text = (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|[^|]+\| `(\w+)` \| `([\w.-]+)` \| `([\w ]+)` \|$", text, re.MULTILINE)
    return [Promise(wheel, runner, pythons.split()) for wheel, runner, pythons in rows]


def test_the_table_was_understood() -> None:
    assert len(promises()) == 8


@pytest.mark.parametrize("platform", sorted({(promise.platform, promise.arch) for promise in promises()}))
def test_a_release_builds_what_is_promised(platform: tuple[str, str]) -> None:
    pytest.importorskip("cibuildwheel")
    command = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers"]
    command += ["--platform", platform[0], "--archs", platform[1], str(ROOT)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CIBW_")}
    built = subprocess.run(command, env=clean, check=True, capture_output=True, text=True).stdout.split()
    matching = [promise for promise in promises() if (promise.platform, promise.arch) == platform]
    assert sorted(built) == sorted(
        f"{python}-{promise.wheel}" for promise in matching for python in promise.pythons
    )


def test_each_platform_has_its_native_runner() -> None:
    text = (WORKFLOWS / "wheels.yml").read_text(encoding="utf-8")
    matrix = re.findall(r"^\s+- \{ runner: ([\w.-]+), platform: (\w+), arch: (\w+) \}$", text, re.MULTILINE)
    assert set(matrix) == {(promise.runner, promise.platform, promise.arch) for promise in promises()}
    assert len(matrix) == len(set(matrix))


def test_the_metadata_name_the_promised_pythons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {name.rsplit(" ", 1)[1] for name in project["classifiers"] if ":: Python :: 3." in name}
    promised = {python for promise in promises() for python in promise.pythons}
    assert named == {f"3.{python[3:]}" for python in promised if not python.endswith("t")}
    assert project["requires-python"] == f">={min(named)}"


def test_every_action_is_pinned_by_commit() -> None:
    for workflow in WORKFLOWS.glob("*.yml"):
        for action in re.findall(r"uses: (.*)$", workflow.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[0-9.]+", action), (
                f"{workflow.name}: {action}"
            )


def test_ci_tests_every_supported_version() -> None:
    text = (WORKFLOWS / "ci.yml").read_text(encoding="utf-8")
    supported = (ROOT / "docs" / "platforms.md").read_text(encoding="utf-8")
    for name, key in (("Python", "python"), ("PostgreSQL", "postgres")):
        row = re.search(rf"^\| {name} \| (.*) \|$", supported, re.MULTILINE)
        assert row is not None
        promised = set(re.findall(r"\b\d[\d.]*t?\b", row[1]))
        tested = {
            version
            for found in re.findall(rf"{key}: \[(.*)\]", text)
            for version in re.findall(r"[\d.]+t?", found)
        }
        tested |= set(re.findall(rf"{key}: \"?([\d.]+t?)\"?", text))
        assert promised <= tested, f"{name}: {sorted(promised - tested)} promised but not tested"
