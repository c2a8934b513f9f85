"""docs/host-cache.md as it stands."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

import pgsession
from pgsession.cli import main
from tests.docs.test_other_snippets import blocks, run


def test_the_snippet_and_the_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = blocks("docs/host-cache.md", "python")
    names: dict[str, object] = {}
    run(snippet, names)
    assert isinstance(names["sessions"], pgsession.SessionManager)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (commands,) = blocks("docs/host-cache.md", "sh")
    for program, *arguments in map(shlex.split, commands.splitlines()):
        assert program == "pgsession"
        assert main(arguments) == 0
    assert "no cache is shared" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="arenas are for Linux")
def test_the_statistics_that_it_names() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/host-cache.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"In `stats\(\)`:\n(.*)\n", page)
    assert set(re.findall(r"`(\w+)`", line)) <= set(pgsession.Stats.__struct_fields__)
