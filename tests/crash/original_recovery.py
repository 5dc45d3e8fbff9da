"""How DragonFly's recovery reads a FIFO of version 4 and up: which operations it runs again, and in which order.

A model of facts of `hammer_recover.c`, so that what hammerfs writes can be shown to what it was written for.  Nothing
here is shared with hammerfs' own reading of the FIFO but the checksums.  Where the original panics or gives up, an
`OriginalFailedError` is raised.

The original knows nothing of our mark in `redo_reserved02` that further records of the same fsync follow
(docs/format.md): it runs what is there, half of an fsync that was not acknowledged included.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hammerfs.device.memory import MemoryDevice
from hammerfs.ondisk import crc
from hammerfs.store.volumes import VolumeSet

ZONE_UNDO_START = 3 << 60
PAD, REDO = 0x8040, 0x0044
WRITE, TRUNC, TERM_WRITE, TERM_TRUNC, SYNC = 0x01, 0x02, 0x04, 0x08, 0x10
TERM_OF = {WRITE: TERM_WRITE, TRUNC: TERM_TRUNC}
HEAD_SIGNATURE, TAIL_SIGNATURE = 0xC84E, 0xC74F
BUFFER, BIGBLOCK = 16384, 8 << 20
DATA = 56
"""Where in a REDO record its data begins."""


class OriginalFailedError(Exception):
    """The original would panic, or refuse the mount."""


class Operation(NamedTuple):
    """A write of `data` at `offset`, or with None a truncation to it."""

    obj_id: int
    localization: int
    offset: int
    data: bytes | None


class Record(NamedTuple):
    """A record of the ring; `at` counts from its beginning."""

    at: int
    kind: int
    size: int
    seq: int
    raw: bytes

    def redo(self) -> tuple[int, int, int, int, int]:
        """Object, offset, bytes, flags and localization."""
        return struct.unpack_from("<qQiII", self.raw, 16)


class OriginalRecovery:
    """What the original finds in the FIFO of these volumes.

    first, last -- the nominal range, as places in the ring; wrapped -- whether it goes around the ring's end
    sync -- where the newest REDO_SYNC says that REDO begins, None when there is none
    """

    def __init__(self, devices: Sequence[MemoryDevice]) -> None:
        volumes = VolumeSet.open(devices, strangers=True)
        header = volumes.root.header
        self._version = header.vol_version
        entry = header.blockmap(3)
        self._end = entry.alloc_offset - ZONE_UNDO_START
        self._ring = b"".join(
            volumes.read(header.undo_bigblock(number), BIGBLOCK) for number in range(self._end // BIGBLOCK)
        )
        self.first = entry.first_offset - ZONE_UNDO_START
        self.seq = self._number_before(self.first) + 1
        self.last = self._end_of_range()
        self.wrapped = self.last < self.first
        self.length = (self.last - self.first) % self._end
        self.sync = self._newest_sync()

    # --- stage 1 --------------------------------------------------------------------------------
    def _number_before(self, place: int) -> int:
        for record in self._backward(place):
            if record.kind != PAD:
                return record.seq
        raise AssertionError

    def _end_of_range(self) -> int:
        """Behind the last record whose number counts on; PADs that follow it are left out."""
        last, seq = self.first, self.seq
        for record, after in self._forward(self.first):
            if record.kind == PAD:
                continue
            if record.seq != seq & 0xFFFFFFFF:
                break
            last, seq = after, seq + 1
        return last

    def _newest_sync(self) -> int | None:
        left = self.length
        for record in self._backward(self.last):
            if left <= 0:
                break
            if record.kind == REDO and record.redo()[3] == SYNC:
                return record.redo()[1] - ZONE_UNDO_START
            left -= record.size
        return None

    # --- stage 2 --------------------------------------------------------------------------------
    def operations(self) -> list[Operation]:
        """What is run again, in order."""
        if self.first == self.last or self.sync is None:
            return []
        extra, in_front = self._extension(self.sync)
        terms = self._terms(self.sync) if in_front else {}
        left = self.length + extra
        found = []
        for record, _ in self._forward(self.sync):
            if left <= 0:
                break
            if record.at == self.last:
                raise OriginalFailedError("panic: the scan has come to the end of the range too early")
            found += self._run(record, terms)
            left -= record.size
        if left:
            raise OriginalFailedError("panic: the range does not end where a record does")
        return found

    def _extension(self, sync: int) -> tuple[int, bool]:
        """By how much REDO begins before the range (negative: within it), and whether what lies before is looked at.

        Its comparisons are strict: REDO that begins at first_offset of a range that wraps counts as in front of it.
        """
        first, last, end = self.first, self.last, self._end
        if first < last:
            if sync < first:
                return first - sync, True
            if sync > last:
                return end - sync + first, True
            return first - sync, False
        if sync < last:
            return -(end - first + sync), False
        if sync > first:
            return first - sync, False
        return first - sync, True

    def _terms(self, sync: int) -> dict[tuple[int, ...], list[int]]:
        """Places of TERM records in front of the range, oldest first, by what they are matched by."""
        terms: dict[tuple[int, ...], list[int]] = {}
        seq = self.seq - 1
        for record in self._backward(self.first):
            if record.kind != PAD:
                if record.seq != seq & 0xFFFFFFFF:
                    raise OriginalFailedError("the extended REDO cannot be found: a number is out of order")
                seq -= 1
                if record.kind == REDO and record.redo()[3] in (TERM_WRITE, TERM_TRUNC):
                    terms.setdefault(self._key(record, record.redo()[3]), []).insert(0, record.at)
            if record.at == sync:
                break
        return terms

    def _run(self, record: Record, terms: dict[tuple[int, ...], list[int]]) -> Iterator[Operation]:
        if record.kind != REDO:
            return
        obj_id, offset, size, flags, localization = record.redo()
        if flags in TERM_OF:
            if self._key(record, TERM_OF[flags]) not in terms:
                data = record.raw[DATA : DATA + size] if flags == WRITE else None
                yield Operation(obj_id, localization, offset, data)
        elif flags in (TERM_WRITE, TERM_TRUNC):
            # An emptied entry stays and goes on to match, as in the original.
            places = terms.get(self._key(record, flags))
            if places and places.pop(0) != record.at:
                raise OriginalFailedError("panic: a TERM is not the one that was noted")

    @staticmethod
    def _key(record: Record, flags: int) -> tuple[int, ...]:
        """Object and exact offset; truncations match whatever their offsets are."""
        obj_id, offset, _, _, localization = record.redo()
        return (obj_id, localization, flags) if flags == TERM_TRUNC else (obj_id, localization, flags, offset)

    # --- the ring -------------------------------------------------------------------------------
    def _forward(self, place: int) -> Iterator[tuple[Record, int]]:
        """Records from a place on, each with where the next one begins."""
        while True:
            place %= self._end
            signature, kind, size, seq = struct.unpack_from("<HHII", self._ring, place)
            if signature != HEAD_SIGNATURE or size < 8 or size % 8 or place // BUFFER != (place + size - 1) // BUFFER:
                raise OriginalFailedError(f"no record at {place:#x}")
            record = self._verified(Record(place, kind, size, seq, self._ring[place : place + size]))
            place += size
            yield record, place % self._end

    def _backward(self, place: int) -> Iterator[Record]:
        """Records that end at a place, and before it."""
        while True:
            place = place or self._end
            _, kind, size = struct.unpack_from("<HHI", self._ring, place - 8)
            start = place - size
            if size < 8 or start // BUFFER != (place - 1) // BUFFER:
                raise OriginalFailedError(f"no record before {place:#x}")
            _, kind, _, seq = struct.unpack_from("<HHII", self._ring, start)
            yield self._verified(Record(start, kind, size, seq, self._ring[start:place]))
            place = start

    def _verified(self, record: Record) -> Record:
        raw = record.raw
        if struct.unpack_from("<HHI", raw)[0] != HEAD_SIGNATURE:
            raise OriginalFailedError(f"bad head at {record.at:#x}")
        if record.kind == PAD and record.size == 8:
            return record
        if struct.unpack_from("<HHI", raw, record.size - 8) != (TAIL_SIGNATURE, record.kind, record.size):
            raise OriginalFailedError(f"bad tail of the record at {record.at:#x}")
        if record.kind != PAD:
            (stored,) = struct.unpack_from("<I", raw, 12)
            functions = (crc.crc32c, crc.crc32) if self._version >= 7 else (crc.crc32,)
            if not any(function(raw[:12]) ^ function(raw[16:]) == stored for function in functions):
                raise OriginalFailedError(f"bad CRC of the record at {record.at:#x}")
        return record
