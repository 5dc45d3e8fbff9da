"""Hostile images mounted for real: the server goes on serving, or ends with one sentence."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fuzz_lib.campaign import Laboratory
from fuzz_lib.changes import Change, Program

from hammerfs.device.memory import MemoryDevice
from hammerfs.ondisk.constants import BUFSIZE

pytestmark = pytest.mark.mount

HAMMERFS = Path(sys.executable).with_name("hammerfs")
SECONDS_MAX = 120
WALK = """
import contextlib, os, stat, sys
for folder, _, names in os.walk(sys.argv[1], onerror=print):
    for name in [*names, "absent", "@@0x0000000100000020"]:
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            os.listxattr(path, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                os.readlink(path)
            if stat.S_ISREG(found.st_mode):
                with open(path, "rb") as file:
                    file.read(100_000)
    with contextlib.suppress(OSError):
        with open(os.path.join(folder, "new"), "wb") as file:
            file.write(b"new" * 10_000)
            os.fsync(file.fileno())
        os.mkdir(os.path.join(folder, "newer"))
        os.rename(os.path.join(folder, "new"), os.path.join(folder, "newer", "new"))
    for name in names[:2]:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, name))
os.statvfs(sys.argv[1])
"""
"""What a user's programs do, in a process of its own, so that one that hangs can be given up."""

SERVED: dict[str, tuple[str, list[Change]]] = {
    "names that cannot be": (
        "plain7",
        [["name", i, name, False] for i, name in enumerate(("612f62", "", "2e2e", "00"))],
    ),
    "a root of nothing but damage": ("plain7", [["name", i, "", False] for i in range(9)]),
    "a directory that holds the root": ("plain7", [["field", "entry", i, "obj_id", ["=", 1], True] for i in range(9)]),
    "inodes of no type": ("plain7", [["field", "inode", i, "obj_type", ["=", i * 5], True] for i in range(1, 9)]),
    "sizes and link counts at the edge": (
        "plain7",
        [
            *(["field", "inode", i, "size", ["=", (1 << 63) - 1], True] for i in range(1, 5)),
            *(["field", "inode", i, "nlinks", ["=", -1], True] for i in range(3, 9)),
        ],
    ),
    "a node with two parents": ("deep7", [["graft", 12, 5, True]]),
    "data where there is none": (
        "plain7",
        [["field", "leaf", i, "data_offset", ["@", 60, 10, 0], True] for i in range(9, 20)],
    ),
}
REFUSED: dict[str, tuple[str, list[Change]]] = {
    "an UNDO record for the header's geometry": ("crashed7", [["undo field", "header", 0, "buf_end", ["=", 1 << 50]]]),
    "a root node nowhere": ("plain7", [["field", "header", 0, "btree_root", ["=", 0], True]]),
}


@pytest.fixture(scope="module")
def laboratory() -> Laboratory:
    return Laboratory()


def write_out(devices: list[MemoryDevice], image: Path) -> None:
    """A sparse file with a device's contents."""
    (device,) = devices
    with image.open("wb") as file:
        for start in range(0, device.size, BUFSIZE):
            page = device.read(start, BUFSIZE)
            if page.strip(b"\0"):
                file.seek(start)
                file.write(page)
        file.truncate(device.size)


@contextmanager
def server(image: Path, mount_point: Path) -> Iterator[subprocess.Popen[str]]:
    """A server in the foreground, which serves or has ended within the block, and does not outlive it."""
    mount_point.mkdir()
    command = [HAMMERFS, "mount", "-f", "-o", "xattr", image, mount_point]
    with open("/proc/self/mounts") as table, subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        poll = select.poll()
        poll.register(table, select.POLLPRI)
        ended = os.pidfd_open(process.pid)
        poll.register(ended, select.POLLIN)
        try:
            while process.poll() is None and not mount_point.is_mount():
                assert poll.poll(SECONDS_MAX * 1000), "neither mounted nor refused"
            yield process
        finally:
            os.close(ended)
            if mount_point.is_mount():
                subprocess.run(["fusermount3", "-u", "-z", mount_point], check=False)
            process.wait(SECONDS_MAX)


@pytest.mark.parametrize("name", SERVED)
def test_a_server_survives(laboratory: Laboratory, tmp_path: Path, name: str) -> None:
    base, changes = SERVED[name]
    write_out(laboratory.build(Program(base, changes)), tmp_path / "image")
    mount_point = tmp_path / "mnt"
    with server(tmp_path / "image", mount_point) as process:
        assert process.stderr is not None
        assert process.poll() is None, process.stderr.read()
        subprocess.run([sys.executable, "-c", WALK, mount_point], check=True, timeout=SECONDS_MAX, capture_output=True)
        assert process.poll() is None, process.stderr.read()
        subprocess.run([HAMMERFS, "umount", mount_point], check=False, timeout=SECONDS_MAX, capture_output=True)
        _, told = process.communicate(timeout=SECONDS_MAX)
    assert "Traceback" not in told, told
    assert "internal error" not in told, told
    assert "unexpected" not in told, told


@pytest.mark.parametrize("name", REFUSED)
def test_a_server_refuses_with_one_sentence(laboratory: Laboratory, tmp_path: Path, name: str) -> None:
    base, changes = REFUSED[name]
    write_out(laboratory.build(Program(base, changes)), tmp_path / "image")
    with server(tmp_path / "image", tmp_path / "mnt") as process:
        assert process.wait(SECONDS_MAX) == 2
        assert process.stderr is not None
        *log, told = process.stderr.read().splitlines()
    assert told.startswith("hammerfs: ")
    assert all(" INFO " in line for line in log), log
