"""A record as bytes, as the processes of a host share it."""

from __future__ import annotations

import random

import pytest

from pgsession._core.record import Record
from pgsession._core.record_bytes import decode, encode

FIELDS = [
    "key",
    "version",
    "user_id",
    "group_id",
    "created_at",
    "updated_at",
    "last_accessed",
    "expires_at",
    "inactivity",
    "generation",
    "owner_since",
    "previous_generation",
    "previous_until",
    "rotated_at",
    "incarnation",
]


def said(record: Record) -> tuple[object, ...]:
    return (*(getattr(record, name) for name in FIELDS), record.attributes())


def some_record(chance: random.Random) -> Record:
    def number() -> int:
        return chance.choice([0, 1, chance.getrandbits(31), chance.getrandbits(62)])

    def text() -> str | None:
        return chance.choice([None, "", "ü" * chance.randrange(20), "u" * chance.randrange(300)])

    version = chance.getrandbits(40)
    names = {
        chance.choice(["", "k", "ключ", "long " * 9]) + str(chance.randrange(99))
        for _ in range(chance.randrange(9))
    }
    attributes = [
        (
            name,
            chance.choice([version, version - 5, number()]),
            chance.choice([None, number() or None]),
            b"1" * chance.randrange(1, chance.choice([2, 900])),
        )
        for name in names
    ]
    return Record(
        chance.randbytes(16), version, text(), text(), number(), number(), number(), number(), number(), attributes,
        generation=number(), owner_since=number(), previous_generation=number(), previous_until=number(),
        rotated_at=chance.choice([0, number()]), incarnation=text(),
    )  # fmt: skip


def test_a_record_comes_back_as_it_was() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(500):
        record = some_record(chance)
        assert said(decode(encode(record))) == said(record)


def test_what_is_cut_short_or_changed_anywhere_is_refused_or_stays_within_itself() -> None:
    """Under AddressSanitizer this shows that nothing is read beyond the end."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(50):
        data = encode(some_record(chance))
        for length in range(0, len(data), max(1, len(data) // 20)):
            with pytest.raises(ValueError, match="record"):
                decode(data[:length])
        with pytest.raises(ValueError, match="another length"):
            decode(data + b"\0")
        for _ in range(100):
            changed = bytearray(data)
            changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            try:
                said(decode(bytes(changed)))
            except ValueError:
                continue


def test_records_of_the_same_keys_share_them() -> None:
    first, second = (
        decode(encode(Record(bytes(16), 1, None, None, 0, 0, 0, 1, None, [("colour", 1, None, b"1")])))
        for _ in range(2)
    )
    assert first.attributes()[0][0] is second.attributes()[0][0]


def test_more_shapes_than_are_kept() -> None:
    for number in range(1200):
        record = Record(bytes(16), 1, None, None, 0, 0, 0, 1, None, [(f"key {number}", 1, None, b"1")])
        assert said(decode(encode(record))) == said(record)
