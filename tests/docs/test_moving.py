"""The commands of the page about moving in, run as they stand; its snippets are what tests/web/moving is made of."""

from __future__ import annotations

import json
import re
import secrets
import shlex

import pytest

pytest.importorskip("redis")

import redis

import pgsession
from pgsession.cli.move import move
from tests.web.moving.command import call
from tests.web.moving.page import PAGE, snippet


def commands(script: str) -> list[list[str]]:
    lines = re.findall(r"(?:python -m )?pgsession move ([^;\n]*)", script)
    assert lines
    return [shlex.split(line) for line in lines]


def test_the_commands(dsn: str, schema: str, redis_url: str) -> None:
    script = snippet("The command", "sh")
    names = re.findall(r"(\w+)=", script)
    assert names == ["PGSESSION_DATABASE", "PGSESSION_SCHEMA_NAME", "REDIS_URL"]
    variables = dict(zip(names, (dsn, schema, f"{redis_url}/7"), strict=True))
    with pgsession.SessionManager(
        dsn, pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    ) as manager:
        with redis.Redis.from_url(variables["REDIS_URL"]) as client:
            client.set(f"starsessions.{secrets.token_hex(16)}", json.dumps({"user_id": 7}), ex=60)
        dry, real = commands(script)
        status, said = call(*dry, **variables)()
        assert status == 0 and "1  new here" in said and manager.count_sessions() == 0
        assert call(*real, **variables)()[0] == 0
        assert [session["user_id"] for session in manager.list_user_sessions("7")] == [7]
        [again] = commands(snippet("The day", "sh"))
        assert "1  here already" in call(*again, **variables)()[1]


def test_every_option_is_on_the_page_and_every_one_of_those_is_there() -> None:
    shown = set(re.findall(r"--[a-z][a-z-]+", PAGE.partition("## The command")[2].partition("\n## ")[0]))
    known = {name for command in move.commands.values() for option in command.params for name in option.opts}
    assert shown == {name for name in known if name.startswith("--")} - {
        "--redis",
        "--schema-name",
        "--table-prefix",
    }
    for line in commands(snippet("Django", "sh")):
        assert line[0] in move.commands
