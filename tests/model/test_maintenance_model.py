"""Directives that give space back, against a model that keeps every version of everything.

Between random operations the file system is flushed, moments are declared snapshots, and what gives space back runs.
Every demanded moment has to read exactly as it was, everything else that was deleted has to be gone, the space of what
is gone has to be given back to the byte (the checker counts it), and nothing of the present may change.
"""

from __future__ import annotations

import random
from unittest import mock

import trio
from crash_lib.operations import Step, carry_out, pick_node
from crash_lib.twin import Twin
from flusher_control import gated, running
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from small_filesystem import assert_clean, assert_settled, fresh, mount
from twin_machine import EXAMPLES, STEPS, THOROUGH, TwinMachine, forgetful

from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Data, Done, Emit, Phase, run_work
from hammerfs.fs.work import carry_out as carry_out_work
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import VERSION_DEDUP
from hammerfs.ondisk.element import unpack_leaf
from hammerfs.ops.dedup import dedup
from hammerfs.ops.prune import PruneOutcome, prune
from hammerfs.ops.rebalance import rebalance, saturation_of
from hammerfs.ops.reblock import Parts, free_level_of, range_of, reblock
from hammerfs.ops.record_range import FIRST, LAST, Position, RecordRange
from hammerfs.ops.retention import BetweenSnapshots, Everything, Rule


def history_of(fs: FileSystem) -> list[tuple[Tid, Tid]]:
    """The lifetimes of all records that were deleted."""
    reach = RecordRange(0)
    elements = map(unpack_leaf, fs.ctx.tree.scan(reach.low, reach.high))
    return [(element.create_tid, element.delete_tid) for element in elements if element.delete_tid]


class MaintenanceAgainstModel(TwinMachine):
    """Of the moments in `history`, those of `demanded` are snapshots."""

    @initialize(version=st.sampled_from([7, 7, 6, 5, 3]), seed=st.integers(0, 1 << 20))
    def start(self, version: int, seed: int) -> None:
        self.source = random.Random(seed)
        self.demanded: set[Tid] = set()
        self.begin(
            version,
            mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS", 2),
            mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS_FSYNCED", 2),
            mock.patch("hammerfs.ops.prune._BATCH", self.source.choice([1, 7, 128])),
            mock.patch("hammerfs.ops.dedup._ENTRIES_MIN", 3),
            mock.patch("hammerfs.ops.reblock._BATCH", self.source.choice([1, 7, 64])),
            mock.patch("hammerfs.ops.reblock._STRETCH_BYTES", self.source.choice([1, 100_000])),
        )

    @rule(is_snapshot=st.booleans())
    def flush(self, is_snapshot: bool) -> None:
        tid = self.remember()
        if tid is not None and is_snapshot:
            self.demanded.add(tid)

    @rule(number=st.integers(0, 4095))
    def forget_snapshot(self, number: int) -> None:
        if self.demanded:
            self.demanded.discard(sorted(self.demanded)[number % len(self.demanded)])

    @rule()
    def prune_between_snapshots(self) -> None:
        if not self.demanded:
            return
        self.prune(BetweenSnapshots(sorted(self.demanded)))
        newest = max(self.demanded)
        self.history = {tid: state for tid, state in self.history.items() if tid >= newest or tid in self.demanded}
        for create, delete in history_of(self.fs):
            assert delete > newest or any(create <= tid < delete for tid in self.demanded)
        self.look_back()

    @rule()
    def prune_everything(self) -> None:
        self.prune(Everything())
        self.history.clear()
        self.demanded.clear()
        assert not history_of(self.fs)

    @rule(
        percentage=st.sampled_from([100, 100, 95, 1]),
        parts=st.sampled_from([Parts.EVERYTHING, Parts.INODES, Parts.DIRS, Parts.DATA, Parts.BTREE]),
    )
    def reblock(self, percentage: int, parts: Parts) -> None:
        """Whatever moves, nothing looks different, now or in the past."""
        before = history_of(self.fs)
        begin, examined = FIRST, 0
        while True:
            work = reblock(self.fs, range_of(0, parts, begin), parts, free_level_of(percentage), self.interrupted)
            outcome = run_work(self.fs, work)
            examined += outcome.records
            begin = outcome.position
            if percentage == 100:
                assert outcome.records_moved == outcome.records
            if not outcome.interrupted:
                break
        self.unchanged(before)

    @rule(percentage=st.sampled_from([50, 85, 100]))
    def rebalance(self, percentage: int) -> None:
        before = history_of(self.fs)
        begin = FIRST
        while True:
            reach = RecordRange(0, first=begin)
            outcome = run_work(self.fs, rebalance(self.fs, reach, saturation_of(percentage), self.interrupted))
            begin = outcome.position
            if not outcome.interrupted:
                break
        self.unchanged(before)

    @rule(memory=st.sampled_from([0, 1 << 30]))
    def dedup(self, memory: int) -> None:
        if self.fs.ctx.version < VERSION_DEDUP:
            return
        before = history_of(self.fs)
        begin = 0
        while True:
            outcome = run_work(self.fs, dedup(self.fs, 0, memory, self.interrupted, crc_begin=begin))
            begin = outcome.crc_begin
            if not outcome.interrupted:
                break
        self.unchanged(before)

    def unchanged(self, history: list[tuple[Tid, Tid]]) -> None:
        """The records are those that they were, the present and the past are what they were, the image is sound."""
        assert history_of(self.fs) == history
        self.twin.compare()
        self.twin.release_all()
        self.settle()
        assert_clean(self.devices)
        self.look_back()

    def interrupted(self) -> bool:
        return self.source.random() < 0.2

    def prune(self, rule: Rule) -> None:
        """Run to the end, however often it is interrupted."""
        self.twin.release_all()
        self.settle()
        before = len(history_of(self.fs))
        begin, gone = LAST, 0
        while True:
            outcome = self.carry_out(begin, rule)
            gone += outcome.records + outcome.entries
            begin = outcome.position
            if not outcome.interrupted:
                break
        self.settle()
        assert gone == before - len(history_of(self.fs))
        self.twin.compare()
        assert_clean(self.devices)

    def carry_out(self, begin: Position, rule: Rule) -> PruneOutcome:
        work = prune(self.fs, 0, rule, self.interrupted, begin)
        return run_work(self.fs, work)


TestMaintenanceAgainstModel = MaintenanceAgainstModel.TestCase
TestMaintenanceAgainstModel.settings = settings(THOROUGH, max_examples=EXAMPLES, stateful_step_count=25)


class Silent:
    """Listens to work and gives way each time."""

    async def tell(self, step: Phase | Done | Emit | Data) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self, limit: int) -> bytes:
        return b""


@settings(THOROUGH, max_examples=EXAMPLES)
@given(steps=st.lists(STEPS, min_size=5, max_size=50), seed=st.integers(0, 1 << 30), nohistory=st.booleans())
def test_maintenance_between_any_two_operations_and_steps_of_the_flusher(
    steps: list[Step], seed: int, nohistory: bool
) -> None:
    """Pruning and moving run on and on while tasks change files, groups run and cycles are written."""
    devices = fresh()
    fs = forgetful(mount(devices, xattr=True, nohistory=nohistory))
    twin, source = Twin(fs), random.Random(seed)

    async def maintain(scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await carry_out_work(fs, prune(fs, 0, Everything(), lambda: False), Silent())
                parts = source.choice([Parts.EVERYTHING, Parts.DATA, Parts.BTREE])
                await carry_out_work(fs, reblock(fs, range_of(0, parts), parts, 0, lambda: False), Silent())
                await carry_out_work(fs, dedup(fs, 0, 1 << 30, lambda: False), Silent())
                await carry_out_work(fs, rebalance(fs, RecordRange(0), saturation_of(85), lambda: False), Silent())

    async def change() -> None:
        async with trio.open_nursery() as nursery:
            for step in steps:
                choice = source.random()
                if choice < 0.15:
                    nursery.start_soon(fs.fsync, twin.inode(pick_node(twin, source.randrange(4096))))
                elif choice < 0.25:
                    nursery.start_soon(fs.sync)
                for _ in range(source.choice([0, 0, 1, 1, 2, 3, 5, 9, 20])):
                    await trio.lowlevel.checkpoint()
                carry_out(twin, step)
                twin.compare()
        twin.release_all()

    async def main() -> None:
        scope = trio.CancelScope()
        async with running(fs), trio.open_nursery() as nursery:
            nursery.start_soon(maintain, scope)
            await change()
            scope.cancel()
            await fs.close()

    with (
        gated(),
        mock.patch("hammerfs.fs.work._STRETCH_SECONDS", 0.0),
        mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS", 2),
        mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS_FSYNCED", 2),
        mock.patch("hammerfs.ops.prune._BATCH", 3),
        mock.patch("hammerfs.ops.reblock._BATCH", 3),
    ):
        trio.run(main)
    assert fs.failure is None
    assert_settled(fs)
    assert_clean(devices)
    twin.fs = mount(devices, xattr=True)
    twin.compare()
