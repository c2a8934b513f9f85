"""Says what a command has found, as text for people or as JSON for programs.

The JSON is one array or one object a command, on one line; of a command for each shard one object for each of them.
Times are RFC 3339 in UTC with microseconds, lengths of time numbers of seconds with `_seconds` at the end of their
name, sizes numbers of bytes with `_bytes`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import click
import msgspec

Row = Mapping[str, object]


class Output:
    """Says what a command has found, once."""

    def __init__(self, as_json: bool, shard: int | None = None) -> None:
        self.as_json = as_json
        self._shard = shard

    def of_shard(self, number: int, tables: str) -> Output:
        """Return what says what was found of one shard: after a heading, or in an object with its number."""
        if not self.as_json:
            click.echo(f"shard {number}, {tables}:")
        return Output(self.as_json, number)

    def _say_json(self, value: object) -> None:
        value = value if self._shard is None else {"shard": self._shard, "found": value}
        click.echo(msgspec.json.encode(value))

    def rows(self, rows: Sequence[Row], columns: Mapping[str, str], *, nothing: str) -> None:
        """Say a list of things.

        Args:
            rows: All that is known of each, for programs.
            columns: What people see of it, with the heading.
            nothing: What people are told where there is none.
        """
        if self.as_json:
            self._say_json([_for_programs(row) for row in rows])
        elif not rows:
            click.echo(nothing)
        else:
            _say_table(list(columns.values()), [[shown(name, row[name]) for name in columns] for row in rows])

    def fields(self, fields: Row) -> None:
        """Say what is known of one thing."""
        if self.as_json:
            self._say_json(_for_programs(fields))
            return
        said = list(_lines(fields))
        width = max(len(name) for name, _ in said)
        for name, text in said:
            click.echo(f"{name:<{width}}  {text}".rstrip())

    def done(self, fields: Row, *lines: str) -> None:
        """Say what was done: the fields to programs, the lines to people."""
        if self.as_json:
            self._say_json(_for_programs(fields))
        for line in () if self.as_json else lines:
            click.echo(line)

    def note(self, line: str) -> None:
        """Say something beside the result, to people alone."""
        if not self.as_json:
            click.echo(line, err=True)


def plain(text: str) -> str:
    """Return the text without what a terminal would act on: users choose names."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_of(row: Row) -> bytes:
    """Return the JSON of one thing."""
    return msgspec.json.encode(_for_programs(row))


def shown(name: str, value: object) -> str:
    """Return a value as people read it; what it is measured in follows from the end of its name."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'seconds')}Z"
        case int() | float() if name.endswith("_seconds"):
            return str(timedelta(seconds=math.ceil(value)))
        case int() | float() if name.endswith("_bytes"):
            return _size(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.3g}"
        case str() | UUID():
            return plain(str(value))
    return plain(msgspec.json.encode(value).decode())


def _size(value: float) -> str:
    for unit in ("B", "kiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def _for_programs(value: object) -> object:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        case Mapping():
            return {name: _for_programs(field) for name, field in value.items()}
        case list() | tuple():
            return [_for_programs(each) for each in value]
    return value


def _lines(fields: Row, before: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            lines += _lines(value, f"{before}{name} ")
        else:
            lines.append(
                (
                    plain(before + name.removesuffix("_bytes").removesuffix("_seconds")).replace("_", " "),
                    shown(name, value),
                )
            )
    return lines


def _say_table(headings: list[str], rows: list[list[str]]) -> None:
    if sys.stdout is not None and sys.stdout.isatty() and _say_rich_table(headings, rows):
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        click.echo("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def _say_rich_table(headings: list[str], rows: list[list[str]]) -> bool:
    """Return False where rich, an extra, is not installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(Text(heading), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
    return True
