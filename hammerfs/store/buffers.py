"""Meta-data buffers: 16 KiB pieces of zone 2, cached, changed in memory only, written by the flusher only.

Two ways lead into a buffer.  `modify` changes bytes that a synced state may refer to: their old content goes to the
UNDO FIFO first.  `modify_noundo` fills space allocated in this cycle, which no synced state refers to.  Neither writes
to a device; `flush` does, and its caller must have put a barrier behind the UNDO records (INV-2 in docs/recovery.md).

Dirty buffers are pinned, clean ones are evicted least recently used first.  A flush writes the 4 KiB pages that
changed, not whole buffers: a small fsync touches one node in each of five buffers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from hammerfs.ondisk.address import Offset, to_zone2, volume_of
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, BUFMASK, BUFSIZE, NODE_SIZE
from hammerfs.ondisk.crc import Buffer
from hammerfs.store.regions import REGION_BYTES, Regions
from hammerfs.store.volumes import VolumeSet

_DIFF_CHUNK = 512
_DIFF_GAP = 40
"""Equal bytes between two differing ranges that cost no more than a second record's head and tail."""
_MAX_VECTOR = 64
_PAGE_MASK = 4096 - 1
_NEIGHBOURHOOD = 4 * BUFSIZE
"""What the kernel is told to read when a buffer is missing: nodes that one flush made lie side by side.

Of 1000 files with 57 versions each, in random order, a cold stat took 322 us instead of 425, a cold read 696 instead
of 867 (medians of 12 in turns).
"""


class UndoLog(Protocol):
    """Where the old content of modified bytes goes."""

    def log(self, offset: Offset, old: Buffer) -> bool: ...


class MetaBuffers:
    """The cache of meta-data buffers of one mounted file system.

    volumes -- where buffers are read from and flushed to
    undo -- receives old contents; None on a mount that never modifies
    limit -- clean buffers kept at most
    """

    def __init__(self, volumes: VolumeSet, undo: UndoLog | None, limit: int) -> None:
        self._volumes = volumes
        self._undo = undo
        self._limit = max(limit, 8)
        self._regions = Regions(volumes, again=REGION_BYTES // NODE_SIZE)
        self._clean: OrderedDict[int, bytearray] = OrderedDict()
        self._dirty: dict[int, bytearray] = {}
        self._spans: dict[int, tuple[int, int]] = {}

    @property
    def dirty_bytes(self) -> int:
        """Bytes pinned by modified buffers."""
        return len(self._dirty) * BUFSIZE

    def read(self, offset: Offset, size: int) -> bytes:
        """`size` bytes at a direct-translated offset; the range must not cross a buffer boundary."""
        start = offset & BUFMASK
        base = to_zone2(offset) - start
        buffer = self._held(base)
        if buffer is None:
            buffer = self._load(base)
        assert start + size <= BUFSIZE
        return bytes(buffer[start : start + size])

    def read_node(self, offset: Offset) -> bytes:
        """The 4096 bytes of a B-tree node, which its reader keeps; so no buffer is filled for it.

        Of 1000 files with 1000 versions each a cold stat took 120 us instead of 167, a cold read 219 instead of 269.
        """
        start = offset & BUFMASK
        place = to_zone2(offset)
        buffer = self._held(place - start)
        if buffer is None:
            self._read_ahead(place - start)
            return self._volumes.read(place, NODE_SIZE)
        return bytes(buffer[start : start + NODE_SIZE])

    def modify(self, offset: Offset, new: Buffer) -> None:
        """Replace bytes in place, after logging what stood there."""
        start = offset & BUFMASK
        base = to_zone2(offset) - start
        buffer = self._writable(base)
        self._replace_under_undo(buffer, base, start, start + len(new), new)

    def modify_noundo(self, offset: Offset, new: Buffer) -> None:
        """Fill bytes that were allocated in this cycle.

        An allocation at a buffer's first byte starts a buffer that was never used: append-only allocation means that
        nothing in it is referred to, so it needs no read.
        """
        start = offset & BUFMASK
        base = to_zone2(offset) - start
        buffer = self._dirty.get(base)
        if buffer is None:
            if start == 0:
                self._clean.pop(base, None)
                buffer = self._dirty[base] = bytearray(BUFSIZE)
                self._spans[base] = (0, BUFSIZE)
            else:
                buffer = self._writable(base)
        buffer[start : start + len(new)] = new
        self._touch(base, start, start + len(new))

    def modify_node(self, offset: Offset, raw: bytes, fresh: bool) -> None:
        """Replace a B-tree node; only the ranges that differ cost UNDO, and a fresh node none."""
        if fresh:
            self.modify_noundo(offset, raw)
            return
        start = offset & BUFMASK
        base = to_zone2(offset) - start
        buffer = self._writable(base)
        for low, high in _differing_ranges(buffer[start : start + NODE_SIZE], raw):
            self._replace_under_undo(buffer, base, start + low, start + high, raw[low:high])

    def flush(self) -> int:
        """Write every dirty buffer, neighbours together; returns the bytes written.  No barrier."""
        written = 0
        run: list[memoryview] = []
        run_start = run_end = 0
        for base in sorted(self._dirty):
            if base not in self._spans:
                continue  # a node was written that turned out to be the same
            low, high = self._spans[base]
            if run and (base + low != run_end or len(run) == _MAX_VECTOR):
                self._volumes.write_vector(run_start, run)
                run = []
            if not run:
                run_start = base + low
            run.append(memoryview(self._dirty[base])[low:high])
            run_end = base + high
            written += high - low
        if run:
            self._volumes.write_vector(run_start, run)
        self._clean.update(self._dirty)
        self._dirty.clear()
        self._spans.clear()
        self._evict()
        return written

    def invalidate(self, bigblock: Offset) -> None:
        """Forget the clean buffers of a big-block that changes its owner."""
        first = to_zone2(bigblock)
        if len(self._clean) < BIGBLOCK_SIZE // BUFSIZE:
            stale = [base for base in self._clean if first <= base < first + BIGBLOCK_SIZE]
        else:
            stale = [base for base in range(first, first + BIGBLOCK_SIZE, BUFSIZE) if base in self._clean]
        for base in stale:
            del self._clean[base]

    def forget_volume(self, number: int) -> None:
        """Forget what lies on a volume that goes."""
        assert all(volume_of(base) != number for base in self._dirty), "a volume went that was to be written to"
        for base in [base for base in self._clean if volume_of(base) == number]:
            del self._clean[base]

    def _held(self, base: int) -> bytearray | None:
        buffer = self._dirty.get(base)
        if buffer is None and (buffer := self._clean.get(base)) is not None:
            self._clean.move_to_end(base)
        return buffer

    def _load(self, base: int) -> bytearray:
        self._read_ahead(base)
        buffer = bytearray(self._volumes.read(base, BUFSIZE))
        self._clean[base] = buffer
        if len(self._clean) > self._limit:
            self._clean.popitem(last=False)
        return buffer

    def _read_ahead(self, base: int) -> None:
        neighbourhood = base & -_NEIGHBOURHOOD
        if not self._regions.note(base) and self._volumes.covers(neighbourhood, _NEIGHBOURHOOD):
            self._volumes.prefetch(neighbourhood, _NEIGHBOURHOOD)

    def _writable(self, base: int) -> bytearray:
        buffer = self._dirty.get(base)
        if buffer is None:
            buffer = self._clean.pop(base, None)
            if buffer is None:
                buffer = bytearray(self._volumes.read(base, BUFSIZE))
            self._dirty[base] = buffer
        return buffer

    def _replace_under_undo(self, buffer: bytearray, base: int, low: int, high: int, new: Buffer) -> None:
        assert self._undo is not None, "modification of a read-only mount"
        self._undo.log(base + low, bytes(buffer[low:high]))
        buffer[low:high] = new
        self._touch(base, low, high)

    def _touch(self, base: int, low: int, high: int) -> None:
        """Widen what a flush writes of a dirty buffer, in whole pages."""
        low &= ~_PAGE_MASK
        high = (high + _PAGE_MASK) & ~_PAGE_MASK
        span = self._spans.get(base)
        if span is not None:
            low, high = min(low, span[0]), max(high, span[1])
        self._spans[base] = low, high

    def _evict(self) -> None:
        while len(self._clean) > self._limit:
            self._clean.popitem(last=False)


def _differing_ranges(old: Buffer, new: Buffer) -> Iterator[tuple[int, int]]:
    """Where two versions of a node differ; pieces that touch are told as one, as each costs a record of its own."""
    low, high = -1, -NODE_SIZE
    for at in range(0, NODE_SIZE, _DIFF_CHUNK):
        old_chunk, new_chunk = old[at : at + _DIFF_CHUNK], new[at : at + _DIFF_CHUNK]
        if old_chunk == new_chunk:
            continue
        first, end = differing_range(old_chunk, new_chunk)
        if at + first > high + _DIFF_GAP:
            if low >= 0:
                yield low, high
            low = at + first
        high = at + end
    if low >= 0:
        yield low, high


def differing_range(old: Buffer, new: Buffer) -> tuple[int, int]:
    """The smallest half-open byte range in which two different, equally long strings differ.

    One XOR of two big integers finds both ends; a loop over bytes would cost thirty times as much.
    """
    difference = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
    assert difference, "equal strings have no differing range"
    low = ((difference & -difference).bit_length() - 1) // 8
    high = (difference.bit_length() + 7) // 8
    return low, high
