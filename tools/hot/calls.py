"""Reads the C that Cython has made of the core, and checks what the hit path calls in Python.

From each root the functions of the core that it calls are followed, through all modules and headers, up to those
that `calls.toml` names as beyond the path. Every other call has to be on the list there.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
LIST = Path(__file__).with_name("calls.toml")
GENERATED = ROOT / "build" / "cython" / "cython" / "pgsession" / "_core"
HEADERS = ROOT / "cython" / "pgsession" / "_core"

NOISE = re.compile(
    r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'|^[ \t]*#[^\n]*", re.DOTALL | re.MULTILINE
)
FUNCTION = re.compile(
    r"^[A-Za-z][\w *]*?\b(\w+)\([^;{}]*\)\s*\{(?:([^\n]*)\}$|\n(.*?)^\})", re.DOTALL | re.MULTILINE
)
CALL = re.compile(r"(->\s*)?\b([A-Za-z_]\w*)\s*\(")
MANGLED = re.compile(r"__pyx_(?:pw|pf|f)_9pgsession_5_core_(\w+)")
TEMPORARY = re.compile(r"__pyx_t_\d+")
PYTHON = re.compile(r"_?_?Py[A-Za-z_]\w*|__pyx_\w+|->\w+|pgs_\w+")


def readable(name: str) -> str:
    """`reader.Reader.get_session` of a mangled name; any other as it is."""
    mangled = MANGLED.fullmatch(name)
    if mangled is None:
        return name
    module, rest = counted(mangled[1])
    owner, method = counted(rest)
    if not owner[:1].isupper():
        return f"{module}.{rest}"
    return f"{module}.{owner}.{method.lstrip('0123456789')}"


def counted(text: str) -> tuple[str, str]:
    """`6reader_hit` is `reader` and `hit`."""
    length = re.match(r"\d*", text)[0]  # type: ignore[index]
    end = len(length) + int(length or 0)
    return text[len(length) : end], text[end + 1 :]


class Call(NamedTuple):
    """What a function calls that is no function of the core, and how often it does in its text."""

    caller: str
    callee: str
    times: int


def check() -> list[str]:
    """What is wrong with the calls of the hit path, or with the list of them."""
    wanted, known = tomllib.loads(LIST.read_text()), functions()
    roots, beyond = wanted["roots"], wanted["beyond"]
    gone = [name for name in (*roots, *beyond) if name not in known]
    if gone:
        return [f"there is no function {name} any more: bring {LIST.name} up to date" for name in gone]
    harmless = {name for group in wanted["harmless"] for name in group["calls"]}
    found: Counter[tuple[str, str]] = Counter()
    for caller, callee, times in path(known, roots, beyond):
        if callee not in harmless:
            found[caller, callee] = times
    listed: Counter[tuple[str, str]] = Counter()
    for group in wanted["calls"]:
        for caller in group["from"]:
            listed.update({(caller, callee): times for callee, times in group["times"].items()})
    return [
        f"{caller} calls {callee}: {found[caller, callee]} times in the generated C,"
        f" {listed[caller, callee]} times on the list"
        for caller, callee in sorted(found | listed)
        if found[caller, callee] != listed[caller, callee]
    ]


def path(known: dict[str, str], roots: list[str], beyond: dict[str, str]) -> Iterator[Call]:
    """Every call out of the core from what the roots reach."""
    waiting, met = list(roots), set(beyond)
    while waiting:
        caller = waiting.pop()
        if caller in met:
            continue
        met.add(caller)
        for callee, times in called(known[caller]).items():
            own = resolved(known, callee)
            waiting += own
            if not own and PYTHON.fullmatch(callee):
                yield Call(caller, callee, times)


def functions() -> dict[str, str]:
    """The bodies of the core's functions. A method's wrapper and what it wraps are one."""
    bodies: dict[str, str] = {}
    for source in sources():
        here: dict[str, str] = {}
        for name, body in definitions(source.read_text()):
            here[name] = here.get(name, "") + body  # with and without the GIL
        bodies = here | bodies  # an inline function is in every module that uses it
    merged: dict[str, str] = {}
    for name, body in bodies.items():
        merged[readable(name)] = merged.get(readable(name), "") + body
    return merged


def sources() -> list[Path]:
    made = sorted(GENERATED.glob("*.c"))
    if not made:
        sys.exit(f"there is no generated C in {GENERATED}: run `make build`")
    return [*made, *sorted(HEADERS.glob("*.h"))]


def definitions(source: str) -> Iterator[tuple[str, str]]:
    for name, line, body in FUNCTION.findall(NOISE.sub(" ", source)):
        if name.startswith("pgs_") or MANGLED.fullmatch(name):
            yield name, line or body


def called(body: str) -> Counter[str]:
    """What a body calls, by readable names; through a pointer in a structure as `->name`."""
    found: Counter[str] = Counter()
    for member, name in CALL.findall(body):
        found["->" + name if member else TEMPORARY.sub("__pyx_t", readable(name))] += 1
    return found


def resolved(known: dict[str, str], callee: str) -> list[str]:
    """The core's functions that a name may stand for."""
    if callee.startswith("->"):
        return [name for name in known if name.endswith("." + callee[2:])]
    return [callee] if callee in known else []
