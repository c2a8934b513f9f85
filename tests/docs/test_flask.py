"""The snippets of the page about Flask, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flask")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "flask.md").read_text(encoding="utf-8")


def test_the_snippets_work(dsn: str, schema: str) -> None:
    quick_start, handlers, production, for_quart = re.findall(
        r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
    )
    where = (
        f"{dsn!r}\napp.config.update(TESTING=True, PGSESSION_SCHEMA_NAME={schema!r},"
        " PGSESSION_CREATE_SCHEMA_IF_MISSING=True)"
    )
    here: dict[str, Any] = {
        "key": "a secret", "right": lambda name, password: (name, password) == ("alice", "wonderland"),
    }  # fmt: skip
    made, start = quick_start.replace('"postgresql://app@db/app"', where).split("PgSession(app)")
    exec("__name__ = 'shop'\n" + made + production + "PgSession(app)" + start + handlers, here)
    app = here["app"]
    app.add_url_rule("/me", view_func=lambda: str(here["session"].user_id))
    here["render_template"] = lambda _, sessions, this_one: str([each.id == this_one for each in sessions])
    browser, phone = app.test_client(), app.test_client()
    alice = {"name": "alice", "password": "wonderland"}
    assert browser.post("/login", data=alice | {"password": ""}).status_code == 401
    remembered = browser.post("/login", data=alice | {"remember": "on"}).headers["Set-Cookie"]
    assert remembered.startswith("__Host-session=") and "Max-Age=2592000" in remembered
    phone.post("/login", data=alice)
    assert browser.get("/devices").text.count("True") == 1 and phone.get("/me").text == "alice"
    browser.post("/logout-elsewhere")
    assert browser.get("/devices").text == "[True]" and phone.get("/me").text == "None"
    browser.post("/logout")
    assert browser.get("/me").text == "None"
    app.extensions["pgsession"].process.close()
    pytest.importorskip("quart")
    exec("__name__ = 'shop'\n" + for_quart.replace('"postgresql://app@db/app"', where), here)
    assert type(here["app"]).__name__ == "Quart"
