"""Who works through a page: its commands are run in a shell, and what it shows of their output is compared."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Terminal:
    """`next(steps)` of `steps = terminal.section("Upgrade")` runs the section's next block of commands.

    `export` of a variable holds for what follows; where the test has another value for it, that one does.
    """

    def __init__(self, page: Path, programs: Path, folder: Path, variables: dict[str, str]) -> None:
        self._parts = re.split(r"^## (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        self._folder = folder
        self._given = variables
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PGSESSION"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), str(programs), os.environ["PATH"]])
        self._environment = ours | {"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8"} | variables
        self._left = [name for name in self._parts[1::2] if "```sh\n" in self.text(name)]
        list(self._steps("", self._parts[0]))

    def text(self, heading: str) -> str:
        """The section below that heading."""
        return self._parts[self._parts.index(heading) + 1]

    def blocks(self, heading: str, language: str) -> list[str]:
        """The section's blocks of one language."""
        return [text for kind, text in BLOCK.findall(self.text(heading)) if kind == language]

    def section(self, heading: str) -> Iterator[str]:
        """Run the section's commands, block by block; give what each printed."""
        self._left.remove(heading)
        return self._steps(heading, self.text(heading))

    @property
    def left(self) -> list[str]:
        """The sections with commands that were not begun."""
        return self._left

    def _steps(self, heading: str, text: str) -> Iterator[str]:
        printed = ""
        blocks = BLOCK.findall(text)
        for number, (language, block) in enumerate(blocks):
            if language == "sh":
                printed = self.run(block)
                if [kind for kind, _ in blocks[number + 1 : number + 2]] != ["text"]:
                    yield printed
            elif language == "text":
                assert block in printed, f"{heading}: the page shows\n{block}\nand it was\n{printed}"
                yield printed

    def run(self, commands: str) -> str:
        """What they print, on either output; the first that fails fails the test."""
        for line in commands.splitlines():
            if line.startswith("export "):
                said = dict(word.split("=", 1) for word in shlex.split(line)[1:])
                self._environment |= said | {n: v for n, v in self._given.items() if n in said}
        script = "".join(
            line for line in commands.splitlines(keepends=True) if not line.startswith("export ")
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=self._environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout
