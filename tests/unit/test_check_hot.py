"""What `make check-hot` says of counts and of generated C."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[2] / "tools"

DUMP = """\
version: 1
positions: line
events: Ir

ob=/lib/pgsession/_core/cache.cpython-311-x86_64-linux-gnu.so
fn=look_up
10 7
cfn=judge
calls=3 20
11 500
cob=/lib/libpython3.11.so.1.0
cfn=PyLong_FromLong
calls=2 30
12 40
13 5

fn=judge
20 500

ob=/lib/libpython3.11.so.1.0
fn=PyLong_FromLong
30 40
cfn=malloc
calls=9 1
31 100

ob=/lib/libc.so.6
fn=malloc
40 100
"""

SOURCE = """\
static int __pyx_f_9pgsession_5_core_5cache_hit(PyObject *x); /*proto*/
static PyObject *__pyx_pw_9pgsession_5_core_6reader_6Reader_5get(PyObject *self, PyObject *x) {
  /* PyObject_Call(in a comment) */
  const char *said = "PyObject_Str(in a text)";
  return __pyx_pf_9pgsession_5_core_6reader_6Reader_4get(self, x);
}
static PyObject *__pyx_pf_9pgsession_5_core_6reader_6Reader_4get(PyObject *self, PyObject *x) {
  if (unlikely(__pyx_f_9pgsession_5_core_5cache_hit(x) < 0)) {
    __Pyx_AddTraceback("get", 1, 2, __pyx_filename);
  }
  return self->__pyx_vtab->miss(self);
}
static int __pyx_f_9pgsession_5_core_5cache_hit(PyObject *x) {
  CALLS
  return pgs_low(x);
}
static int __pyx_f_9pgsession_5_core_6reader_6Reader_miss(PyObject *x) {
  return PyObject_Size(x);
}
static inline int pgs_low(PyObject *x) { return Py_TYPE(x) != NULL; }
"""

LIST = """\
roots = ["reader.Reader.get"]
[beyond]
"reader.Reader.miss" = "a miss"
[[harmless]]
why = "after an error, and a field"
calls = ["__Pyx_AddTraceback", "Py_TYPE"]
[[calls]]
from = ["cache.hit"]
why = "its length"
times = { PyObject_Length = 1 }
"""


def tool(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if not TOOLS.is_dir():
        pytest.skip("the tools are not part of what is tested here")
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module(f"hot.{name}")


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return tool("instructions", monkeypatch)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    module = tool("calls", monkeypatch)
    for name, path in {"GENERATED": "c", "HEADERS": "h", "LIST": "calls.toml"}.items():
        monkeypatch.setattr(module, name, tmp_path / path)
    (tmp_path / "c").mkdir()
    (tmp_path / "calls.toml").write_text(LIST)
    return module


def generate(tmp_path: Path, text: str) -> None:
    (tmp_path / "c" / "_all.c").write_text(SOURCE.replace("CALLS", text))


def test_costs_of_a_dump_are_told_apart(instructions: ModuleType) -> None:
    assert instructions.read(DUMP) == instructions.Counts(core=512, calls=2, everything=652)


@pytest.mark.parametrize(
    ("now", "same_build", "verdict"),
    [
        ((100, 10, 1000), True, None),
        ((110, 11, 1100), True, None),
        ((111, 10, 1000), True, "GROWN: core"),
        ((100, 12, 1000), False, "GROWN: calls"),
        ((100, 10, 1101), True, "GROWN: everything"),
        ((100, 10, 1101), False, None),
        ((50, 12, 900), True, "GROWN: calls"),
        ((89, 10, 1000), True, "less: record it"),
    ],
)
def test_growth_beyond_a_tenth_is_noticed(
    instructions: ModuleType, now: tuple[int, int, int], same_build: bool, verdict: str | None
) -> None:
    before = {"get": instructions.Counts(100, 10, 1000)}
    verdicts = instructions.verdicts(before, {"get": instructions.Counts(*now)}, same_build)
    assert verdicts.get("get") == verdict


def test_the_first_call_out_of_the_core_is_noticed(instructions: ModuleType) -> None:
    before, now = ({"get": instructions.Counts(100, calls, 100)} for calls in (0, 1))
    assert instructions.verdicts(before, now, True) == {"get": "GROWN: calls"}


def test_what_is_recorded_or_counted_alone_is_noticed(instructions: ModuleType) -> None:
    one = instructions.Counts(1, 1, 1)
    verdicts = instructions.verdicts({"old": one, "kept": one}, {"new": one, "kept": one}, True)
    assert verdicts == {"old": instructions.UNKNOWN, "new": instructions.UNKNOWN}


def test_what_is_recorded_is_read_back(
    instructions: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(instructions, "RECORDED", tmp_path / "counts.json")
    with pytest.raises(SystemExit, match="ARGS=--record"):
        instructions.recorded()
    counts = {"session[key]": instructions.Counts(1.5, 0.0, 3.0), "get": instructions.Counts(2.0, 1.0, 9.0)}
    instructions.record(counts)
    assert instructions.recorded() == (counts, True)
    monkeypatch.setattr(instructions, "build", lambda: "another")
    assert instructions.recorded() == (counts, False)


def test_valgrind_is_named_where_there_is_none(
    instructions: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="needs valgrind"):
        instructions.count()


def test_writes_are_counted_from_the_call_to_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = tool("writes", monkeypatch)
    held = writes.Writes()
    sessions = held.created(3)
    versions = [session.version for session in sessions]
    updated = held.run(writes.gathered([held.update(session) for session in sessions]))
    assert [session.version for session in updated] == [version + 1 for version in versions]
    stats = held.manager.stats()
    assert (stats.writes, stats.batches) == (6, 2), "calls at the same moment share a batch"
    held.close()


def test_calls_on_the_list_are_fine(calls: ModuleType, tmp_path: Path) -> None:
    generate(tmp_path, "PyObject_Length(x);")
    assert calls.check() == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "cache.hit calls PyObject_Length: 0 times in the generated C, 1 times on the list"),
        (
            "PyObject_Length(x); PyObject_Length(x);",
            "cache.hit calls PyObject_Length: 2 times in the generated C, 1 times on the list",
        ),
        (
            "PyObject_Length(x); __Pyx_PyObject_GetAttrStr(x, y);",
            "cache.hit calls __Pyx_PyObject_GetAttrStr: 1 times in the generated C, 0 times on the list",
        ),
        (
            "PyObject_Length(x); Py_TYPE(x)->tp_call(x, y, z);",
            "cache.hit calls ->tp_call: 1 times in the generated C, 0 times on the list",
        ),
        (
            "PyObject_Length(x); __pyx_t_12(x);",
            "cache.hit calls __pyx_t: 1 times in the generated C, 0 times on the list",
        ),
    ],
)
def test_any_other_call_is_noticed(calls: ModuleType, tmp_path: Path, text: str, problem: str) -> None:
    generate(tmp_path, text)
    assert calls.check() == [problem]


def test_a_function_that_is_gone_is_named(calls: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "c" / "_all.c").write_text(SOURCE.replace("Reader_miss", "Reader_missed"))
    assert calls.check() == ["there is no function reader.Reader.miss any more: bring calls.toml up to date"]


def test_no_generated_code_is_no_success(calls: ModuleType) -> None:
    with pytest.raises(SystemExit, match="make build"):
        calls.check()
