"""Arrays of the database as text parameters: made once for a batch, and no Python object an element reaches the driver.

No element is ever NULL, for the setting `array_nulls` decides what NULL in an array's text means: `NONE` stands for no
number, and `optional_texts` marks the texts that are there.
"""

from __future__ import annotations

from collections.abc import Iterable

NONE = -(2**63)
"""No number, in an array of them: no time of the database is so early."""


def uuid_array(keys: Iterable[bytes]) -> str:
    """Render ids as one parameter of type uuid[]."""
    return array([key.hex() for key in keys])


def integer_array(numbers: Iterable[int]) -> str:
    """Render integers as one parameter of type bigint[] or integer[]."""
    return array(map(str, numbers))


def optional_integer_array(numbers: Iterable[int | None]) -> str | None:
    """Render integers of which some are None; None where all are."""
    known = list(numbers)
    if not any(number is not None for number in known):
        return None
    return array([str(NONE if number is None else number) for number in known])


def text_array(texts: Iterable[str]) -> str:
    """Render texts as one parameter of type text[]."""
    return array(map(_quoted, texts))


def optional_text_array(texts: Iterable[str | None]) -> str | None:
    """Render texts of which some are None: "" for these, else "=" and the text; None where all are None."""
    known = list(texts)
    if not any(text is not None for text in known):
        return None
    return array(['""' if text is None else _quoted("=" + text) for text in known])


def array(elements: Iterable[str]) -> str:
    """Render elements that need no quotes."""
    return "{" + ",".join(elements) + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
