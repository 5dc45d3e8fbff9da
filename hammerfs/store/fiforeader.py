"""The reading end of the UNDO/REDO FIFO: records in either direction, verified, in big reads.

Records tile the ring without a gap and none crosses a 16 KiB buffer, so any range that begins at a record can be cut at
1 MiB boundaries.  A record counts when its signatures, sizes and CRC agree; PADs have no CRC (`hammer_recover.c:
hammer_recover_scan_fwd, hammer_recover_scan_rev, _hammer_check_signature`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from hammerfs.errors import CorruptionError
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import SHORT_MASK, Offset, bigblock_of, encode
from hammerfs.ondisk.constants import (
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    BUFMASK,
    BUFSIZE,
    FIFO_HEAD_ALIGN,
    HEAD_SIGNATURE,
    HEAD_TYPE_PAD,
    TAIL_SIGNATURE,
    VERSION_CRC32C,
    ZONE_UNDO,
)
from hammerfs.ondisk.fifo import CRC_OFFSET, HEAD_SIZE, TAIL_SIZE, FifoRecord, parse, tail_size_before
from hammerfs.store.volumes import VolumeSet

FIFO_START = encode(ZONE_UNDO, 0, 0)
CHUNK_SIZE = 1024 * 1024
_HEAD = struct.Struct("<HHIII")
_TAIL = struct.Struct("<HHI")
_SMALLEST = HEAD_SIZE + TAIL_SIZE


class Place(NamedTuple):
    """A verified record where it lies: `chunk[start : start + size]`, at zone-3 `offset`."""

    offset: Offset
    kind: int
    size: int
    seq: int
    chunk: bytes
    start: int

    def record(self) -> FifoRecord:
        """The record by itself."""
        body = self.chunk[self.start + HEAD_SIZE : self.start + self.size - TAIL_SIZE]
        return FifoRecord(self.kind, self.size, self.seq, b"" if self.kind == HEAD_TYPE_PAD else body)


class FifoReader:
    """Reads the ring that the root volume's header describes.

    capacity -- bytes in the whole ring
    end -- zone-3 offset behind its last byte; names the same place as its first
    """

    def __init__(self, volumes: VolumeSet) -> None:
        header = volumes.root.header
        self._volumes = volumes
        self._version = header.vol_version
        self.capacity = header.blockmap(ZONE_UNDO).alloc_offset & SHORT_MASK
        self.end = FIFO_START + self.capacity
        self._bigblocks = [header.undo_bigblock(i) for i in range(self.capacity // BIGBLOCK_SIZE)]

    def advance(self, offset: Offset, count: int) -> Offset:
        """The place `count` bytes further along the ring; never `end`."""
        return FIFO_START + (offset - FIFO_START + count) % self.capacity

    def distance(self, start: Offset, stop: Offset) -> int:
        """Bytes from one place along the ring to another."""
        return (stop - start) % self.capacity

    def differ(self, left: tuple[Offset, Offset], right: tuple[Offset, Offset]) -> bool:
        """Whether two pairs of offsets name different places."""
        return any((a - b) % self.capacity for a, b in zip(left, right, strict=True))

    def holds(self, place: Offset) -> bool:
        """Whether a zone-2 address lies in the ring."""
        return bigblock_of(place) in self._bigblocks

    def extents(self, start: Offset, length: int) -> Iterator[tuple[Offset, int]]:
        """Cut a range at 1 MiB boundaries, hence also at big-blocks and where the ring wraps."""
        while length > 0:
            start = self.advance(start, 0)
            count = min(length, CHUNK_SIZE - start % CHUNK_SIZE)
            yield start, count
            start += count
            length -= count

    def read(self, start: Offset, count: int) -> bytes:
        """The bytes of one extent."""
        short = start & SHORT_MASK
        return self._volumes.read(self._bigblocks[short // BIGBLOCK_SIZE] + (short & BIGBLOCK_MASK), count)

    def scan(self, start: Offset, length: int) -> Iterator[Place]:
        """The records in a range, which begins at a record; ends early before the first that is not valid."""
        for place, count in self.extents(start, length):
            expected = place
            for record in self.scan_extent(place, self.read(place, count)):
                expected += record.size
                yield record
            if expected != place + count:
                return

    def scan_extent(self, offset: Offset, chunk: bytes, *, verify: bool = True) -> Iterator[Place]:
        """The records in the bytes of one extent, as far as they are valid; `verify=False` leaves out the CRC."""
        head, tail = _HEAD.unpack_from, _TAIL.unpack_from
        castagnoli = self._version >= VERSION_CRC32C
        crc32, crc32c = crc.crc32, crc.crc32c
        limit = len(chunk)
        padded = chunk + bytes(HEAD_SIZE)  # so that a head may be read where only an 8-byte PAD fits
        at = 0
        while at < limit:
            signature, kind, size, seq, stored = head(padded, at)
            last = at + size
            if signature != HEAD_SIGNATURE or size < TAIL_SIZE or size % FIFO_HEAD_ALIGN or last > limit:
                return
            if ((offset + at) ^ (offset + last - 1)) & ~BUFMASK:
                return
            if size > TAIL_SIZE and tail(padded, last - TAIL_SIZE) != (TAIL_SIGNATURE, kind, size):
                return
            if kind != HEAD_TYPE_PAD:
                if size < _SMALLEST:
                    return
                if verify:
                    front, rest = padded[at : at + CRC_OFFSET], padded[at + HEAD_SIZE : last]
                    modern = castagnoli and crc32c(front) ^ crc32c(rest) == stored
                    if not modern and crc32(front) ^ crc32(rest) != stored:
                        return
            yield Place(offset + at, kind, size, seq, padded, at)
            at = last

    def before(self, offset: Offset) -> tuple[Offset, FifoRecord]:
        """The record that ends at `offset`, with its own offset; CorruptionError when there is none."""
        stop = self.end if offset == FIFO_START else offset
        base = (stop - 1) & ~BUFMASK
        buffer = self.read(base, BUFSIZE)
        size = tail_size_before(buffer, stop - base)
        if size is not None and size <= stop - base:
            record = parse(self._version, buffer, stop - base - size, stop - base)
            if record is not None and record.size == size:
                return stop - size, record
        raise CorruptionError("UNDO FIFO: no valid record before this place", offset=offset)
