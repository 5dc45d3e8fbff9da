"""Volumes added to and removed from mounted, busy file systems, and a server killed in the middle of that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hammer_mount import HammerMount, hammerfs, run

from hammerfs.device.file import FileDevice
from hammerfs.errors import BusyError
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.ondisk.constants import OBJTYPE_REGFILE

pytestmark = pytest.mark.mount

Maker = Callable[[], HammerMount]
HAMMER = [sys.executable, "-m", "hammerfs.cli.hammer"]
MIB = 1024 * 1024
SECONDS_MAX = 120


def hammer(*words: str | Path) -> str:
    """What `hammer` prints; it has to succeed."""
    done = subprocess.run([*HAMMER, *words], capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def spare(tmp_path: Path) -> Path:
    """An image that may become a volume."""
    path = tmp_path / "spare.img"
    with path.open("wb") as file:
        file.truncate(512 * MIB)
    return path


@contextmanager
def writing(folder: Path) -> Iterator[dict[str, bytes]]:
    """Somebody who creates and overwrites files all the time; what has to be there in the end."""
    ended = threading.Event()
    written: dict[str, bytes] = {}
    failures = []

    def write() -> None:
        number = 0
        while not ended.is_set():
            name, content = f"w{number % 30}", os.urandom(40_000)
            try:
                (folder / name).write_bytes(content)
            except OSError as error:
                failures.append(error)
                return
            written[name] = content
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield written
    finally:
        ended.set()
        writer.join()
    assert not failures
    assert written


def is_locked(path: Path) -> bool:
    """Whether somebody has the image open as a volume."""
    try:
        FileDevice(str(path), writable=True).close()
    except BusyError:
        return True
    return False


def assert_holds(folder: Path, written: dict[str, bytes]) -> None:
    assert {name: (folder / name).read_bytes() for name in written} == written


def refused(*words: str | Path) -> str:
    """What `hammer` complains of; it may not wait for itself."""
    done = subprocess.run([*HAMMER, *words], capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_file_system_does_not_become_a_part_of_itself(hammer_mount: Maker, tmp_path: Path) -> None:
    """Its server would wait for itself: for an answer about the path, or later for what it would keep there."""
    mount = hammer_mount()
    mount.mount()
    inner, link, aside = mount.path / "inner", tmp_path / "link", tmp_path / "aside"
    with inner.open("wb") as file:
        file.truncate(512 * MIB)
    link.symlink_to(inner)
    aside.mkdir()
    loop = subprocess.run(["losetup", "-f", "--show", inner], capture_output=True, text=True, check=True).stdout.strip()
    try:
        subprocess.run(["mount", "--bind", mount.path, aside], check=True)
        try:
            for path in (inner, link, aside / "inner", loop):
                assert f"{path} lies on the file system that it would become a part of" in refused(
                    "volume-add", path, mount.path
                )
                assert "is no volume of this file system" in refused("volume-del", path, mount.path)
        finally:
            subprocess.run(["umount", aside], check=True)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
    assert "No such file" in refused("volume-add", mount.path / "absent", mount.path)
    inner.write_bytes(b"still served")
    assert hammer("volume-list", mount.path) == f"{mount.image}\n"


def test_nor_of_one_that_its_image_lies_on(hammer_mount: Maker, tmp_path: Path) -> None:
    mount = hammer_mount()
    mount.mount()
    inside, place = mount.path / "inside.img", tmp_path / "inside"
    place.mkdir()
    run(Path(sys.executable).with_name("mkfs_hammer.py"), "-f", "-L", "inside", "-u", "128M", "--size", "600M", inside)
    hammerfs("mount", inside, place)
    try:
        spare = place / "spare"
        with spare.open("wb") as file:
            file.truncate(512 * MIB)
        assert "would become a part of" in refused("volume-add", spare, mount.path)
    finally:
        hammerfs("umount", place)


def test_a_volume_comes_and_goes_beside_a_writer(hammer_mount: Maker, spare: Path) -> None:
    mount = hammer_mount()
    mount.mount()
    before = os.statvfs(mount.path)
    with writing(mount.path) as written:
        assert hammer("volume-add", spare, mount.path).split() == [str(mount.image), str(spare)]
        assert is_locked(spare)
        assert os.statvfs(mount.path).f_blocks > before.f_blocks
        content = os.urandom(20 * MIB)
        (mount.path / "large").write_bytes(content)
        assert hammer("volume-blkdevs", mount.path) == f"{mount.image}:{spare}\n"
    mount.umount()
    hammerfs("check", mount.image, spare)
    hammerfs("mount", f"{spare}:{mount.image}", mount.path)
    with writing(mount.path) as later:
        told = json.loads(hammer("-F", "--json", "volume-del", spare, mount.path))
        assert told["removed"]
        assert not is_locked(spare)
    assert os.statvfs(mount.path).f_blocks == before.f_blocks
    assert_holds(mount.path, {**written, **later, "large": content})
    mount.remount()
    assert_holds(mount.path, {**written, **later, "large": content})


def full_spare(mount: HammerMount, spare: Path) -> dict[str, bytes]:
    """Make the image a volume and put files on it alone; their contents."""
    hammer("-f", mount.image, "volume-add", spare, "/")
    fs = FileSystem.open([FileDevice(str(path), writable=True) for path in (mount.image, spare)], MountOptions())
    fs.ctx.blockmap.withhold(0)
    contents = {f"f{number}": os.urandom(2 * MIB) for number in range(50)}
    for name, content in contents.items():
        fs.write(fs.create(fs.root, name.encode(), OBJTYPE_REGFILE, 0o644, 0, 0), 0, content)
    fs.close_now()
    return contents


@pytest.mark.parametrize("seconds", [0.15, 0.3])
def test_a_server_killed_while_a_volume_is_removed(hammer_mount: Maker, spare: Path, seconds: float) -> None:
    mount = hammer_mount()
    contents = full_spare(mount, spare)
    hammerfs("mount", f"{mount.image}:{spare}", mount.path)
    removing = subprocess.Popen([*HAMMER, "-F", "volume-del", spare, mount.path], stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    mount.kill()
    removing.wait(SECONDS_MAX)
    mount.take_away()
    with spare.open("rb") as image:
        is_volume = any(image.read(8))
    hammerfs("mount", *[mount.image, spare][: 1 + is_volume], mount.path)
    assert_holds(mount.path, contents)
    if is_volume and len(hammer("volume-list", mount.path).split()) == 2:
        hammer("-F", "volume-del", spare, mount.path)
    assert_holds(mount.path, contents)


def until_it_asks(process: subprocess.Popen[str]) -> None:
    """Return when a program has reached the server, or has ended; before, ^C ends it without a word."""
    end = time.monotonic() + SECONDS_MAX
    while process.poll() is None:
        assert time.monotonic() < end, "it never reached the server"
        for number in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if os.readlink(number).startswith("socket:"):
                    return
        time.sleep(0.01)


def test_a_removal_that_is_interrupted_says_so(hammer_mount: Maker, spare: Path) -> None:
    mount = hammer_mount()
    contents = full_spare(mount, spare)
    hammerfs("mount", f"{mount.image}:{spare}", mount.path)
    removing = subprocess.Popen([*HAMMER, "-F", "volume-del", spare, mount.path], stderr=subprocess.PIPE, text=True)
    until_it_asks(removing)
    time.sleep(0.3)
    removing.send_signal(signal.SIGINT)
    _, said = removing.communicate(timeout=SECONDS_MAX)
    if removing.returncode:
        assert "is still a volume" in said or "Interrupt" in said
        assert len(hammer("volume-list", mount.path).split()) == 2
        hammer("-F", "volume-del", spare, mount.path)
    assert hammer("volume-list", mount.path).split() == [str(mount.image)]
    assert_holds(mount.path, contents)
