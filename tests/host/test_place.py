"""Where an arena lies and who may have a part in it: real files, real locks, other users, other processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgsession._core.arena import Arena
from pgsession._host import place as places
from pgsession._host.offices import HOLDERS, MAKING, Offices
from pgsession._host.place import Opened, Place, Refused, own_folder
from pgsession.cli import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="arenas are for Linux")

SIZE = 2**22
SPAWN = multiprocessing.get_context("spawn")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "arenas"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def place(folder: Path) -> Place:
    return Place(str(folder), SIZE, ("public", "", "1", "2"))


@pytest.fixture
def opened(place: Place) -> Iterator[Opened]:
    opened = place.open()
    yield opened
    opened.offices.close()


def refusal(place: Place) -> str:
    with pytest.raises(Refused) as caught:
        place.open()
    return caught.value.reason


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_the_first_makes_it_and_the_last_takes_it_away(folder: Path, place: Place) -> None:
    first = place.open()
    second = place.open()
    assert first.arena.id == second.arena.id and first.arena.size == SIZE
    assert files(folder) == [".arena", ".locks"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    place.leave(first)
    assert files(folder) == [".arena", ".locks"]
    place.leave(second)
    assert files(folder) == []


def test_what_nobody_uses_any_more_is_made_anew(place: Place) -> None:
    """As after a crash of all: what is in it may be of any age."""
    first = place.open()
    number = first.arena.id
    first.offices.close()
    second = place.open()
    assert second.arena.id != number
    place.leave(second)


def test_others_have_another(folder: Path, opened: Opened) -> None:
    for of in (("other", "", "1", "2"), ("public", "p", "1", "2"), ("public", "", "1", "3")):
        another = Place(str(folder), SIZE, of).open()
        assert another.path != opened.path
        another.offices.close()


def test_who_comes_takes_the_size_that_there_is(folder: Path, opened: Opened) -> None:
    larger = Place(str(folder), 2 * SIZE, ("public", "", "1", "2")).open()
    assert larger.arena.size == SIZE
    larger.offices.close()


def test_a_given_up_one_is_followed_by_another(place: Place, opened: Opened) -> None:
    second = place.open()
    opened.arena.poison()
    renewed = place.renew(opened)
    assert renewed.arena.id != second.arena.id and not renewed.arena.poisoned
    assert place.renew(second).arena.id == renewed.arena.id, "the other goes to the same one"
    third = place.open()
    assert third.arena.id == renewed.arena.id
    for one in (second, third):
        one.offices.close()


def test_one_that_was_given_up_and_left_is_not_taken(place: Place, opened: Opened) -> None:
    opened.arena.poison()
    second = place.open()
    assert not second.arena.poisoned
    second.offices.close()


def test_a_name_lies_in_the_users_own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    place = Place("shop", SIZE, ("public",))
    opened = place.open()
    assert opened.path.parent == tmp_path / "pgsession" and opened.path.name.startswith("shop-")
    assert opened.path.parent.stat().st_mode & 0o777 == 0o700
    place.leave(opened)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert own_folder(make=False) == Path(f"/dev/shm/pgsession-{os.geteuid()}")


def test_who_comes_while_the_last_one_leaves_begins_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are taken away between two steps of another's: that is no refusal."""
    first = place.open()
    fstat, leaving = os.fstat, [first]

    def left_before(file: int) -> os.stat_result:
        if leaving:
            place.leave(leaving.pop())
        return fstat(file)

    monkeypatch.setattr(os, "fstat", left_before)
    second = place.open()
    assert second.path.exists() and second.arena.id != first.arena.id
    place.leave(second)


def test_what_a_killed_maker_left_goes(folder: Path, place: Place) -> None:
    first = place.open()
    place.leave(first)
    first.path.with_suffix(".new").write_bytes(bytes(4096))
    second = place.open()
    assert files(folder) == [".arena", ".locks"]
    place.leave(second)


def test_what_is_left_of_others_goes(folder: Path, place: Place) -> None:
    """Of an older version, or of a container that was started again: all were killed, and nobody has that name now."""
    of = ("public", "", "1", "2")
    killed, used = (
        Place(str(folder), SIZE, (*of, "killed")).open(),
        Place(str(folder), SIZE, (*of, "used")).open(),
    )
    killed.path.with_suffix(".new").touch()
    (folder / "anything.locks").touch(0o600)
    (folder / "anything.arena").touch(0o600)
    killed.offices.close()
    opened = place.open()
    there = {opened.path, used.path, folder / "anything.arena"}
    assert set(folder.iterdir()) == there | {places.locks_of(path) for path in there}
    for one in (used, opened):
        place.leave(one)


def test_what_is_left_goes_only_where_nobody_comes(folder: Path, place: Place) -> None:
    another = Place(str(folder), SIZE, ("another",))
    left = another.open()
    left.offices.close()
    coming = Offices(os.open(places.locks_of(left.path), os.O_RDWR))
    assert coming.take(MAKING)
    opened = place.open()
    assert left.path.exists()
    coming.close()
    place.leave(opened)


def test_who_leaves_keeps_no_office_in_a_fork_that_is_just_made(place: Place) -> None:
    """The description of the file may live on in another process until that closes it."""
    first, second = place.open(), place.open()
    elsewhere = os.dup(first.offices.file)
    place.leave(first)
    assert second.offices.take(MAKING) and second.offices.take(HOLDERS)
    second.offices.close()
    os.close(elsewhere)


def test_a_fork_in_the_middle_of_making_has_no_part(
    place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the child, which knows nothing of it, has the arena count as used for as long as it lives."""
    made = Place._made
    leave, stay = os.pipe()
    ready, is_ready = os.pipe()
    children = []

    def forks(self: Place, path: Path) -> Arena:
        child = os.fork()
        if not child:
            os.close(stay)
            os.write(is_ready, b"1")
            os.read(leave, 1)
            os._exit(0)
        children.append(child)
        os.read(ready, 1)
        return made(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "_made", forks)
        opened = place.open()
    os.close(opened.offices.file)  # as the kernel does when a process is killed
    another = Offices(os.open(places.locks_of(opened.path), os.O_RDWR))
    alone = another.take(HOLDERS) and another.take(MAKING)
    os.close(stay)
    os.waitpid(children[0], 0)
    for end in (leave, ready, is_ready):
        os.close(end)
    assert alone
    another.close()


@as_root
def test_another_users_runtime_folder_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert own_folder(make=False) == Path(f"/dev/shm/pgsession-{os.geteuid()}")


# What is refused


def test_too_small(folder: Path) -> None:
    assert "are the least" in refusal(Place(str(folder), Arena.smallest() - 1, ()))


def test_a_folder_that_others_may_look_into(folder: Path, place: Place) -> None:
    folder.chmod(0o750)
    assert "0700" in refusal(place)


def test_no_folder(tmp_path: Path) -> None:
    assert "No such file" in refusal(Place(str(tmp_path / "nothing"), SIZE, ()))
    (tmp_path / "file").touch()
    assert "is no folder" in refusal(Place(str(tmp_path / "file"), SIZE, ()))


def test_a_link_to_a_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert "is no folder" in refusal(Place(str(tmp_path / "link"), SIZE, ()))


@as_root
def test_a_folder_of_another_user(folder: Path, place: Place) -> None:
    os.chown(folder, 65534, 65534)
    assert "must belong to this user" in refusal(place) and "uid 65534" in refusal(place)


@as_root
@pytest.mark.parametrize("suffix", [".arena", ".locks"])
def test_a_file_of_another_user(place: Place, opened: Opened, suffix: str) -> None:
    os.chown(opened.path.with_suffix(suffix), 65534, 65534)
    assert f"{suffix} is another user's (uid 65534)" in refusal(place)


@pytest.mark.parametrize("suffix", [".arena", ".locks"])
def test_a_file_that_others_may_read(place: Place, opened: Opened, suffix: str) -> None:
    opened.path.with_suffix(suffix).chmod(0o640)
    assert "open to others" in refusal(place)


@pytest.mark.parametrize("suffix", [".arena", ".locks"])
def test_a_file_that_has_another_name_too(place: Place, opened: Opened, tmp_path: Path, suffix: str) -> None:
    os.link(opened.path.with_suffix(suffix), tmp_path / "another")
    assert "linked elsewhere" in refusal(place)


@pytest.mark.parametrize("suffix", [".arena", ".locks"])
def test_a_link_in_its_place(place: Place, opened: Opened, tmp_path: Path, suffix: str) -> None:
    path = opened.path.with_suffix(suffix)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "symbolic links" in refusal(place)


def test_a_pipe_in_its_place(place: Place, opened: Opened) -> None:
    opened.path.unlink()
    os.mkfifo(opened.path, 0o600)
    assert refusal(place)


def test_a_file_that_is_no_arena(place: Place, opened: Opened) -> None:
    opened.path.unlink()
    opened.path.write_bytes(bytes(SIZE))
    opened.path.chmod(0o600)
    assert refusal(place) == "the file is no arena"


def test_an_arena_that_was_cut(place: Place, opened: Opened) -> None:
    path = opened.path.with_suffix(".copy")
    path.write_bytes(opened.path.read_bytes()[: SIZE // 2])
    path.chmod(0o600)
    path.rename(opened.path)
    assert "as long as it says" in refusal(place)


def test_an_arena_of_another_layout(place: Place, opened: Opened) -> None:
    content = bytearray(opened.path.read_bytes())
    content[8] ^= 1
    path = opened.path.with_suffix(".copy")
    path.write_bytes(content)
    path.chmod(0o600)
    path.rename(opened.path)
    assert "another version" in refusal(place)


def test_a_process_that_makes_it_for_ever(
    place: Place, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "PATIENCE", 0.05)
    assert opened.offices.take(MAKING)
    assert "for too long" in refusal(place)


def test_other_systems(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SUPPORTED", False)
    assert "not supported" in refusal(place)


def test_locks_that_do_not_survive_their_owners(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        @staticmethod
        def self_test() -> bool:
            return False

    monkeypatch.setattr(places, "Arena", Old)
    assert "robust mutexes" in refusal(place)


_IN_A_FULL_ONE = """
import sys
from pathlib import Path
from pgsession._host.place import Place, Refused
folder = Path(sys.argv[1])
folder.mkdir(mode=0o700, exist_ok=True)
try:
    Place(str(folder), 2**27, ()).open()
except Refused as error:
    print(error.reason, sorted(path.suffix for path in folder.iterdir()))
"""


@as_root
@pytest.mark.parametrize("size", ["64m", "1m"])
def test_a_small_tmpfs(tmp_path: Path, size: str) -> None:
    """As a container has it: nothing may be left, and nothing end by a signal later."""
    inside = f'mount -t tmpfs -o size={size},mode=0700 tmpfs {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}/a'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", inside, _IN_A_FULL_ONE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unshare" in done.stderr or "permission denied" in done.stderr.lower():
        pytest.skip(f"no mount namespace is to be had here: {done.stderr.strip()}")
    assert done.stdout.strip() == "No space left on device ['.locks']", done


# Offices


def _take(file: str, office: int, answers: Any, leave: Any) -> None:
    offices = Offices(os.open(file, os.O_RDWR))
    answers.put(offices.take(office))
    leave.wait(60)


def test_an_office_ends_with_its_process(opened: Opened) -> None:
    answers, leave = SPAWN.Queue(), SPAWN.Event()
    process = SPAWN.Process(target=_take, args=(str(places.locks_of(opened.path)), 77, answers, leave))
    process.start()
    assert answers.get(timeout=60) is True
    assert not opened.offices.take(77) and opened.offices.has_others(77)
    process.kill()
    process.join(60)
    assert opened.offices.take(77)


def test_a_child_of_a_fork_takes_no_office_away(opened: Opened) -> None:
    assert opened.offices.take_lead(3)
    child = os.fork()
    if child == 0:
        opened.offices.close()
        os._exit(0)
    os.waitpid(child, 0)
    another = Offices(os.open(places.locks_of(opened.path), os.O_RDWR))
    assert another.has_leader(3) and not another.has_leader(4)
    assert not another.take_lead(3)
    another.close()


def test_holders_share_theirs(opened: Opened, place: Place) -> None:
    assert not opened.offices.has_others(HOLDERS)
    second = place.open()
    assert opened.offices.has_others(HOLDERS) and second.offices.has_others(HOLDERS)
    second.offices.close()
    assert second.offices.closed and not second.offices.take(5)


# The command


def test_the_command_shows_what_there_is(
    folder: Path, opened: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["arena", "--folder", str(folder), "--json"]) == 3, "nobody proves for it"
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["used"], row["leader"], row["leads"]) == ("lost", True, 0, False)
    assert (row["sessions"], row["size_bytes"]) == (0, SIZE) and row["counters"]["resets"] == 0
    assert opened.offices.take_lead(1) and opened.arena.take(0, True) == 1
    assert main(["arena", "--folder", str(folder)]) == 3
    assert " lost " in capsys.readouterr().out
    opened.arena.poison()
    assert main(["arena", "--folder", str(folder), "--json"]) == 3
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["state"], row["leader"], row["leads"]) == ("given up", 1, True)
    assert row["beat_age_seconds"] >= 0
    opened.path.unlink()  # not overwritten: it is mapped
    opened.path.write_bytes(bytes(SIZE))
    opened.path.chmod(0o600)
    assert main(["arena", "--folder", str(folder), "--json"]) == 3
    (row,) = json.loads(capsys.readouterr().out)
    assert "no arena" in row["state"]


def test_the_command_shows_shards_by_their_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    all_opened = [Place(str(folder), SIZE, (f"s_{number}",), number).open() for number in (10, 0, 2)]
    assert main(["arena", "--folder", str(folder), "--json"]) == 3
    names = [Path(row["path"]).name for row in json.loads(capsys.readouterr().out)]
    assert [name.split("-")[0] for name in names] == ["shard0", "shard2", "shard10"]
    for opened in all_opened:
        opened.offices.close()


def test_arenas_of_shards_are_found_and_removed_as_others_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = Place(str(folder), SIZE, ("s_0",), 0).open()
    left.offices.close()  # as where all who had it were killed
    with_shards = Place(str(folder), SIZE, ("s_1",), 1)
    opened = with_shards.open()
    assert {path.stem for path in folder.iterdir()} == {opened.path.stem}
    with_shards.leave(opened)
    monkeypatch.setattr(places, "own_folder", lambda: folder)
    named = Place("shop", SIZE, ("s_1",), 1)
    opened = named.open()
    assert opened.path.name.startswith("shop-shard1-")
    named.leave(opened)
    assert files(folder) == []


@as_root
def test_the_command_says_whose_it_is(
    folder: Path, opened: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here the user changes for a moment, in a child: one of another user's could not read this one's programs."""
    main(["arena", "--folder", str(folder)])  # all is imported
    for whose in ("the folder", "a file"):
        with tempfile.TemporaryDirectory(prefix="pgsession-") as theirs, tempfile.TemporaryFile("w+") as said:
            if whose == "a file":
                Path(theirs).chmod(0o755)
                (Path(theirs) / "a.arena").touch(0o600)
            child = os.fork()
            if not child:
                try:
                    sys.stdout = sys.stderr = said
                    os.seteuid(65534)
                    print(main(["arena", "--folder", theirs]), flush=True)
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            said.seek(0)
            text = said.read()
            assert "of the user with uid 0" in text and text.endswith(("\n1\n", "\n3\n")), text


def test_the_command_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arena", "--folder", str(tmp_path / "nothing")]) == 0
    assert "no cache is shared" in capsys.readouterr().out
