"""Promises: what was accepted can be flushed, what cannot be kept is refused in time, and all accounts end at zero."""

from __future__ import annotations

import itertools
import random
from contextlib import suppress

import pytest
from small_filesystem import (
    DIRECTORY,
    assert_clean,
    assert_settled,
    flush_closure,
    fresh,
    make,
    mount,
    names,
    read,
    recorded,
    walk,
)

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import drop_all
from hammerfs.errors import NoSpaceError
from hammerfs.fs import space as space_module
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.space import record_limit
from hammerfs.ondisk.constants import BIGBLOCK_SIZE

MIB = 1 << 20


def is_relieved(fs: FileSystem) -> bool:
    return not fs.congested


def flush_if_congested(fs: FileSystem) -> None:
    if fs.congested:
        flush(fs)


def flush(fs: FileSystem) -> None:
    assert fs.flusher is not None
    fs.flusher.flush_now()
    assert_settled(fs)


def fill(fs: FileSystem, size: int = MIB) -> Inode:
    """Write files of `size` zeros into one directory until there is no more space; returns the directory."""
    directory = make(fs, fs.root, b"full")
    with suppress(NoSpaceError):
        for number in itertools.count():
            make(fs, directory, b"%d" % number, bytes(size))
            flush_if_congested(fs)
    return directory


@pytest.fixture
def devices() -> list[MemoryDevice]:
    return fresh()


def test_a_group_s_records_fit_a_share_of_the_fifo() -> None:
    assert record_limit(0) == 128
    assert record_limit(8 * MIB) == 344
    assert record_limit(1 << 30) == 4096


@pytest.mark.parametrize("size", [MIB, 40_000, 3])
def test_what_was_accepted_before_the_space_ran_out_is_flushed(devices: list[MemoryDevice], size: int) -> None:
    """INV-7: with large files, middling ones, and ones that are nearly all meta-data."""
    fs = mount(devices)
    if size < 1000:
        take_all_but(fs, 6)
    directory = fill(fs, size)
    accepted = names(fs, directory)
    flush(fs)
    fs.close_now()
    assert_clean(devices)
    fs = mount(devices)
    assert names(fs, walk(fs, b"full")) == accepted


def take_all_but(fs: FileSystem, bigblocks: int) -> None:
    """Leave only so many big-blocks that may be allocated."""
    inode = make(fs, fs.root, b"filler", b"")
    offset = 0
    while fs.ctx.blockmap.allocatable_bigblocks > bigblocks:
        fs.write(inode, offset, bytes(MIB))
        offset += MIB
        flush_if_congested(fs)
    flush(fs)


def test_a_refused_write_changes_nothing(devices: list[MemoryDevice]) -> None:
    fs = mount(devices)
    inode = make(fs, fs.root, b"f", b"before")
    directory = make(fs, fs.root, b"d")
    fs.ctx.space._meta_reserve = fs.ctx.blockmap.allocatable_bigblocks * BIGBLOCK_SIZE
    before = (inode.data.size, inode.data.mtime, fs.ctx.space.records, fs.ctx.space.dirty_bytes)
    for attempt in (
        lambda: fs.write(inode, 3, b"x" * MIB),
        lambda: fs.create(directory, b"new", DIRECTORY, 0o755, 0, 0),
        lambda: fs.symlink(directory, b"new", b"target", 0, 0),
        lambda: fs.link(inode, directory, b"new"),
        lambda: fs.rename(fs.root, b"f", directory, b"new"),
        lambda: fs.setxattr(inode, b"user.x", b"value"),
    ):
        with pytest.raises(NoSpaceError):
            attempt()
    assert (inode.data.size, inode.data.mtime, fs.ctx.space.records, fs.ctx.space.dirty_bytes) == before
    assert read(fs, b"f") == b"before"
    assert b"new" not in names(fs, directory)


def test_a_full_file_system_can_be_emptied(devices: list[MemoryDevice]) -> None:
    """Without history the space comes back, and can be filled again."""
    fs = mount(devices, nohistory=True)
    accepted = []
    for _ in range(2):
        directory = fill(fs)
        accepted.append(len(names(fs, directory)))
        for name in names(fs, directory):
            fs.unlink(directory, name)
            flush_if_congested(fs)
        fs.rmdir(fs.root, b"full")
        flush(fs)
    assert accepted[1] >= accepted[0] - 8
    fs.close_now()
    assert_clean(devices)
    assert mount(devices).ctx.root.inode_count == 1


def test_names_can_be_removed_from_a_full_file_system_that_keeps_history(devices: list[MemoryDevice]) -> None:
    """Nothing comes back, but removing must not be refused either."""
    fs = mount(devices)
    directory = fill(fs, 30_000)
    for name in names(fs, directory):
        fs.unlink(directory, name)
        flush_if_congested(fs)
    fs.rmdir(fs.root, b"full")
    fs.close_now()
    assert_clean(devices)
    assert mount(devices).ctx.root.inode_count == 1


def test_truncating_on_a_full_file_system_is_refused_before_the_flusher_runs_out(devices: list[MemoryDevice]) -> None:
    """With history each cut leaves the block it cut, and lays down what is left of it."""
    fs = mount(devices)
    take_all_but(fs, 7)
    directory = fill(fs, 30_000)
    flush(fs)
    whole = [inode for name in names(fs, directory) if (inode := fs.lookup(directory, name)).data.size == 30_000]
    refused = cut = 0
    while refused < len(whole):
        cut += 1
        for inode in whole:
            try:
                fs.setattr(inode, size=30_000 - cut)
            except NoSpaceError:
                refused += 1
            flush_if_congested(fs)
    flush(fs)
    for name in names(fs, directory):
        fs.unlink(directory, name)
        flush_if_congested(fs)
    fs.close_now()
    assert_clean(devices)


def test_the_reserve_is_given_out_in_steps(devices: list[MemoryDevice]) -> None:
    """New things stop first, then changes, then removals that leave something; what leaves nothing never stops."""
    fs = mount(devices)
    inode = make(fs, fs.root, b"file", b"x" * 100)
    fs.link(inode, fs.root, b"second")
    make(fs, fs.root, b"directory")
    flush(fs)
    free = fs.ctx.blockmap.allocatable_bigblocks * BIGBLOCK_SIZE
    space = fs.ctx.space
    space._meta_reserve = free + 1
    for attempt in (lambda: fs.write(inode, 0, b"y"), lambda: make(fs, fs.root, b"new")):
        with pytest.raises(NoSpaceError):
            attempt()
    fs.setattr(inode, mode=0o600)
    flush(fs)
    space._meta_reserve = free * 4 // 3 + 2
    for change in ({"mode": 0o644}, {"uid": 5}, {"mtime_us": 5}, {"size": 50}, {"size": 0}):
        with pytest.raises(NoSpaceError):
            fs.setattr(inode, **change)
    assert (inode.data.mode, inode.data.size, inode.dirty) == (0o600, 100, 0)
    fs.unlink(fs.root, b"second")
    fs.setattr(inode, mode=0o644)  # written with what the removal changed
    flush(fs)
    space._meta_reserve = 1 << 60
    fs.rmdir(fs.root, b"directory")
    fs.unlink(fs.root, b"file")
    fs.close_now()
    assert_clean(devices)


def test_what_was_fsynced_on_the_edge_of_full_is_repeated_after_a_crash_all_the_same(
    devices: list[MemoryDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recovery must not weigh again what was weighed when it was accepted: the mount would fail."""
    recording, log = recorded(devices)
    fs = mount(recording)
    inode = make(fs, fs.root, b"file", b"x" * 100)
    flush(fs)
    flush_closure(fs, inode)
    fs.write(inode, 0, b"written")
    fs.setattr(inode, size=50)
    flush_closure(fs, inode)
    cut = log.power_cut(len(log.entries), drop_all)
    monkeypatch.setattr(space_module, "_RESERVE_MIN", 1 << 60)
    after = mount(cut)
    assert read(after, b"file") == b"written".ljust(50, b"x")
    with pytest.raises(NoSpaceError):
        make(after, after.root, b"new")
    after.close_now()


def test_blocks_in_memory_count_before_they_have_a_place(devices: list[MemoryDevice]) -> None:
    fs = mount(devices, cache_bytes=1 << 30)
    inode = make(fs, fs.root, b"f", b"")
    available = fs.ctx.space.available
    fs.write(inode, 10 * MIB, b"x")
    assert fs.ctx.space.dirty_bytes == 65536
    assert fs.ctx.space.available == available - 65536
    written = 0
    with suppress(NoSpaceError):
        for number in range(1 << 20):
            written += fs.write(inode, number * 2 * 65536, b"x")
    assert available * 0.9 < written * 65536 <= available
    flush(fs)
    fs.close_now()
    assert_clean(devices)


def test_statfs_never_promises_what_is_reserved(devices: list[MemoryDevice]) -> None:
    fs = mount(devices)
    before = fs.statfs()
    assert 0 < before.blocks_available < before.blocks_free <= before.blocks
    fill(fs)
    after = fs.statfs()
    assert after.blocks_available == 0 or after.blocks_available < 2 * MIB // after.block_size
    assert after.blocks_free > 0


def test_every_kind_of_pending_change_is_counted_and_counted_off(devices: list[MemoryDevice]) -> None:
    fs = mount(devices)
    space = fs.ctx.space
    inode = make(fs, fs.root, b"f", b"x" * 40_000)
    assert (space.records, space.dirty_bytes) == (1 + 3, 3 * 16384)
    fs.setxattr(inode, b"user.x", b"value")
    assert space.records == 5
    fs.setxattr(inode, b"user.x", b"other")
    assert space.records == 5
    fs.symlink(fs.root, b"s", b"t" * 1000, 0, 0)
    assert space.records == 7
    fs.unlink(fs.root, b"s")
    assert space.records == 5
    fs.setattr(inode, size=20_000)
    assert (space.records, space.dirty_bytes) == (4, 2 * 16384)
    flush(fs)
    fs.setxattr(inode, b"user.y", b"value")
    fs.unlink(fs.root, b"f")
    assert (space.records, space.dirty_bytes) == (1, 0)
    flush(fs)


def test_a_file_system_is_congested_when_more_is_pending_than_a_group_should_hold(devices: list[MemoryDevice]) -> None:
    fs = mount(devices)
    count = 0
    while is_relieved(fs):
        make(fs, fs.root, b"%d" % count)
        count += 1
    assert fs.ctx.space.limit * 0.9 < count < 2 * fs.ctx.space.limit
    flush(fs)
    assert is_relieved(fs)
    inode = make(fs, fs.root, b"f", b"")
    offset = 0
    while is_relieved(fs):
        fs.write(inode, offset, b"x")
        offset += MIB
    assert fs.ctx.space.dirty_bytes >= fs._dirty_limit


@pytest.mark.parametrize("seed", range(3))
def test_random_changes_on_the_edge_of_full_never_stop_the_flusher(devices: list[MemoryDevice], seed: int) -> None:
    """INV-7, the hard way: files of all sizes come and go while nearly nothing is free."""
    fs = mount(devices, nohistory=seed == 0)
    take_all_but(fs, 8)
    source = random.Random(seed)
    contents: dict[bytes, bytes] = {}
    refused = 0
    for _ in range(600):
        name = b"%d" % source.randrange(60)
        size = source.choice([10, 5000, 20_000, 200_000, 2 * MIB])
        try:
            if name in contents and source.random() < 0.5:
                fs.unlink(fs.root, name)
                del contents[name]
            else:
                if name not in contents:
                    make(fs, fs.root, name, b"")
                    contents[name] = b""
                data = bytes([source.randrange(1, 256)]) * size
                fs.write(walk(fs, name), 0, data)
                contents[name] = data + contents[name][size:]
        except NoSpaceError:
            refused += 1
        if source.random() < 0.05:
            flush(fs)
        flush_if_congested(fs)
    assert refused
    fs.close_now()
    assert_clean(devices)
    fs = mount(devices)
    assert {name: read(fs, name) for name in names(fs, fs.root) if name != b"filler"} == contents
