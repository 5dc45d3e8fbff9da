"""Many at once: open files, processes, names in one directory.  Nobody is refused, and the server's memory has a bound.

`HAMMERFS_REAL_FULL=1` opens ten thousand files and makes a directory of a million names.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import SIZE, SMALL
from hammer_mount import FULL, SERVER_BYTES_MAX, HammerMount
from slow_mount import slow

pytestmark = pytest.mark.mount

Maker = Callable[[], HammerMount]
OPEN_FILES = 10_000 if FULL else 2_000
PROCESSES = 64
ENTRIES = 1_000_000 if FULL else 3_000
SLOW_CACHE_MIB = 16
WRITERS = 3
WRITTEN_MIB = 24
"""By each of them."""


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Allow this process that many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"no more than {hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_thousands_of_files_open_at_once(hammer_mount: Maker) -> None:
    """The server keeps no descriptor for any of them; half lose their names while they are open."""
    mount = hammer_mount()
    mount.mount()
    opened: list[int] = []
    with descriptors(OPEN_FILES + 100):
        server = mount.server()
        before = len(os.listdir(f"/proc/{server}/fd"))
        try:
            for number in range(OPEN_FILES):
                opened.append(os.open(mount.path / f"{number}", os.O_RDWR | os.O_CREAT))
                os.pwrite(opened[-1], b"%d" % number, 0)
            assert len(os.listdir(f"/proc/{server}/fd")) <= before + 2
            for number in range(0, OPEN_FILES, 2):
                os.unlink(mount.path / f"{number}")
            os.fsync(opened[1])
            for number in range(0, OPEN_FILES, 7):
                assert os.pread(opened[number], 10, 0) == b"%d" % number
        finally:
            for descriptor in opened:
                os.close(descriptor)
    mount.umount()
    assert mount.peak_bytes <= SERVER_BYTES_MAX
    mount.mount()
    assert len(os.listdir(mount.path)) == OPEN_FILES // 2
    assert (mount.path / "1999").read_bytes() == b"1999"


WORKER = """
import os, sys
def work(top, number):
    folder = f"{top}/{number}"
    os.mkdir(folder)
    for index in range(6):
        with open(f"{folder}/{index}", "wb", buffering=0) as file:
            file.write(b"%d of %d" % (index, number) * 1000)
            if index % 3 == 0:
                os.fsync(file.fileno())
        os.rename(f"{folder}/{index}", f"{folder}/renamed {index}")
        os.link(f"{folder}/renamed {index}", f"{top}/shared/{number} {index}")
    for index in range(0, 6, 2):
        os.unlink(f"{folder}/renamed {index}")
children = []
for number in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        status = 1
        try:
            work(sys.argv[1], number)
            status = 0
        finally:
            os._exit(status)
    children.append(child)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_sixty_four_processes_at_once(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    (mount.path / "shared").mkdir()
    subprocess.run([sys.executable, "-c", WORKER, mount.path, str(PROCESSES)], check=True, timeout=240)
    mount.remount()
    assert mount.peak_bytes <= SERVER_BYTES_MAX
    for number in range(PROCESSES):
        assert sorted(os.listdir(mount.path / f"{number}")) == [f"renamed {index}" for index in range(1, 6, 2)]
        for index in range(6):
            path = mount.path / "shared" / f"{number} {index}"
            assert path.read_bytes() == b"%d of %d" % (index, number) * 1000


def content_of(writer: int) -> bytes:
    """What one of the writers writes."""
    return random.Random(writer).randbytes(1 << 20) * WRITTEN_MIB


OUTRUNNING = """
import random, sys
path, number, mib = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
piece = random.Random(number).randbytes(1 << 20)
with open(path, "wb", buffering=0) as file:
    for _ in range(mib):
        assert file.write(piece) == len(piece)
"""


def test_writers_that_outrun_the_disk_are_slowed_down_and_not_refused(hammer_mount: Maker) -> None:
    """They write several times what the server may hold, to a disk that takes 25 MB/s."""
    mount = hammer_mount()
    with slow(mount.image, mount.path, f"cache={SLOW_CACHE_MIB}M") as fared:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", OUTRUNNING, mount.path / f"{number}", f"{number}", f"{WRITTEN_MIB}"]
            )
            for number in range(WRITERS)
        ]
        assert [writer.wait(240) for writer in writers] == [0] * WRITERS
    assert 0 < fared.ahead_bytes <= SLOW_CACHE_MIB << 20 < WRITERS * WRITTEN_MIB << 20
    assert fared.peak_bytes <= (SLOW_CACHE_MIB + 64) << 20
    mount.mount()
    for number in range(WRITERS):
        assert (mount.path / f"{number}").read_bytes() == content_of(number)


@pytest.fixture
def roomy_mount(tmp_path: Path) -> Iterator[HammerMount]:
    """A file system with room for that many inodes, checked at the end."""
    mount = HammerMount(tmp_path, size="8G" if FULL else SIZE, mkfs=SMALL)
    try:
        yield mount
        mount.check()
    finally:
        mount.remove()


def test_a_directory_of_very_many_names(roomy_mount: HammerMount) -> None:
    """Made, listed, found, listed again after a remount, and removed, in bounded memory."""
    mount = roomy_mount
    mount.mount("nohistory")
    folder = mount.path / "large"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    for number in range(ENTRIES):
        os.mknod(f"{number}", 0o600, dir_fd=descriptor)
    os.close(descriptor)
    assert listed(folder) == ENTRIES
    mount.remount()
    assert listed(folder) == ENTRIES
    assert (folder / f"{ENTRIES // 2}").is_file()
    assert not (folder / f"{ENTRIES}").exists()
    descriptor = os.open(folder, os.O_RDONLY)
    for number in range(ENTRIES):
        os.unlink(f"{number}", dir_fd=descriptor)
    os.close(descriptor)
    assert listed(folder) == 0
    folder.rmdir()
    mount.umount()
    assert mount.peak_bytes <= SERVER_BYTES_MAX


def listed(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(1 for _ in entries)
