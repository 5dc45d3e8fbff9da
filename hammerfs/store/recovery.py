"""Recovery stage 1: take back what the last, possibly unfinished flush cycles did to meta-data.

Where the FIFO's active range begins, the volume header says.  Where it ends, from version 4 on only the sequence
numbers say: go back from first_offset over PADs to one number, then forward while records count on.  Before version 4
the header's next_offset decides.  The UNDOs in the range are applied newest first, to 16 KiB images in memory, which
are then written (`hammer_recover.c: hammer_recover_stage1`).

Nothing is written before the whole range was found valid.  Then, in this order:

1. restored buffers and headers, the root's still with the FIFO indices that were found;
2. barrier;
3. the root header with its new indices, which changes one sector of it only;
4. barrier.

A power cut before the end of 4 leaves every byte that UNDO covers either as it was or as it will be, and the records
that restore it; recovering again gives the same result.

A record that is not valid ends the range where that can be a crash, namely behind everything that was ever followed by
a barrier.  In front of the header's next_offset, or followed by a sector that goes on counting, it is damage.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from hammerfs.errors import CorruptionError, NotHammerError
from hammerfs.ondisk.address import Offset, short_of, volume_of, zone_of
from hammerfs.ondisk.constants import (
    BUFMASK,
    BUFSIZE,
    HEAD_TYPE_PAD,
    HEAD_TYPE_REDO,
    HEAD_TYPE_UNDO,
    MAX_VOLUMES,
    REDO_SYNC,
    ROOT_VOLNO,
    UNDO_ALIGN,
    VERSION_UNDO_SEQUENCED,
    VOLUME_VERSION_MAX,
    VOLUME_VERSION_MIN,
    ZONE_RAW_BUFFER,
    ZONE_RAW_VOLUME,
    ZONE_UNDO,
)
from hammerfs.ondisk.fifo import TAIL_SIZE, UNDO_HEAD_SIZE, UNDO_OVERHEAD, dummy_record, format_buffer, redo_body
from hammerfs.ondisk.volume import FIXED_RANGES, VolumeHeader
from hammerfs.store.fiforeader import CHUNK_SIZE, FIFO_START, FifoReader, Place
from hammerfs.store.undo import HIDING_JUMPS
from hammerfs.store.volumes import VolumeSet

_SEQ_MASK = 0xFFFFFFFF
_FORMAT_FLIP = 0x40000000
_SMALLEST_RECORD = 24
_IMAGES_MAX = 4096
"""Restored buffers held in memory (64 MiB); beyond that they are written early, which the order above allows."""
_VECTOR_MAX = 64
_UNDO_FIELDS = struct.Struct("<Qi")
_SEQ = struct.Struct("<8xI")
_SECTOR_SEQS = struct.Struct("<" + f"8xI{UNDO_ALIGN - 12}x" * (BUFSIZE // UNDO_ALIGN))
"""The number of the record that begins a sector, and those of all sectors of a buffer."""


@dataclass(frozen=True)
class FifoRange:
    """The active part of the FIFO.

    first, end -- zone-3 offsets; equal when there is nothing to undo
    length -- bytes from first to end
    seq -- the number that continues the range; 0 before version 4
    checked_seq -- the number in front of the range
    records -- UNDO records in it
    redo_sync -- where the newest REDO_SYNC says that REDO begins; None when there is none
    extra_syncs -- older REDO_SYNCs
    """

    first: Offset
    end: Offset
    length: int
    seq: int
    checked_seq: int
    records: int
    redo_sync: Offset | None
    extra_syncs: int


@dataclass
class RecoveryResult:
    """What stage 1 found and did.

    first_offset, next_offset, seq -- where the FIFO goes on; first_offset = next_offset when it was collapsed
    fifo -- the range that was undone
    undone_records, undone_bytes -- UNDO records applied, and the bytes that they restored
    redo_sync_offset -- where stage 2 has to begin, None when it has nothing to do
    messages -- what happened, in the words of DragonFly's kernel
    """

    first_offset: Offset
    next_offset: Offset
    seq: int
    fifo: FifoRange
    undone_records: int = 0
    undone_bytes: int = 0
    redo_sync_offset: Offset | None = None
    messages: list[str] = field(default_factory=list)


def recover_stage1(volumes: VolumeSet, *, collapse: bool, keep_redo: bool = False) -> RecoveryResult:
    """Undo what the active range of the FIFO covers, and write the result.

    With `collapse` the FIFO is empty afterwards; without, its range stays, because REDO in it or before it is still
    needed. `keep_redo` collapses only when no REDO waits. A clean file system is not written to. CorruptionError
    (nothing written) when the FIFO is damaged, DeviceError when a device fails.
    """
    header = volumes.root.header
    reader = FifoReader(volumes)
    found = find_range(volumes, reader)
    collapse = collapse and not (keep_redo and found.redo_sync is not None)
    result = RecoveryResult(found.first, found.end, found.seq, found, redo_sync_offset=found.redo_sync)
    result.messages.extend(_describe(volumes, found))
    entry = header.blockmap(ZONE_UNDO)
    fresh = _is_renumbering_needed(volumes, reader, found) if collapse else False
    if found.length:
        _Restorer(volumes, reader, found).run(result)
        if not collapse and header.vol_version >= VERSION_UNDO_SEQUENCED:
            _wipe_remnants(volumes, reader, found)
    if collapse:
        result.first_offset = result.next_offset
        if fresh:
            _renumber(volumes, reader, result)
    if found.length or fresh:
        volumes.barrier()
    if reader.differ((entry.first_offset, entry.next_offset), (result.first_offset, result.next_offset)):
        entry.first_offset = result.first_offset
        entry.next_offset = result.next_offset
        entry.update_crc(header.vol_version)
        volumes.write_header()
        volumes.barrier()
    volumes.version = header.vol_version
    result.messages.append("recovery complete" if found.length else "mounted clean, no recovery needed")
    return result


def find_range(volumes: VolumeSet, reader: FifoReader) -> FifoRange:
    """Find and verify the active range of the FIFO; reads only."""
    entry = volumes.root.header.blockmap(ZONE_UNDO)
    for name, offset in (("first_offset", entry.first_offset), ("next_offset", entry.next_offset)):
        if not FIFO_START <= offset <= reader.end or offset % TAIL_SIZE:
            name_of = volumes.root.device.name
            raise CorruptionError(f"UNDO FIFO: the volume header of {name_of} has an impossible {name}", offset=offset)
    if volumes.root.header.vol_version >= VERSION_UNDO_SEQUENCED:
        return _RangeFinder(volumes, reader).by_sequence(entry.first_offset, entry.next_offset)
    return _RangeFinder(volumes, reader).by_header(entry.first_offset, entry.next_offset)


class _RangeFinder:
    """Walks the FIFO forward once, verifying records and what UNDOs point to."""

    def __init__(self, volumes: VolumeSet, reader: FifoReader) -> None:
        self._volumes = volumes
        self._reader = reader
        self._undos = 0
        self._syncs = 0
        self._redo_sync: Offset | None = None

    def by_sequence(self, first: Offset, hint: Offset) -> FifoRange:
        """Version 4 and up: the range ends where numbers stop counting on."""
        reader = self._reader
        checked = expected = self._seq_before(first)
        length = walked = 0
        for place in reader.scan(first, reader.capacity):
            walked += place.size
            if place.kind == HEAD_TYPE_PAD:
                continue
            if place.seq != (expected + 1) & _SEQ_MASK:
                break
            expected = place.seq
            length = walked
            self._note(place)
        else:
            self._judge_invalid(first, walked, hint, expected)
        return self._range(first, length, (expected + 1) & _SEQ_MASK, checked)

    def by_header(self, first: Offset, last: Offset) -> FifoRange:
        """Before version 4: the header says where the range ends, and every record in it has to be valid."""
        reader = self._reader
        length = reader.distance(first, last)
        walked = 0
        for place in reader.scan(first, length):
            walked += place.size
            self._note(place)
        if walked != length:
            raise CorruptionError("UNDO FIFO: damaged record", offset=reader.advance(first, walked))
        return self._range(first, length, 0, 0)

    def _range(self, first: Offset, length: int, seq: int, checked: int) -> FifoRange:
        end = self._reader.advance(first, length) if length else first
        extra = max(0, self._syncs - 1)
        return FifoRange(first, end, length, seq, checked, self._undos, self._redo_sync, extra)

    def _seq_before(self, first: Offset) -> int:
        offset = first
        while self._reader.distance(offset, first) < BUFSIZE:
            offset, record = self._reader.before(offset)
            if record.kind != HEAD_TYPE_PAD:
                return record.seq
        raise CorruptionError("UNDO FIFO: nothing but PADs before this place", offset=first)

    def _judge_invalid(self, first: Offset, walked: int, hint: Offset, seq: int) -> None:
        """A record that is not valid stands `walked` bytes behind `first`: is that damage, or where a crash cut?"""
        reader = self._reader
        offset = reader.advance(first, walked)
        sector_left = UNDO_ALIGN - offset % UNDO_ALIGN
        after = reader.advance(offset, sector_left)
        behind = next(reader.scan(after, UNDO_ALIGN), None)
        counts_on = behind is not None and 0 < (behind.seq - seq) & _SEQ_MASK <= UNDO_ALIGN // _SMALLEST_RECORD + 1
        if walked < reader.distance(first, hint) or counts_on:
            raise CorruptionError("UNDO FIFO: damaged record", offset=offset)

    def _note(self, place: Place) -> None:
        """Account for a record of the range; an UNDO that cannot be applied is damage, too."""
        if place.kind == HEAD_TYPE_UNDO:
            self._undos += 1
            if not self._is_applicable(place):
                raise CorruptionError("UNDO FIFO: record that restores something impossible", offset=place.offset)
        elif place.kind == HEAD_TYPE_REDO:
            body = redo_body(place.record())
            if body is None:
                raise CorruptionError("UNDO FIFO: REDO record that is too short", offset=place.offset)
            if body.flags == REDO_SYNC:
                self._redo_sync = body.offset
                self._syncs += 1

    def _is_applicable(self, place: Place) -> bool:
        if place.size < UNDO_OVERHEAD:
            return False
        target, size = _undo_target(place)
        self._demand_volume(place, target, size)
        if not 0 <= size <= place.size - UNDO_OVERHEAD or (target & BUFMASK) + size > BUFSIZE:
            return False
        if zone_of(target) == ZONE_RAW_VOLUME:
            start = place.start + UNDO_HEAD_SIZE
            return self._is_header_kept(target, place.chunk[start : start + size])
        # The FIFO restoring itself would take away what the next recovery needs.
        covered = zone_of(target) == ZONE_RAW_BUFFER and self._volumes.covers(target & ~BUFMASK, BUFSIZE)
        return covered and not self._reader.holds(target)

    def _demand_volume(self, place: Place, target: Offset, size: int) -> None:
        """Say so when the volumes are those of a change of their set that is going to be taken back."""
        if zone_of(target) != ZONE_RAW_VOLUME or volume_of(target) != ROOT_VOLNO or not 0 <= size <= BUFSIZE:
            return
        raw = self._volumes.root.buffer.copy()
        start = place.start + UNDO_HEAD_SIZE
        raw[short_of(target) : short_of(target) + size] = place.chunk[start : start + size]
        count, given = VolumeHeader(raw).vol_count, len(self._volumes.volumes)
        if count != self._volumes.root.header.vol_count and given < count <= MAX_VOLUMES:
            raise NotHammerError(
                f"only {given} of the {count} volumes of {self._volumes.root.device.name} were given: "
                "one was being removed, and recovery takes that back"
            )

    def _is_header_kept(self, target: Offset, data: bytes) -> bool:
        """Whether a header would still be one of this file system with `data` restored in it.

        The volumes were opened by it: geometry that changed now would lead every later access astray.  And the FIFO is
        laid out as its version says it is.
        """
        volume = self._volumes.volumes.get(volume_of(target))
        if volume is None or short_of(target) >= BUFSIZE:
            return False
        raw = volume.buffer.copy()
        raw[short_of(target) : short_of(target) + len(data)] = data
        header = VolumeHeader(raw)
        return (
            all(raw[start:end] == volume.buffer[start:end] for start, end in FIXED_RANGES)
            and VOLUME_VERSION_MIN <= header.vol_version <= VOLUME_VERSION_MAX
            and (header.vol_version < VERSION_UNDO_SEQUENCED) == (volume.header.vol_version < VERSION_UNDO_SEQUENCED)
            and 1 <= header.vol_count <= len(self._volumes.volumes)
        )


class _Restorer:
    """Applies UNDOs backwards to images of buffers and headers, then writes them."""

    def __init__(self, volumes: VolumeSet, reader: FifoReader, found: FifoRange) -> None:
        self._volumes = volumes
        self._reader = reader
        self._found = found
        self._images: dict[Offset, bytearray] = {}
        self._headers: dict[int, bytearray] = {}

    def run(self, result: RecoveryResult) -> None:
        """Restore everything and write it; the FIFO indices stay as they were."""
        for place in self._undos_backwards():
            target, size = _undo_target(place)
            start = place.start + UNDO_HEAD_SIZE
            image = self._header(target) if zone_of(target) == ZONE_RAW_VOLUME else self._image(target)
            low = target & BUFMASK
            image[low : low + size] = place.chunk[start : start + size]
            result.undone_records += 1
            result.undone_bytes += size
        self._write_images()
        for number, raw in sorted(self._headers.items()):
            self._write_header(number, raw)

    def _undos_backwards(self) -> Iterator[Place]:
        """The range's UNDO records, newest first; they were verified when the range was found."""
        reader = self._reader
        for offset, count in reversed(list(reader.extents(self._found.first, self._found.length))):
            places = list(reader.scan_extent(offset, reader.read(offset, count), verify=False))
            yield from (place for place in reversed(places) if place.kind == HEAD_TYPE_UNDO)

    def _image(self, target: Offset) -> bytearray:
        base = target & ~BUFMASK
        image = self._images.get(base)
        if image is None:
            if len(self._images) >= _IMAGES_MAX:
                self._write_images()
            image = self._images[base] = bytearray(self._volumes.read(base, BUFSIZE))
        return image

    def _header(self, target: Offset) -> bytearray:
        number = volume_of(target)
        if number not in self._headers:
            self._headers[number] = bytearray(self._volumes.volumes[number].buffer)
        return self._headers[number]

    def _write_images(self) -> None:
        run: list[bytearray] = []
        run_start = 0
        for base in sorted(self._images):
            if run and (base != run_start + len(run) * BUFSIZE or len(run) == _VECTOR_MAX):
                self._volumes.write_vector(run_start, run)
                run = []
            if not run:
                run_start = base
            run.append(self._images[base])
        if run:
            self._volumes.write_vector(run_start, run)
        self._images.clear()

    def _write_header(self, number: int, raw: bytearray) -> None:
        """Put a restored header in place; what is never undone keeps its present value.

        These are the FIFO's own entry, which says how far to undo, and the next TID: a TID that was rolled back must
        not be given out again (INV-8).
        """
        volume = self._volumes.volumes[number]
        restored = VolumeHeader(raw)
        entry, present = restored.blockmap(ZONE_UNDO), volume.header.blockmap(ZONE_UNDO)
        raw[entry.base : entry.base + entry.SIZE] = present.copy()
        restored.vol0_next_tid = max(restored.vol0_next_tid, volume.header.vol0_next_tid)
        volume.buffer[:] = raw
        self._volumes.write_header(volume, whole=True)


def _undo_target(place: Place) -> tuple[Offset, int]:
    """Where an UNDO record restores how many bytes."""
    target, size = _UNDO_FIELDS.unpack_from(place.chunk, place.start + UNDO_HEAD_SIZE - 16)
    return target, size


def _is_renumbering_needed(volumes: VolumeSet, reader: FifoReader, found: FifoRange) -> bool:
    """Whether records behind the range could one day be taken for its continuation.

    A crash may have kept later writes of the FIFO and lost earlier ones.  What it kept is numbered a little above the
    end that was found.  When new records, numbered from that end on, happen to reach such a remnant with just the
    number that it continues, the next recovery would run stale UNDOs.  After a crash that is always possible; after a
    clean unmount it is not, and a look at the next megabyte tells.
    """
    if volumes.root.header.vol_version < VERSION_UNDO_SEQUENCED:
        return False
    if found.length > reader.capacity - 2 * CHUNK_SIZE:
        return False  # no room beside the range; the flusher keeps far more than that free
    if found.length:
        return True
    margin = _seq_jump(reader)
    place = reader.advance(found.end, -found.end % BUFSIZE)
    for offset, count in reader.extents(place, CHUNK_SIZE):
        chunk = reader.read(offset, count)
        for at in range(0, count, BUFSIZE):
            (seq,) = _SEQ.unpack_from(chunk, at)
            near = (seq - found.seq) & _SEQ_MASK < margin
            if near and next(reader.scan_extent(offset + at, chunk[at : at + UNDO_ALIGN]), None):
                return True
    return False


def _wipe_remnants(volumes: VolumeSet, reader: FifoReader, found: FifoRange) -> None:
    """Lay the FIFO out anew behind a range that stays, as far as a crash left records there.

    What REDO flushes is numbered on from the range's end.  If the power fails again, a new sector could stand in front
    of one that the first crash had kept, with just the number that this one continues.  So could one day a new copy of
    REDO, which begins as far ahead as the one that was hidden behind this range.
    """
    version = volumes.root.header.vol_version
    margin = _seq_jump(reader)
    hidden = HIDING_JUMPS * margin
    blank = format_buffer(version, found.seq ^ _FORMAT_FLIP)
    start = reader.advance(found.end, -found.end % UNDO_ALIGN)
    rest = -start % BUFSIZE
    if rest:
        volumes.write(volumes.root.header.undo_to_zone2(start), blank[-rest:])
    base = reader.advance(start, rest)
    looked_at = clean = 0
    while clean < CHUNK_SIZE and looked_at < reader.capacity - found.length - 2 * BUFSIZE:
        buffer = reader.read(base, BUFSIZE)
        numbers = _SECTOR_SEQS.unpack(buffer)
        near = [
            index * UNDO_ALIGN
            for index, seq in enumerate(numbers)
            if (seq - found.seq) & _SEQ_MASK < margin or (seq - found.seq - hidden) & _SEQ_MASK < margin
        ]
        if any(next(reader.scan_extent(base, buffer[at : at + UNDO_ALIGN]), None) for at in near):
            volumes.write(volumes.root.header.undo_to_zone2(base), blank)
            clean = 0
        clean += BUFSIZE
        looked_at += BUFSIZE
        base = reader.advance(base, BUFSIZE)


def _seq_jump(reader: FifoReader) -> int:
    """More numbers than records fit the ring, so that none of those in it lies that far ahead."""
    return reader.capacity // _SMALLEST_RECORD + 1


def _renumber(volumes: VolumeSet, reader: FifoReader, result: RecoveryResult) -> None:
    """Let the FIFO go on in a fresh buffer, behind a DUMMY whose number no remnant can continue.

    The original reads that as it reads any FIFO: the record before first_offset says which number comes next.
    """
    version = volumes.root.header.vol_version
    base = reader.advance(result.next_offset, -result.next_offset % BUFSIZE)
    seq = (result.seq + _seq_jump(reader)) & _SEQ_MASK
    buffer = bytearray(format_buffer(version, seq ^ _FORMAT_FLIP))
    buffer[:UNDO_ALIGN] = dummy_record(version, seq)
    volumes.write(volumes.root.header.undo_to_zone2(base), buffer)
    result.seq = (seq + 1) & _SEQ_MASK
    result.first_offset = result.next_offset = base + UNDO_ALIGN


def _describe(volumes: VolumeSet, found: FifoRange) -> Iterator[str]:
    """The kernel's messages about a range."""
    header = volumes.root.header
    hint = header.blockmap(ZONE_UNDO).next_offset
    if header.vol_version >= VERSION_UNDO_SEQUENCED:
        yield f"recovery check seqno={found.checked_seq:08x}"
        yield f"recovery range {found.first:016x}-{found.end:016x}"
        yield f"recovery nexto {hint:016x} endseqno={found.seq:08x}"
    if found.length:
        yield f"recovery undo  {found.first:016x}-{found.end:016x} ({found.length} bytes)"
    if found.redo_sync is not None:
        yield f"Found REDO_SYNC {found.redo_sync:016x}"
    for _ in range(found.extra_syncs):
        yield "Ignoring extra REDO_SYNC records in UNDO/REDO FIFO."
