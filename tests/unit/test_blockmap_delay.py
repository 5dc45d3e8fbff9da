"""Freed big-blocks wait until no crash can bring their old owner back, and no longer (INV-1)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from small_filesystem import fresh, make, mount

from hammerfs.fs.mount import FileSystem

BLOCK = 1 << 20


@pytest.fixture
def fs() -> Iterator[FileSystem]:
    mounted = mount(fresh(), nohistory=True)
    yield mounted
    mounted.close_now()


def test_a_closed_cycle_gives_the_space_of_a_deleted_file_back(fs: FileSystem) -> None:
    flusher = fs.flusher
    assert flusher is not None
    before = fs.ctx.blockmap.allocatable_bigblocks
    inode = make(fs, fs.root, b"large", b"")
    for index in range(40):
        fs.write(inode, index * BLOCK, bytes([index]) * BLOCK)
    flusher.flush_now()
    assert fs.ctx.blockmap.allocatable_bigblocks <= before - 4
    fs.unlink(fs.root, b"large")
    flusher.flush_now()
    assert not fs.ctx.blockmap.waiting
    assert fs.ctx.blockmap.allocatable_bigblocks >= before - 3


def test_an_unclosed_cycle_keeps_freed_space(fs: FileSystem) -> None:
    flusher = fs.flusher
    assert flusher is not None
    inode = make(fs, fs.root, b"large", b"")
    for index in range(40):
        fs.write(inode, index * BLOCK, bytes([index]) * BLOCK)
    flusher.flush_now()
    full = fs.ctx.blockmap.allocatable_bigblocks
    fs.unlink(fs.root, b"large")
    group = flusher.queue(None)
    flusher.start_group(group)
    flusher.sync_group(group)
    for _ in flusher.cycle.finalize(final=True):
        fs.ctx.volumes.barrier()
    flusher.end_group(group)
    assert fs.ctx.blockmap.waiting
    assert fs.ctx.blockmap.allocatable_bigblocks <= full
