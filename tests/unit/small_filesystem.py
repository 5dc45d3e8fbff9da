"""Small file systems in memory: formatted once per version, copied for every test, checked when a test is done."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import trio

from hammerfs.device.base import Device
from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import RecordingDevice, RecordingLog
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    OBJTYPE_CDEV,
    OBJTYPE_DIRECTORY,
    OBJTYPE_FIFO,
    OBJTYPE_REGFILE,
)
from hammerfs.ops.check import Report, check_devices
from hammerfs.ops.mkfs import FormatRequest, plan_format, write_file_system

FIFO_SIZE = BIGBLOCK_SIZE
"""The smallest UNDO FIFO there is."""
VOLUME_SIZE = 320 * 1024 * 1024
FSID = uuid.UUID("3f0c1d52-7a51-4f0e-8c39-00a0c9e5b0f1")
START_US = 1_700_000_000_000_000
DIRECTORY, FILE, NAMED_PIPE, CHARACTER_DEVICE = OBJTYPE_DIRECTORY, OBJTYPE_REGFILE, OBJTYPE_FIFO, OBJTYPE_CDEV


@lru_cache
def formatted(version: int = 7, count: int = 1, size: int = VOLUME_SIZE) -> tuple[MemoryDevice, ...]:
    """Freshly made volumes; for copying only."""
    request = FormatRequest(
        "small", version=version, undo_size=FIFO_SIZE, fsid=FSID, time_ns=START_US * 1000, force=True
    )
    plan = plan_format(request, [size] * count)
    devices = tuple(MemoryDevice(size, name=f"volume{number}.img") for number in range(count))
    write_file_system(plan.layout, devices)
    return devices


def fresh(version: int = 7, count: int = 1, size: int = VOLUME_SIZE) -> list[MemoryDevice]:
    """A new file system's volumes."""
    return [device.copy() for device in formatted(version, count, size)]


def ticking(start_us: int = START_US) -> Callable[[], int]:
    """A clock that moves on by a millisecond at each look, so that times are the same in every run."""
    return itertools.count(start_us, 1000).__next__


def mount(devices: Sequence[Device], *, start_us: int = START_US, **options: Any) -> FileSystem:
    """Mount with options named as in MountOptions; the flush timer stays out of the way unless asked for."""
    options.setdefault("flush_seconds", 1e6)
    options.setdefault("cache_bytes", 8 * 1024 * 1024)
    return FileSystem.open(devices, MountOptions(**options), clock=ticking(start_us))


def recorded(devices: Sequence[MemoryDevice]) -> tuple[list[RecordingDevice], RecordingLog]:
    """The devices with one log over all of them."""
    log = RecordingLog()
    return [RecordingDevice(device, log) for device in devices], log


def assert_clean(devices: Sequence[Device]) -> Report:
    """The checker finds nothing to complain about."""
    report = check_devices(devices)
    assert report.clean, "\n".join(map(str, report.problems[:20]))
    return report


def assert_settled(fs: FileSystem) -> None:
    """After a full flush nothing is promised any more and no inode is on the other side of the border."""
    ctx = fs.ctx
    assert ctx.space.records == 0
    assert ctx.space.dirty_bytes == 0
    assert ctx.blockmap.reserved_bytes == 0
    assert not ctx.dirty.setup
    assert fs.flusher is not None
    assert not fs.flusher.groups


def make(fs: FileSystem, parent: Inode, name: bytes, content: bytes | None = None) -> Inode:
    """A file with `content`, or a directory when that is None."""
    inode = fs.create(parent, name, DIRECTORY if content is None else FILE, 0o755, 1000, 1000)
    if content:
        fs.write(inode, 0, content)
    return inode


def read(fs: FileSystem, *path: bytes) -> bytes:
    """The whole content of the file at a path from the root."""
    inode = walk(fs, *path)
    return fs.read(inode, 0, inode.data.size)


def walk(fs: FileSystem, *path: bytes) -> Inode:
    """The inode at a path from the root."""
    inode = fs.root
    for name in path:
        inode = fs.lookup(inode, name)
    return inode


def names(fs: FileSystem, directory: Inode) -> list[bytes]:
    """The names in a directory, sorted."""
    return sorted(entry.name for entry in fs.readdir(directory, 0))


def flush_closure(fs: FileSystem, inode: Inode) -> None:
    """Flush an inode and what has to land with it, durably, and nothing else."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(fs.run)
            await fs.fsync(inode)
            nursery.cancel_scope.cancel()

    trio.run(main)
