"""A mount on a slow disk: a server in a process of its own that tells at its end how it fared.

As a program, `python slow_mount.py IMAGE MOUNTPOINT OPTIONS`: prints "ready", serves until it is unmounted, and prints
its peak of memory in bytes, and how many bytes it had accepted at most that its disk had not, as JSON.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hammerfs.cli.mount_options import parse_mount_options
from hammerfs.device.file import FileDevice
from hammerfs.device.passing import PassingDevice
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.crc import Buffer
from hammerfs.vfs.readiness import Readiness
from hammerfs.vfs.server import serve
from hammerfs.vfs.xattroperations import operations_for

BYTES_PER_SECOND = 25_000_000
BARRIER_SECONDS = 0.05


class SlowDevice(PassingDevice):
    """Takes its time for what is written, and counts it."""

    taken = 0

    def write(self, offset: int, data: Buffer) -> None:
        time.sleep(len(data) / BYTES_PER_SECOND)
        super().write(offset, data)
        self.taken += len(data)

    def barrier(self) -> None:
        time.sleep(BARRIER_SECONDS)
        super().barrier()


class CountingFileSystem(FileSystem):
    """Notes how far its clients get ahead of the disk."""

    disk: SlowDevice
    accepted = 0
    ahead = 0

    def write(self, inode: Inode, offset: int, data: bytes) -> int:
        self.accepted += len(data)
        self.ahead = max(self.ahead, self.accepted - self.disk.taken)
        return super().write(inode, offset, data)


def main(image: str, mountpoint: str, options: str) -> None:
    request = parse_mount_options([options], by_root=os.geteuid() == 0)
    disk = SlowDevice(FileDevice(image, writable=True))
    fs = CountingFileSystem.open([disk], request.filesystem)
    assert isinstance(fs, CountingFileSystem)
    fs.disk = disk
    ready = Readiness(lambda message: print("ready", flush=True))
    serve(operations_for(fs, private=request.private), mountpoint, image, request.kernel, ready)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(json.dumps([int(peak[1]) * 1024, fs.ahead]), flush=True)


@dataclass
class Fared:
    """What the server tells in the end."""

    peak_bytes: int = 0
    ahead_bytes: int = 0


@contextmanager
def slow(image: Path, mountpoint: Path, options: str) -> Iterator[Fared]:
    """Serve an image during the block; what is yielded is filled in afterwards."""
    command = [sys.executable, __file__, str(image), str(mountpoint), options]
    fared = Fared()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == "ready\n"
            yield fared
        finally:
            subprocess.run(["fusermount3", "-u", mountpoint], check=False)
            told = server.stdout.readline()
            assert server.wait(120) == 0
    fared.peak_bytes, fared.ahead_bytes = json.loads(told)


if __name__ == "__main__":
    main(*sys.argv[1:])
