"""Looks in one query at the tables, functions and triggers that there are, and at what a role may do with them.

What is missing is found by comparing with the names in `templates`, `triggers.sql` and `rights`; nothing here does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from psycopg import sql

from .rights import CALLED, READ
from .templates import Placed, file, functions_of, relations_of

_TRIGGER = re.compile(r"^CREATE OR REPLACE TRIGGER (\w+) [^;]*? ON \{(\w+)\}", re.MULTILINE)
TRIGGERS: Final = tuple((table, name) for name, table in _TRIGGER.findall(file("triggers.sql")))
"""The triggers, each as the short name of its table and its own name."""


class Found(NamedTuple):
    """Holds what was found of one thing that should be there.

    Attributes:
        kind: "schema", "table", "function" or "trigger".
        name: Its short name; for a trigger what `label` is.
        label: Its name in SQL, of a function with its parameters, of a trigger as "trigger on table"; None where there
            is none.
        allowed: True where the role has the right that it needs on it, or needs none.
        sound: True for a function that is not everybody's to call, and a trigger that fires always.
    """

    kind: str
    name: str
    label: str | None
    allowed: bool
    sound: bool


class Inspection:
    """Says what is wrong, from what the query found.

    `trusted` is false where the tables may have been put there by a stranger: their owner is neither the role nor a
    superuser nor the owner of the database or of the schema, in which somebody else may create too.
    """

    def __init__(self, role: str, owner: str | None, trusted: bool, found: Sequence[Found]) -> None:
        self.role = role
        self.owner = owner
        self.trusted = trusted
        self._found = found

    def missing(self, kind: str) -> list[str]:
        """Return the short names of what is not there, or for triggers their names."""
        return [thing.name for thing in self._found if thing.kind == kind and thing.label is None]

    def grants(self) -> list[str]:
        """Return the commands that give the role what it needs and lacks."""
        lacking = [thing for thing in self._found if thing.label and not thing.allowed]
        tables = [thing for thing in lacking if thing.kind == "table"]
        commands = [
            ("USAGE ON SCHEMA", [thing for thing in lacking if thing.kind == "schema"]),
            ("SELECT ON", [thing for thing in tables if not READ[thing.name]]),
            *(
                (f"SELECT ({', '.join(READ[thing.name])}) ON", [thing])
                for thing in tables
                if READ[thing.name]
            ),
            ("EXECUTE ON FUNCTION", [thing for thing in lacking if thing.kind == "function"]),
        ]
        return [f"GRANT {what} {_labels(things)} TO {self.role}" for what, things in commands if things]

    def public_functions(self) -> str:
        """Return the functions that everybody may call, as a list in SQL."""
        return _labels([thing for thing in self._found if thing.kind == "function" and not thing.sound])

    def silent_triggers(self) -> list[str]:
        """Return the triggers that are disabled, or do not fire for replicated changes."""
        return [t.name for t in self._found if t.kind == "trigger" and t.label and not t.sound]

    def repairs(self) -> list[str]:
        """Return the commands that set right what there is."""
        public = self.public_functions()
        triggers = (label.partition(" on ") for label in self.silent_triggers())
        return [
            *([f"REVOKE EXECUTE ON FUNCTION {public} FROM PUBLIC"] if public else []),
            *(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}" for name, _, table in triggers),
        ]


def query(schema: str, prefix: str, role: str | None = None, placed: Placed | None = None) -> sql.Composed:
    """Return the query whose rows `inspection_of` takes; without a role it is about the current one.

    It names nothing with its schema: it is for a `search_path` of ours.
    """
    relations = [
        (short, *name, _array(READ.get(short)))
        for short, name in relations_of(schema, prefix, placed).items()
    ]
    functions = [
        (short, name, sql.Literal(short in CALLED)) for short, name in functions_of(prefix, placed).items()
    ]
    return sql.SQL(file("inspection.sql")).format(
        schema=sql.Literal(schema),
        role=sql.SQL("current_user") if role is None else sql.SQL("{}::name").format(sql.Literal(role)),
        relations=_values(relations),
        functions=_values(functions),
        triggers=_values(TRIGGERS),
    )


def inspection_of(rows: Iterable[tuple[Any, ...]]) -> Inspection:
    """Return what the rows of the query say."""
    (_, role, owner, _, trusted), *found = rows
    return Inspection(role, owner, bool(trusted), [Found(*row) for row in found])


def _values(rows: Iterable[Iterable[str | sql.Composable]]) -> sql.Composable:
    """Return rows for VALUES."""
    literals = ([sql.Literal(value) if isinstance(value, str) else value for value in row] for row in rows)
    return sql.SQL(", ").join(sql.SQL("({})").format(sql.SQL(", ").join(row)) for row in literals)


def _array(columns: tuple[str, ...] | None) -> sql.Composable:
    if columns is None:
        return sql.SQL("NULL::text[]")
    return sql.SQL("ARRAY[{}]::text[]").format(sql.SQL(", ").join(map(sql.Literal, columns)))


def _labels(things: list[Found]) -> str:
    return ", ".join(thing.label for thing in things if thing.label is not None)
