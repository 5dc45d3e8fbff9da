"""Other ways to look at a file system: read-only, as of an earlier moment, another PFS, other owners, damaged."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hammer_mount import HammerMount, hammerfs

from hammerfs.device.file import FileDevice
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions

pytestmark = pytest.mark.mount

Maker = Callable[[], HammerMount]


def refused(number: int) -> pytest.RaisesExc[OSError]:
    """The system call in the block fails with that errno."""
    return pytest.RaisesExc(OSError, check=lambda error: error.errno == number)


def latest_tid(image: Path) -> int:
    """The TID of the newest change on an unmounted image."""
    fs = FileSystem.open([FileDevice(str(image), writable=False)], MountOptions(read_only=True))
    try:
        return fs.ctx.root.next_tid
    finally:
        fs.close_now()


def digest(image: Path) -> str:
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_read_only_mount_writes_nothing_and_says_so(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    (mount.path / "file").write_bytes(b"contents")
    mount.umount()
    before = digest(mount.image)
    mount.mount("ro")
    assert (mount.path / "file").read_bytes() == b"contents"
    for call in (
        (mount.path / "file").unlink,
        (mount.path / "new").touch,
        (mount.path / "new").mkdir,
        lambda: (mount.path / "file").open("r+b"),
        lambda: (mount.path / "file").chmod(0),
        lambda: os.utime(mount.path / "file"),
        lambda: (mount.path / "file").rename(mount.path / "x"),
    ):
        with refused(errno.EROFS):
            call()
    mount.umount()
    assert digest(mount.image) == before


@pytest.mark.parametrize("option", ["atime", "noatime"])
def test_reading_moves_atime_where_it_is_asked_for(hammer_mount: Maker, option: str) -> None:
    mount = hammer_mount()
    mount.mount(option)
    (mount.path / "folder").mkdir()
    (mount.path / "folder" / "file").write_bytes(b"contents")
    (mount.path / "folder" / "link").symlink_to("file")
    mount.umount()
    mount.mount(option)
    paths = [mount.path / "folder", mount.path / "folder" / "file", mount.path / "folder" / "link"]
    before = [path.lstat() for path in paths]
    assert sorted(os.listdir(paths[0])) == ["file", "link"]
    assert paths[1].read_bytes() == b"contents"
    assert os.readlink(paths[2]) == "file"
    after = [path.lstat() for path in paths]
    assert {now.st_atime_ns > then.st_atime_ns for then, now in zip(before, after, strict=True)} == {option == "atime"}
    mount.umount()
    mount.mount(option)
    again = [path.lstat() for path in paths]
    for then, now, later in zip(before, after, again, strict=True):
        assert later.st_atime_ns == now.st_atime_ns
        assert (now.st_mtime_ns, now.st_ctime_ns) == (then.st_mtime_ns, then.st_ctime_ns)
        assert (later.st_mtime_ns, later.st_ctime_ns) == (then.st_mtime_ns, then.st_ctime_ns)
    mount.umount()


def two_moments(mount: HammerMount) -> int:
    """Make a tree, change it after a moment in between; returns that moment's TID."""
    mount.mount()
    (mount.path / "d").mkdir()
    (mount.path / "d" / "kept").write_bytes(b"old contents")
    (mount.path / "d" / "removed").write_bytes(b"removed contents")
    (mount.path / "d" / "renamed").write_bytes(b"renamed contents")
    mount.umount()
    tid = latest_tid(mount.image)
    mount.mount()
    (mount.path / "d" / "kept").write_bytes(b"new")
    (mount.path / "d" / "removed").unlink()
    (mount.path / "d" / "renamed").rename(mount.path / "d" / "new name")
    (mount.path / "d" / "added").touch()
    mount.umount()
    return tid


def assert_is_the_past(folder: Path) -> None:
    assert sorted(os.listdir(folder)) == ["kept", "removed", "renamed"]
    assert (folder / "kept").read_bytes() == b"old contents"
    assert (folder / "kept").stat().st_size == len(b"old contents")
    assert (folder / "removed").read_bytes() == b"removed contents"
    assert (folder / "renamed").read_bytes() == b"renamed contents"
    for call in (
        (folder / "removed").unlink,
        (folder / "new").touch,
        lambda: (folder / "kept").open("r+b"),
        lambda: (folder / "kept").chmod(0),
    ):
        with refused(errno.EROFS):
            call()


def test_the_past_as_a_mount(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    tid = two_moments(mount)
    mount.mount(f"tid={tid:#018x}")
    assert_is_the_past(mount.path / "d")
    mount.umount()
    mount.mount()
    assert sorted(os.listdir(mount.path / "d")) == ["added", "kept", "new name"]


def test_the_past_by_name_beside_the_present(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    tid = f"@@{two_moments(mount):#018x}"
    mount.mount()
    assert_is_the_past(mount.path / f"d{tid}")
    assert_is_the_past(mount.path / tid / "d")
    assert (mount.path / "d" / f"kept{tid}").read_bytes() == b"old contents"
    assert (mount.path / "d" / "kept").read_bytes() == b"new"
    assert not (mount.path / "d" / f"added{tid}").exists()
    assert not (mount.path / "d" / "removed").exists()
    (mount.path / "d" / "kept").write_bytes(b"newer")
    assert (mount.path / "d" / f"kept{tid}").read_bytes() == b"old contents"
    with refused(errno.EROFS):
        os.link(mount.path / "d" / f"removed{tid}", mount.path / "d" / "back")


def test_the_root_by_its_number_is_the_root(hammer_mount: Maker) -> None:
    """Live and writable, with one inode for each file: what is written by one name is read by the other."""
    mount = hammer_mount()
    mount.mount()
    (mount.path / "d").mkdir()
    for name in ("@@-1:00000", "@@-1"):
        again = mount.path / name
        (again / "d" / "file").write_bytes(b"by the other name")
        assert (mount.path / "d" / "file").read_bytes() == b"by the other name"
        with (mount.path / "d" / "file").open("ab") as file, (again / "d" / "file").open("rb") as reader:
            file.write(b", and on")
            file.flush()
            assert reader.read() == b"by the other name, and on"
        assert os.path.samefile(again / "d" / "file", mount.path / "d" / "file")
        assert subprocess.run(["ls", again], capture_output=True, text=True, check=True).stdout == "d\n"
        assert os.listdir(mount.path) == ["d"]
        for call in (again.unlink, lambda path=again: path.rename(mount.path / "x")):
            with refused(errno.EROFS):
                call()
        with refused(errno.EEXIST):
            again.mkdir()
    with refused(errno.ELOOP):
        os.listdir(mount.path / "d" / "@@-1:00000")
    assert os.listdir(mount.path / "d" / "@@-1") == ["file"]


def test_names_of_moments_are_neither_removed_nor_made(hammer_mount: Maker) -> None:
    """`rm -f` would take ENOENT for done; an entry of such a name would hide the moment."""
    mount = hammer_mount()
    tid = f"@@{two_moments(mount):#018x}"
    mount.mount()
    d = mount.path / "d"
    commands = [
        f"rm -f kept{tid}",
        f"rm -rf ../d{tid}",
        f"rmdir ../d{tid}",
        f"mv kept{tid} elsewhere",
        f"mv -T kept kept{tid}",
        f"mv -T kept removed{tid}",
    ]
    for command in commands:
        done = subprocess.run(["/bin/sh", "-c", command], cwd=d, capture_output=True, text=True, check=False)
        assert done.returncode != 0, command
        assert "Read-only file system" in done.stderr, command
    to_come = "kept@@0x7fffffffffffffff"
    for command in (
        f"touch {to_come}",
        f"mkdir {to_come}",
        f"ln kept {to_come}",
        f"mv kept {to_come}",
        "mkdir @@-1:00009",
    ):
        done = subprocess.run(["/bin/sh", "-c", command], cwd=d, capture_output=True, text=True, check=False)
        assert "Invalid argument" in done.stderr or "subdirectory of itself" in done.stderr, command  # as mv says it
    for taken in (f"kept{tid}", "kept@@-1"):
        for call in (lambda name=taken: (d / name).mkdir(), lambda name=taken: (d / name).symlink_to("x")):
            with refused(errno.EEXIST):
                call()
    assert sorted(os.listdir(d)) == ["added", "kept", "new name"]
    (d / f"never{tid}").write_bytes(b"unpacked")
    (d / f"never{tid}").rename(d / "never")
    assert (d / "never").read_bytes() == b"unpacked"
    assert not (d / f"never{tid}").exists()
    assert (d / f"kept{tid}").read_bytes() == b"old contents"


def test_a_lost_file_comes_back_from_the_past(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    tid = f"@@{two_moments(mount):#018x}"
    mount.mount()
    shutil.copy2(mount.path / "d" / f"removed{tid}", mount.path / "d" / "removed")
    assert (mount.path / "d" / "removed").read_bytes() == b"removed contents"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change owners")
def test_other_owners_can_be_shown(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount("uid=1234,gid=4321")
    (mount.path / "file").touch()
    assert ((mount.path / "file").stat().st_uid, (mount.path / "file").stat().st_gid) == (1234, 4321)
    assert (mount.path.stat().st_uid, mount.path.stat().st_gid) == (1234, 4321)
    mount.umount()
    mount.mount()
    assert ((mount.path / "file").stat().st_uid, (mount.path / "file").stat().st_gid) == (0, 0)


def test_a_damaged_file_is_refused_and_everything_else_works(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    content = b"here is what will be damaged".ljust(3000, b".")
    (mount.path / "bad").write_bytes(content)
    (mount.path / "good").write_bytes(b"good")
    mount.umount()
    with mount.image.open("r+b") as image:
        found = subprocess.run(
            ["grep", "-aobm1", "here is what will be damaged", mount.image], capture_output=True, text=True, check=True
        )
        place = int(found.stdout.split(":")[0])
        image.seek(place)
        image.write(b"H")
    mount.mount()
    for _ in range(20):
        with refused(errno.EIO):
            (mount.path / "bad").read_bytes()
    assert (mount.path / "good").read_bytes() == b"good"
    assert sorted(os.listdir(mount.path)) == ["bad", "good"]
    (mount.path / "new").write_bytes(b"new")
    mount.umount()
    with mount.image.open("r+b") as image:
        image.seek(place)
        image.write(b"h")
    mount.mount()
    assert (mount.path / "bad").read_bytes() == content


def test_another_pfs_is_reached_through_its_link(golden_image: Callable[[str], Path], tmp_path: Path) -> None:
    """DragonFly made this image: PFS 1 behind a symbolic link `@@-1:00001`."""
    image = golden_image("g5-pfs")
    point = tmp_path / "mnt"
    point.mkdir()
    hammerfs("mount", image, point)
    try:
        links = [path for path in point.rglob("*") if path.is_symlink() and os.readlink(path).startswith("@@")]
        assert links
        names = {path: sorted(os.listdir(path)) for path in links if path.exists()}
        masters = [path for path in names if os.readlink(path).startswith("@@-1:")]
        (masters[0] / "written through the link").write_bytes(b"x")
        number = int(os.readlink(masters[0])[-5:])
    finally:
        hammerfs("umount", point)
    hammerfs("mount", "-o", f"pfs={number}", image, point)
    try:
        assert sorted(os.listdir(point)) == sorted([*names[masters[0]], "written through the link"])
        assert (point / "written through the link").read_bytes() == b"x"
        assert point.stat().st_ino == 1
    finally:
        hammerfs("umount", point)
    hammerfs("check", image)
