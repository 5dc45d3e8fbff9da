"""Small file systems in memory: looked into, and checked when a test is done."""

from __future__ import annotations

from collections.abc import Sequence

from crash_lib.small import CHARACTER_DEVICE as CHARACTER_DEVICE
from crash_lib.small import DIRECTORY as DIRECTORY
from crash_lib.small import FIFO_SIZE as FIFO_SIZE
from crash_lib.small import FILE as FILE
from crash_lib.small import FSID as FSID
from crash_lib.small import NAMED_PIPE as NAMED_PIPE
from crash_lib.small import START_US as START_US
from crash_lib.small import VOLUME_SIZE as VOLUME_SIZE
from crash_lib.small import formatted as formatted
from crash_lib.small import fresh as fresh
from crash_lib.small import mount as mount
from crash_lib.small import recorded as recorded
from crash_lib.small import ticking as ticking

from hammerfs.device.base import Device
from hammerfs.fs.cycle import run_steps
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ops.check import Report, check_devices


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
    assert ctx.redo is None or not ctx.redo.holders


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
    flusher = fs.flusher
    assert flusher is not None
    unfinished = True
    while unfinished:
        run_steps(fs.ctx, flusher.cycle.close())
        group = flusher.groups[0] if flusher.groups else flusher.queue(inode)
        flusher.start_group(group)
        flusher.sync_group(group)
        run_steps(fs.ctx, flusher.cycle.finalize(final=True))
        flusher.end_group(group)
        flusher.finish(group.seq)
        run_steps(fs.ctx, flusher.cycle.close())
        flusher.finish(group.seq)
        unfinished = inode in fs.ctx.dirty.cut_short
