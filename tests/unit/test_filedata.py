"""File contents: blocks in memory, laid down, captured and on disk, and truncations too large for one cycle."""

from __future__ import annotations

import errno
from unittest import mock

import pytest
import trio
from flusher_control import running
from small_filesystem import (
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

from hammerfs.device.faulty import FaultyDevice
from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import CorruptionError, DeviceError, ReadOnlyError
from hammerfs.fs import unfinished
from hammerfs.fs.cycle import Cycle
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import short_of
from hammerfs.ondisk.constants import (
    LOCALIZE_INODE,
    LOCALIZE_MISC,
    MAX_TID,
    RECTYPE_DATA,
    RECTYPE_INODE,
    ZONE_LARGE_DATA,
)
from hammerfs.ondisk.element import base_key, pack_key, unpack_leaf

BLOCK = 16384


def blocks(count: int, seed: int) -> bytes:
    return b"".join(bytes([seed, number]) * (BLOCK // 2) for number in range(count))


class Exhausted:
    """Says that a cycle's share is used up at every look but those in `generous`."""

    def __init__(self) -> None:
        self.generous = 0

    def __call__(self, cycle: Cycle) -> bool:
        self.generous -= 1
        return self.generous < 0


@pytest.fixture
def scarce() -> Exhausted:
    """Lets a truncation end `generous` records per cycle."""
    return Exhausted()


def flush_one_group(fs: FileSystem, scarce: Exhausted, records: int) -> None:
    """One cycle in which truncations end at most `records` data records."""

    async def main() -> None:
        flusher = fs.flusher
        assert flusher is not None
        scarce.generous = records
        seq = flusher.async_(flusher.queue(None))
        async with trio.open_nursery() as nursery:
            await nursery.start(fs.run)
            while flusher.statistics_groups == before:
                await trio.lowlevel.checkpoint()
            flusher.lock_groups()
            await flusher.wait_durable(seq)
            nursery.cancel_scope.cancel()
        flusher.unlock_groups()

    assert fs.flusher is not None
    before = fs.flusher.statistics_groups
    with (
        mock.patch("hammerfs.fs.sync_inode._RECORDS_PER_STRETCH", 1),
        mock.patch.object(Cycle, "should_cut_short", lambda self: scarce(self)),
    ):
        trio.run(main)


def replaced(scarce: Exhausted, records: int) -> tuple[list[MemoryDevice], FileSystem]:
    """A file of 8 blocks, truncated to nothing and written anew with 6, in a cycle that ended `records` old records."""
    devices = fresh()
    fs = mount(devices)
    make(fs, fs.root, b"f", blocks(8, 1))
    assert fs.flusher is not None
    fs.flusher.flush_now()
    inode = walk(fs, b"f")
    fs.setattr(inode, size=0)
    fs.write(inode, 0, blocks(6, 2))
    flush_one_group(fs, scarce, records)
    return devices, fs


@pytest.mark.trio
async def test_a_file_that_is_fsynced_keeps_more_of_what_it_writes_over_and_over() -> None:
    """Laid down would be what soon is written again, and the fsync would wait for it."""
    fs = mount(fresh())
    async with running(fs):
        fsynced, other = make(fs, fs.root, b"f", b"x"), make(fs, fs.root, b"g", b"x")
        await fs.fsync(fsynced)
        with (
            mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS", 2),
            mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS_FSYNCED", 4),
        ):
            laid = []
            for number in range(5):
                for inode in (fsynced, other):
                    fs.write(inode, number * BLOCK, blocks(1, number))
                laid.append((len(fsynced.records), len(other.records)))
        assert laid == [(0, 0), (0, 0), (0, 3), (0, 3), (5, 3)]


def test_a_block_whose_end_the_writer_has_not_reached_is_not_laid_down() -> None:
    """Laid down, it would be given up by the next write, and its space be lost."""
    fs = mount(fresh())
    inode = make(fs, fs.root, b"f", blocks(8, 1))
    assert fs.flusher is not None
    fs.flusher.flush_now()
    with mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS", 2):
        new = blocks(8, 2)
        for start in range(0, len(new), 3 * BLOCK + 4096):
            fs.write(inode, start, new[start : start + 3 * BLOCK + 4096])
    places = [inode.records[start].data_offset for start in sorted(inode.records)]
    assert places == [places[0] + number * BLOCK for number in range(len(places))], "space between them was given up"
    fs.flusher.flush_now()
    assert read(fs, b"f") == new


def test_a_truncation_to_the_size_there_is_changes_nothing() -> None:
    fs = mount(fresh())
    inode = make(fs, fs.root, b"f", b"x" * 100)
    assert fs.flusher is not None
    fs.flusher.flush_now()
    before = inode.data.mtime, inode.data.ctime
    fs.setattr(inode, size=100)
    assert (inode.data.mtime, inode.data.ctime, inode.dirty) == (*before, 0)
    fs.setattr(inode, size=100, mtime_us=5, ctime_us=6)
    assert (inode.data.mtime, inode.data.ctime) == (5, 6)


@pytest.mark.parametrize("records", range(9))
def test_what_is_written_after_a_truncation_survives_that_the_truncation_is_cut_short(
    scarce: Exhausted, records: int
) -> None:
    """The rest of the truncation comes in a later cycle; it must not take what was written since."""
    devices, fs = replaced(scarce, records)
    assert fs.flusher is not None
    assert read(fs, b"f") == blocks(6, 2)
    fs.flusher.flush_now()
    assert_settled(fs)
    assert read(fs, b"f") == blocks(6, 2)
    fs.close_now()
    assert_clean(devices)
    assert read(mount(devices), b"f") == blocks(6, 2)


@pytest.mark.parametrize("records", range(9))
def test_a_crash_while_a_truncation_is_cut_short_shows_neither_old_content_nor_zeros(
    scarce: Exhausted, records: int
) -> None:
    """The file ends where the truncation got to; the next mount ends what is behind it."""
    devices, _ = replaced(scarce, records)
    devices = [device.copy() for device in devices]
    assert_clean(devices)
    fs = mount(devices)
    assert read(fs, b"f") == blocks(min(records, 6), 2)
    fs.close_now()
    assert_clean(devices)
    fs = mount(devices)
    fs.setattr(walk(fs, b"f"), size=8 * BLOCK)
    assert read(fs, b"f") == blocks(min(records, 6), 2).ljust(8 * BLOCK, b"\0")


def test_what_is_written_while_a_truncation_waits_to_go_on_is_kept(scarce: Exhausted) -> None:
    devices, fs = replaced(scarce, 2)
    expected = bytearray(blocks(6, 2))
    expected[3 * BLOCK + 5 : 3 * BLOCK + 8] = b"new"
    fs.write(walk(fs, b"f"), 3 * BLOCK + 5, b"new")
    flush_one_group(fs, scarce, 1)
    fs.setattr(walk(fs, b"f"), size=4 * BLOCK)
    del expected[4 * BLOCK :]
    assert read(fs, b"f") == expected
    fs.close_now()
    assert_settled(fs)
    assert_clean(devices)
    assert read(mount(devices), b"f") == expected


def test_fsync_waits_until_a_truncation_that_was_cut_short_is_complete(scarce: Exhausted) -> None:
    """INV-6: what fsync acknowledges is on disk, in however many cycles it got there."""
    devices = fresh()
    fs = mount(devices)
    inode = make(fs, fs.root, b"f", blocks(8, 1))
    assert fs.flusher is not None
    fs.flusher.flush_now()
    fs.setattr(inode, size=0)
    fs.write(inode, 0, blocks(6, 2))
    answers = iter([False, True, False, False, True] + [False] * 20)
    with (
        mock.patch("hammerfs.fs.sync_inode._RECORDS_PER_STRETCH", 1),
        mock.patch.object(Cycle, "should_cut_short", side_effect=answers),
    ):
        flush_closure(fs, inode)
    assert read(mount([device.copy() for device in devices]), b"f") == blocks(6, 2)
    assert fs.flusher.statistics_groups == 4


def test_a_deletion_that_was_cut_short_is_finished_by_the_next_mount(scarce: Exhausted) -> None:
    devices = fresh()
    fs = mount(devices)
    make(fs, fs.root, b"f", blocks(8, 1))
    assert fs.flusher is not None
    fs.flusher.flush_now()
    fs.unlink(fs.root, b"f")
    flush_one_group(fs, scarce, 3)
    devices = [device.copy() for device in devices]
    assert_clean(devices)
    fs = mount(devices)
    assert fs.ctx.root.inode_count == 2
    assert names(fs, fs.root) == []
    fs.close_now()
    assert fs.ctx.root.inode_count == 1
    assert not list(unfinished.scan(fs.ctx))
    assert_clean(devices)


def test_a_file_of_more_records_than_a_cycle_bears_is_deleted_in_several() -> None:
    """With the smallest FIFO there is, one cycle ends some forty thousand records."""
    fs = mount(fresh(size=6 << 30))
    inode = make(fs, fs.root, b"f", b"")
    megabyte = bytes(1 << 20)
    for number in range(3600):
        fs.write(inode, number << 20, megabyte)
        if fs.congested:
            assert fs.flusher is not None
            fs.flusher.flush_now()
    assert fs.flusher is not None
    fs.flusher.flush_now()
    before = fs.flusher.statistics_groups
    fs.unlink(fs.root, b"f")
    fs.close_now()
    assert fs.flusher.statistics_groups == before + 2
    assert fs.ctx.root.inode_count == 1


def test_a_mount_finishes_a_truncation_at_a_block_of_64_kib(scarce: Exhausted) -> None:
    """Beyond 1 MiB blocks are larger, and no record may be cut in two."""
    large = 1 << 20
    devices = fresh()
    fs = mount(devices)
    inode = make(fs, fs.root, b"f", b"x" * (large + 5 * 65536))
    assert fs.flusher is not None
    fs.flusher.flush_now()
    fs.setattr(inode, size=large + 5)
    flush_one_group(fs, scarce, 1)
    devices = [device.copy() for device in devices]
    fs = mount(devices)
    fs.close_now()
    assert_clean(devices)
    fs = mount(devices)
    assert not list(unfinished.scan(fs.ctx))
    assert read(fs, b"f") == b"x" * (large + 5)


@pytest.mark.expect_log("object 0x100000010 stays unfinished, as it cannot be read: .* bad CRC")
def test_damage_in_what_a_mount_should_finish_does_not_keep_it_from_mounting() -> None:
    devices = fresh()
    fs = mount(devices)
    inode = make(fs, fs.root, b"f", b"content")
    make(fs, fs.root, b"g", b"other")
    fs.opened(inode)
    fs.unlink(fs.root, b"f")
    fs.close_now()
    raw = fs.ctx.tree.find_as_of(base_key(LOCALIZE_INODE, inode.obj_id, RECTYPE_INODE, 0), MAX_TID)
    assert raw is not None
    place = fs.ctx.volumes.root.header.vol_buf_beg + short_of(unpack_leaf(raw).data_offset)
    devices[0].write(place, b"\xff")
    fs = mount(devices)
    assert names(fs, fs.root) == [b"g"]
    make(fs, fs.root, b"h", b"new")
    fs.close_now()


@pytest.mark.expect_log("read-only from now on")
def test_reading_goes_on_after_the_flusher_failed_and_writes_nothing() -> None:
    """INV-11: what is in memory only stays readable, and reading it is no reason to write it."""
    recording, log = recorded(fresh())
    device = FaultyDevice(recording[0], "barrier", 4, errno.EIO)
    fs = mount([device])
    inode = make(fs, fs.root, b"f", blocks(8, 1))
    assert fs.flusher is not None
    fs.flusher.flush_now()
    fs.ctx.blocks.flush()
    fs.write(inode, 0, blocks(70, 2))
    with pytest.raises(DeviceError):
        fs.flusher.flush_now()
    written = len(log.entries)
    assert fs.read(inode, 0, 70 * BLOCK) == blocks(70, 2)
    assert len(log.entries) == written
    with pytest.raises(ReadOnlyError):
        fs.write(inode, 0, b"more")


def test_reading_beside_blocks_that_wait_to_be_written_writes_nothing() -> None:
    """A read must not fail for what happens to somebody else's writes."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    inode = make(fs, fs.root, b"f", blocks(8, 1))
    assert fs.flusher is not None
    fs.flusher.flush_now()
    fs.ctx.blocks.put(fs.ctx.blockmap.reserve(ZONE_LARGE_DATA, BLOCK), bytes(BLOCK))
    written = len(log.entries)
    assert fs.read(inode, 0, 8 * BLOCK) == blocks(8, 1)
    assert len(log.entries) == written


def test_a_block_whose_space_was_given_up_is_not_written() -> None:
    """INV-1: the place may belong to somebody else by the time the queue is written."""
    fs = mount(fresh())
    inode = make(fs, fs.root, b"f", blocks(65, 1))
    assert fs.ctx.blocks.queued_bytes == 64 * BLOCK
    fs.write(inode, BLOCK, blocks(2, 2))
    assert fs.ctx.blocks.queued_bytes == 62 * BLOCK
    fs.setattr(inode, size=10 * BLOCK)
    assert fs.ctx.blocks.queued_bytes == 8 * BLOCK
    fs.unlink(fs.root, b"f")
    assert fs.ctx.blocks.queued_bytes == 0
    assert fs.ctx.blockmap.reserved_bytes == 0


def test_a_write_that_fails_on_a_damaged_block_leaves_no_loose_ends() -> None:
    """The first block was written already when the second could not be read: that much is kept, and flushed."""
    devices = fresh()
    fs = mount(devices)
    inode = make(fs, fs.root, b"f", blocks(4, 1))
    fs.close_now()
    raw = next(fs.ctx.tree.scan(*data_range(inode.obj_id, 2 * BLOCK)))
    place = fs.ctx.volumes.root.header.vol_buf_beg + short_of(unpack_leaf(raw).data_offset)
    devices[0].write(place, b"\xff")
    fs = mount(devices, nohistory=True)
    inode = walk(fs, b"f")
    with pytest.raises(CorruptionError, match="at file offset 16384 has a bad CRC"):
        fs.write(inode, 0, b"y" * (BLOCK + 100))
    assert fs.read(inode, 0, BLOCK) == b"y" * BLOCK
    assert fs.flusher is not None
    fs.flusher.flush_now()
    assert_settled(fs)
    assert fs.read(inode, 0, BLOCK) == b"y" * BLOCK
    fs.write(inode, BLOCK, b"z" * BLOCK)
    fs.close_now()
    assert_clean(devices)
    assert read(mount(devices), b"f") == b"y" * BLOCK + b"z" * BLOCK + blocks(4, 1)[2 * BLOCK :]


def data_range(obj_id: int, end: int) -> tuple[bytes, bytes]:
    """The keys of all versions of the data record that ends at `end`."""
    first, last = (pack_key(LOCALIZE_MISC, obj_id, RECTYPE_DATA, end, tid) for tid in (1, MAX_TID))
    return first, last
