"""Writes what the pages of reference say of settings, metrics, events, errors, tables and commands, from the code.

`python tools/reference_pages.py` writes it, `--check` fails where a page is not what it would write. What stands above
the line `<!-- made by ... -->` of a page is written by hand.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec
from prometheus_client import CollectorRegistry

from pgsession import Config, errors
from pgsession._database.rights import READ
from pgsession._database.templates import DOMAINS, RELATIONS
from pgsession.audit import AuditEvent
from pgsession.cli import cli
from pgsession.config import _OBJECTS
from pgsession.embedded import EmbeddedServerError
from pgsession.telemetry import prometheus
from pgsession.telemetry._metrics import METRICS
from pgsession.web import CookiePolicy, SessionConflict

DOCS = Path(__file__).resolve().parent.parent / "docs"
SHARED = ("database", "schema_name", "table_prefix", "timeout", "as_json")  # options of every command
MIGRATION = DOCS.parent / "src" / "pgsession" / "_database" / "migrations" / "0001_tables.sql"
BEGINS: Final = "<!-- made by tools/reference_pages.py -->\n"
_INVARIANT = re.compile(r" \(C\d+\)")
_FIELD = re.compile(r"^(\w+)(?: \(([^)]*)\))?: (.*)", re.DOTALL)


class Field(NamedTuple):
    """Holds what a docstring says of one field."""

    name: str
    kind: str
    text: str


def documented(kind: type) -> Iterator[Field]:
    """Yield what is in the section `Attributes` of a class's docstring."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")
    section = section.partition("\n\n")[0]
    for entry in re.split(r"\n(?=    \w)", "\n" + section.rstrip()):
        if entry.strip():
            found = _FIELD.match(" ".join(entry.split()))
            assert found, entry
            yield Field(found[1], found[2] or "", _INVARIANT.sub("", found[3]))


def introduction(kind: type) -> str:
    """Return what a class's docstring says before its sections."""
    text = inspect.cleandoc(kind.__doc__ or "")
    return re.split(r"\n\n(?:Attributes|Args|Raises):\n", text)[0]


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def settings() -> str:
    """Return the part of docs/settings.md."""
    heads = ("field", "default", "meaning")
    unnamed = ", ".join(f"`{name}`" for name in sorted(_OBJECTS))
    return (
        "\n## Of a manager: `Config`\n\n"
        "The variable of `max_sessions` is `PGSESSION_MAX_SESSIONS`, and so on; objects have none: "
        f"{unnamed}.\n\n{table(heads, _rows(Config))}"
        f"\n## Of a cookie: `CookiePolicy`\n\n{table(heads, _rows(CookiePolicy))}"
    )


def _rows(kind: type[msgspec.Struct]) -> Iterator[tuple[str, ...]]:
    defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
    said = {field.name: field for field in documented(kind)}
    assert list(said) == list(defaults), "documented in another order than declared"
    for name, field in said.items():
        yield f"`{name}`", _shown(defaults[name]), field.text


def _shown(value: Any) -> str:
    """Return a default as a person writes it."""
    if not isinstance(value, timedelta):
        return "none" if value is None else f"`{value!r}`".replace("'", '"')
    for unit, seconds, least in (("days", 86400, 3), ("hours", 3600, 2), ("minutes", 60, 2)):
        count, rest = divmod(value.total_seconds(), seconds)
        if count >= least and not rest:
            return f"{count:g} {unit}"
    return f"{value.total_seconds():g} seconds"


def metrics() -> str:
    """Return the part of docs/metrics.md."""
    registry = CollectorRegistry()
    prometheus.Metrics(registry)
    measured = {family.name: family for family in registry.collect()}
    counted = {_prometheus_name(metric): metric for metric in METRICS}
    assert counted.keys() <= measured.keys()

    def statistics() -> Iterator[tuple[str, ...]]:
        for name, metric in counted.items():
            labels = ["manager", *([metric.label] if metric.label else [])]
            fields = " ".join(f"`{field}`" for field in metric.fields.values())
            yield f"`{name}{_suffix(metric.kind)}`", metric.kind, _labels(labels), metric.text, fields

    def durations() -> Iterator[tuple[str, ...]]:
        for name in sorted(measured.keys() - counted.keys()):
            family = measured[name]
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            labels |= {"operation", "error"} if family.type == "counter" else set()
            yield (
                f"`{name}{_suffix(family.type)}`",
                family.type,
                _labels(sorted(labels)),
                family.documentation,
            )

    return (
        "\n## What is counted\n\n"
        + table(("name", "kind", "labels", "meaning", "fields of `Stats`"), statistics())
        + "\n## What is measured\n\n"
        + table(("name", "kind", "labels", "meaning"), durations())
    )


def _prometheus_name(metric: Any) -> str:
    return f"pgsession_{metric.name}" + ("_seconds" if metric.unit == "seconds" else "")


def _suffix(kind: str) -> str:
    return "_total" if kind == "counter" else ""


def _labels(names: list[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def audit_events() -> str:
    """Return the part of docs/audit-events.md."""
    fields = ((f"`{field.name}`", field.kind, field.text) for field in documented(AuditEvent))
    told = introduction(AuditEvent).partition("\n\n")[2]
    return f"\n## Kinds\n\n{told}\n\n## Fields\n\n" + table(("field", "type", "meaning"), fields)


def error_classes() -> str:
    """Return the part of docs/errors.md."""
    classes = [getattr(errors, name) for name in errors.__all__] + [EmbeddedServerError, SessionConflict]
    return "".join(_error(kind) for kind in sorted(classes, key=_depth_first))


def _depth_first(kind: type) -> tuple[str, ...]:
    return tuple(base.__name__ for base in reversed(kind.__mro__) if issubclass(base, errors.PgSessionError))


def _error(kind: type) -> str:
    place = "pgsession" if kind.__module__ == errors.__name__ else kind.__module__.removesuffix(".session")
    bases = " ".join(f"`{base.__name__}`" for base in kind.__bases__)
    text = f"\n## {kind.__name__}\n\nIn `{place}`; is a kind of {bases}.\n\n{introduction(kind)}\n"
    said = list(documented(kind))
    if said:
        text += "\n" + table(("attribute", "meaning"), ((f"`{field.name}`", field.text) for field in said))
    return text


def tables() -> str:
    """Return the part of docs/tables.md."""
    texts = MIGRATION.read_text(encoding="utf-8")
    found = re.findall(
        r"((?:^-- [^\n]*\n)*)^CREATE (?:UNLOGGED )?TABLE \{(\w+)\} \((.*?)\)(?: WITH [^\n]*)?;$",
        texts,
        re.DOTALL | re.MULTILINE,
    )
    domains = re.findall(
        r"((?:^-- [^\n]*\n)*)^CREATE DOMAIN \{(\w+)\} AS (\w+)[^;]*? CONSTRAINT (\w+)\s+CHECK \((.*?)\);$",
        texts,
        re.DOTALL | re.MULTILINE,
    )
    types = "\n## Types of columns\n\n" + table(
        ("type", "is", "its constraint", "which asks for", "why"),
        (
            (f"`{DOMAINS[name]}`", base, f"`{constraint}`", f"`{rule}`", _comment(above).strip())
            for above, name, base, constraint, rule in domains
        ),
    )
    return types + "".join(
        f"\n## {RELATIONS[name]}\n\n{_comment(above)}{_reading(name)}\n\n"
        + table(("column", "type", "", "meaning"), _columns(body))
        for above, name, body in found
    )


def _comment(lines: str) -> str:
    text = " ".join(line.strip().removeprefix("-- ") for line in lines.splitlines())
    return f"{_named(text)} " if text else ""


def _named(text: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: (RELATIONS | DOMAINS).get(found[1], found[1]), text)


def _reading(name: str) -> str:
    if name not in READ:
        return "A service's role may not read it."
    return (
        f"A service's role reads {'all columns' if not READ[name] else 'of it ' + _labels(list(READ[name]))}."
    )


def _columns(body: str) -> Iterator[tuple[str, ...]]:
    comment = ""
    for line in body.splitlines():
        line = line.strip().rstrip(",")
        if line.startswith("--"):
            comment += line + "\n"
            continue
        column = re.match(r"([a-z_]+) ([a-z0-9]+|\{\w+\})(?![a-z0-9])(?! KEY)(.*)", line)
        if column:
            rest = column[3]
            needed = "" if "NOT NULL" in rest or "PRIMARY KEY" in rest else "may be null"
            yield f"`{column[1]}`", _named(column[2]), needed, _comment(comment).strip()
        comment = ""


def commands(group: click.Group = cli, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Return each command with its name, as it is typed."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name)), command


def command_line() -> str:
    """Return the part of docs/cli.md."""
    return "".join(_sections())


def _sections() -> Iterator[str]:
    shared = dict(_shared())
    yield "\n## For every command\n\n" + table(("option", "what"), _options(shared.values()))
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
            yield "\n" + table(("option", "what"), _options(options))


def _shared() -> Iterator[tuple[str, click.Parameter]]:
    for option in cli.commands["check"].params:
        if option.name in SHARED:
            yield option.name, option


def _options(options: Iterable[click.Parameter]) -> Iterator[tuple[str, str]]:
    for option in options:
        if not isinstance(option, click.Option):
            continue
        value = "" if option.is_flag else f" {option.make_metavar(click.Context(click.Command(None)))}"
        said = option.help or ""
        if option.envvar:
            said += f" `{option.envvar}` says it too."
        if option.show_default and option.default is not None:
            said += f" {option.default} where it is left out."
        yield f"`{option.opts[0]}{value}`", said


PAGES: Final[dict[str, Callable[[], str]]] = {
    "cli.md": command_line,
    "settings.md": settings,
    "metrics.md": metrics,
    "audit-events.md": audit_events,
    "errors.md": error_classes,
    "tables.md": tables,
}


def pages() -> Iterator[tuple[Path, str]]:
    """Yield each page with the text that it has to have."""
    for name, made in PAGES.items():
        page = DOCS / name
        above, begins, _ = page.read_text(encoding="utf-8").partition(BEGINS)
        assert begins, f"{name} has no line {BEGINS!r}"
        yield page, above + BEGINS + made()


def main() -> int:
    """Write the pages anew, or say which are not up to date."""
    outdated = [(page, text) for page, text in pages() if page.read_text(encoding="utf-8") != text]
    if sys.argv[1:] == ["--check"]:
        for page, _ in outdated:
            print(f"docs{os.sep}{page.name} is not what the code says: run `python tools/reference_pages.py`")
        return bool(outdated)
    for page, text in outdated:
        page.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
