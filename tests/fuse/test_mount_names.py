"""Names, links, directories and their listings through a real mount."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from hammer_mount import HammerMount
from syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, renameat2

pytestmark = pytest.mark.mount
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def refused(number: int) -> pytest.RaisesExc[OSError]:
    """The system call in the block fails with that errno."""
    return pytest.RaisesExc(OSError, check=lambda error: error.errno == number)


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# --- names --------------------------------------------------------------------------------------
def test_names_of_any_bytes_and_all_lengths(here: Path, module_mount: HammerMount) -> None:
    """Every byte but NUL and the slash, in names of 1 to 255 bytes, none of them UTF-8 on purpose."""
    every_byte = bytes(set(range(1, 256)) - {ord("/")})
    names = [every_byte, every_byte[::-1], b"\xff\xfe", b" ", b"\n", b"-rf", "grün".encode(), b"a" * 255]
    names += [bytes([byte]) * 3 for byte in every_byte]
    for name in names:
        with open(os.path.join(os.fsencode(here), name), "xb") as file:
            file.write(name)
    module_mount.remount()
    assert sorted(os.listdir(os.fsencode(here))) == sorted(names)
    for name in names:
        with open(os.path.join(os.fsencode(here), name), "rb") as file:
            assert file.read() == name


def test_a_name_of_256_bytes_is_too_long(here: Path) -> None:
    long = here / ("x" * 256)
    for call in (long.touch, long.mkdir, long.stat, lambda: long.symlink_to("x"), lambda: os.mkfifo(long)):
        with refused(errno.ENAMETOOLONG):
            call()


def test_what_exists_cannot_be_made_again(here: Path) -> None:
    (here / "name").mkdir()
    calls = {
        "open": lambda: os.open(here / "name", os.O_CREAT | os.O_EXCL),
        "mkdir": lambda: os.mkdir(here / "name"),
        "symlink": lambda: os.symlink("x", here / "name"),
        "mkfifo": lambda: os.mkfifo(here / "name"),
    }
    for call in calls.values():
        with refused(errno.EEXIST):
            call()
    (here / "file").touch()
    with refused(errno.EEXIST):
        os.link(here / "file", here / "name")


def test_an_absent_name_appears_when_it_is_made(here: Path) -> None:
    """The kernel remembers absent names for a day."""
    for make in (Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("x")):
        path = here / f"{make}"[-12:-1].replace("/", "")
        assert not os.path.lexists(path)
        make(path)
        assert os.path.lexists(path)
        path.rename(here / "moved")
        assert not os.path.lexists(path)
        (here / "moved").rename(path)
        assert os.path.lexists(path)


def test_a_file_is_no_directory(here: Path) -> None:
    (here / "file").touch()
    for call in ((here / "file" / "x").stat, (here / "file" / "x").touch, lambda: os.rmdir(here / "file")):
        with refused(errno.ENOTDIR):
            call()
    (here / "folder").mkdir()
    with refused(errno.EISDIR):
        os.unlink(here / "folder")
    with refused(errno.EISDIR):
        os.open(here / "folder", os.O_WRONLY)


# --- links --------------------------------------------------------------------------------------
def test_hard_links_are_one_file(here: Path, module_mount: HammerMount) -> None:
    (here / "a").write_bytes(b"one")
    (here / "d").mkdir()
    os.link(here / "a", here / "d" / "b")
    os.link(here / "d" / "b", here / "c")
    (here / "c").write_bytes(b"three")
    module_mount.remount()
    inodes = {(here / name).stat().st_ino for name in ("a", "d/b", "c")}
    assert len(inodes) == 1
    assert (here / "a").stat().st_nlink == 3
    (here / "a").unlink()
    (here / "c").unlink()
    assert (here / "d" / "b").stat().st_nlink == 1
    assert (here / "d" / "b").read_bytes() == b"three"
    with refused(errno.EPERM):
        os.link(here / "d", here / "e")


def test_symbolic_links_short_and_long(here: Path, module_mount: HammerMount) -> None:
    targets = ["x", "y" * 23, "y" * 24, "y" * 25, "/absolute/" + "z" * 1000, "l" * 4095]
    for number, target in enumerate(targets):
        (here / str(number)).symlink_to(target)
    module_mount.remount()
    assert [os.readlink(here / str(number)) for number in range(len(targets))] == targets
    assert [(here / str(number)).lstat().st_size for number in range(len(targets))] == list(map(len, targets))


def test_special_files_keep_type_and_number(here: Path, module_mount: HammerMount) -> None:
    os.mkfifo(here / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        # A socket's address is short, and the path of the mount may be long.
        before = Path.cwd()
        os.chdir(here)
        try:
            listener.bind("socket")
        finally:
            os.chdir(before)
    module_mount.remount()
    assert stat.S_ISFIFO((here / "fifo").stat().st_mode)
    assert stat.S_IMODE((here / "fifo").stat().st_mode) == 0o640
    assert stat.S_ISSOCK((here / "socket").stat().st_mode)


@needs_root
def test_device_nodes_keep_their_numbers(here: Path, module_mount: HammerMount) -> None:
    os.mknod(here / "char", 0o600 | stat.S_IFCHR, os.makedev(5, 1))
    os.mknod(here / "block", 0o600 | stat.S_IFBLK, os.makedev(259, 70_000))
    os.mknod(here / "regular", 0o600)
    module_mount.remount()
    assert stat.S_ISCHR((here / "char").stat().st_mode)
    assert (here / "char").stat().st_rdev == os.makedev(5, 1)
    assert stat.S_ISBLK((here / "block").stat().st_mode)
    assert (here / "block").stat().st_rdev == os.makedev(259, 70_000)
    assert stat.S_ISREG((here / "regular").stat().st_mode)


def test_a_fifo_connects_two_threads(here: Path) -> None:
    os.mkfifo(here / "fifo")
    writer = threading.Thread(target=(here / "fifo").write_bytes, args=(b"through",))
    writer.start()
    assert (here / "fifo").read_bytes() == b"through"
    writer.join()


@needs_root
def test_a_setgid_directory_hands_its_group_down(here: Path) -> None:
    os.chown(here, 0, 4321)
    here.chmod(0o2775)
    (here / "file").touch()
    (here / "folder").mkdir()
    (here / "folder" / "deeper").mkdir()
    (here / "link").symlink_to("file")
    for name in ("file", "folder", "folder/deeper", "link"):
        assert (here / name).lstat().st_gid == 4321, name
    assert (here / "folder" / "deeper").stat().st_mode & stat.S_ISGID
    assert not (here / "file").stat().st_mode & stat.S_ISGID


# --- renaming -----------------------------------------------------------------------------------
def test_rename_replaces_what_fits(here: Path, module_mount: HammerMount) -> None:
    (here / "a").write_bytes(b"a")
    (here / "b").write_bytes(b"b")
    (here / "a").rename(here / "b")
    (here / "d1").mkdir()
    (here / "d2").mkdir()
    (here / "d1" / "inside").touch()
    (here / "d1").rename(here / "d2")
    module_mount.remount()
    assert listing(here) == ["b", "d2"]
    assert (here / "b").read_bytes() == b"a"
    assert listing(here / "d2") == ["inside"]


def test_rename_refuses_what_does_not_fit(here: Path) -> None:
    (here / "file").touch()
    (here / "full").mkdir()
    (here / "full" / "x").touch()
    (here / "empty").mkdir()
    for source, target, number in (
        ("file", "empty", errno.EISDIR),
        ("empty", "file", errno.ENOTDIR),
        ("empty", "full", errno.ENOTEMPTY),
        ("full", "full/below", errno.EINVAL),
        ("absent", "file", errno.ENOENT),
        ("file", "absent/x", errno.ENOENT),
    ):
        with refused(number):
            os.rename(here / source, here / target)
    assert listing(here) == ["empty", "file", "full"]


def test_renaming_one_link_over_another_of_the_same_file_changes_nothing(here: Path) -> None:
    (here / "a").touch()
    os.link(here / "a", here / "b")
    os.rename(here / "a", here / "b")
    assert listing(here) == ["a", "b"]


def test_rename_noreplace(here: Path) -> None:
    (here / "a").touch()
    renameat2(here / "a", here / "b", RENAME_NOREPLACE)
    (here / "c").touch()
    with refused(errno.EEXIST):
        renameat2(here / "b", here / "c", RENAME_NOREPLACE)
    assert listing(here) == ["b", "c"]


def test_rename_exchange(here: Path, module_mount: HammerMount) -> None:
    (here / "d").mkdir()
    (here / "d" / "inside").touch()
    (here / "e").mkdir()
    (here / "e" / "file").write_bytes(b"file")
    renameat2(here / "d", here / "e" / "file", RENAME_EXCHANGE)
    assert (here / "d").read_bytes() == b"file"
    with refused(errno.ENOENT):
        renameat2(here / "d", here / "absent", RENAME_EXCHANGE)
    module_mount.remount()
    assert (here / "d").read_bytes() == b"file"
    assert listing(here / "e" / "file") == ["inside"]
    assert (here / "e" / "file" / "..").stat().st_ino == (here / "e").stat().st_ino


def test_rename_with_other_flags_is_refused(here: Path) -> None:
    (here / "a").touch()
    with refused(errno.EINVAL):
        renameat2(here / "a", here / "b", RENAME_WHITEOUT)


def test_a_directory_moves_with_what_is_in_it(here: Path, module_mount: HammerMount) -> None:
    (here / "a" / "b" / "c").mkdir(parents=True)
    (here / "a" / "b" / "c" / "file").write_bytes(b"deep")
    (here / "other").mkdir()
    (here / "a" / "b").rename(here / "other" / "moved")
    assert (here / "other" / "moved" / "..").stat().st_ino == (here / "other").stat().st_ino
    module_mount.remount()
    assert (here / "other" / "moved" / "c" / "file").read_bytes() == b"deep"
    assert listing(here / "a") == []
    assert (here / "other" / "moved" / "..").stat().st_ino == (here / "other").stat().st_ino


# --- listings -----------------------------------------------------------------------------------
def test_a_listing_begins_with_the_dots(here: Path) -> None:
    """libc's readdir is asked, since Python hides them."""
    (here / "file").touch()
    descriptor = os.open(here, os.O_RDONLY)
    try:
        inodes = {entry.name: entry.inode() for entry in os.scandir(descriptor)}
    finally:
        os.close(descriptor)
    assert inodes == {"file": (here / "file").stat().st_ino}
    out = subprocess.run(["ls", "-aif", here], capture_output=True, text=True, check=True).stdout.split()
    assert dict(zip(out[1::2], map(int, out[::2]), strict=True)) == inodes | {
        ".": here.stat().st_ino,
        "..": here.parent.stat().st_ino,
    }


def test_a_large_directory_is_listed_completely(here: Path, module_mount: HammerMount) -> None:
    names = [f"entry-{number:05d}-with-a-name-of-some-length" for number in range(3000)]
    for name in names:
        os.close(os.open(here / name, os.O_CREAT | os.O_WRONLY))
    assert listing(here) == names
    module_mount.remount()
    assert listing(here) == names
    with os.scandir(here) as entries:
        assert all(entry.stat().st_size == 0 and entry.is_file() for entry in entries)


def test_a_listing_survives_changes_beneath_it(here: Path) -> None:
    """What exists all the time is listed exactly once, while others come and go between two reads."""
    steady = {f"steady-{number:04d}" for number in range(600)}
    for name in steady | {f"gone-{number:04d}" for number in range(600)}:
        (here / name).touch()
    seen: list[str] = []
    with os.scandir(here) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number < 600:
                (here / f"gone-{number:04d}").unlink()
                (here / f"new-{number:04d}").touch()
    assert {name for name in seen if name in steady} == steady
    assert len(seen) == len(set(seen))


def test_everything_can_be_deleted_while_it_is_listed(here: Path) -> None:
    for number in range(1500):
        (here / f"{number}").touch()
    with os.scandir(here) as entries:
        for entry in entries:
            os.unlink(entry)
    assert listing(here) == []


def test_a_directory_must_be_empty_to_be_removed(here: Path, module_mount: HammerMount) -> None:
    (here / "d").mkdir()
    (here / "d" / "file").touch()
    with refused(errno.ENOTEMPTY):
        (here / "d").rmdir()
    (here / "d" / "file").unlink()
    (here / "d").rmdir()
    with refused(errno.ENOENT):
        (here / "d").stat()
    module_mount.remount()
    assert listing(here) == []


def test_a_removed_directory_that_is_in_use_is_a_dead_end_but_still_there(here: Path) -> None:
    (here / "d").mkdir()
    before = Path.cwd()
    os.chdir(here / "d")
    try:
        (here / "d").rmdir()
        with refused(errno.ENOENT):
            Path("x").touch()
        assert os.stat(".").st_nlink == 0
        assert os.listdir(".") == []
    finally:
        os.chdir(before)
    assert listing(here) == []


def test_an_unlinked_fifo_that_is_open_is_still_there(here: Path) -> None:
    os.mkfifo(here / "fifo")
    descriptor = os.open(here / "fifo", os.O_RDWR)
    (here / "other").touch()
    path_only = os.open(here / "other", os.O_PATH)
    (here / "fifo").unlink()
    (here / "other").unlink()
    os.fchmod(descriptor, 0o600)
    assert os.fstat(descriptor).st_nlink == 0
    assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
    assert os.fstat(path_only).st_nlink == 0
    os.close(descriptor)
    os.close(path_only)


def test_a_replaced_file_that_is_in_use_is_still_there(here: Path) -> None:
    (here / "a").write_bytes(b"new")
    (here / "b").write_bytes(b"old")
    path_only = os.open(here / "b", os.O_PATH)
    (here / "a").rename(here / "b")
    with open(f"/proc/self/fd/{path_only}", "rb") as file:
        assert file.read() == b"old"
    assert os.fstat(path_only).st_nlink == 0
    os.close(path_only)


def test_fsync_of_a_directory(here: Path) -> None:
    (here / "file").touch()
    descriptor = os.open(here, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
