"""The values of a cookie are found in whatever a browser, or somebody else, sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsession._core.cookie import cookie_values

pieces = st.lists(
    st.sampled_from(["session", "=", ";", " ", "\t", '"', "t", "xsession", "\xe9", "\u20ac", "\0"])
)


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("", []),
        ("session=t", ["t"]),
        ("a=b; session=t; c=d", ["t"]),
        ("a=b;session=t;c=d", ["t"]),
        (" session = t ", ["t"]),
        ('session="t"', ["t"]),
        ('session= "t" ; session=t\t', ["t"]),
        ('session="', [""]),
        ("session=", [""]),
        ("session", []),
        ("session;", []),
        ("xsession=t; session2=u", []),
        ("Session=t", []),
        ("session=a=b", ["a=b"]),
        ("session=a b", ["a b"]),
        ("session=\xe9", ["\xe9"]),
        ("session=\u20ac", ["?"]),
        ('junk; =; ;; session=t; "session=u"', ["t"]),
        ("theme=x session=forged; session=t", ["t"]),  # in what any host of the domain may have set
        ("x session=forged; session=t; y  session=forged;x\tsession=forged; =session=forged", ["t"]),
        ("x\xa0session=forged; \xa0session=forged; x,session=forged; \x85session=forged", []),
        (";  session=forged;\tsession=forged", []),
        ("session=t; session=u; session=t", ["t", "u"]),
        ("; ".join(f"session={n}" for n in range(100)), ["0", "1", "2", "3"]),
    ],
)
def test_what_a_request_may_bring(header: str, values: list[str]) -> None:
    assert cookie_values(b"session", header) == values


def test_of_all_headers() -> None:
    headers = [
        (b"host", b"session=a"), (b"cookie", b"a=b; session=t"), (b"cookie2", b"session=b"), (b"cookie", b"session=u"),
        (b"cookie", b"session=t"), (b"cookie", b""),
    ]  # fmt: skip
    assert cookie_values(b"session", headers) == ["t", "u"]
    assert cookie_values(b"session", map(list, headers)) == ["t", "u"]  # type: ignore[arg-type]


def test_only_the_first_values_of_all_headers_are_taken() -> None:
    assert cookie_values(b"s", [(b"cookie", b"s=%d" % n) for n in range(9)]) == ["0", "1", "2", "3"]


@given(pieces)
def test_it_is_found_as_by_splitting(some: list[str]) -> None:
    header = "".join(some)
    pairs = [pair.removeprefix(" ").partition("=") for pair in header.split(";")]
    values = [plain(value) for name, equals, value in pairs if equals and name.rstrip(" \t") == "session"]
    assert cookie_values(b"session", header) == list(dict.fromkeys(values))[:4]


def plain(value: str) -> str:
    value = value.encode("latin-1", "replace").decode("latin-1").lstrip(" \t")
    return value.removeprefix('"').rstrip(' \t"')


@given(st.text(), st.text())
def test_a_value_is_found_whatever_stands_around_it(before: str, after: str) -> None:
    found = cookie_values(b"session", f"{before.replace('session', '')};session=token; {after}")
    assert found[0] == "token"


@pytest.mark.parametrize("value", [None, "session=token", 1, memoryview(b"session=token")])
def test_a_header_that_is_no_bytes_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        cookie_values(b"session", [(b"cookie", value)])  # type: ignore[list-item]
