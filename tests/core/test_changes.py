"""Items about changed sessions are read at once, as they would be one by one; what is unusual is left to that."""

from __future__ import annotations

import random

import pytest

from pgsession._core.changes import changes_of
from pgsession._protocol.events import PLAIN_SQL, Changed, Deleted, Item, encode, parse

KEY = bytes(range(240, 256))
SEEDS = range(4)


def one_by_one(text: str) -> list[Item] | None:
    """What the items tell if all of them are changes: behind one that is none they are read one by one."""
    event = parse(f"{PLAIN_SQL} 7 A {text}")
    items = list(event.items[1:])
    return items if not event.malformed and all(isinstance(item, Changed) for item in items) else None


@pytest.mark.parametrize("count", [1, 2, 64, 140])
def test_changes_are_read_at_once(count: int) -> None:
    changes = [Changed(random.randbytes(16), random.randrange(10**18)) for _ in range(count)]
    assert changes_of(" ".join(map(encode, changes)), Changed) == changes


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_read_at_once_is_what_would_be_read_one_by_one(seed: int) -> None:
    """One character of it is put in, taken out or replaced."""
    print(f"seed {seed}")
    source = random.Random(seed)
    strange = "ugUd: :0123456789abcdefABCDEF_-+\0\t\n\xe9\u0661\U0001f600"
    for _ in range(3000):
        changes = [
            Changed(source.randbytes(16), source.randrange(10 ** source.randint(1, 18)))
            for _ in range(source.randint(1, 3))
        ]
        text = " ".join(map(encode, changes))
        at = source.randrange(len(text) + 1)
        other = text[:at] + source.choice((*strange, "")) + text[at + source.randint(0, 1) :]
        read = changes_of(other, Changed)
        assert read is None or read == one_by_one(other), other


@pytest.mark.parametrize("end", range(80))
def test_what_is_cut_off_is_not_read_beyond_its_end(end: int) -> None:
    whole = " ".join(map(encode, [Changed(KEY, 7), Changed(KEY, 12345678)]))
    text = whole[:end]
    assert changes_of(text, Changed) == one_by_one(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        encode(Changed(KEY, 10**18)),
        encode(Changed(KEY, 2**63 - 1)),
        f"u{KEY.hex()}:{2**64}",
        encode(Deleted(KEY)),
        f"{encode(Changed(KEY, 1))} {encode(Deleted(KEY))}",
        f"{encode(Changed(KEY, 1))}  {encode(Changed(KEY, 2))}",
        f"{encode(Changed(KEY, 1))} W",
    ],
)
def test_what_is_unusual_is_left_to_who_reads_one_by_one(text: str) -> None:
    assert changes_of(text, Changed) is None


def test_what_a_call_raises_comes_through() -> None:
    def refuse(key: bytes, version: int) -> None:
        raise LookupError(key, version)

    with pytest.raises(LookupError) as caught:
        changes_of(encode(Changed(KEY, 7)), refuse)
    assert caught.value.args == (KEY, 7)
    for wrong in (None, b"u", 7):
        with pytest.raises(TypeError):
            changes_of(wrong, Changed)  # type: ignore[arg-type]
