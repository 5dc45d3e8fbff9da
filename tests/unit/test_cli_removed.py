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


def restored(path: Path, steps: list[tuple[Step, int]], *words: str) -> set[str]:
    """The names that come back of /proj after these steps."""
    image = make(path / "image", steps=steps)
    assert main(["restore", "-f", str(image.path), "--to", str(path / "back"), *words, "/proj"]) == 0
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
        made(fs, fs.root, b"proj")

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
        (["/proj/inner/sym"], "is a symlink: -d shows what changed"),
        (["/proj"], "is a directory: -d shows what changed"),
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
