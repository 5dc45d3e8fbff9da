"""A device that remembers what was written between which barriers, and shows what a power cut could leave.

The fault model: a write is certain once a barrier that began after it has returned.  Until then each of its 512-byte
sectors may have reached the medium or not, independently of every other write; a sector is never torn in itself.
Several devices that make up one file system share a log, so that one cut hits all of them at the same moment.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.passing import PassingDevice
from hammerfs.ondisk.crc import Buffer

SECTOR_SIZE = 512


@dataclass(frozen=True, slots=True)
class Write:
    """`data` was written at `offset` of the device with this index in the log."""

    device: int
    offset: int
    data: bytes

    @property
    def sectors(self) -> int:
        """How many sectors the write touches."""
        return (self.offset % SECTOR_SIZE + len(self.data) + SECTOR_SIZE - 1) // SECTOR_SIZE


@dataclass(frozen=True, slots=True)
class BarrierBegin:
    """A barrier was asked for."""

    device: int


@dataclass(frozen=True, slots=True)
class BarrierEnd:
    """The barrier that began at log position `begin` has returned."""

    device: int
    begin: int


Entry: TypeAlias = Write | BarrierBegin | BarrierEnd
Fate: TypeAlias = Sequence[bool]
"""For each sector of an uncertain write: did it reach the medium?"""
Chooser: TypeAlias = Callable[[Write], Fate]


class RecordingLog:
    """Everything that happened on the attached devices, in order; `entries` may be read, positions are indices."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._bases: list[MemoryDevice] = []
        # Per device: the image with all writes before a position applied; moves forward while positions do.
        self._settled: list[tuple[int, MemoryDevice]] = []

    def attach(self, base: MemoryDevice) -> int:
        """Register a device by its contents before the first entry; returns its index."""
        self._bases.append(base)
        self._settled.append((0, base.copy()))
        return len(self._bases) - 1

    def uncertain(self, position: int) -> list[Write]:
        """The writes before `position` that no finished barrier covers, in the order in which they were made."""
        certain = self._certain_until(position)
        return [
            entry
            for at, entry in enumerate(self.entries[:position])
            if isinstance(entry, Write) and at >= certain[entry.device]
        ]

    def power_cut(self, position: int, choose: Chooser) -> list[MemoryDevice]:
        """The devices as a power cut just before entry `position` leaves them, uncertain sectors being chosen."""
        images = [self._image(device, until) for device, until in enumerate(self._certain_until(position))]
        for write in self.uncertain(position):
            apply_sectors(images[write.device], write, choose(write))
        return images

    def random_power_cuts(self, seed: int, count: int) -> Iterator[tuple[int, list[MemoryDevice]]]:
        """`count` cuts at random positions with random fates; the same seed gives the same ones."""
        source = random.Random(seed)
        for position in sorted(source.randint(0, len(self.entries)) for _ in range(count)):
            yield position, self.power_cut(position, random_chooser(source))

    def all_power_cuts(self, position: int, limit: int = 8) -> Iterator[list[MemoryDevice]]:
        """Every combination of kept, dropped and torn in either half, for at most `limit` uncertain writes."""
        writes = self.uncertain(position)
        assert len(writes) <= limit, f"{len(writes)} uncertain writes give too many combinations"
        for combination in itertools.product(*(_fates(write.sectors) for write in writes)):
            chosen = iter(combination)
            yield self.power_cut(position, lambda _, chosen=chosen: next(chosen))  # type: ignore[misc]

    def _certain_until(self, position: int) -> list[int]:
        """Per device, the position before which every write is certain at `position`."""
        certain = [0] * len(self._bases)
        for entry in self.entries[:position]:
            if isinstance(entry, BarrierEnd):
                certain[entry.device] = max(certain[entry.device], entry.begin)
        return certain

    def _image(self, device: int, until: int) -> MemoryDevice:
        position, image = self._settled[device]
        if until < position:
            position, image = 0, self._bases[device].copy()
        for entry in self.entries[position:until]:
            if isinstance(entry, Write) and entry.device == device:
                image.write(entry.offset, entry.data)
        self._settled[device] = until, image
        return image.copy()


class RecordingDevice(PassingDevice):
    """Passes everything on to a memory device and notes it in a log, its own or a shared one."""

    def __init__(self, lower: MemoryDevice, log: RecordingLog | None = None) -> None:
        super().__init__(lower)
        self.log = log or RecordingLog()
        self._index = self.log.attach(lower.copy())
        self._began: int | None = None

    def write(self, offset: int, data: Buffer) -> None:
        self._lower.write(offset, data)
        self.log.entries.append(Write(self._index, offset, bytes(data)))

    def begin_barrier(self) -> None:
        """Let the next barrier have begun now, as one in a thread does while others write."""
        self._began = len(self.log.entries)
        self.log.entries.append(BarrierBegin(self._index))

    @property
    def in_barrier(self) -> bool:
        """Whether a barrier has begun and not ended."""
        return self._began is not None

    def barrier(self) -> None:
        if self._began is None:
            self.begin_barrier()
        begin, self._began = self._began, None
        assert begin is not None
        self._lower.barrier()
        self.log.entries.append(BarrierEnd(self._index, begin))


def apply_sectors(image: MemoryDevice, write: Write, fate: Fate) -> None:
    """Let those sectors of a write reach the image that `fate` says."""
    assert len(fate) == write.sectors, "one fate per sector"
    start = write.offset - write.offset % SECTOR_SIZE
    end = write.offset + len(write.data)
    index = 0
    for reached, run in itertools.groupby(fate):
        count = len(list(run))
        low = max(write.offset, start + index * SECTOR_SIZE)
        high = min(end, start + (index + count) * SECTOR_SIZE)
        if reached:
            image.write(low, write.data[low - write.offset : high - write.offset])
        index += count


def random_chooser(source: random.Random) -> Chooser:
    """Keeps a third of the uncertain writes, drops a third, tears a third at random sectors."""

    def choose(write: Write) -> Fate:
        fate = source.randrange(3)
        if fate < 2:
            return [fate == 0] * write.sectors
        return [source.random() < 0.5 for _ in range(write.sectors)]

    return choose


def keep_all(write: Write) -> Fate:
    """The fate of a write when only the process dies, not the machine."""
    return [True] * write.sectors


def drop_all(write: Write) -> Fate:
    """The fate of a write in a cache that is lost."""
    return [False] * write.sectors


def _fates(sectors: int) -> list[Fate]:
    fates: list[Fate] = [[True] * sectors, [False] * sectors]
    if sectors > 1:
        half = sectors // 2
        fates.append([True] * half + [False] * (sectors - half))
        fates.append([False] * half + [True] * (sectors - half))
    return fates
