"""What is judged where processes share the cache of their host, and what becomes of the calls of a killed one."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.history import Call, State, Writer, read
from tests.chaos.test_oracle import call, checked, create, get, kinds, update


def inside(call: Call, arena: str = "a", after: str | None = None) -> Call:
    """A call that began in an arena, and ended in the same where no other is given."""
    call.arena, call.arena_after = arena, arena if after is None else after
    return call


def test_what_one_process_was_told_binds_the_others_of_its_arena() -> None:
    def of(first: tuple[str, ...], second: tuple[str, ...]) -> set[str]:
        told, later = inside(get(1.1, 2, node=1), *first), inside(get(1.2, 1, node=2), *second)
        return kinds(checked(create(), update(1, 2), told, later))

    assert "backwards" in of(("a",), ("a",))
    assert not of(("a",), ("b",)) and not of(("",), ("",))
    assert not of(("",), ("a",)), "it was apart"
    assert not of(("a", ""), ("a",)) and not of(("a",), ("", "a")), "it was apart in between"


def test_what_one_process_wrote_the_others_of_its_arena_read() -> None:
    wrote = inside(update(1, 2))
    assert "own" in kinds(checked(create(), wrote, inside(get(1.1, 1, node=1))))
    assert not kinds(checked(create(), wrote, inside(get(1.1, 1, node=1), "b")))


def test_what_one_process_ended_the_others_of_its_arena_do_not_return() -> None:
    ended = inside(call("delete", 1))
    assert "resurrected" in kinds(checked(create(), ended, inside(get(1.1, 1, node=1))))
    assert not kinds(checked(create(), ended, inside(get(1.1, 1, node=1), "b")))


def test_a_process_is_bound_by_what_it_was_told_wherever_it_was() -> None:
    for first, second in (("a", ""), ("", "b"), ("a", "b")):
        told, later = inside(get(1.1, 2, node=1), first), inside(get(1.2, 1, node=1), second)
        assert "backwards" in kinds(checked(create(), update(1, 2), told, later))
        ended = inside(call("delete", 1, node=1), first)
        assert "resurrected" in kinds(checked(create(), ended, inside(get(1.1, 1, node=1), second)))
        absent = inside(call("get", 1, node=1, outcome="none"), first)
        assert "resurrected" in kinds(checked(create(), absent, inside(get(1.1, 1, node=1), second)))


def test_what_a_killed_process_had_begun_may_have_been_done(tmp_path: Path) -> None:
    """It is in the file although nobody has flushed that."""
    writer = Writer(tmp_path / "history", mortal=True)
    done = Call(kind="update", node=0, who="0.0", began=1, ended=2, version=2)
    begun = Call(kind="update", node=0, who="0.1", began=3, wrote={"0.1": 1})
    writer.begin(Call(kind="update", node=0, who="0.0", began=1))
    writer.add(done)
    writer.add(State(node=0, at=2, in_sync=True))
    writer.begin(begun)
    entries = list(read(tmp_path / "history", died=9))
    writer.close()
    begun.ended, begun.outcome = 9, "interrupted"
    assert entries == [done, State(node=0, at=2, in_sync=True), begun]


def test_one_that_is_not_killed_notes_what_has_ended(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "history")
    writer.begin(Call(kind="update", node=0, who="0.0", began=1))
    writer.close()
    assert not list(read(tmp_path / "history"))
