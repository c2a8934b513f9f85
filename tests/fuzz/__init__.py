"""Keys, payloads, tokens and rows as nobody should send them: each is understood rightly or refused, nothing else.

A few hundred of each in `make test`; `make fuzz SECONDS=60` goes on with new seeds.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("PGSESSION_FUZZ_EXAMPLES", "250"))

fuzz = settings(
    max_examples=EXAMPLES, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck)
)

TROUBLE = (
    "\0",
    "\ud800",
    "\udfff",
    "é",
    "\u0661",
    "\u2028",
    "\U0001f600",
    "\x7f",
    "\x1c",
    "\t",
    "\n",
    " ",
    "_",
)
"""What decoders and `int` and `bytes.fromhex` like to let pass."""


@st.composite
def mutated(draw: st.DrawFn, texts: st.SearchStrategy[str], alphabet: str) -> str:
    """A text with a few pieces of it taken out, put in twice, or replaced; sometimes it stays as it is."""
    text = draw(texts)
    pieces = st.text(st.sampled_from(alphabet), max_size=4) | st.sampled_from(TROUBLE) | st.text(max_size=3)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 40)))
        piece = draw(pieces | st.just(text[start:end] * 2))
        text = text[:start] + piece + text[end:]
    return text
