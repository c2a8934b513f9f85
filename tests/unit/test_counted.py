"""Texts count things as people do."""

from __future__ import annotations

import pgsession
from pgsession._counted import counted


def test_one_is_no_plural() -> None:
    assert [counted(number, "lock") for number in (0, 1, 2, 1000)] == [
        "0 locks",
        "1 lock",
        "2 locks",
        "1,000 locks",
    ]
    assert counted(1, "access", "accesses") == "1 access" and counted(0, "access", "accesses") == "0 accesses"


def test_what_says_how_many() -> None:
    assert "has 1 session, the most" in str(pgsession.TooManySessionsError("u", 1))
    assert repr(pgsession.Signer(b"k" * 32)) == "<Signer with 1 key>"
    late = pgsession.OperationTimeout("nothing was sent")
    assert [str(late._after(done)) for done in (0, 1)] == [
        "nothing was sent",
        "nothing was sent; 1 session had been done before",
    ]
    assert late._after(3).done == 3
