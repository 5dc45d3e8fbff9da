"""The tests of the eight points see: with the original's behaviour in place of ours, each of them fails.

The points are those at which DragonFly's HAMMER loses or damages data (docs/recovery.md, "What differs from the
original").  Each is modelled by a change of one function, under which the test that is named after the point must fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from unittest import mock

import pytest
import test_filesystem_crash as points
import test_redo_crash as redo_points
import trio
from flusher_control import running, until
from small_filesystem import fresh, make, mount, read, recorded

from hammerfs.device.recording import drop_all
from hammerfs.errors import HammerError
from hammerfs.fs import flushgroup
from hammerfs.fs.cycle import Cycle, Step
from hammerfs.fs.flusher import Flusher
from hammerfs.fs.inode import Inode
from hammerfs.fs.options import FSYNC_DURABLE, FSYNC_RELAXED
from hammerfs.fs.redolog import RedoJournal
from hammerfs.ondisk.address import Offset
from hammerfs.ondisk.constants import REDO_SYNC
from hammerfs.ondisk.fifo import REDO_OVERHEAD, RedoBody
from hammerfs.store.undo import UndoFifo


def fails(test: Callable[[], None], *patches: mock._patch[Callable[..., object]]) -> None:
    """Run a test under patches; it has to complain."""
    for patch in patches:
        patch.start()
    try:
        with pytest.raises((AssertionError, HammerError)):
            test()
    finally:
        for patch in patches:
            patch.stop()


def test_point_1_a_last_flush_that_nobody_closes_is_lost() -> None:
    """Its header and meta-data wait for the barrier of the next one."""

    def close(cycle: Cycle) -> Iterator[Step]:
        cycle.undo_dirty = False
        yield from ()

    fails(
        lambda: points.test_point_1_the_last_flush_is_durable_without_another_one(points.flushed_by_fsync),
        mock.patch.object(Cycle, "close", close),
    )


def test_point_2_a_rename_whose_halves_land_one_by_one_tears() -> None:
    def closure(seeds: Iterable[Inode]) -> list[Inode]:
        """What an inode's link count needs, and nothing that its entries are bound to."""
        found = dict.fromkeys(seeds)
        for inode in list(found):
            found |= dict.fromkeys(record.directory for record in inode.links if not record.directory.on_disk)
        return list(found)

    fails(
        lambda: points.test_point_2_rename_between_directories_is_one_step(0),
        mock.patch("hammerfs.fs.groupflush.closure", closure),
    )


def test_point_3_redo_in_front_of_the_range_runs_old_writes_again() -> None:
    """Each range leads back to the oldest REDO there is, and a TERM is matched by the exact offset alone."""
    syncs: list[Offset] = []
    original = UndoFifo.append_redo_sync

    def append_redo_sync(fifo: UndoFifo) -> None:
        original(fifo)
        syncs.append(fifo.next_offset - REDO_OVERHEAD)

    def carry_over(journal: RedoJournal) -> None:
        journal._undo.begin_range(hidden=False)
        if syncs:
            journal._undo.append_redo(RedoBody(0, syncs[0], 0, REDO_SYNC, 0, b""))

    fails(
        redo_points.test_point_3_an_old_write_does_not_run_over_a_newer_one,
        mock.patch.object(UndoFifo, "append_redo_sync", append_redo_sync),
        mock.patch.object(RedoJournal, "carry_over", carry_over),
        mock.patch("hammerfs.fs.redo._covers", lambda term, write: term.offset == write.offset),
    )


def test_point_4_a_range_begun_empty_forgets_what_was_fsynced() -> None:
    def carry_over(journal: RedoJournal) -> None:
        journal.used = False
        journal._undo.begin_range(hidden=False)

    fails(
        redo_points.test_point_4_a_flush_that_empties_the_range_keeps_what_was_fsynced_during_it,
        mock.patch.object(RedoJournal, "carry_over", carry_over),
    )


def test_point_5_a_size_that_goes_ahead_of_its_data_shows_zeros() -> None:
    """The inode is flushed with its size while the buffers wait for the next flush."""
    ahead: set[Inode] = set()

    def capture(inode: Inode, seq: int) -> None:
        if inode in ahead or not inode.on_disk:
            ahead.discard(inode)
            flushgroup.capture(inode, seq)
            return
        ahead.add(inode)
        kept = inode.blocks, inode.records
        inode.blocks, inode.records = {}, {}
        flushgroup.capture(inode, seq)
        inode.blocks, inode.records = kept

    fails(
        points.test_point_5_size_and_data_of_a_file_that_was_never_fsynced_become_visible_together,
        mock.patch("hammerfs.fs.groupflush.capture", capture),
    )


def test_point_6_a_snapshot_that_does_not_wait_misses_files() -> None:
    async def sync(flusher: Flusher) -> None:
        """Only what is on its way already."""
        await flusher.wait(flusher.next - 1)

    fails(
        points.test_point_6_a_view_of_the_past_right_after_thousands_of_files_shows_all_of_them,
        mock.patch.object(Flusher, "sync", sync),
    )


def test_point_7_dependencies_followed_one_behind_the_other_never_end() -> None:
    """The original panics; a walk without a memory of where it was ends on Python's stack."""

    def follow(inode: Inode, found: list[Inode]) -> None:
        found.append(inode)
        for record in inode.links:
            if not record.directory.on_disk:
                follow(record.directory, found)
            for other in record.together.records if record.together is not None else ():
                follow(other.target, found)

    def closure(seeds: Iterable[Inode]) -> list[Inode]:
        found: list[Inode] = []
        for inode in seeds:
            follow(inode, found)
        return found

    with mock.patch("hammerfs.fs.groupflush.closure", closure), pytest.raises(RecursionError):
        points.test_point_7_directories_moved_into_each_other_before_the_first_flush()


@pytest.mark.parametrize(("mode", "survives"), [(FSYNC_DURABLE, True), (FSYNC_RELAXED, False)])
def test_point_8_the_mode_that_dragonfly_defaults_to_returns_before_anything_is_durable(
    mode: int, survives: bool
) -> None:
    """INV-6 holds for our default; mode 3 is an option."""
    recording, log = recorded(fresh())
    fs = mount(recording, fsync_mode=mode)
    cuts = []

    async def main() -> None:
        async with running(fs) as flusher:
            inode = make(fs, fs.root, b"f", b"old")
            await fs.sync()
            for _ in range(2):
                fs.write(inode, 0, b"new")
                await fs.fsync(inode)
                cuts.append(log.power_cut(len(log.entries), drop_all))
                await until(lambda: not flusher.running() and not flusher.cycle.undo_dirty)
                fs.write(inode, 0, b"old")
                await fs.sync()

    trio.run(main)
    for cut in cuts:
        assert (read(points.checked(cut), b"f") == b"new") is survives
