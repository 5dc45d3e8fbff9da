"""Freed big-blocks wait until no crash can bring their old owner back, and no longer (INV-1)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from small_filesystem import fresh, make, mount

from hammerfs.fs.cycle import run_steps
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


def test_what_is_freed_in_memory_waits_when_the_cycle_before_it_is_closed(fs: FileSystem) -> None:
    """Closing makes final what was written, and says nothing of what was not: a crash brings the second file back."""
    flusher = fs.flusher
    assert flusher is not None
    blockmap = fs.ctx.blockmap
    for name in (b"first", b"second"):
        inode = make(fs, fs.root, name, b"")
        for index in range(40):
            fs.write(inode, index * BLOCK, bytes([index]) * BLOCK)
    flusher.flush_now()
    fs.unlink(fs.root, b"first")
    group = flusher.queue(None)
    flusher.start_group(group)
    flusher.sync_group(group)
    run_steps(fs.ctx, flusher.cycle.finalize(final=True))
    flusher.end_group(group)
    before = blockmap.allocatable_bigblocks
    fs.unlink(fs.root, b"second")
    group = flusher.queue(None)
    flusher.start_group(group)
    flusher.sync_group(group)
    run_steps(fs.ctx, flusher.cycle.close())
    given_back = blockmap.allocatable_bigblocks - before
    assert 3 <= given_back <= 6
    assert blockmap.waiting
    run_steps(fs.ctx, flusher.cycle.finalize(final=True))
    flusher.end_group(group)
    run_steps(fs.ctx, flusher.cycle.close())
    assert not blockmap.waiting
    assert blockmap.allocatable_bigblocks - before >= 2 * given_back - 2
