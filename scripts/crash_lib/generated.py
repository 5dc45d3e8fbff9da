"""Workloads of random operations on a recorded file system in memory, repeatable to the byte.

Up to four tasks change one file system, fsync, sync and wait, while the flusher runs beside them.  Everything that
could differ between two runs is given: the order of tasks, the clock, and what a barrier seems to take.  A barrier
begins, other tasks have their turns, and only then it ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from unittest import mock

import trio
import trio.testing

from crash_lib.operations import OPERATIONS, WEIGHTS, carry_out, pick, pick_node, random_step
from crash_lib.promises import NOTHING_LOST, Lost, Promises
from crash_lib.small import VOLUME_SIZE, fresh, mount, recorded
from crash_lib.twin import Node, Twin
from crash_lib.verdict import Further, Tree, snapshots_of
from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import RecordingDevice, RecordingLog, Write
from hammerfs.errors import NoSpaceError
from hammerfs.fs import work
from hammerfs.fs.barrier import BarrierRunner
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.redolog import RedoLog
from hammerfs.fs.work import Work
from hammerfs.ondisk.constants import BIGBLOCK_SIZE

TASKS_MAX = 4
EARLY_BYTES = 40 * 1024
"""Dirty meta-data at which a flush group is written out before its end, where that is wanted."""


WORKS = 2
"""Directives that run beside one workload's tasks: each of them writes more than all of these."""


@dataclass(frozen=True)
class Plan:
    """What a workload does, drawn from its seed.

    version, volumes -- of the file system
    spares -- devices beside it, which may become volumes of that number
    tasks -- how many change it at the same time
    steps -- operations of all tasks together
    weights -- of operations, by name; those not named are left out
    fsyncs, syncs, flushes -- how often an operation is followed by an fsync of some object, a sync, or a flush that
    nobody wants to be durable
    contents -- how often an fsync is one of a file, for certain
    nohistory -- keep none
    dedup -- do not store twice what is known to lie on disk
    early -- write meta-data out in the middle of flush groups, too
    prepare -- what happens before anything is recorded
    tune -- what is changed about the mount that is recorded
    maintain -- works that go on beside the tasks, one after the other
    further -- what else is asked of each recovered image
    """

    version: int = 7
    volumes: int = 1
    spares: int = 0
    tasks: int = 1
    steps: int = 40
    weights: dict[str, int] = field(default_factory=lambda: {**dict.fromkeys(OPERATIONS, 1), **WEIGHTS})
    fsyncs: float = 0.3
    syncs: float = 0.03
    flushes: float = 0.06
    contents: float = 0.0
    nohistory: bool = False
    dedup: bool = False
    early: bool = False
    prepare: Callable[[Twin], None] | None = None
    tune: Callable[[FileSystem], None] | None = None
    maintain: Callable[[FileSystem, random.Random], Work[Any]] | None = None
    further: Further | None = None


class Keeping(Protocol):
    """What was promised when, and who can tell whether it was kept.

    kept -- (log position, promise), oldest first; from the position on nothing older counts
    """

    @property
    def kept(self) -> Sequence[tuple[int, Any]]: ...

    def broken_by(self, tree: Tree, promise: Any, /) -> list[str]: ...


@dataclass
class Workload:
    """A workload that was recorded.

    bases -- the devices before it; log -- what was written; promises -- what was promised meanwhile
    options -- with which the file system is mounted, before and after a crash
    further -- what else is asked of each recovered image
    """

    bases: list[MemoryDevice]
    log: RecordingLog
    promises: Keeping
    options: dict[str, Any]
    further: Further | None = None


def record(plan: Plan, seed: int) -> Workload:
    """Run a plan."""
    bases = fresh(plan.version, plan.volumes)
    spares = [MemoryDevice(VOLUME_SIZE, name=f"volume{plan.volumes + number}.img") for number in range(plan.spares)]
    options = {"xattr": True, "nohistory": plan.nohistory, "dedup": plan.dedup}
    with deterministic(seed):
        # What fills a file system has to be stored, be it equal or not.
        twin = Twin(mount(bases, **{**options, "dedup": False}))
        if plan.prepare is not None:
            plan.prepare(twin)
        twin.fs.close_now()
        bases += spares
        devices, log = recorded([device.copy() for device in bases])
        fs = twin.fs = mount(devices[: plan.volumes], **options)
        fs.open_device = {device.name: device for device in devices}.__getitem__
        assert fs.flusher is not None
        if plan.early:
            fs.flusher.cycle._meta_limit = EARLY_BYTES
        if plan.tune is not None:
            plan.tune(fs)
        promises = Promises(twin)
        promises.note()
        promises.keep(0, promises.floors_of_everything())
        promises.past = snapshots_of(fs)
        trio.run(_Run(fs, twin, promises, log, plan, seed).main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert fs.failure is None, fs.failure
    return Workload(bases, log, promises, options, plan.further)


class _Run:
    """One run of a plan, with its tasks."""

    def __init__(
        self, fs: FileSystem, twin: Twin, promises: Promises, log: RecordingLog, plan: Plan, seed: int
    ) -> None:
        self.fs = fs
        self.twin = twin
        self.promises = promises
        self.log = log
        self.plan = plan
        self.seed = seed
        self.drawn = [name for name, weight in plan.weights.items() for _ in range(weight)]

    async def main(self) -> None:
        # An fsync that has company shares the flusher's next group, one without flushes at once: both are tried.
        company = random.Random(f"{self.seed} company")
        self.fs.know_waiting_requests(lambda: company.random() < 0.6)
        async with trio.open_nursery() as flusher:
            await flusher.start(self.fs.run)
            async with trio.open_nursery() as beside:
                beside.start_soon(self.maintain, random.Random(f"{self.seed} maintenance"))
                async with trio.open_nursery() as tasks:
                    for number in range(self.plan.tasks):
                        tasks.start_soon(self.task, random.Random(f"{self.seed} {number}"))
                beside.cancel_scope.cancel()
            self.twin.release_all()
            self.promises.note()
            floors = self.promises.floors_of_everything()
            await self.fs.close()
            self.promises.keep(len(self.log.entries), floors)
            flusher.cancel_scope.cancel()

    async def task(self, source: random.Random) -> None:
        """Change, and sometimes wait for what was changed."""
        for _ in range(self.plan.steps // self.plan.tasks):
            if self.fs.congested:
                await self.fs.throttle()
            try:
                carry_out(self.twin, random_step(source, self.drawn))
            except NoSpaceError:
                await self.promised(self.fs.sync, self.promises.floors_of_everything())
            self.promises.note()
            choice = source.random()
            if choice < self.plan.fsyncs:
                files = self.twin.files() if self._wants_a_file(source) else []
                number = source.randrange(1 << 12)
                node = pick(files, number) if files else pick_node(self.twin, number)
                await self.fsync(node)
            elif (choice := choice - self.plan.fsyncs) < self.plan.syncs:
                await self.promised(self.fs.sync, self.promises.floors_of_everything())
            elif choice - self.plan.syncs < self.plan.flushes:
                assert self.fs.flusher is not None
                seq = self.fs.flusher.async_(self.fs.flusher.queue(None))
                if source.random() < 0.5:
                    await self.fs.flusher.wait(seq)
            for _ in range(source.choice((0, 0, 0, 1, 3, 9))):
                await trio.lowlevel.checkpoint()

    def _wants_a_file(self, source: random.Random) -> bool:
        share = self.plan.contents
        return share == 1 or (share > 0 and source.random() < share)

    async def maintain(self, source: random.Random) -> None:
        """A few works, where any are wanted."""
        if self.plan.maintain is None:
            return
        for _ in range(WORKS):
            for _ in range(source.randrange(100)):
                await trio.lowlevel.checkpoint()
            with suppress(NoSpaceError):
                await work.carry_out(self.fs, self.plan.maintain(self.fs, source), _Silent())
            if self.twin.slave is not None:
                self.promises.note()
                self.promises.keep(len(self.log.entries), self.promises.floors_of_slave())

    async def fsync(self, node: Node) -> None:
        """Make an object durable, and note what that promises."""
        inode, promises = self.twin.inode(node), self.promises
        promises.asked(len(self.log.entries), node)
        await self.promised(lambda: self.fs.fsync(inode), promises.floors_of(node), promises.lost_by(node))
        promises.answered(len(self.log.entries), node)

    async def promised(self, wait: Callable[[], Any], floors: dict[Any, int], lost: Lost = NOTHING_LOST) -> None:
        """Wait for durability, and note from when on it is promised."""
        await wait()
        self.promises.keep(len(self.log.entries), floors, lost)


class _Silent:
    """Has nothing to say to works, and does not listen."""

    async def tell(self, step: object) -> None:
        """Let it pass."""

    async def receive(self, limit: int) -> bytes:
        """Nothing."""
        return b""


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Take chance and time away from trio and the flusher; every yield point yields."""
    ticks = iter(range(1 << 62))
    scheduler: random.Random = trio._core._run._r
    scheduler.seed(seed)
    chance = random.Random(seed)
    with ExitStack() as patches:
        for patch in (
            mock.patch("time.perf_counter", partial(_tick, ticks)),
            mock.patch("hammerfs.fs.flusher._STRETCH_SECONDS", 0.0),
            mock.patch("hammerfs.fs.sync_inode._RECORDS_PER_STRETCH", 2),
            mock.patch("hammerfs.fs.work._STRETCH_SECONDS", 0.0),
            mock.patch("hammerfs.ops.prune._BATCH", 5),
            mock.patch("hammerfs.ops.reblock._BATCH", 5),
            mock.patch("hammerfs.ops.dedup._BATCH", 5),
            mock.patch("hammerfs.ops.administer_volumes._WRITE_BYTES", BIGBLOCK_SIZE),
            mock.patch("trio.to_thread.run_sync", _aside),
            mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS", 2),
            mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS_FSYNCED", 2),
            mock.patch("hammerfs.store.datablocks.SPILL_BYTES", 100_000),
            mock.patch("hammerfs.store.blockmap.APART_BIGBLOCKS_MIN", 8),
            # Too few files are fsynced often enough for a habit; what is laid ahead must never matter.
            mock.patch.object(RedoLog, "is_fsync_next", side_effect=partial(_by_chance, chance)),
            mock.patch.object(BarrierRunner, "run", _slow_barrier),
            mock.patch.object(BarrierRunner, "run_in_thread", _slow_barrier),
            mock.patch.object(BarrierRunner, "run_now", _barrier_at_once),
        ):
            patches.enter_context(patch)
        yield


def _by_chance(chance: random.Random) -> bool:
    return chance.random() < 0.5


def _tick(ticks: Iterator[int]) -> float:
    return next(ticks) * 1e-5


async def _aside(call: Callable[[], None]) -> None:
    """What a thread does, which takes a while to begin."""
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    call()


async def _slow_barrier(runner: BarrierRunner) -> None:
    """A barrier that covers what was written before it began, while other tasks go on writing.

    Those of several devices end one after the other, and what was written meanwhile is left for the next ones.
    """
    volumes = runner._volumes
    unsettled = [volumes.volumes[number].device for number in sorted(volumes._unsettled)]
    devices = [device for device in unsettled if isinstance(device, RecordingDevice)]
    assert len(devices) == len(unsettled), "a device that is not recorded"
    written: set[int] = set()
    for device in devices:
        device.begin_barrier()
    if devices:
        log, began = devices[0].log, len(devices[0].log.entries)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        written = {entry.device for entry in log.entries[began:] if isinstance(entry, Write)}
    volumes.barrier()
    # A device that is about to be a volume, or was one, is settled by whoever writes to it.
    volumes._unsettled |= written & volumes.volumes.keys()


def _barrier_at_once(runner: BarrierRunner) -> None:
    """A barrier that gives way to nobody: one that another task has begun ends first, as it does not cover as much."""
    volumes = runner._volumes
    for volume in volumes.volumes.values():
        device = volume.device
        if isinstance(device, RecordingDevice) and device.in_barrier:
            device.barrier()
    volumes.barrier()
