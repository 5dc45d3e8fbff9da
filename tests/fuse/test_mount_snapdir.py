"""`.hammer` as programs see it: walking through time with ls, cp, diff and tar."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hammer_mount import HammerMount, hammerfs

pytestmark = pytest.mark.mount

Maker = Callable[[], HammerMount]


def refused(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda error: error.errno == number)


def archived(folder: Path) -> str:
    """The checksum of an archive of a folder, with all that tar keeps of it."""
    made = subprocess.run(
        ["tar", "-C", folder, "--format=pax", "--pax-option=delete=ctime", "-cf", "-", "."],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert made.stderr == b""
    return hashlib.sha256(made.stdout).hexdigest()


def test_time_can_be_walked_through(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount("snapdir=visible")
    top = mount.path / ".hammer"
    assert sorted(os.listdir(mount.path)) == [".hammer"]
    (mount.path / "file").write_text("old")
    tid = hammerfs("synctid", mount.path).strip()
    hammerfs("snapq", mount.path, "before the change")
    moment = time.strftime("%Y-%m-%dT%H:%M:%S")
    while moment == time.strftime("%Y-%m-%dT%H:%M:%S"):
        time.sleep(0.05)
    (mount.path / "file").write_text("new")
    (mount.path / "added").touch()
    hammerfs("synctid", mount.path)
    for path in (f"tid/{tid}", "snapshots/before the change", f"time/{moment}"):
        assert os.listdir(top / path) == ["file"], path
        assert (top / path / "file").read_text() == "old", path
    assert sorted(os.listdir(top / "latest")) == ["added", "file"]
    assert (top / "latest" / "file").read_text() == "new"
    assert sorted(os.listdir(top)) == ["latest", "snapshots", "tid", "time"]
    assert os.listdir(top / "snapshots") == ["before the change"]
    for change in (
        (top / "new").mkdir,
        (top / "snapshots" / "new").touch,
        (top / "latest" / "file").unlink,
        lambda: os.rename(mount.path / "file", top / "latest" / "moved"),
    ):
        with refused(errno.EROFS):
            change()
    (mount.path / "file").write_text("newest")
    hammerfs("synctid", mount.path)
    assert (top / "latest" / "file").read_text() == "newest"


def test_it_is_there_without_being_listed(here: Path, module_mount: HammerMount) -> None:
    """Before anything was flushed there is no state that could be the latest one."""
    hammerfs("synctid", here)
    assert ".hammer" not in os.listdir(module_mount.path)
    assert sorted(os.listdir(module_mount.path / ".hammer")) == ["latest", "snapshots", "tid", "time"]
    assert (module_mount.path / ".hammer").is_dir()
    assert not (module_mount.path / ".hammer" / "absent").exists()


def test_it_can_be_left_out(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount("snapdir=off")
    assert not (mount.path / ".hammer").exists()
    (mount.path / ".hammer").mkdir()
    assert os.listdir(mount.path) == [".hammer"]


@pytest.mark.programs("tar")
def test_two_archives_of_one_snapshot_are_equal(here: Path, module_mount: HammerMount) -> None:
    """Whatever became of the files, and of their times, which are kept in place, in the meantime."""
    folder = here / "folder"
    (folder / "inner").mkdir(parents=True)
    for number in range(20):
        (folder / "inner" / f"file{number}").write_bytes(bytes(number * 1000))
    os.link(folder / "inner" / "file3", folder / "hard link")
    (folder / "link").symlink_to("inner")
    os.utime(folder / "inner" / "file4", (1, 2))
    tid = hammerfs("synctid", here).strip()
    past = here / f"folder@@{tid}"
    before = archived(past)
    for number in range(0, 20, 3):
        os.utime(folder / "inner" / f"file{number}", (3, 4))
    (folder / "inner" / "file5").write_text("changed")
    (folder / "inner" / "added").touch()
    os.unlink(folder / "hard link")
    hammerfs("synctid", here)
    assert archived(past) == before
    other = module_mount.path / ".hammer" / "tid" / tid / here.name / "folder"
    assert archived(other) == before
    assert subprocess.run(["diff", "-r", past, other], check=False).returncode == 0
