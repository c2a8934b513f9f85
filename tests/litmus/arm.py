"""Translates a litmus test in C into the instructions that a compiler makes of it for ARMv8.1.

Loads that acquire are LDAPR: compilers emit it or LDAR, and it orders less. There are no branches, so no dependencies
that an ARM processor would honour and the tests would lean on.
"""

from __future__ import annotations

import re

_PLACE = "X{}"
_LOADS = {"relaxed": "LDR", "acquire": "LDAPR"}
_STORES = {"relaxed": "STR", "release": "STLR"}
_FENCES = {"acquire": "DMB ISHLD", "release": "DMB ISH", "seq_cst": "DMB ISH"}
_ADDS = {"relaxed": "LDADD", "release": "LDADDL"}
_ORS = {"seq_cst": "LDSETAL"}
_SWAPS = {"release": "CASL", "relaxed": "CAS"}

_HEADER = re.compile(r"C (\w+)\n\(\*.*?\*\)\n\{(.*?)\}\n", re.DOTALL)
_THREAD = re.compile(r"P\d\((.*?)\) \{\n(.*?)\n\}\n", re.DOTALL)
_LOAD = re.compile(r"int (\w+) = atomic_load_explicit\((\w+), memory_order_(\w+)\);")
_STORE = re.compile(r"atomic_store_explicit\((\w+), (\d+), memory_order_(\w+)\);")
_FENCE = re.compile(r"atomic_thread_fence\(memory_order_(\w+)\);")
_FETCH = re.compile(r"int (\w+) = atomic_fetch_(add|or)_explicit\((\w+), (\d+), memory_order_(\w+)\);")
_SWAP = re.compile(
    r"int \w+ = atomic_compare_exchange_strong_explicit"
    r"\((\w+), (\w+), (\d+), memory_order_(\w+), memory_order_relaxed\);"
)


class _Thread:
    """Is one process of a test: where its addresses and values are, and what it does."""

    def __init__(self, body: str, values: dict[str, str]) -> None:
        self.addresses: dict[str, int] = {}
        self.registers: dict[str, int] = {}
        self.instructions: list[str] = []
        self._values = values
        self._next = 0
        for line in body.splitlines():
            self._translate(line.strip())

    def _new(self) -> int:
        self._next += 1
        return self._next - 1

    def _at(self, location: str) -> str:
        if location not in self.addresses:
            self.addresses[location] = self._new()
        return f"[{_PLACE.format(self.addresses[location])}]"

    def _into(self, name: str) -> str:
        self.registers[name] = self._new()
        return f"W{self.registers[name]}"

    def _constant(self, value: str) -> str:
        register = f"W{self._new()}"
        self.instructions.append(f"MOV {register},#{value}")
        return register

    def _translate(self, line: str) -> None:
        if found := _LOAD.fullmatch(line):
            name, location, order = found.groups()
            self.instructions.append(f"{_LOADS[order]} {self._into(name)},{self._at(location)}")
        elif found := _STORE.fullmatch(line):
            location, value, order = found.groups()
            self.instructions.append(f"{_STORES[order]} {self._constant(value)},{self._at(location)}")
        elif found := _FENCE.fullmatch(line):
            self.instructions.append(_FENCES[found[1]])
        elif found := _FETCH.fullmatch(line):
            name, what, location, value, order = found.groups()
            kind = {"add": _ADDS, "or": _ORS}[what][order]
            value = self._constant(value)
            self.instructions.append(f"{kind} {value},{self._into(name)},{self._at(location)}")
        elif found := _SWAP.fullmatch(line):
            location, expected, value, order = found.groups()
            old, new = self._constant(self._values[expected]), self._constant(value)
            self.instructions.append(f"{_SWAPS[order]} {old},{new},{self._at(location)}")
        else:
            raise ValueError(f"no translation of {line!r}")


def translated(text: str) -> str:
    """Return the AArch64 test of a test in C.

    Raises:
        ValueError: There is something in it that is not translated.
    """
    header = _HEADER.match(text)
    if header is None:
        raise ValueError("a test begins with C, its name, a comment and its first values")
    values = dict(re.findall(r"(\w+) = (\d+);", header[2]))
    threads = [_Thread(body, values) for _, body in _THREAD.findall(text)]
    first = [f"{name} = {value};" for name, value in values.items()]
    for number, thread in enumerate(threads):
        first += [f"{number}:{_PLACE.format(place)}={name};" for name, place in thread.addresses.items()]
    height = max(len(thread.instructions) for thread in threads)
    rows = [[f"P{number}" for number in range(len(threads))]]
    rows += [
        [thread.instructions[row] if row < len(thread.instructions) else "" for thread in threads]
        for row in range(height)
    ]
    condition = re.sub(
        r"(\d):(\w+)=",
        lambda found: f"{found[1]}:X{threads[int(found[1])].registers[found[2]]}=",
        _condition(text),
    )
    table = "\n".join(" | ".join(row) + " ;" for row in rows)
    return f"AArch64 {header[1]}\n{{ {' '.join(first)} }}\n{table}\n{condition}\n"


def _condition(text: str) -> str:
    return text[text.index("\nexists ") + 1 :].strip()
