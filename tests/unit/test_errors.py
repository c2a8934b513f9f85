"""What the library raises can be copied, and goes from one process to another, with all that it says."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any
from uuid import UUID

import pytest

from pgsession import errors

KINDS = [getattr(errors, name) for name in errors.__all__]
VALUES: dict[str, Any] = {
    "args": "a", "kwargs": "a", "message": "a", "session_id": UUID(int=1), "keys": ("a", "b"), "key": "a",
    "user_id": "u", "resource": "r", "results": {0: 7}, "failures": {1: "a"},
}  # fmt: skip


def example(kind: type[errors.PgSessionError]) -> errors.PgSessionError:
    """An error of this kind, with some value for each argument that it needs."""
    if kind.__init__ is Exception.__init__:
        return kind("message")
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        value = VALUES.get(name, 7)
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        elif parameter.kind is not parameter.VAR_KEYWORD:
            positional.append(value)
    return kind(*positional, **named)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_being_copied(kind: type[errors.PgSessionError]) -> None:
    error = example(kind)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind and str(again) == str(error) and again.__dict__ == error.__dict__
