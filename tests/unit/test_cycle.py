"""One flush cycle: the order of its writes, its limits, and what a failed write does to the mount."""

from __future__ import annotations

import errno
import itertools
from unittest import mock

import pytest
from small_filesystem import assert_clean, fresh, make, mount, names, read, recorded, walk

from hammerfs.device.faulty import Action, FaultyDevice
from hammerfs.device.recording import BarrierEnd, RecordingLog, Write, drop_all, keep_all
from hammerfs.errors import HammerError, ReadOnlyError
from hammerfs.fs.cycle import Step, run_steps
from hammerfs.fs.flusher import Flusher
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import encode
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, ZONE_LARGE_DATA, ZONE_RAW_BUFFER, ZONE_SMALL_DATA

HEADER, UNDO, DATA, META, BARRIER = "header", "undo", "data", "meta", "barrier"


def flusher_of(fs: FileSystem) -> Flusher:
    assert fs.flusher is not None
    return fs.flusher


class Watch:
    """What was written to the only volume of a file system since the last look, kind by kind."""

    def __init__(self, fs: FileSystem, log: RecordingLog) -> None:
        self.fs = fs
        self.log = log
        self.seen = len(log.entries)

    def kinds(self) -> list[str]:
        """One word for each run of writes of a kind, and for each barrier."""
        entries = self.log.entries[self.seen :]
        self.seen = len(self.log.entries)
        words = [
            self._kind(entry) if isinstance(entry, Write) else BARRIER
            for entry in entries
            if isinstance(entry, Write | BarrierEnd)
        ]
        return [word for word, _ in itertools.groupby(words)]

    def _kind(self, write: Write) -> str:
        if write.offset == 0:
            return HEADER
        header = self.fs.ctx.volumes.root.header
        place = encode(ZONE_RAW_BUFFER, 0, write.offset - header.vol_buf_beg)
        if place - place % BIGBLOCK_SIZE == header.undo_bigblock(0):
            return UNDO
        zone = self.fs.ctx.freemap.layer2(place - place % BIGBLOCK_SIZE).zone
        return DATA if zone in (ZONE_LARGE_DATA, ZONE_SMALL_DATA) else META


def watched(version: int = 7) -> tuple[FileSystem, Watch]:
    recording, log = recorded(fresh(version))
    fs = mount(recording)
    return fs, Watch(fs, log)


def change(fs: FileSystem) -> None:
    """Some data and some meta-data."""
    fs.write(make(fs, fs.root, b"%d" % fs.ctx.clock()), 0, b"x" * 20_000)


# --- the order of writes ------------------------------------------------------------------------
def test_a_cycle_writes_data_and_undo_before_the_barrier_header_and_meta_data_behind_it() -> None:
    """INV-2."""
    fs, watch = watched()
    flusher = flusher_of(fs)
    group = flusher.queue(None)
    change(fs)
    flusher.start_group(group)
    flusher.sync_group(group)
    run_steps(fs.ctx, flusher.cycle.finalize(final=True))
    assert watch.kinds() == [DATA, UNDO, BARRIER, HEADER, META]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_before_version_4_a_barrier_stands_between_the_fifo_s_indices_and_what_needs_them(version: int) -> None:
    """Recovery knows the FIFO's end from the header alone; so its first sector goes ahead of everything undoable."""
    fs, watch = watched(version)
    change(fs)
    flusher_of(fs).flush_now()
    assert watch.kinds() == [DATA, UNDO, BARRIER, HEADER, BARRIER, HEADER, META, BARRIER, HEADER, BARRIER]


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_closing_a_cycle_makes_its_meta_data_durable_and_then_the_header_that_forgets_its_undo(version: int) -> None:
    """INV-3."""
    fs, watch = watched(version)
    change(fs)
    flusher_of(fs).flush_now()
    assert watch.kinds() == [DATA, UNDO, BARRIER, HEADER, META, BARRIER, HEADER, BARRIER]
    entry = fs.ctx.volumes.root.header.blockmap(3)
    assert entry.first_offset == entry.next_offset


def test_the_header_of_a_cycle_still_leads_to_its_undo() -> None:
    """INV-3: first_offset is where the cycle before ended, and moves on with the next header."""
    fs, _ = watched()
    flusher, undo = flusher_of(fs), fs.ctx.undo
    assert undo is not None
    entry = fs.ctx.volumes.root.header.blockmap(3)
    ends = [undo.next_offset]
    for _ in range(3):
        change(fs)
        group = flusher.queue(None)
        flusher.start_group(group)
        flusher.sync_group(group)
        run_steps(fs.ctx, flusher.cycle.finalize(final=True))
        flusher.end_group(group)
        assert (entry.first_offset, entry.next_offset) == (ends[-1], undo.next_offset)
        ends.append(undo.next_offset)
    assert len(set(ends)) == 4


def test_a_cycle_without_anything_new_writes_nothing() -> None:
    fs, watch = watched()
    change(fs)
    flusher_of(fs).flush_now()
    watch.kinds()
    flusher_of(fs).flush_now()
    assert watch.kinds() == []


def test_a_non_final_finalization_relieves_buffers_under_undo_and_the_cycle_goes_on() -> None:
    """A crash takes back all of it: the header still names the B-tree's old root and leads to the UNDO."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    watch = Watch(fs, log)
    flusher, undo = flusher_of(fs), fs.ctx.undo
    assert undo is not None
    change(fs)
    flusher.flush_now()
    watch.kinds()
    first = undo.first_offset
    for number in range(300):
        make(fs, fs.root, b"%d" % number, b"x")
    group = flusher.queue(None)
    flusher.start_group(group)
    half = group.work[: len(group.work) // 2]
    del group.work[: len(group.work) // 2]
    flusher.sync_group(group)
    cycle_before = fs.ctx.blockmap.cycle
    run_steps(fs.ctx, flusher.cycle.finalize(final=False))
    assert watch.kinds() == [DATA, UNDO, BARRIER, HEADER, META]
    assert fs.ctx.buffers.dirty_bytes == 0
    assert undo.first_offset == first
    assert not flusher.cycle.undo_dirty
    assert fs.ctx.blockmap.cycle == cycle_before
    for choose in (keep_all, drop_all):
        image = log.power_cut(len(log.entries), choose)
        assert_clean(image)
        assert len(names(mount(image), mount(image).root)) == 1
    group.work = half
    flusher.sync_group(group)
    run_steps(fs.ctx, flusher.cycle.finalize(final=True))
    flusher.end_group(group)
    flusher.done = group.seq
    fs.close_now()
    assert_clean(log.power_cut(len(log.entries), drop_all))


def test_the_blockmap_is_written_with_its_crcs_under_undo() -> None:
    fs, watch = watched()
    change(fs)
    flusher = flusher_of(fs)
    group = flusher.queue(None)
    flusher.start_group(group)
    flusher.sync_group(group)
    assert fs.ctx.freemap.dirty_entries
    steps = flusher.cycle.finalize(final=True)
    for step in steps:
        if step is Step.DATA:
            fs.ctx.blocks.flush()
        if step is Step.BARRIER:
            break
    assert not fs.ctx.freemap.dirty_entries
    assert watch.kinds() == [DATA, UNDO]
    run_steps(fs.ctx, steps)
    for zone in (9, 10):
        assert fs.ctx.volumes.root.header.blockmap(zone).crc_ok(7)


def test_flush_tids_follow_what_is_written_and_what_is_final() -> None:
    """flush_tid2 is the newest TID written out, flush_tid1 the newest that no crash takes back."""
    fs, _ = watched()
    flusher = flusher_of(fs)
    cycle = flusher.cycle
    start = (cycle.flush_tid1, cycle.flush_tid2)
    change(fs)
    group = flusher.queue(None)
    flusher.start_group(group)
    flusher.sync_group(group)
    run_steps(fs.ctx, cycle.finalize(final=True))
    flusher.end_group(group)
    assert cycle.flush_tid1 == start[1]
    assert cycle.flush_tid2 >= group.tid
    run_steps(fs.ctx, cycle.close())
    assert cycle.flush_tid1 == cycle.flush_tid2


def test_a_tid_of_a_synced_state_is_not_given_out_again_after_a_crash() -> None:
    """INV-8."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    for _ in range(4):
        change(fs)
        flusher_of(fs).flush_now()
        inode = make(fs, fs.root, b"%d is not flushed" % fs.ctx.clock())
        crashed = mount(log.power_cut(len(log.entries), drop_all))
        assert crashed.ctx.alloc_tid() > fs.flusher.cycle.flush_tid1  # type: ignore[union-attr]
        assert inode.obj_id > 0


# --- limits -------------------------------------------------------------------------------------
def test_undo_exhausted_compares_what_is_left_with_quarters_of_the_fifo() -> None:
    fs = mount(fresh())
    flusher, undo = flusher_of(fs), fs.ctx.undo
    assert undo is not None
    for used_share, expected in [(0.0, set()), (0.24, set()), (0.26, {3}), (0.51, {2, 3}), (0.76, {1, 2, 3})]:
        with mock.patch.object(type(undo), "used", int(undo.capacity * used_share)):
            assert {quarter for quarter in (1, 2, 3) if flusher.cycle.undo_exhausted(quarter)} == expected


def test_undo_exhausted_counts_what_is_still_to_be_logged() -> None:
    fs = mount(fresh())
    flusher, undo = flusher_of(fs), fs.ctx.undo
    assert undo is not None
    with mock.patch.object(type(fs.ctx.tree), "undo_estimate", return_value=undo.capacity // 2 + 1):
        assert flusher.cycle.undo_exhausted(2)
        assert not flusher.cycle.undo_exhausted(1)


def test_meta_limit_and_half_of_it() -> None:
    fs = mount(fresh())
    flusher = flusher_of(fs)
    limit = flusher.cycle._meta_limit
    for dirty, expected in [(limit // 2, (False, False)), (limit // 2 + 1, (True, False)), (limit + 1, (True, True))]:
        with mock.patch.object(type(fs.ctx.buffers), "dirty_bytes", dirty):
            assert (flusher.cycle.meta_halflimit(), flusher.cycle.meta_limit()) == expected


def failing_workload(fs: FileSystem, durable: list[list[bytes]]) -> None:
    """Notes in `durable` which names have become durable."""
    flusher = flusher_of(fs)
    make(fs, fs.root, b"f", b"first" * 10_000)
    flusher.flush_now()
    durable.append([b"f"])
    fs.write(walk(fs, b"f"), 0, b"second")
    make(fs, fs.root, b"g", b"x")
    fs.rename(fs.root, b"g", fs.root, b"h")
    flusher.flush_now()
    durable.append([b"f", b"h"])
    fs.unlink(fs.root, b"h")
    fs.close_now()
    durable.append([b"f"])


def failing_actions() -> list[tuple[Action, int]]:
    """Every write and every barrier of that workload, by its number."""
    device = FaultyDevice(fresh()[0], "read", 1 << 60, errno.EIO)
    failing_workload(mount([device]), [])
    kinds: list[Action] = ["write", "barrier"]
    return [(action, nth) for action in kinds for nth in range(1, device.counts[action] + 1)]


@pytest.mark.expect_log("read-only from now on, nothing more is written")
@pytest.mark.parametrize(("action", "nth"), failing_actions())
def test_a_failed_write_or_barrier_ends_all_writing_and_the_next_mount_rolls_back(action: Action, nth: int) -> None:
    """INV-11, at every write and every barrier: loud, one way, and what was durable before is still there."""
    recording, log = recorded(fresh())
    fs = mount([FaultyDevice(recording[0], action, nth, errno.EIO, short=nth % 2 == 0)])
    durable: list[list[bytes]] = [[]]
    with pytest.raises(HammerError) as caught:
        failing_workload(fs, durable)
    assert caught.value.errno == errno.EIO
    assert fs.failure is not None
    assert f"cannot {action}" in fs.failure
    written = len(log.entries)
    with pytest.raises(ReadOnlyError):
        make(fs, fs.root, b"more")
    fs.close_now()
    assert len(log.entries) == written, "something was written after the failure"
    for choose in (drop_all, keep_all):
        image = log.power_cut(written, choose)
        assert_clean(image)
        recovered = mount(image)
        # The cycle that failed may have got through; whoever waited for it was told of an error.
        underway = ([b"f"], [b"f", b"h"], [b"f"])[len(durable) - 1]
        assert names(recovered, recovered.root) in (durable[-1], underway)
        if len(durable) > 2:
            assert read(recovered, b"f")[:6] == b"second"
