"""What is granted is named by its kind, whatever a schema is called."""

from __future__ import annotations

from pgsession._database.inspection import TRIGGERS, Found, Inspection
from pgsession._database.rights import CALLED, READ
from pgsession._database.templates import FUNCTIONS, RELATIONS, file


def test_a_schema_may_be_called_as_a_table_is() -> None:
    found = [Found("schema", name, name, False, True) for name in READ]
    lacking = Inspection("app", "owner", True, found)
    assert lacking.grants() == [f"GRANT USAGE ON SCHEMA {', '.join(READ)} TO app"]


def test_rights_name_what_there_is() -> None:
    assert set(READ) <= set(RELATIONS) and set(CALLED) <= set(FUNCTIONS)


def test_every_trigger_is_known_and_enabled_always() -> None:
    text = file("triggers.sql")
    assert len(TRIGGERS) == text.count("CREATE OR REPLACE TRIGGER") > 10
    for table, name in TRIGGERS:
        assert f"ALTER TABLE {{{table}}} ENABLE ALWAYS TRIGGER {name};" in text
