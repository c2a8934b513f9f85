"""The release workflow's own tool: one version, from one place, with a change log entry."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "release.py"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "src" / "pgsession").mkdir(parents=True)
    (tmp_path / "src" / "pgsession" / "_version.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## 1.2.0 (today)\n\n- new\n\n## 1.2.0rc1\n\n- old\n")
    return module


def test_the_notes_are_the_entry_of_the_version(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    tool.main("notes", "v1.2.0")
    assert capsys.readouterr().out == "- new\n"


@pytest.mark.parametrize("tag", ["1.2.0", "v1.2", "v1.2.1", "v1.2.0rc1"])
def test_a_tag_that_is_not_the_version_is_refused(tool: ModuleType, tag: str) -> None:
    with pytest.raises(SystemExit, match="the tag is"):
        tool.main("check", tag)


def test_a_release_without_an_entry_is_refused(tool: ModuleType) -> None:
    (tool.ROOT / "CHANGELOG.md").write_text("# Changes\n\n## 1.2.0\n\n## 1.1.0\n\n- old\n")
    with pytest.raises(SystemExit, match="no entry"):
        tool.main("check", "v1.2.0")
