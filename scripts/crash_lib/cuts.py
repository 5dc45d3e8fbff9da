"""The images that a power cut can leave, position by position along a recorded log.

The fault model is that of `hammerfs.device.recording`: at any moment each sector of each write that no finished barrier
covers may have reached the medium or not.  Which of several uncertain writes of one sector came last is covered, too:
to drop the later one is to let the earlier one come last.

A state is known by a number that depends on its bytes alone: for every sector that differs from the image before the
first entry, the hash of its place and content is mixed in.  So a state that was seen is recognized before it is built,
whichever position and choice led to it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import compress
from operator import xor
from typing import Any

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import (
    SECTOR_SIZE,
    BarrierEnd,
    Entry,
    Write,
)

Fates = tuple[int, ...]
"""For each uncertain write, oldest first, a bit mask: bit n says whether its n-th sector reached the medium."""
WHOLE = -1
"""The mask of a write that reached the medium, however many sectors it has."""
_REGION_BYTES = 4 * 1024 * 1024
_KEPT_RUN = re.compile("1+")
Sector = tuple[int, int]
"""The device and the number of the sector there."""


@dataclass(slots=True)
class Uncertain:
    """A write that no finished barrier covers yet.

    at -- its place in the log
    write -- what was written, in whole sectors
    sectors -- for each sector, where it is and the hash of its content after this write
    deltas, delta -- how each sector changes the number of the settled state, and how all of them do
    alone -- whether no other uncertain write reaches one of these sectors; then only its own fate decides about them
    """

    at: int
    write: Write
    sectors: list[tuple[Sector, int]]
    deltas: list[int] = field(default_factory=list)
    delta: int = 0
    alone: bool = True

    def compare(self, hashes: dict[Sector, int]) -> None:
        """Find the deltas to a settled state."""
        self.deltas = [hashed ^ hashes[place] for place, hashed in self.sectors]
        self.delta = reduce(xor, self.deltas, 0)

    def bits(self, fate: int) -> list[bool]:
        """For each sector whether a mask keeps it."""
        return [bit == "1" for bit in _sector_bits(fate, len(self.sectors))]


@dataclass(slots=True)
class Cut:
    """What the log looks like to a power cut just before entry `position`.

    settled -- the devices with every certain write applied
    uncertain -- the writes of which each sector may be there or not
    """

    position: int
    settled: Sequence[MemoryDevice]
    uncertain: list[Uncertain]
    digest: int
    hashes: dict[Sector, int] = field(repr=False)

    def digest_of(self, fates: Fates) -> int:
        """The number of the state in which the uncertain writes had these fates."""
        digest = self.digest
        final: dict[Sector, int] = {}
        for pending, fate in zip(self.uncertain, fates, strict=True):
            if not fate:
                continue
            if not pending.alone:
                final.update(pending.sectors if fate == WHOLE else compress(pending.sectors, pending.bits(fate)))
            elif fate == WHOLE:
                digest ^= pending.delta
            else:
                digest = reduce(xor, compress(pending.deltas, pending.bits(fate)), digest)
        for place, hashed in final.items():
            digest ^= hashed ^ self.hashes[place]
        return digest

    def images(self, fates: Fates) -> list[MemoryDevice]:
        """The devices in that state."""
        images = [device.copy() for device in self.settled]
        for pending, fate in zip(self.uncertain, fates, strict=True):
            write = pending.write
            if fate == WHOLE:
                images[write.device].write(write.offset, write.data)
            elif fate:
                images[write.device].write(write.offset, _torn(images[write.device], write, fate))
        return images


def _torn(image: MemoryDevice, write: Write, fate: int) -> bytearray:
    """What lies where `write` goes after only some of its sectors were written."""
    content = bytearray(image.read(write.offset, len(write.data)))
    data = memoryview(write.data)
    for run in _KEPT_RUN.finditer(_sector_bits(fate, write.sectors)):
        low, high = run.start() * SECTOR_SIZE, run.end() * SECTOR_SIZE
        content[low:high] = data[low:high]
    return content


def _sector_bits(fate: int, sectors: int) -> str:
    """A mask as one character a sector, `1` for what is kept."""
    return f"{fate:0{sectors}b}"[::-1]


class Cutter:
    """Walks along a log and gives the cut at each position.

    `bases` are the devices before the first entry, `digest` the number of that state.
    """

    def __init__(self, entries: Sequence[Entry], bases: Sequence[MemoryDevice], digest: int = 0) -> None:
        self._entries = entries
        self._settled = [device.copy() for device in bases]
        self._latest = [device.copy() for device in bases]
        self._digest = digest
        self._hashes: dict[Sector, int] = {}
        self._uncertain: list[Uncertain] = []
        self._reached: dict[Sector, Uncertain] = {}

    def cuts(self) -> Iterator[Cut]:
        """One cut per position, from before the first entry to behind the last."""
        yield self._cut(0)
        for at, entry in enumerate(self._entries):
            if isinstance(entry, Write):
                self._uncertain.append(self._pending(at, entry))
            elif isinstance(entry, BarrierEnd):
                self._settle(entry)
            yield self._cut(at + 1)

    def _cut(self, position: int) -> Cut:
        return Cut(position, self._settled, self._uncertain, self._digest, self._hashes)

    def _pending(self, at: int, write: Write) -> Uncertain:
        """Note a write as whole sectors: a medium knows no less, and a cache holds what lies beside the bytes."""
        device = write.device
        first = write.offset // SECTOR_SIZE
        start, size = first * SECTOR_SIZE, write.sectors * SECTOR_SIZE
        places = [(device, sector) for sector in range(first, first + write.sectors)]
        new = [place for place in places if place not in self._hashes]
        if new:
            before = self._settled[device].read(start, size)
            for place in new:
                self._hashes[place] = _hash(place, before, start)
        self._latest[device].write(write.offset, write.data)
        whole = self._latest[device].read(start, size)
        pending = Uncertain(at, Write(device, start, whole), [(place, _hash(place, whole, start)) for place in places])
        self._note(pending)
        return pending

    def _note(self, pending: Uncertain) -> None:
        """Find out how an uncertain write changes the settled state, and whether others share its sectors."""
        pending.compare(self._hashes)
        pending.alone = True
        reached = self._reached
        for place, _ in pending.sectors:
            other = reached.setdefault(place, pending)
            if other is not pending:
                other.alone = pending.alone = False

    def _settle(self, barrier: BarrierEnd) -> None:
        left = []
        for pending in self._uncertain:
            write = pending.write
            if write.device != barrier.device or pending.at >= barrier.begin:
                left.append(pending)
                continue
            self._settled[write.device].write(write.offset, write.data)
            for place, hashed in pending.sectors:
                self._digest ^= self._hashes[place] ^ hashed
                self._hashes[place] = hashed
        self._uncertain = left
        self._reached.clear()
        for pending in left:
            self._note(pending)


def _hash(place: Sector, content: bytes, start: int) -> int:
    """The hash of a sector and its place; `content` is what lies around it from byte `start` on."""
    device, sector = place
    at = sector * SECTOR_SIZE - start
    return hash((device, sector, content[at : at + SECTOR_SIZE])) & 0xFFFFFFFFFFFFFFFF


def choices(cut: Cut, source: random.Random, count: int, exhaustive_max: int) -> Iterator[Fates]:
    """Fates to try at a cut: every one there is when those are at most `exhaustive_max`, else `count` of them.

    The chosen ones begin with the extremes: all kept, all lost, one device (whose barrier had ended while another's had
    not) or one region (the header, the FIFO, a kind of meta-data) lost by itself or kept by itself, then the same of
    single writes.  Mixtures follow, of whole writes and of torn
    ones, from few exceptions to half and half.
    """
    sizes = [len(pending.sectors) for pending in cut.uncertain]
    if not sizes:
        yield ()
        return
    if sum(sizes) < 20 and 1 << sum(sizes) <= exhaustive_max:
        yield from _every(sizes)
        return
    extremes = [(WHOLE,) * len(sizes), (0,) * len(sizes), *_devices(cut), *_regions(cut)]
    single = _single(len(sizes))
    extremes += source.sample(single, min(len(single), max(2, count // 2 - len(extremes))))
    yield from extremes
    for _ in range(count - len(extremes)):
        yield _mixture(sizes, source)


def _every(sizes: Sequence[int]) -> Iterator[Fates]:
    for number in range(1 << sum(sizes)):
        fates = []
        for size in sizes:
            fates.append(_named(number & (1 << size) - 1, size))
            number >>= size
        yield tuple(fates)


def _devices(cut: Cut) -> Iterator[Fates]:
    yield from _each_alone([pending.write.device for pending in cut.uncertain])


def _regions(cut: Cut) -> Iterator[Fates]:
    yield from _each_alone([(pending.write.device, pending.write.offset // _REGION_BYTES) for pending in cut.uncertain])


def _each_alone(places: Sequence[Any]) -> Iterator[Fates]:
    """The writes of each place lost while all others are kept, and the other way round."""
    different = set(places)
    if len(different) > 1:
        for one in sorted(different):
            yield tuple(0 if place == one else WHOLE for place in places)
            yield tuple(WHOLE if place == one else 0 for place in places)


def _single(count: int) -> list[Fates]:
    found = []
    for index in range(count):
        found.append((*(WHOLE,) * index, 0, *(WHOLE,) * (count - index - 1)))
        found.append((*(0,) * index, WHOLE, *(0,) * (count - index - 1)))
    return found


def _mixture(sizes: Sequence[int], source: random.Random) -> Fates:
    kept, torn = source.choice((0.1, 0.5, 0.5, 0.9)), source.choice((0.0, 0.3, 1.0))
    fates = []
    for size in sizes:
        if source.random() < torn:
            fates.append(_named(source.getrandbits(size), size))
        else:
            fates.append(WHOLE if source.random() < kept else 0)
    return tuple(fates)


def _named(mask: int, size: int) -> int:
    return WHOLE if mask == (1 << size) - 1 else mask
