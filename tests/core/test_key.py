from __future__ import annotations

import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgsession._core.key import to_bytes, to_uuid

numbers = st.integers(0, 2**128 - 1)


@given(numbers)
@example(0)
@example(1)
@example(2**128 - 1)
@example(2**30)
@example(2**60)
@example(2**90)
@example(2**120)
@example(2**64)
def test_every_form_of_an_id_is_the_same_key(number: int) -> None:
    identity = uuid.UUID(int=number)
    for form in (identity, str(identity), str(identity).upper(), identity.bytes):
        assert to_bytes(form) == identity.bytes
        assert to_uuid(form) == identity


@given(st.text(max_size=40))
@example("0" * 36)
@example("00000000-0000-0000-0000-0000000000000")
@example("00000000-0000-0000-0000-00000000000")
@example("{0000000-0000-0000-0000-000000000000}")
def test_any_other_text_is_refused(text: str) -> None:
    try:
        valid = len(text) == 36 and str(uuid.UUID(text)) == text.lower()
    except ValueError:
        valid = False
    if not valid:
        with pytest.raises(ValueError, match="session_id"):
            to_bytes(text)


@pytest.mark.parametrize("place", range(36))
def test_every_character_of_a_text_is_checked(place: int) -> None:
    good = str(uuid.UUID(int=0x1234567890ABCDEF1234567890ABCDEF))
    for code in range(0x180):
        text = good[:place] + chr(code) + good[place + 1 :]
        allowed = "-" if good[place] == "-" else "0123456789abcdefABCDEF"
        if chr(code) in allowed:
            assert to_bytes(text) == uuid.UUID(text).bytes
        else:
            with pytest.raises(ValueError, match="session_id"):
                to_bytes(text)


@pytest.mark.parametrize("wrong", [None, 1, 1.5, bytearray(16), memoryview(bytes(16)), object(), ["x"]])
def test_other_types_are_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError, match="session_id"):
        to_bytes(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, 15, 17, 36])
def test_a_wrong_number_of_bytes_is_a_value_error(size: int) -> None:
    with pytest.raises(ValueError, match="session_id"):
        to_bytes(bytes(size))


def test_subclasses_are_read_by_what_they_are() -> None:
    class Identity(uuid.UUID):
        pass

    class Text(str):
        pass

    class Raw(bytes):
        pass

    identity = uuid.uuid4()
    for form in (Identity(bytes=identity.bytes), Text(identity), Raw(identity.bytes)):
        assert to_bytes(form) == identity.bytes


class Swindler:
    def to_bytes(self, *_: object) -> bytes:
        return b""


@pytest.mark.parametrize("slot", [-1, 2**128, 2**1000, "7", None, 1.5, Swindler()])
@pytest.mark.parametrize("portable", [False, True])
def test_a_uuid_whose_int_is_none_is_refused(slot: object, portable: bool) -> None:
    class Identity(uuid.UUID):
        pass

    identity = (Identity if portable else uuid.UUID)(int=5)
    object.__setattr__(identity, "int", slot)
    with pytest.raises((TypeError, ValueError)):
        to_bytes(identity)
    object.__delattr__(identity, "int")
    with pytest.raises(TypeError):
        to_bytes(identity)
