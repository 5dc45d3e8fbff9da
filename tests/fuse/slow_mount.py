"""A mount on a slow disk: a server in a process of its own that tells at its end how it fared.

As a program, `python slow_mount.py IMAGE MOUNTPOINT OPTIONS`: prints "ready", serves until it is unmounted, and prints
its peak of memory in bytes and how many requests had to wait for the flusher, as JSON.
"""

from __future__ import annotations

import json
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
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.crc import Buffer
from hammerfs.vfs.operations import operations_for
from hammerfs.vfs.readiness import Readiness
from hammerfs.vfs.server import serve

BYTES_PER_SECOND = 25_000_000
BARRIER_SECONDS = 0.05


class SlowDevice(PassingDevice):
    """Takes its time for what is written."""

    def write(self, offset: int, data: Buffer) -> None:
        time.sleep(len(data) / BYTES_PER_SECOND)
        super().write(offset, data)

    def barrier(self) -> None:
        time.sleep(BARRIER_SECONDS)
        super().barrier()


class CountingFileSystem(FileSystem):
    """Counts how often somebody had to wait for the flusher."""

    waits = 0

    async def throttle(self) -> None:
        self.waits += 1
        await super().throttle()


def main(image: str, mountpoint: str, options: str) -> None:
    request = parse_mount_options([options])
    fs = CountingFileSystem.open([SlowDevice(FileDevice(image, writable=True))], request.filesystem)
    ready = Readiness(lambda message: print("ready", flush=True))
    serve(operations_for(fs), mountpoint, image, request.kernel, ready)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    assert isinstance(fs, CountingFileSystem)
    print(json.dumps([int(peak[1]) * 1024, fs.waits]), flush=True)


@dataclass
class Fared:
    """What the server tells in the end."""

    peak_bytes: int = 0
    waits: int = 0


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
    fared.peak_bytes, fared.waits = json.loads(told)


if __name__ == "__main__":
    main(*sys.argv[1:])
