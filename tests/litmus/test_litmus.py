"""Every order that arena.h relies on holds by the models of C11 and of ARM, and not with less."""

from __future__ import annotations

import pytest

from tests.litmus.arm import translated
from tests.litmus.herd import MISSING, MODELS, is_possible, program
from tests.litmus.orders import HEADERS, HERE, ORDERS, weakened, written

WEAKER = [(name, change) for name, order in ORDERS.items() for change in order.weaker]
needs_herd7 = pytest.mark.skipif(program() is None, reason=MISSING)


def test_each_order_has_a_test() -> None:
    assert sorted(path.stem for path in HERE.glob("*.litmus")) == sorted(ORDERS)


@pytest.mark.parametrize("name", ORDERS)
def test_what_it_stands_for_is_in_the_headers(name: str) -> None:
    text = "".join((HEADERS / header).read_text(encoding="utf-8") for header in ("arena.h", "sharing.h"))
    for line in ORDERS[name].lines:
        assert line in text, "the headers have changed: does the litmus test still stand for them?"


@pytest.mark.parametrize(("name", "change"), WEAKER)
def test_each_change_can_be_made(name: str, change: str) -> None:
    assert translated(weakened(name, change)) != translated(written(name))


def test_what_arm_makes_of_it() -> None:
    assert translated(written("made")).splitlines() == [
        "AArch64 made",
        "{ magic = 0; layout = 0; 0:X1=layout; 0:X3=magic; 1:X1=magic; 1:X3=layout; }",
        "P0 | P1 ;",
        "MOV W0,#1 | LDR W0,[X1] ;",
        "STR W0,[X1] | DMB ISHLD ;",
        "DMB ISH | LDR W2,[X3] ;",
        "MOV W2,#1 |  ;",
        "STR W2,[X3] |  ;",
        "exists (1:X0=1 /\\ 1:X2=0)",
    ]


def test_what_is_not_translated() -> None:
    with pytest.raises(ValueError, match="no translation"):
        translated(written("event").replace("atomic_store_explicit(word", "store(word"))
    with pytest.raises(ValueError, match="begins with"):
        translated("exists (x=1)")


@needs_herd7
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ORDERS)
def test_it_never_happens(name: str, model: str) -> None:
    assert not is_possible(written(name), model), ORDERS[name].harm


@needs_herd7
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("name", "change"), WEAKER)
def test_with_less_it_happens(name: str, change: str, model: str) -> None:
    assert is_possible(weakened(name, change), model)
