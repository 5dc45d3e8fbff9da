"""What `restore` does with files: deep trees, odd names, modes that are in its way, what it says when it fails."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from past_image import PastImage, found, made, make

from hammerfs.cli import undo
from hammerfs.cli.differences import print_differences
from hammerfs.cli.looking_back import MountedPast
from hammerfs.cli.main import main
from hammerfs.cli.moment import tid_text
from hammerfs.cli.past import READ_SIZE
from hammerfs.cli.restore import Plan, _bring_back
from hammerfs.cli.treecopy import pieces_of
from hammerfs.cli.treeremove import remove_tree
from hammerfs.fs.mount import FileSystem
from hammerfs.ops.progress import SilentProgress

pytestmark = pytest.mark.usefixtures("utc")

Capture = pytest.CaptureFixture[str]
DEPTH = 1200
NOBODY = 65534


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> PastImage:
    return make(tmp_path_factory.mktemp("past") / "past.img")


def bring_back(source: Path, target: Path) -> None:
    """From one place of an ordinary file system to another, in the place of what stands there."""
    brought(MountedPast(), source, target, force=True)


def brought(past: MountedPast, source: Path, target: Path, *, force: bool = False) -> Path:
    """Where it went."""
    plan = Plan(past, 0x10, str(source), target, os.path.lexists(target), None)
    return _bring_back(plan, SilentProgress(), force=force)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """The place of `source`, a tree that is deeper than Python calls; what is made there goes in the end."""
    place = tmp_path / "deep"
    folder = place / "source"
    folder.mkdir(parents=True)
    here = os.open(folder, os.O_DIRECTORY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    os.utime(here, (0, 1_000_000_000))
    os.close(here)
    os.utime(folder, (0, 1_000_000_000))
    yield place
    assert remove_tree(place) == []


def test_a_tree_that_is_deeper_than_python_calls(deep: Path) -> None:
    target = deep / "target"
    for _ in range(2):  # the second time there is one to be replaced
        bring_back(deep / "source", target)
        assert sorted(path.name for path in deep.iterdir()) == ["source", "target"]
        for path in (target, target.joinpath(*["d"] * DEPTH)):
            assert path.stat().st_mtime == 1_000_000_000


def test_differences_of_a_tree_that_is_deeper_than_python_calls(deep: Path, capsys: Capture) -> None:
    (deep / "now").mkdir()
    print_differences(MountedPast(), str(deep / "now"), str(deep / "source"))
    lines = capsys.readouterr().out.splitlines()
    only = [line for line in lines if line.startswith("only then: ")]
    assert len(only) == DEPTH
    assert only[0].endswith("/now/d (directory)")


# --- what is in the way of a removal --------------------------------------------------------------


def as_nobody(action: Callable[[], None]) -> None:
    """Run something in a process without privileges."""

    def without_privileges() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        action()

    in_a_child(without_privileges)


def in_a_child(action: Callable[[], None]) -> None:
    """Run something in a process of its own, whose assertions count."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of nobody's, which is the current one, since the way to it is not open to all."""
    place = tmp_path / "own"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    monkeypatch.chdir(place)
    return place


def read_only(folder: Path) -> None:
    """A tree whose directories cannot be changed, nor one of them read."""
    (folder / "inner" / "closed").mkdir(parents=True)
    (folder / "inner" / "file").write_text("x\n")
    (folder / "inner" / "closed" / "file").touch()
    for path, mode in ((folder / "inner" / "closed", 0), (folder / "inner", 0o500), (folder, 0o500)):
        path.chmod(mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_directories_that_are_read_only_are_replaced_by_their_owner(own: Path) -> None:
    def action() -> None:
        read_only(Path("target"))
        Path("source").mkdir()
        bring_back(Path("source"), Path("target"))

    as_nobody(action)
    assert {path.name for path in own.iterdir()} == {"source", "target"}
    assert list((own / "target").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_an_error_is_not_hidden_by_what_cannot_be_removed(own: Path) -> None:
    def action() -> None:
        read_only(Path("source"))
        Path("source").chmod(0o700)
        Path("source", "before").mkdir()
        Path("source", "before", "file").touch()
        Path("source", "before").chmod(0o500)
        with pytest.raises(PermissionError, match=r"source/inner/closed'$"):
            bring_back(Path("source"), Path("target"))

    as_nobody(action)
    assert {path.name for path in own.iterdir()} == {"source"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_what_is_left_of_what_was_replaced_is_told(own: Path, capfd: Capture) -> None:
    foreign = own / "target" / "foreign"
    foreign.mkdir(parents=True)
    (foreign / "one").touch()
    (foreign / "two").touch()
    os.chown(own / "target", NOBODY, NOBODY)

    def action() -> None:
        Path("target", "mine").touch()
        Path("source").mkdir()
        bring_back(Path("source"), Path("target"))

    as_nobody(action)
    assert list((own / "target").iterdir()) == []
    (left,) = own.glob(".target.restoring-*")
    assert {path.name for path in left.rglob("*")} == {"replaced", "foreign", "one", "two"}
    told = capfd.readouterr().err
    assert told.startswith(f"hammerfs: {left.name} could not be removed as a whole: {left.name}/replaced/foreign/")
    assert told.endswith(": Permission denied (2 names in all)\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_what_is_mounted_in_what_goes_is_left_alone(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "source").mkdir()
    mounted = tmp_path / "target" / "inner"
    mounted.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mounted)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (mounted / "file").touch()
        (left,) = remove_tree(tmp_path / "target")
        assert str(left).endswith(f"another file system is mounted there: '{mounted}'")
        assert (mounted / "file").exists()
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 255, "\u20ac" * 85, os.fsdecode(b"\xff" * 255)], ids=["short", "wide", "odd"])
def test_a_name_of_255_bytes_comes_back(
    name: str, tmp_path: Path, image: PastImage, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / name
    words = ["restore", "-f", str(image.path), "--tid", tid_text(image.states["first"]), "--to", str(target)]
    for more in ([], [], [], ["--force"]):
        assert main([*words, *more, "/folder/kept"]) == 0
        assert target.read_text() == "one\n"
    assert capfd.readouterr().out.count("restored") == 4
    beside = sorted(os.listdir(os.fsencode(tmp_path)))
    beside.remove(os.fsencode(name))
    assert len(beside) == 2
    for name_beside in beside:
        assert 250 < len(name_beside) <= 255
        front, _, _ = os.fsdecode(name_beside).partition(".0x")
        assert name.startswith(front)


# --- errors ---------------------------------------------------------------------------------------


class Failing(MountedPast):
    """Files that can be read for a while."""

    def content(self, path: str, offset: int = 0) -> Iterator[bytes]:
        yield from super().content(path, offset)
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_file_that_finds_no_room_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 2_000_000)

    def action() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        with pytest.raises(OSError, match=r"File too large: '.*/\.target\.restoring-[0-9a-f]+/made'$"):
            bring_back(source, tmp_path / "target")

    in_a_child(action)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    with pytest.raises(OSError, match=f"error: '{source}'$"):
        brought(Failing(), source, tmp_path / "target")


# --- what others do meanwhile ----------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("of the past\n")
    return folder


class Meanwhile(MountedPast):
    """Something happens as soon as a file is read."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    def content(self, path: str, offset: int = 0) -> Iterator[bytes]:
        action, self._action = self._action, None
        if action is not None:
            action()
        yield from super().content(path, offset)


@pytest.mark.parametrize("what", ["inner", "inner/file"])
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_comes_meanwhile_is_not_replaced_unasked(what: str, kind: str, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"

    def come() -> None:
        if kind == "file":
            target.write_text("new\n")
            return
        target.mkdir()
        (target / "new").touch()

    beside = brought(Meanwhile(come), source / what, target)
    assert beside == tmp_path / "target.0x0000000000000010"
    assert beside.is_dir() == (what == "inner")
    assert target.read_text() == "new\n" if kind == "file" else os.listdir(target) == ["new"]
    assert {path.name for path in tmp_path.iterdir()} == {"source", "target", beside.name}


def test_who_owns_the_place_leads_nothing_elsewhere(source: Path, tmp_path: Path) -> None:
    """He may rename what is made in his directory, and put a symlink there, or a folder of his own."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = tmp_path / "place"
    place.mkdir()

    def swap() -> None:
        (made,) = place.iterdir()
        made.rename(place / "away")
        made.symlink_to(elsewhere)

    brought(Meanwhile(swap), source, place / "target")
    assert list(elsewhere.iterdir()) == []
    assert (place / "target" / "inner" / "file").read_text() == "of the past\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_nothing_is_made_in_a_folder_of_somebody_else(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    real = os.mkdir

    def mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(path, mode, dir_fd=dir_fd)
        if ".restoring-" in path:
            os.chown(path, NOBODY, NOBODY, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(OSError, match="a folder made there belongs to somebody else"):
        brought(MountedPast(), source, place / "target")
    assert list(place.iterdir()) == []


def test_undo_writes_through_no_symlink_that_lies_there(
    image: PastImage, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "victim").write_text("mine\n")
    (tmp_path / "folder" / "kept.undo.0000").symlink_to(tmp_path / "victim")
    assert undo.main(["-f", str(image.path), "-u", "folder/kept"]) == 2
    assert "folder/kept.undo.0000: Too many levels of symbolic links" in capsys.readouterr().err
    assert (tmp_path / "victim").read_text() == "mine\n"


def test_copies_for_diff_stay_in_their_folder_and_go(
    image: PastImage, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "deep" / "tmp"))
    (tmp_path / "deep" / "tmp").mkdir(parents=True)
    assert undo.main(["-f", str(image.path), "-d", "/../../folder/kept"]) == 0
    assert "+ONE" in capsys.readouterr().out
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "tmp"]


def test_an_index_of_many_digits_is_no_version(image: PastImage, capsys: Capture) -> None:
    assert undo.main(["-f", str(image.path), "-t", "9" * 5000, "/folder/kept"]) == 2
    assert "is no transaction id" in capsys.readouterr().err


# --- differences ----------------------------------------------------------------------------------


def shown(now: Path, then: Path, capfd: pytest.CaptureFixture[bytes]) -> bytes:
    print_differences(MountedPast(), str(now), str(then))
    return capfd.readouterr().out


def test_nothing_is_looked_at_through_a_symlink_in_the_way(tmp_path: Path, capsys: Capture) -> None:
    elsewhere, then = tmp_path / "elsewhere", tmp_path / "then"
    for folder, content in ((elsewhere, "of somebody else\n"), (then, "mine\n")):
        (folder / "inner").mkdir(parents=True)
        (folder / "file").write_text(content)
        (folder / "inner" / "file").write_text(content)
    now = tmp_path / "now"
    now.symlink_to(elsewhere)
    print_differences(MountedPast(), str(now), str(then))
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(("---", "+++", "@@"))]
    assert lines == [
        f"{now}: symlink -> directory",
        f"only then: {now}/file (file)",
        "+mine",
        f"only then: {now}/inner (directory)",
        f"only then: {now}/inner/file (file)",
        "+mine",
    ]


BEFORE = b"one\r\ntwo\x0cand\x1c\xc2\x85half\n\tthree\r"
AFTER = b"one\r\ntwo\x0cand\x1c\xc2\x85more\n\tthree\x1b[2J\n\xff\n"


def test_shown_differences_are_taken_by_patch(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    now, then = tmp_path / "now", tmp_path / "then"
    now.write_bytes(BEFORE)
    then.write_bytes(AFTER)
    told = shown(now, then, capfdbinary)
    words = ["diff", "-u", str(now), str(then)]
    done = subprocess.run(words, capture_output=True, check=False)
    assert told.split(b"\n")[2:] == done.stdout.split(b"\n")[2:]
    if shutil.which("patch"):
        subprocess.run(["patch", "--binary", str(now)], input=told, check=True, stdout=subprocess.DEVNULL)
        assert now.read_bytes() == AFTER


def test_shown_differences_give_a_terminal_no_orders(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, then = tmp_path / "now", tmp_path / "then"
    now.write_bytes(BEFORE)
    then.write_bytes(AFTER)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert shown(now, then, capfdbinary).split(b"\n")[3:] == [
        rb" one\x0d",
        rb"-two\x0cand\x1c\x85half",
        b"-\tthree\\x0d",
        b"\\ No newline at end of file",
        rb"+two\x0cand\x1c\x85more",
        b"+\tthree\\x1b[2J",
        b"+\xff",
        b"",
    ]


# --- undo -----------------------------------------------------------------------------------------

ODD = "-z\x1b[2J"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> PastImage:
    """Files in the root whose names are no good words of a command line."""

    def _one(fs: FileSystem) -> None:
        made(fs, fs.root, b"-z", b"one\n")
        made(fs, fs.root, ODD.encode(), b"one\x1b\n")
        made(fs, fs.root, b"dir")

    def _two(fs: FileSystem) -> None:
        fs.write(found(fs, b"-z"), 0, b"two\n")
        fs.write(found(fs, ODD.encode()), 0, b"two\x1b\n")
        fs.symlink(found(fs, b"dir"), b"dangling", b"nowhere", 0, 0)
        made(fs, found(fs, b"dir"), b"file", b"new\n")

    return make(tmp_path_factory.mktemp("odd") / "odd.img", steps=[(_one, 10), (_two, 10)])


def told_by_undo(image: PastImage, capfd: Capture, *words: str, code: int = 0) -> tuple[str, str]:
    assert undo.main(["-f", str(image.path), *words]) == code
    return capfd.readouterr()


def test_a_path_that_looks_like_an_option_of_diff(odd: PastImage, capfd: Capture) -> None:
    out, err = told_by_undo(odd, capfd, "-d", "--", "-z")
    assert out.splitlines()[-2:] == ["-one", "+two"]
    assert err == ""


def test_what_diff_cannot_look_at_is_told_and_the_rest_shown(odd: PastImage, capfd: Capture) -> None:
    out, err = told_by_undo(odd, capfd, "-d", "-t", tid_text(odd.states["one"]), "/dir", code=2)
    assert out.splitlines()[-1] == "+new"
    assert err.startswith("undo: diff: dir/dangling: No such file or directory")
    assert err.count("\n") == 1


def test_a_diff_that_fails_is_told(
    odd: PastImage, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "diff"
    broken.write_text("#!/bin/sh\necho half\necho diff: memory exhausted >&2\nexit 2\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    out, err = told_by_undo(odd, capfd, "-d", "--", "-z", "/dir/file", code=2)
    assert out.count("half\n") == 1
    assert err == "undo: diff: memory exhausted\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["-i"], 0),
        (["-d", "-o", "/dev/null"], 0),
        (["-D", "-o", "/dev/null"], 0),
        (["-a", "-v", "-o", "/dev/null/x"], 2),
        (["-t", "9"], 1),
        (["-t", "0x0000000000000020"], 1),
        (["-o", f"/nowhere/{ODD}"], 2),
        (["-t", ODD.removeprefix("-")], 2),
    ],
)
def test_names_give_a_terminal_no_orders(words: list[str], code: int, odd: PastImage, capfd: Capture) -> None:
    out, err = told_by_undo(odd, capfd, *words, f"/{ODD}", code=code)
    assert "\x1b" not in out + err
    assert r"z\x1b[2J" in out + err


def test_names_in_errors_give_a_terminal_no_orders(odd: PastImage, capfd: Capture) -> None:
    _, err = told_by_undo(odd, capfd, f"/{ODD}/no/such", code=2)
    assert r"z\x1b[2J" in err
    out, _ = told_by_undo(odd, capfd, f"/dir/{ODD}", code=1)
    assert out == "/dir/-z\\x1b[2J: No UNDO history found\n"


def test_contents_stay_what_they_are(odd: PastImage, capfd: Capture) -> None:
    out, _ = told_by_undo(odd, capfd, f"/{ODD}")
    assert out.partition("\n\n")[0].startswith("\n" r">>> /-z\x1b[2J 0000 0x")
    assert out.endswith("\n\none\x1b\n")


def test_an_output_that_takes_no_more_is_named(odd: PastImage, capfd: Capture) -> None:
    _, err = told_by_undo(odd, capfd, "-o", "/dev/full", "--", "-z", code=2)
    assert err == "undo: /dev/full: No space left on device\n"


# --- holes ----------------------------------------------------------------------------------------


def test_of_a_sparse_file_only_the_data_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def _sparse(fs: FileSystem) -> None:
        file = made(fs, fs.root, b"sparse", b"begin")
        fs.write(file, 1 << 40, b"middle")
        fs.setattr(file, size=3 << 40)

    def _remove(fs: FileSystem) -> None:
        fs.unlink(fs.root, b"sparse")

    image = make(tmp_path / "image", steps=[(_sparse, 10), (_remove, 10)])
    target = tmp_path / "back"
    assert main(["restore", "-f", str(image.path), "--to", str(target), "/sparse"]) == 0
    status = target.stat()
    assert status.st_size == 3 << 40
    assert status.st_blocks * 512 <= 256 * 1024
    with target.open("rb") as file:
        assert file.read(8) == b"begin\0\0\0"
        file.seek(1 << 40)
        assert file.read(8) == b"middle\0\0"


def test_data_with_short_holes_between_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Holed(MountedPast):
        asked: ClassVar[list[int]] = []

        def ranges(self, path: str) -> list[tuple[int, int]]:
            return [(start, start + 16384) for start in [*range(0, 8 << 20, 65536), 64 << 20]]

        def content(self, path: str, offset: int = 0) -> Iterator[bytes]:
            self.asked.append(offset)
            while True:
                yield b"x" * READ_SIZE

    pieces = list(pieces_of(Holed(), "file", 80 << 20))
    assert Holed.asked == [0, 64 << 20]
    assert sum(len(piece) for _, piece in pieces) == (8 << 20) - 65536 + 2 * 16384
    assert pieces[-1] == (64 << 20, b"x" * 16384)


def test_what_cannot_be_compared_is_told_and_brought_back_all_the_same(
    source: Path, tmp_path: Path, capsys: Capture
) -> None:
    class Unreadable(MountedPast):
        def content(self, path: str, offset: int = 0) -> Iterator[bytes]:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    now = tmp_path / "now"
    now.mkdir()
    print_differences(Unreadable(), str(now), str(source / "inner"))
    file = source / "inner" / "file"
    assert capsys.readouterr().out == f"only then: {now}/file (file)\n{now}/file: {file}: Input/output error\n"


def test_of_large_files_it_is_told_that_they_differ(tmp_path: Path, capsys: Capture) -> None:
    for name, end in (("now", b"a"), ("then", b"b")):
        with (tmp_path / name).open("wb") as file:
            file.truncate(20_000_000)
            file.seek(0, os.SEEK_END)
            file.write(end)
    print_differences(MountedPast(), str(tmp_path / "now"), str(tmp_path / "then"))
    assert capsys.readouterr().out == f"{tmp_path}/now: contents differ, 20000001 -> 20000001 bytes\n"
