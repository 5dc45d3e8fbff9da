"""Phase 3: the UNDO/REDO FIFO: every record's frame and CRC, the sequence from first_offset on, and what it would undo.

From version 4 on every 512-byte sector stands for itself: it begins with a numbered record and records fill it exactly,
whatever crash came between two writes.  So the whole FIFO is verified, and the active range follows from the sequence
numbers: back from first_offset over PADs to a number, then forward while the numbers count on.  Before version 4 the
header decides, and only the range it names means anything.  A PAD's inside is never looked at: it has no CRC and the
original leaves old bytes there.  Source: `hammer_recover.c: hammer_recover_stage1`, `hammer_undo.c`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hammerfs.errors import HammerError
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Offset, encode, volume_of, zone_of
from hammerfs.ondisk.constants import (
    BUFMASK,
    BUFSIZE,
    HEAD_SIGNATURE,
    HEAD_TYPE_DUMMY,
    HEAD_TYPE_PAD,
    HEAD_TYPE_REDO,
    HEAD_TYPE_UNDO,
    TAIL_SIGNATURE,
    UNDO_ALIGN,
    VERSION_CRC32C,
    VERSION_UNDO_SEQUENCED,
    ZONE_RAW_BUFFER,
    ZONE_RAW_VOLUME,
    ZONE_UNDO,
)
from hammerfs.ondisk.fifo import (
    CRC_OFFSET,
    HEAD_SIZE,
    TAIL,
    TAIL_SIZE,
    UNDO_HEAD_SIZE,
    FifoRecord,
    parse,
    redo_body,
    undo_body,
)
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.check_report import Report
from hammerfs.ops.progress import Progress

KIND = "UNDO FIFO"
BASE = encode(ZONE_UNDO, 0, 0)
_SEQ_MASK = 0xFFFFFFFF
_DUMMY_START = TAIL.pack(HEAD_SIGNATURE, HEAD_TYPE_DUMMY, UNDO_ALIGN)
_DUMMY_REST = bytes(UNDO_ALIGN - HEAD_SIZE - TAIL_SIZE) + TAIL.pack(TAIL_SIGNATURE, HEAD_TYPE_DUMMY, UNDO_ALIGN)
_REST_CRC32, _REST_CRC32C = crc.crc32(_DUMMY_REST), crc.crc32c(_DUMMY_REST)
_SECTOR = struct.Struct(f"<{CRC_OFFSET}sI{UNDO_ALIGN - HEAD_SIZE}s")
"""A sector as one record: head up to its CRC, the CRC, the rest."""


@dataclass(frozen=True)
class ActiveRange:
    """The records that a mount would roll back: zone-3 offsets of the first and of the end, and their bytes."""

    first: Offset
    end: Offset
    size: int


def check_undo(reader: ImageReader, report: Report, progress: Progress) -> ActiveRange | None:
    """Verify the FIFO; None when the header does not say where it begins."""
    entry = reader.volumes.root.header.blockmap(ZONE_UNDO)
    size = entry.alloc_offset - BASE
    for name, offset in (("first_offset", entry.first_offset), ("next_offset", entry.next_offset)):
        if zone_of(offset) != ZONE_UNDO or offset > entry.alloc_offset:
            report.problem(KIND, offset, f"the header's {name} is outside of the FIFO")
            return None
    progress.phase("UNDO FIFO", size)
    fifo = _Fifo(reader, size)
    if reader.version < VERSION_UNDO_SEQUENCED:
        active = ActiveRange(
            entry.first_offset, entry.next_offset, (entry.next_offset - entry.first_offset) % max(size, 1)
        )
    else:
        _check_sectors(fifo, report, progress)
        active = fifo.active_range(entry.first_offset)
    _check_active(fifo, active, report)
    return active


class _Fifo:
    """The FIFO as a ring of zone-3 offsets."""

    def __init__(self, reader: ImageReader, size: int) -> None:
        self.reader = reader
        self.size = size
        self.end = BASE + size
        self.limit = UNDO_ALIGN if reader.version >= VERSION_UNDO_SEQUENCED else BUFSIZE

    def buffer(self, offset: Offset) -> bytes:
        """The 16 KiB buffer around a zone-3 offset."""
        place = self.reader.volumes.root.header.undo_to_zone2(offset & ~BUFMASK)
        return self.reader.buffer(place)

    def record(self, offset: Offset) -> FifoRecord | None:
        """The record at an offset, which may reach up to the end of its sector (its buffer before version 4)."""
        start = offset & BUFMASK
        boundary = (start // self.limit + 1) * self.limit
        try:
            return parse(self.reader.version, self.buffer(offset), start, boundary)
        except HammerError:
            return None  # told when the sectors were verified, or as a range that cannot be followed

    def forward(self, offset: Offset) -> Iterator[tuple[Offset, FifoRecord]]:
        """Records from `offset` on, around the ring once at most, until one cannot be parsed."""
        passed = 0
        while passed < self.size:
            offset = BASE if offset >= self.end else offset
            record = self.record(offset)
            if record is None:
                return
            yield offset, record
            offset += record.size
            passed += record.size

    def sequence_before(self, offset: Offset) -> int | None:
        """Number of the last numbered record before an offset: it is in the same sector or in the one before."""
        if offset & (UNDO_ALIGN - 1):
            sector = offset & ~(UNDO_ALIGN - 1)
        else:
            sector = (self.end if offset == BASE else offset) - UNDO_ALIGN
        limit = offset if offset > sector else sector + UNDO_ALIGN
        found = None
        for place, record in self.forward(sector):
            if not sector <= place < limit:
                break
            if record.kind != HEAD_TYPE_PAD:
                found = record.seq
        return found

    def active_range(self, first: Offset) -> ActiveRange:
        """The run of consecutive numbers that begins at `first`; PADs at its end are left out."""
        before = self.sequence_before(first)
        end, size, passed = first, 0, 0
        wanted = 0 if before is None else (before + 1) & _SEQ_MASK
        for offset, record in self.forward(first):
            passed += record.size
            if record.kind == HEAD_TYPE_PAD:
                continue
            if record.seq != wanted:
                break
            wanted = (wanted + 1) & _SEQ_MASK
            end, size = offset + record.size, passed
        return ActiveRange(first, BASE if end == self.end else end, size)


def _check_sectors(fifo: _Fifo, report: Report, progress: Progress) -> None:
    """Every sector of the FIFO, active or not."""
    for base in range(BASE, fifo.end, BUFSIZE):
        progress.advance(BUFSIZE)
        try:
            place = fifo.reader.volumes.root.header.undo_to_zone2(base)
            raw = fifo.reader.read_uncached(place, BUFSIZE)
        except HammerError as error:
            report.problem(KIND, base, str(error))
            continue
        touched = list(_touched(fifo.reader.version, raw))
        report.count("FIFO records", BUFSIZE // UNDO_ALIGN - len(touched))
        for start in touched:
            fault = _sector_fault(fifo.reader.version, raw, start, report)
            if fault is not None:
                report.problem(KIND, base + fault[0], fault[1])


def _touched(version: int, raw: bytes) -> Iterator[int]:
    """Where sectors begin that are not one sound and empty DUMMY, as nearly all are.

    Those differ in number and checksum alone, so that most of the checksum is known.
    """
    crc32, crc32c = crc.crc32, crc.crc32c
    modern = version >= VERSION_CRC32C
    for index, (front, stored, rest) in enumerate(_SECTOR.iter_unpack(raw)):
        if rest == _DUMMY_REST and front.startswith(_DUMMY_START):
            if modern and crc32c(front) ^ _REST_CRC32C == stored:
                continue
            if crc32(front) ^ _REST_CRC32 == stored:
                continue
        yield index * UNDO_ALIGN


def _sector_fault(version: int, raw: bytes, start: int, report: Report) -> tuple[int, str] | None:
    """Offset in the buffer and description of what is wrong in a sector."""
    end = start + UNDO_ALIGN
    offset, previous = start, None
    while offset < end:
        record = parse(version, raw, offset, end)
        if record is None:
            return offset, "a record with a damaged frame or a bad CRC"
        if record.kind == HEAD_TYPE_PAD:
            if offset == start:
                return offset, "a sector begins with a PAD"
        elif previous is not None and record.seq != (previous + 1) & _SEQ_MASK:
            return offset, f"sequence number {record.seq:08x} after {previous:08x} in one sector"
        else:
            previous = record.seq
        report.counts["FIFO records"] = report.counts.get("FIFO records", 0) + 1
        offset += record.size
    return None


def _check_active(fifo: _Fifo, active: ActiveRange, report: Report) -> None:
    """Whether every record of the active range could be carried out."""
    passed = 0
    if active.size:
        for offset, record in fifo.forward(active.first):
            fault = _record_fault(fifo, record)
            if fault:
                report.problem(KIND, offset, fault)
            passed += record.size
            if passed >= active.size:
                break
    if passed != active.size:
        report.problem(
            KIND, active.first + passed, f"the active range of {active.size} bytes cannot be followed to its end"
        )
    report.count("FIFO bytes active", active.size)


def _record_fault(fifo: _Fifo, record: FifoRecord) -> str | None:
    if record.kind in (HEAD_TYPE_PAD, HEAD_TYPE_DUMMY):
        return None
    if record.kind == HEAD_TYPE_REDO:
        return None if redo_body(record) is not None else "a REDO record is too short"
    if record.kind != HEAD_TYPE_UNDO:
        return f"a record of the unknown type {record.kind:04x}"
    body = undo_body(record) if len(record.body) >= UNDO_HEAD_SIZE - HEAD_SIZE else None
    if body is None:
        return "an UNDO record's length does not fit it"
    if (body.offset & BUFMASK) + len(body.data) > BUFSIZE:
        return f"an UNDO record for {body.offset:016x} crosses a buffer"
    if zone_of(body.offset) not in (ZONE_RAW_VOLUME, ZONE_RAW_BUFFER):
        return f"an UNDO record names {body.offset:016x}, which is neither zone 1 nor zone 2"
    if volume_of(body.offset) not in fifo.reader.volumes.volumes:
        return f"an UNDO record names {body.offset:016x} in a volume that does not exist"
    return None
