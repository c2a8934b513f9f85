"""Asks in one query what the database knows of all nodes' sessions; nothing here does I/O."""

from __future__ import annotations

from psycopg import sql

from .templates import file, names_of, render


def query(schema: str, prefix: str) -> sql.Composed:
    """Return the query; its one value is the text of a JSON object, in which times are microseconds.

    It reads every session once, without the index. It names the server's own with no schema: it is for a `search_path`
    of ours.
    """
    return render(file("overview.sql"), names_of(schema, prefix))
