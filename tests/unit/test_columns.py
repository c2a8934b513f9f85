"""The columns of a batch: one declaration for what is sent, what the server takes, and what is written about it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pgsession._database import columns, templates
from pgsession._database.arrays import NONE, optional_integer_array, optional_text_array, text_array
from pgsession._database.script import step
from pgsession._database.statements import write_arguments
from pgsession._protocol import rules
from pgsession._protocol.operations import Flag

SESSION = "ab" * 16
ROWS: dict[str, Any] = {
    "create": [(SESSION, 3, "ann", None, 5, 7, [("k", "1", None)], "return")],
    "update": [
        (
            SESSION,
            1,
            1,
            int(Flag.CHECK_ATTRIBUTES),
            5,
            "g",
            [("k", "1", 6, 1)],
            [("l", 2)],
            "1" * 32,
            (4, 3, 0, "bob"),
            9,
        )
    ],
    "accesses": [(SESSION, 7)],
    "delete": [SESSION],
}


def test_every_column_has_its_type_and_no_other_name_has() -> None:
    declared = [name for fields in columns.KINDS.values() for name in fields]
    assert declared == list(columns.SQL_TYPES)


def test_the_write_function_takes_the_columns_in_their_order() -> None:
    body = templates.render(templates.file("functions", "write.sql"), templates.names_of("s", "")).as_string()
    head = body[body.index("(") : body.index(") RETURNS")]
    names = re.findall(r"(\w+) (?:text|bigint|boolean|integer|uuid)", head)
    arguments = ["node", "mark", "waiting", *columns.Updates._fields, "most_sessions", "evicts"]
    creates = [*columns.Creates._fields, *columns.Accesses._fields]
    assert names == [*arguments, *creates, *columns.Deletes._fields]
    assert len(write_arguments(False, **ROWS)) == len(names) - 2


@pytest.mark.parametrize("kind", list(columns.KINDS))
def test_a_row_of_each_kind_fills_every_column_of_it(kind: str) -> None:
    makers = {
        "create": columns.creates_of,
        "update": columns.updates_of,
        "access": columns.accesses_of,
        "delete": columns.deletes_of,
    }
    made: Any = makers[kind]
    optional = {"new_group_ids", "new_attribute_expiries"}
    assert {
        name
        for name, value in made(ROWS["accesses" if kind == "access" else kind])._asdict().items()
        if value is None
    } <= optional
    assert set(made([])) == {None}


def test_no_element_of_an_array_is_null() -> None:
    assert optional_integer_array([None, 5]) == f"{{{NONE},5}}"
    assert optional_text_array([None, "", 'a"b']) == '{"","=","=a\\"b"}'
    assert optional_integer_array([None]) is None and optional_text_array([None, None]) is None
    assert text_array(["NULL", "a\\b"]) == '{"NULL","a\\\\b"}'


def test_a_parameter_is_bound_as_it_is() -> None:
    assert step("SELECT", "ü'", 5, True, None, False).parameters == ("ü'".encode(), b"5", b"t", None, b"f")


def test_every_function_has_a_file_that_makes_it_and_is_short() -> None:
    files = templates.files("functions")
    assert set(files) == {*templates.FUNCTIONS, *templates.FENCE}
    for name, text in files.items():
        assert re.findall(r"^CREATE .*?(\{\w+\})", text, re.MULTILINE) == [f"{{{name}}}"]
        body = text[text.index("CREATE") :]
        assert len(body.splitlines()) <= 72, name
        assert "SET search_path = pg_catalog, pg_temp" in body, name


def test_every_placeholder_and_macro_is_known() -> None:
    names = templates.names_of("s", "p_", templates.Placed("t", 1, 2, 3))
    for text in [*templates.files("functions").values(), *templates.files("migrations").values()]:
        assert "{" not in templates.render(text, names).as_string().replace("'{}'", "").replace(
            "'{", ""
        ).replace("{number", "")


def test_no_name_is_longer_than_the_rule_of_prefixes_counts_on() -> None:
    names = [*templates.RELATIONS.values(), *templates.FUNCTIONS.values()]
    assert max(map(len, names)) <= len(rules.LONGEST_NAME)
