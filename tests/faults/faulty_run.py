"""One workload on a file system with a past of which one I/O fails, and everything that has to hold afterwards.

The file system was unmounted, or its power failed and the mount begins with a recovery, whose I/Os fail in turn, too.

The workload and its model are the same in every run, only the I/O that fails differs.  So a test first counts the I/Os
of a run without a fault, then lets each of them fail in turn.
"""

from __future__ import annotations

import copy
import errno
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal
from unittest import mock

import trio
from crash_lib.operations import Step, carry_out, pick_node, random_step
from crash_lib.twin import Node, Twin, view
from crashed_base import crashed
from flusher_control import running
from small_filesystem import FILE, fresh, mount, recorded
from test_filesystem_crash import Acknowledged, Ledger, Promises, checked, remembering

from hammerfs.device.faulty import Action, FaultyDevice
from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import BarrierEnd, Entry, Write, drop_all, keep_all, random_chooser
from hammerfs.errors import HammerError
from hammerfs.fs.flusher import Flusher
from hammerfs.fs.mount import FileSystem

READ_ONLY_LINE = "the file system is read-only from now on"
_SECONDS_MAX = 20


@dataclass(frozen=True)
class Fault:
    """What goes wrong: the arguments of FaultyDevice except `nth`, and the number of the volume that it happens to."""

    action: Action | Literal["any"]
    errno: int = errno.EIO
    short: bool = False
    lasting: bool = False
    latched: bool = True
    volume: int = 0


@lru_cache
def _aged(count: int) -> tuple[list[MemoryDevice], Node]:
    """Volumes with a past, and the model of what they hold."""
    devices = fresh(7, count)
    fs = mount(devices, xattr=True)
    assert fs.flusher is not None
    twin, source = Twin(fs), random.Random(17)
    for number in range(160):
        step = random_step(source)
        if step[0] not in ("open", "release"):
            carry_out(twin, step)
        if number % 20 == 0:
            fs.flusher.flush_now()
    for number in range(40):
        twin.create(twin.root, b"many %d" % number)
    fs.close_now()
    return devices, twin.root


@lru_cache
def _crashed(count: int) -> tuple[list[MemoryDevice], Node]:
    """The same after a power cut, with UNDO and REDO in the FIFO."""
    devices, root = _aged(count)
    base = crashed(tuple(devices), root)
    return base.devices, base.root


def judge(error: HammerError, *also: int) -> None:
    """What a fault may make an operation answer."""
    assert error.errno in (errno.EIO, errno.EROFS, *also), error


class Run(ABC):
    """The workload with one fault; subclasses flush in their own way and know what that promised.

    faulty -- the volume that fails; log -- what reached all of them
    twin -- file system and model, None when the fault kept the mount from coming about
    lines -- what was logged as warning or error
    closed -- the unmount found nothing wrong
    """

    def __init__(
        self, fault: Fault, nth: int, *, count: int = 1, seed: int = 1, steps: int = 30, after_crash: bool = False
    ) -> None:
        devices, root = _crashed(count) if after_crash else _aged(count)
        recording, self.log = recorded([device.copy() for device in devices])
        self.fault = fault
        self._nth = nth
        self.faulty = FaultyDevice(
            recording[fault.volume],
            fault.action,
            nth,
            fault.errno,
            short=fault.short,
            lasting=fault.lasting,
            latched=fault.latched,
        )
        self.faulty.on_fault = self._note_fault
        self._written_at_fault: int | None = None
        self._written_when_known: int | None = None
        self._volumes = [self.faulty if number == fault.volume else item for number, item in enumerate(recording)]
        self._source = random.Random(seed)
        self._steps = steps
        self._root = copy.deepcopy(root)
        self.twin: Twin | None = None
        self.lines: list[str] = []
        self.closed = False

    def _note_fault(self) -> None:
        if self._written_at_fault is None:
            self._written_at_fault = len(self.log.entries)

    @property
    def last_before_fault(self) -> Entry | None:
        """What happened to any device just before the fault."""
        return self.log.entries[self._written_at_fault - 1] if self._written_at_fault else None

    def _note_failure(self, flusher: Flusher) -> None:
        """A barrier fails in its thread, and the flusher knows a moment later: from then on nothing is written."""
        critical_error = flusher.critical_error

        def noted(error: BaseException) -> None:
            if self._written_when_known is None:
                self._written_when_known = len(self.log.entries)
            critical_error(error)

        flusher.critical_error = noted  # type: ignore[method-assign]

    # --- the workload ---------------------------------------------------------------------------
    def carry_out(self) -> None:
        """Mount, change, flush, unmount; a hang is an error."""
        with logged() as self.lines:
            try:
                fs = mount(self._volumes, xattr=True)
            except HammerError as error:
                judge(error)
                return
            assert fs.flusher is not None
            self._note_failure(fs.flusher)
            self.twin = Twin(fs)
            self.twin.root = self._root
            with small_stretches():
                trio.run(self._main, self.twin)

    async def _main(self, twin: Twin) -> None:
        with trio.fail_after(_SECONDS_MAX):
            async with running(twin.fs):
                await self.work(twin)
                self._compare(twin)
                try:
                    twin.release_all()
                    await twin.fs.close()
                except HammerError as error:
                    judge(error)
                self.closed = twin.fs.failure is None

    async def work(self, twin: Twin) -> None:
        for _ in range(self._steps):
            self._step(twin, random_step(self._source))
            try:
                await self.flush_sometimes(twin, self._source)
            except HammerError as error:
                judge(error)
            for _ in range(self._source.randrange(4)):
                await trio.lowlevel.checkpoint()

    @abstractmethod
    async def flush_sometimes(self, twin: Twin, source: random.Random) -> None:
        """Have something flushed, or not, as the source says."""

    def _step(self, twin: Twin, step: Step) -> None:
        """Carry a step out; if it fails, nothing has changed, except that a write may have come half way."""
        try:
            carry_out(twin, step)
        except HammerError as error:
            judge(error)
            if step[0] == "write":
                self._settle_write(twin)

    def _settle_write(self, twin: Twin) -> None:
        self.faulty.is_healed = True
        for node in twin.files():
            inode = twin.inode(node)
            node.content = twin.fs.read(inode, 0, inode.data.size)
        self.faulty.is_healed = False

    def _compare(self, twin: Twin) -> None:
        """Everything is read as it should be, or not at all; and all of it once the device is well again."""
        for path, node in twin.root.below():
            try:
                inode = twin.fs.root
                for name in path:
                    inode = twin.fs.lookup(inode, name)
                content = twin.fs.read(inode, 0, inode.data.size) if node.kind == FILE else node.content
            except HammerError as error:
                judge(error)
            else:
                assert (inode.obj_id, content) == (node.obj_id, node.content), path
        self.faulty.is_healed = True
        twin.compare()

    # --- afterwards -----------------------------------------------------------------------------
    def verify(self) -> None:
        """Nothing was written after a failure, one line was logged, and the next mount finds what was promised.

        What is left of the devices is kept, lost or torn in turn, and every fourth image checked: that takes most time.
        """
        failed = self.twin is not None and self.twin.fs.failure is not None
        refused = self.twin is None  # whose recovery may have failed in a flush, or before one
        assert [READ_ONLY_LINE in line for line in self.lines] in ([True] * failed, [True] * refused), self.lines
        if self.fault.action in ("write", "barrier") and self._written_at_fault is not None:
            assert failed or self.twin is None
            after = self.log.entries[self._written_at_fault :]
            assert self.fault.action != "barrier" or not any(isinstance(entry, BarrierEnd) for entry in after)
            known = self.log.entries[self._written_when_known or 0 :]
            assert not any(isinstance(entry, Write) for entry in (after if refused else known))
        choose = (keep_all, drop_all, random_chooser(random.Random(self._nth)))[self._nth % 3]
        image = self.log.power_cut(len(self.log.entries), choose)
        self.verify_promises(mount(image, xattr=True) if self._nth % 4 else checked(image))

    @abstractmethod
    def verify_promises(self, fs: FileSystem) -> None:
        """Hold what the next mount finds against what was acknowledged."""


class SyncRun(Run):
    """Flushes everything, waiting or not: a crash brings back the state of a flush as a whole."""

    def __init__(self, fault: Fault, nth: int, **options: int) -> None:
        super().__init__(fault, nth, **options)
        self._promises = Promises(self.log, [self._root.state()])

    async def work(self, twin: Twin) -> None:
        flusher = twin.fs.flusher
        assert flusher is not None
        with remembering(flusher, twin, self._promises):
            await super().work(twin)

    async def flush_sometimes(self, twin: Twin, source: random.Random) -> None:
        flusher = twin.fs.flusher
        assert flusher is not None
        choice = source.random()
        if choice < 0.1:
            await twin.fs.sync()
            self._promises.kept.append((len(self.log.entries), len(self._promises.states) - 1))
        elif choice < 0.2:
            flusher.async_(flusher.queue(None))

    def verify_promises(self, fs: FileSystem) -> None:
        states = self._promises.allowed(len(self.log.entries))
        if self.twin is not None:
            states = [self._root.state()] if self.closed else [*states, self._root.state()]
        assert view(fs, fs.root) in states


class FsyncRun(Run):
    """Flushes single files and directories, several at a time."""

    def __init__(self, fault: Fault, nth: int, **options: int) -> None:
        super().__init__(fault, nth, **options)
        self._ledger: Ledger | None = None

    async def work(self, twin: Twin) -> None:
        ledger = self._ledger = Ledger(twin, self.log)
        ledger.note()
        # What the mount found was durable already.
        ledger.acknowledged += [Acknowledged(0, node, list(versions)) for node, versions in ledger.history.items()]
        async with trio.open_nursery() as self._nursery:
            await super().work(twin)

    def _step(self, twin: Twin, step: Step) -> None:
        assert self._ledger is not None
        if step[0] not in ("open", "release"):
            super()._step(twin, step)
        self._ledger.note()

    async def flush_sometimes(self, twin: Twin, source: random.Random) -> None:
        if source.random() < 0.3:
            self._nursery.start_soon(self._fsync, twin, pick_node(twin, source.randrange(1000)))

    async def _fsync(self, twin: Twin, node: Node) -> None:
        assert self._ledger is not None
        try:
            inode = twin.inode(node)
            await self._ledger.fsync(twin.fs, node, inode, len(self._ledger.history[node]) - 1)
        except HammerError as error:
            judge(error, errno.ENOENT)

    def verify_promises(self, fs: FileSystem) -> None:
        if self._ledger is None:
            assert view(fs, fs.root) == self._root.state(), "nothing was changed"
        else:
            self._ledger.verify(fs, len(self.log.entries))


class RedoRun(FsyncRun):
    """Small writes to a few files, fsynced again and again: the way by REDO.

    An fsync that was cut short is redone as a whole or not at all, so a file holds one of its versions.
    """

    FILES = 3

    def _step(self, twin: Twin, step: Step) -> None:
        """Of a random step only the numbers are used."""
        _, (number, offset, kind, seed, _) = step
        files = twin.files()[: self.FILES]
        if kind % 8:
            super()._step(twin, ("write", (number % len(files), offset, kind % 4, seed, 0)))
        else:
            super()._step(twin, ("truncate", (number % len(files), offset % 8, 0, 0, 0)))

    async def flush_sometimes(self, twin: Twin, source: random.Random) -> None:
        if source.random() < 0.6:
            self._nursery.start_soon(self._fsync, twin, twin.files()[source.randrange(self.FILES)])


# --- the log and the clockwork ------------------------------------------------------------------
class _Lines(logging.Handler):
    """Keeps what is logged as warning or error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def logged() -> Iterator[list[str]]:
    """The lines that hammerfs logs meanwhile; the guard of the test's own log does not see them."""
    handler, logger = _Lines(), logging.getLogger("hammerfs")
    others, logger.handlers = logger.handlers, [handler]
    try:
        yield handler.lines
    finally:
        logger.handlers = others


@contextmanager
def small_stretches() -> Iterator[None]:
    """Yield points that really yield, and data that goes to disk early."""
    with (
        mock.patch("hammerfs.fs.flusher._STRETCH_SECONDS", 0.0),
        mock.patch("hammerfs.fs.sync_inode._RECORDS_PER_STRETCH", 2),
        mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS", 2),
        mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS_FSYNCED", 2),
        mock.patch("hammerfs.store.datablocks.SPILL_BYTES", 100_000),
    ):
        yield


def runs_with_each_fault(kind: type[SyncRun | FsyncRun | RedoRun], fault: Fault, **options: int) -> Sequence[Run]:
    """One finished run per I/O of the kind that can fail."""
    sound = kind(replace(fault, lasting=False), 0, **options)
    sound.carry_out()
    sound.verify()
    assert sound.closed
    counts = sound.faulty.counts
    total = sum(counts.values()) if fault.action == "any" else counts[fault.action]
    runs = [kind(fault, nth, **options) for nth in range(1, total + 1)]
    for run in runs:
        run.carry_out()
        run.verify()
    return runs
