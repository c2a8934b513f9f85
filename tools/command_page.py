"""Writes the part of docs/cli.md that lists the commands, from the commands themselves; a test checks that it is so.

`python tools/command_page.py` writes it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from pgsession.cli import cli

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
BEGINS = "<!-- made by tools/command_page.py -->\n"
SHARED = ("database", "schema_name", "table_prefix", "timeout", "as_json")


def main() -> int:
    """Write the page anew."""
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    return 0


def page() -> str:
    """Return what the page has to be, with what is written by hand as it is."""
    text = PAGE.read_text(encoding="utf-8")
    return text.partition(BEGINS)[0] + BEGINS + "".join(_sections())


def commands(group: click.Group = cli, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Return each command with its name, as it is typed."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name)), command


def _sections() -> Iterator[str]:
    shared = dict(_shared())
    yield "\n## For every command\n\n" + _table(shared.values())
    for name, command in commands():
        own = [option for option in command.params if shared.get(option.name or "") is not option]
        arguments = [
            option.make_metavar(click.Context(command))
            for option in own
            if isinstance(option, click.Argument)
        ]
        options = [option for option in own if isinstance(option, click.Option)]
        yield f"\n## pgsession {name}\n\n"
        yield f"    pgsession {' '.join([name, *arguments, *['[OPTIONS]'] * bool(options)])}\n\n"
        yield inspect.cleandoc(command.help or "") + "\n"
        if options:
            yield "\n" + _table(options)


def _shared() -> Iterator[tuple[str, click.Parameter]]:
    for option in cli.commands["check"].params:
        if option.name in SHARED:
            yield option.name, option


def _table(options: object) -> str:
    rows = ["| option | what |", "|---|---|"]
    for option in options:  # type: ignore[attr-defined]
        if not isinstance(option, click.Option):
            continue
        value = "" if option.is_flag else f" {option.make_metavar(click.Context(click.Command(None)))}"
        said = option.help or ""
        if option.envvar:
            said += f" `{option.envvar}` says it too."
        if option.show_default and option.default is not None:
            said += f" {option.default} where it is left out."
        rows.append(f"| `{option.opts[0]}{value}` | {said.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
