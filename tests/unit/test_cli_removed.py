"""What was in a directory that is gone: how `restore` finds all of it, and what `log`, `undo` and `ls` know of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from past_image import PastImage, Step, found, made, make

from hammerfs.cli import progress, undo
from hammerfs.cli.main import main
from hammerfs.cli.moment import tid_text
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem

pytestmark = pytest.mark.usefixtures("utc")

Capture = pytest.CaptureFixture[str]
FILES = 30


def _begin(fs: FileSystem) -> None:
    """/proj with thirty files and a directory with thirty more."""
    proj = made(fs, fs.root, b"proj")
    inner = made(fs, proj, b"inner")
    for folder in (proj, inner):
        for number in range(FILES):
            made(fs, folder, b"f%d" % number, b"%d\n" % number)
    fs.link(found(fs, b"proj", b"inner", b"f0"), proj, b"link")


def removes(way: tuple[bytes, ...], numbers: range) -> Step:
    def remove(fs: FileSystem) -> None:
        folder = found(fs, *way)
        for number in numbers:
            fs.unlink(folder, b"f%d" % number)

    return remove


def _end(fs: FileSystem) -> None:
    fs.unlink(found(fs, b"proj"), b"link")
    fs.rmdir(found(fs, b"proj"), b"inner")
    fs.rmdir(fs.root, b"proj")


INNER, PROJ = (b"proj", b"inner"), (b"proj",)
REMOVAL: list[tuple[Step, int]] = [
    (removes(INNER, range(20)), 5),
    (removes(INNER, range(20, FILES)), 5),
    (removes(PROJ, range(25)), 50),
    (removes(PROJ, range(25, FILES)), 5),
    (_end, 5),
]


def restored(path: Path, steps: list[tuple[Step, int]], *words: str, what: str = "/proj") -> set[str]:
    """The names that come back of /proj after these steps."""
    path.mkdir(exist_ok=True)
    image = make(path / "image", steps=steps)
    assert main(["restore", "-f", str(image.path), "--to", str(path / "back"), *words, what]) == 0
    return {str(name.relative_to(path / "back")) for name in (path / "back").rglob("*")}


WHOLE = {f"f{number}" for number in range(FILES)} | {f"inner/f{number}" for number in range(FILES)} | {"inner", "link"}


@pytest.mark.parametrize("words", [[], ["--before-delete"]])
def test_a_removal_that_took_many_flushes_is_undone_as_a_whole(
    words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert restored(tmp_path, [(_begin, 10), *REMOVAL], *words) == WHOLE
    back = tmp_path / "back"
    assert (back / "inner" / "f7").read_text() == "7\n"
    assert (back / "link").samefile(back / "inner" / "f0")
    out = capsys.readouterr().out
    assert out.startswith("restored /proj@@0x")
    assert ", as it was before 62 names went from 14-Nov-2023 22:13:35 to 22:14:40, as " in out


@pytest.mark.parametrize(
    "ways",
    [[(INNER, range(20)), (PROJ, range(7))], [(INNER, range(3))], [(PROJ, range(FILES))]],
    ids=["inside and above", "inside", "above"],
)
def test_a_removal_that_was_broken_off_is_undone_as_well(
    ways: list[tuple[tuple[bytes, ...], range]], tmp_path: Path, capsys: Capture
) -> None:
    """^C while `rm -r` runs leaves the directory, with what was not removed yet."""
    steps = [(removes(way, numbers), 20) for way, numbers in ways]
    assert restored(tmp_path, [(_begin, 10), *steps], "--before-delete") == WHOLE
    count = sum(len(numbers) for _, numbers in ways)
    assert f", as it was before {count} names went from 14-Nov-2023 22:" in capsys.readouterr().out
    assert main(["restore", "-f", str(tmp_path / "image"), "--to", str(tmp_path / "x"), "/proj"]) == 2
    assert "or by --before-delete" in capsys.readouterr().err


def test_of_two_removals_the_last_one_is_undone(tmp_path: Path, capsys: Capture) -> None:
    gone = {f"f{number}" for number in range(5)} | {f"inner/f{number}" for number in range(5)}
    first = [(_begin, 10), (removes(PROJ, range(5)), 20), (removes(INNER, range(5)), 5)]
    assert restored(tmp_path / "1", [*first, (removes(INNER, range(5, 8)), 300)], "--before-delete") == WHOLE - gone
    out = capsys.readouterr().out
    assert "before 3 names went" in out
    assert "(10 more had gone before)" in out


def test_a_directory_that_went_and_came_back_is_looked_into(tmp_path: Path, capsys: Capture) -> None:
    anew = [(_begin, 10), *REMOVAL, (_begin, 300)]
    assert restored(tmp_path / "1", [*anew, (removes(PROJ, range(4)), 5)], "--before-delete") == WHOLE
    assert "before 4 names went" in capsys.readouterr().out
    assert restored(tmp_path / "2", anew, "--before-delete") == WHOLE
    assert "before 62 names went" in capsys.readouterr().out


def test_where_nothing_ever_went_there_is_nothing_to_undo(tmp_path: Path, capsys: Capture) -> None:
    image = make(tmp_path / "image", steps=[(_begin, 10)])
    words = ["restore", "-f", str(image.path), "--to", str(tmp_path / "back"), "--before-delete"]
    assert main([*words, "/proj"]) == main([*words, "/proj/f3"]) == 2
    assert capsys.readouterr().err.count("was not deleted; --tid and --time bring back") == 2


def test_a_removal_is_told_to_programs(tmp_path: Path, capsys: Capture) -> None:
    image = make(tmp_path / "image", steps=[(_begin, 10), *REMOVAL])
    words = ["restore", "-f", str(image.path), "-n", "--json", "--to", str(tmp_path / "back"), "/proj"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["removal"]["names"] == 62
    assert told["removal"]["end_seconds"] - told["removal"]["begin_seconds"] == 65
    assert told["tid"] < told["removal"]["begin_tid"] < told["removal"]["end_tid"]
    assert told["source"] == f"/proj@@{told['tid']}"


def test_a_long_restore_tells_how_far_it_is(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    restored(tmp_path, [(_begin, 10), *REMOVAL])
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "restoring: 1%"
    assert told[-1] == "restoring: 100%"
    assert len(told) == 63


def test_what_went_long_before_stays_away(tmp_path: Path) -> None:
    early = [(removes(INNER, range(20)), 5), (removes(INNER, range(20, FILES)), 70)]
    assert restored(tmp_path, [(_begin, 10), *early, *REMOVAL[2:]]) == WHOLE - {
        f"inner/f{number}" for number in range(20)
    }


def test_a_directory_in_use_is_not_followed_back_for_ever(tmp_path: Path) -> None:
    def spools(numbers: range) -> Step:
        def _spool(fs: FileSystem) -> None:
            for number in numbers:
                made(fs, found(fs, b"proj"), b"f%d" % number, b"x")

        return _spool

    older, newer = range(200, 220), range(100, 120)
    before: list[tuple[Step, int]] = [
        (spools(older), 5),
        (removes(PROJ, older), 5),
        (spools(newer), 5),
        (removes(PROJ, newer), 5),
    ]
    # Nothing tells the last names that went from those that went with the directory.
    assert restored(tmp_path, [(_begin, 10), *before, *REMOVAL]) == WHOLE | {f"f{number}" for number in newer}


def test_what_changed_meanwhile_comes_back_as_it_was_last(tmp_path: Path) -> None:
    def _change(fs: FileSystem) -> None:
        file = found(fs, b"proj", b"f29")
        fs.write(file, 0, b"last words\n")
        made(fs, found(fs, b"proj"), b"young", b"young\n")
        removes(INNER, range(25, FILES))(fs)

    steps = [REMOVAL[0], (removes(INNER, range(20, 25)), 5), (_change, 5)]

    def _end_of_young(fs: FileSystem) -> None:
        fs.unlink(found(fs, b"proj"), b"young")
        _end(fs)

    assert restored(tmp_path, [(_begin, 10), *steps, *REMOVAL[2:4], (_end_of_young, 5)]) == WHOLE | {"young"}
    assert (tmp_path / "back" / "f29").read_text() == "last words\n"
    assert (tmp_path / "back" / "young").read_text() == "young\n"


def test_a_directory_that_was_renamed_while_it_went_comes_back_under_its_last_name(tmp_path: Path) -> None:
    def _rename(fs: FileSystem) -> None:
        removes(INNER, range(10))(fs)
        fs.rename(found(fs, b"proj"), b"inner", found(fs, b"proj"), b"renamed")

    def _rest(fs: FileSystem) -> None:
        removes((b"proj", b"renamed"), range(10, FILES))(fs)
        fs.unlink(found(fs, b"proj"), b"link")
        fs.rmdir(found(fs, b"proj"), b"renamed")
        removes(PROJ, range(FILES))(fs)
        fs.rmdir(fs.root, b"proj")

    back = restored(tmp_path, [(_begin, 10), (_rename, 5), (_rest, 5)])
    assert back == {name.replace("inner", "renamed") for name in WHOLE}
    assert (tmp_path / "back" / "renamed" / "f3").read_text() == "3\n"


def _remove_all(*way: bytes) -> Step:
    """As `rm -r`."""

    def empty(fs: FileSystem, folder: Inode) -> None:
        for entry in list(fs.readdir(folder, 0)):
            inode = fs.lookup(folder, entry.name)
            if inode.is_directory:
                empty(fs, inode)
                fs.rmdir(folder, entry.name)
            else:
                fs.unlink(folder, entry.name)

    def remove(fs: FileSystem) -> None:
        empty(fs, found(fs, *way))
        fs.rmdir(found(fs, *way[:-1]), way[-1])

    return remove


def renames(old: tuple[bytes, ...], new: tuple[bytes, ...]) -> Step:
    def rename(fs: FileSystem) -> None:
        fs.rename(found(fs, *old[:-1]), old[-1], found(fs, *new[:-1]), new[-1])

    return rename


def test_a_directory_within_that_went_in_the_same_flush_comes_back_whole(tmp_path: Path) -> None:
    steps = [(_begin, 10), (removes(INNER, range(20)), 5), (_remove_all(b"proj"), 5)]
    assert restored(tmp_path, steps, what="/proj/inner") == {f"f{number}" for number in range(FILES)}


def test_a_name_that_came_late_does_not_end_the_search(tmp_path: Path, capsys: Capture) -> None:
    """As where rm finds a directory not empty, and is called again."""

    def _late(fs: FileSystem) -> None:
        made(fs, found(fs, b"proj"), b"late", b"late\n")

    assert restored(tmp_path, [(_begin, 10), *REMOVAL[:2], (_late, 5), (_remove_all(b"proj"), 5)]) == WHOLE | {"late"}
    assert "more had gone" not in capsys.readouterr().out


def test_what_had_gone_long_before_is_counted(tmp_path: Path, capsys: Capture) -> None:
    restored(tmp_path, [(_begin, 10), (removes(INNER, range(20)), 5), (_remove_all(b"proj"), 70)])
    assert " (20 more had gone before), as " in capsys.readouterr().out


def test_a_directory_that_was_moved_out_before_is_not_part_of_it(tmp_path: Path) -> None:
    def _later(fs: FileSystem) -> None:
        removes((b"keep",), range(5))(fs)

    steps = [(_begin, 10), (renames(INNER, (b"keep",)), 5), (removes(PROJ, range(9)), 5), (_remove_all(b"proj"), 5)]
    names = {name for name in WHOLE if not name.startswith("inner")}
    assert restored(tmp_path, [*steps, (_later, 5)]) == names


def test_what_went_before_a_directory_was_moved_in_is_not_part_of_it(tmp_path: Path) -> None:
    def _outside(fs: FileSystem) -> None:
        made(fs, made(fs, fs.root, b"sub"), b"f0", b"x")
        made(fs, found(fs, b"sub"), b"f1", b"x")

    steps = [(_begin, 5), (_outside, 5), (removes((b"sub",), range(1)), 5), (renames((b"sub",), (b"proj", b"sub")), 5)]
    back = restored(tmp_path, [*steps, (removes(PROJ, range(9)), 5), (_remove_all(b"proj"), 5)])
    assert back == WHOLE | {"sub", "sub/f1"}


def test_what_was_put_into_a_bin_first_comes_back(tmp_path: Path) -> None:
    """The removal begins in the very flush that gives the directory its last name."""

    def _throw_away(fs: FileSystem) -> None:
        renames(PROJ, (b"bin",))(fs)
        removes((b"bin", b"inner"), range(20))(fs)

    back = restored(tmp_path, [(_begin, 10), (_throw_away, 5), (_remove_all(b"bin"), 5)], what="/bin")
    assert back == WHOLE
    assert (tmp_path / "back" / "inner" / "f3").read_text() == "3\n"


def test_directories_that_were_renamed_again_and_again(tmp_path: Path) -> None:
    steps: list[tuple[Step, int]] = [(_begin, 10), (removes(INNER, range(5)), 5)]
    for old, new, number in ((b"inner", b"two", 5), (b"two", b"three", 10), (b"three", b"four", 15)):
        steps += [(renames((b"proj", old), (b"proj", new)), 5), (removes((b"proj", new), range(number, number + 5)), 5)]
    back = restored(tmp_path, [*steps, (_remove_all(b"proj"), 5)])
    assert back == {name.replace("inner", "four") for name in WHOLE}
    assert (tmp_path / "back" / "four" / "f3").read_text() == "3\n"


def test_of_two_names_of_a_file_the_last_contents_come_back(tmp_path: Path) -> None:
    def _write(fs: FileSystem) -> None:
        fs.write(found(fs, b"proj", b"link"), 0, b"the newest\n")

    restored(tmp_path, [(_begin, 10), (removes(INNER, range(1)), 5), (_write, 5), (_remove_all(b"proj"), 5)])
    first, second = (tmp_path / "back" / name for name in ("inner/f0", "link"))
    assert first.samefile(second)
    assert first.read_text() == "the newest\n"


def test_names_that_a_file_had_while_it_was_written_do_not_come_back(tmp_path: Path) -> None:
    def saves(number: int) -> Step:
        def _save(fs: FileSystem) -> None:
            made(fs, found(fs, b"proj"), b"f.tmp%d" % number, b"save %d\n" % number)

        return _save

    steps: list[tuple[Step, int]] = [(_begin, 10)]
    for number in range(3):
        steps += [(saves(number), 5), (renames((b"proj", b"f.tmp%d" % number), (b"proj", b"f7")), 5)]
    assert restored(tmp_path, [*steps, *REMOVAL]) == WHOLE
    assert (tmp_path / "back" / "f7").read_text() == "save 2\n"


def test_times_come_back(tmp_path: Path) -> None:
    """A path into the past shows when a version was made; the time that a user gave a file stands in its record."""

    def _touch(fs: FileSystem) -> None:
        fs.setattr(found(fs, b"proj", b"f3"), mtime_us=1_000_000_000_000_000)
        fs.setattr(found(fs, b"proj", b"inner", b"f4"), mtime_us=1_000_000_001_000_000)

    steps = [(_begin, 10), (_touch, 10), *REMOVAL]
    restored(tmp_path, steps)
    assert (tmp_path / "back" / "f3").stat().st_mtime == 1_000_000_000
    assert (tmp_path / "back" / "inner" / "f4").stat().st_mtime == 1_000_000_001
    (tmp_path / "one").mkdir()
    image = make(tmp_path / "one" / "image", steps=[*steps[:2], (removes(PROJ, range(5)), 5)])
    assert main(["restore", "-f", str(image.path), "--to", str(tmp_path / "one" / "f3"), "/proj/f3"]) == 0
    assert (tmp_path / "one" / "f3").stat().st_mtime == 1_000_000_000


# --- one file of it -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def anew(tmp_path_factory: pytest.TempPathFactory) -> PastImage:
    """/proj/inner/f1, which was there twice, in two directories; neither is there any more, and a third one is."""

    def _again(fs: FileSystem) -> None:
        inner = made(fs, made(fs, fs.root, b"proj"), b"inner")
        made(fs, inner, b"f1", b"of the second\n")
        fs.symlink(inner, b"sym", b"f1", 0, 0)

    def _remove(fs: FileSystem) -> None:
        removes(INNER, range(1, 2))(fs)
        fs.unlink(found(fs, *INNER), b"sym")
        fs.rmdir(found(fs, *PROJ), b"inner")
        fs.rmdir(fs.root, b"proj")

    def _third(fs: FileSystem) -> None:
        fs.symlink(made(fs, fs.root, b"proj"), b"up", b"../way/./", 0, 0)
        fs.symlink(fs.root, b"way", b"/proj", 0, 0)

    steps = [(_begin, 10), *REMOVAL, (_again, 100), (_remove, 100), (_third, 100)]
    return make(tmp_path_factory.mktemp("anew") / "image", steps=steps)


def command(image: PastImage, verb: str, *words: str, code: int = 0) -> None:
    assert main([verb, "-f", str(image.path), *words]) == code


def test_the_log_of_a_name_in_directories_that_are_gone(anew: PastImage, capsys: Capture) -> None:
    command(anew, "log", "/proj/inner/f1")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == ["folder,", "removed", "created", "folder,", "removed", "created"]
    last = tid_text(anew.states["remove"] - 1)
    assert lines[0] == f"in an earlier folder, /proj@@{last}/inner/f1:"


@pytest.mark.parametrize("path", ["/way/inner/f1", "way/../proj//inner/f1", "/proj/up/inner/f1"])
def test_a_way_by_symlinks_leads_to_the_same_log(path: str, anew: PastImage, capsys: Capture) -> None:
    command(anew, "log", "/proj/inner/f1")
    expected = capsys.readouterr().out
    command(anew, "log", path)
    assert capsys.readouterr().out == expected


def test_a_directory_that_a_symlink_stands_in_the_place_of(tmp_path: Path, capsys: Capture) -> None:
    def _swap(fs: FileSystem) -> None:
        _remove_all(b"proj")(fs)
        made(fs, fs.root, b"other")
        fs.symlink(fs.root, b"proj", b"other", 0, 0)

    image = make(tmp_path / "image", steps=[(_begin, 10), (_swap, 10)])
    command(image, "log", "/proj/inner/f1")
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()] == ["folder,", "removed", "created"]
    command(image, "restore", "--to", str(tmp_path / "back"), "/proj/f2")
    assert (tmp_path / "back").read_text() == "2\n"


def test_a_name_that_reads_as_a_moment_comes_back_from_a_directory_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = b"f@@0x0000000000000001"

    def _odd(fs: FileSystem) -> None:
        made(fs, found(fs, b"proj"), name, b"odd\n")

    image = make(tmp_path / "image", steps=[(_begin, 10), (_odd, 10), (_remove_all(b"proj"), 10)])
    command(image, "restore", "--to", str(tmp_path / "back"), f"/proj/{name.decode()}")
    assert (tmp_path / "back").read_text() == "odd\n"


def test_undo_of_a_name_in_directories_that_are_gone(anew: PastImage, capsys: Capture) -> None:
    assert undo.main(["-f", str(anew.path), "-i", "/proj/inner/f1"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split(" ", 3)[2:] for line in lines] == [
        ["22:13:30"],
        ["22:13:35", "file-deleted"],
        ["22:16:20", "inode-change"],
    ]
    assert undo.main(["-f", str(anew.path), "-t", "1", "/proj/inner/f1"]) == 0
    assert capsys.readouterr().out.endswith("\n\nof the second\n")
    assert undo.main(["-f", str(anew.path), "-t", "3", "/proj/inner/f1"]) == 0
    assert capsys.readouterr().out.endswith("\n\n1\n")


def test_what_was_deleted_from_directories_that_are_gone(anew: PastImage, capsys: Capture) -> None:
    command(anew, "ls", "--deleted", "/proj/inner")
    out = capsys.readouterr().out.splitlines()
    headers = [line for line in out if line.endswith("inner:")]
    assert len(headers) == 2
    second = tid_text(anew.states["remove"] - 1)
    assert headers[0] == f"/proj@@{second}/inner:"
    assert len(out) == 2 + 2 + FILES
    command(anew, "ls", "--deleted", "/never", code=2)
    assert "/never: No such file or directory" in capsys.readouterr().err


def test_a_file_comes_back_from_a_directory_that_is_gone(anew: PastImage, tmp_path: Path) -> None:
    command(anew, "restore", "--to", str(tmp_path / "one"), "/proj/inner/f1")
    command(anew, "restore", "--to", str(tmp_path / "two"), "/proj/inner/f2")
    first = tid_text(anew.states["begin"])
    command(anew, "restore", "--tid", first, "--to", str(tmp_path / "three"), "/proj/inner/f1")
    command(anew, "restore", "--time", "2023-11-14T22:13:31", "--to", str(tmp_path / "four"), "/proj/inner/f1")
    read = [(tmp_path / name).read_text() for name in ("one", "two", "three", "four")]
    assert read == ["of the second\n", "2\n", "1\n", "1\n"]


def test_a_directory_that_another_took_the_place_of_comes_back(anew: PastImage, tmp_path: Path) -> None:
    command(anew, "restore", "--before-delete", "--to", str(tmp_path / "back"), "/proj")
    assert sorted(os.listdir(tmp_path / "back" / "inner")) == ["f1", "sym"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-t", "5", "/proj/inner/f1"], "/proj/inner/f1: there is no version 5, only 4 counted from 0"),
        (["-t", "0x0000000100000001", "/proj/inner/f1"], "Unable to access either /proj/inner/f1@@0x0000000100000001"),
        (
            ["-t", "0x0000000100000001", "-o", "OUT", "/proj"],
            "/proj@@0x0000000100000001: there was nothing of that name",
        ),
        (["/proj/inner/sym"], "is a symlink: 'hammerfs restore --tid 0x"),
        (["-t", "0", "/proj"], "is a directory: -d shows what changed"),
    ],
)
def test_undo_writes_nothing_where_there_is_no_file(
    words: list[str], sentence: str, anew: PastImage, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert undo.main(["-f", str(anew.path), *words]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert list(tmp_path.iterdir()) == []


def test_undo_lists_the_history_of_a_symlink(anew: PastImage, capsys: Capture) -> None:
    assert undo.main(["-f", str(anew.path), "-i", "/proj/inner/sym"]) == 0
    assert [line.split(" ", 3)[2:] for line in capsys.readouterr().out.splitlines()[1:]] == [["22:16:20"]]


# --- differences ----------------------------------------------------------------------------------


def test_all_differences_are_shown_before_something_is_replaced(
    anew: PastImage, tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "proj"
    (target / "f1").mkdir(parents=True)
    (target / "f2").write_text("\x1b[31mred\n")
    (target / "f2").chmod(0o600)
    (target / "young\x1b[0m").symlink_to("f2")
    (target / "inner").mkdir(0o755)
    (target / "inner" / "f3").symlink_to("nowhere")
    os.chown(target / "f2", 5, 6)
    command(anew, "restore", "--tid", tid_text(anew.states["begin"]), "--to", str(target), "-n", "/proj")
    out = capsys.readouterr().out.splitlines()
    for line in (
        f"{target}/f1: directory -> file",
        f"{target}/f2: mode 0600 -> 0755",
        f"{target}/f2: owner 5:6 -> 1000:1000",
        "+2",
        f"only now: {target}/young\\x1b[0m (symlink)",
        f"{target}/inner/f3: symlink -> file",
        f"only then: {target}/f4 (file)",
    ):
        assert line in out


def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)


@pytest.mark.parametrize(("prepare", "shown"), [(_terminal, "-\\x1b[31mred"), (lambda _: None, "-\x1b[31mred")])
def test_contents_give_a_terminal_no_orders(
    prepare: Callable[[pytest.MonkeyPatch], None],
    shown: str,
    anew: PastImage,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare(monkeypatch)
    (tmp_path / "file").write_text("\x1b[31mred\n")
    words = ["--tid", tid_text(anew.states["begin"]), "--to", str(tmp_path / "file"), "-n", "/proj/f2"]
    command(anew, "restore", *words)
    assert shown in capsys.readouterr().out.splitlines()
