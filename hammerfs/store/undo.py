"""The UNDO/REDO FIFO: what meta-data looked like before it was changed, so that a crash can be rolled back.

The FIFO is a ring of big-blocks addressed by zone-3 offsets.  A record never crosses a 512-byte sector; what a sector
has left is always described by a PAD, even while more records are expected there, so that recovery can walk the FIFO
whatever the header says.  Each 16 KiB buffer is laid out as numbered DUMMY records when it is entered: their numbers
never continue ours, so whatever an earlier round left there cannot be taken for the end of this one
(`hammer_undo.c: hammer_generate_undo, hammer_format_undo`; `hammer_redo.c: hammer_generate_redo`).

Records are made in memory; `flush` writes them, and its caller puts a barrier behind it before any of the meta-data
goes out (INV-2).  Recovery runs UNDOs backwards, so of several records for one byte the oldest wins: logging a range
again is always right, leaving it out is right only when this cycle logged all of it before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hammerfs.errors import UndoExhaustedError
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import SHORT_MASK, Offset, encode, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    BUFMASK,
    BUFSIZE,
    FIFO_HEAD_ALIGN,
    HEAD_SIGNATURE,
    HEAD_TYPE_REDO,
    HEAD_TYPE_UNDO,
    REDO_SYNC,
    REDO_WRITE,
    TAIL_SIGNATURE,
    UNDO_ALIGN,
    ZONE_RAW_BUFFER,
    ZONE_RAW_VOLUME,
    ZONE_UNDO,
)
from hammerfs.ondisk.crc import Buffer
from hammerfs.ondisk.fifo import (
    DUMMY_SIZE_MIN,
    FRONT,
    MORE_FOLLOWS,
    REDO_OVERHEAD,
    REDO_PAYLOAD_MAX,
    REDO_SECTOR,
    REDO_SECTOR_BODY,
    TAIL,
    UNDO_OVERHEAD,
    UNDO_TARGET,
    RedoBody,
    dummy_record,
    format_buffer,
    pad_record,
    redo_record,
)
from hammerfs.store.volumes import VolumeSet

_FIFO_START = encode(ZONE_UNDO, 0, 0)
_SEQ_MASK = 0xFFFFFFFF
_UNDO_ZONES = (ZONE_RAW_VOLUME, ZONE_RAW_BUFFER)
_SECTOR_MASK = UNDO_ALIGN - 1
_FORMAT_FLIP = 0x40000000
"""The numbers of DUMMYs in a new buffer are half the number space away from those in use (`hammer_format_undo`)."""
_RESERVE = 3 * BUFSIZE
"""Kept free between the newest record and the oldest: formatting a buffer reaches up to 16 KiB ahead."""
_PADS = {0: b""} | {size: pad_record(size) for size in range(FIFO_HEAD_ALIGN, UNDO_ALIGN, FIFO_HEAD_ALIGN)}
HIDING_JUMPS = 64
"""In units of the most records that the ring can hold.  Recovery goes on one unit ahead of the end that it found
(`recovery.py`), so that many recoveries in a row stay clear of what was hidden there.
"""
_REDO_SECTOR_TAIL = TAIL.pack(TAIL_SIGNATURE, HEAD_TYPE_REDO, UNDO_ALIGN)
_HISTORY_UNIT_BITS = 3
"""What was logged is remembered in units of 8 bytes, the alignment of nearly every field."""


def redo_write_size(size: int) -> int:
    """Bytes of the FIFO that REDO of `size` bytes takes, at most; 0 bytes: a record that carries none."""
    return (size // REDO_PAYLOAD_MAX + 2) * UNDO_ALIGN


class UndoFifo:
    """The writing end of the FIFO.

    first_offset -- where the next cycle's header will let recovery begin; the flusher moves it
    next_offset -- where the next record goes
    seq -- the number it will carry
    capacity -- bytes in the whole ring
    undo_bytes, redo_bytes -- old and new content laid down since the mount
    """

    def __init__(self, volumes: VolumeSet, first_offset: Offset, next_offset: Offset, seq: int) -> None:
        self.first_offset = first_offset
        self.next_offset = next_offset
        self.seq = seq
        self.undo_bytes = self.redo_bytes = 0
        self._volumes = volumes
        header = volumes.root.header
        self.capacity = header.blockmap(ZONE_UNDO).alloc_offset & SHORT_MASK
        self._bigblocks = [header.undo_bigblock(i) for i in range(self.capacity // BIGBLOCK_SIZE)]
        self._end = _FIFO_START + self.capacity
        self.adopt_version()
        if next_offset == self._end:
            self.next_offset = _FIFO_START
        # The buffer that next_offset lies in, and per buffer what flush() must write of it (start, end).
        self._base = -1
        self._buffer = bytearray()
        self._dirty: dict[Offset, tuple[bytearray, int, int]] = {}
        self._history: dict[int, int] = {}

    def adopt_version(self) -> None:
        """Write records as the version in the volume header wants them from now on; those of before stay valid."""
        self._version = self._volumes.root.header.vol_version
        self._crc = crc.function_for(self._version)

    def places(self) -> range:
        """The buffers of the ring."""
        return range(_FIFO_START, self._end, BUFSIZE)

    def places_between(self, first: Offset, last: Offset) -> Iterator[Offset]:
        """The buffers from the one that `first` lies in up to that of `last`, around the ring if need be."""
        place, end = first & ~BUFMASK, last & ~BUFMASK
        while True:
            yield place
            if place == end:
                return
            place = _FIFO_START if place + BUFSIZE == self._end else place + BUFSIZE

    def lay_out(self, version: int, place: Offset) -> None:
        """Make a buffer of which nothing counts one of a ring that begins anew: DUMMYs numbered by where they lie."""
        seq = (place - _FIFO_START) // UNDO_ALIGN
        self._volumes.write(self._to_zone2(place), format_buffer(version, seq))

    def begin_anew(self, rest: Iterable[Offset]) -> None:
        """Begin at the start of a ring that is laid out but for the `rest` (`hammer_undo.c: hammer_upgrade_undo_4`).

        For a ring of which nothing counts any more.  A header that leads to it still has to be written, behind a
        barrier.
        """
        self.adopt_version()
        for place in rest:
            self.lay_out(self._version, place)
        self.seq = self.capacity // UNDO_ALIGN
        self.first_offset = self.next_offset = _FIFO_START
        self._base = -1
        self._dirty.clear()
        self._history.clear()

    @property
    def first_in_use(self) -> Offset:
        """Where recovery may still begin: the first_offset in the newest durable header."""
        return self._volumes.undo_first_durable

    @property
    def used(self) -> int:
        """Bytes that recovery may still need: from the first_offset in the newest durable header to next_offset.

        A header that was written but has no barrier behind it does not count: a crash may bring the older one back.
        """
        return (self.next_offset - self._volumes.undo_first_durable) % self.capacity

    @property
    def space(self) -> int:
        """Bytes that may still be laid down before the oldest record still needed would be overwritten."""
        return self.capacity - self.used

    @property
    def dirty_bytes(self) -> int:
        """Bytes that `flush` would write."""
        return sum(end - start for _, start, end in self._dirty.values())

    def log(self, offset: Offset, old: Buffer) -> bool:
        """Record that `old` stood at a zone-1 or zone-2 offset; False when this cycle's records cover it already.

        The range lies within one 16 KiB buffer.  UndoExhaustedError is raised before anything is laid down.
        """
        size = len(old)
        assert size > 0, "an UNDO record of nothing"
        assert zone_of(offset) in _UNDO_ZONES, "UNDO covers volume headers and zone 2 only"
        assert (offset & BUFMASK) + size <= BUFSIZE, "an UNDO record crosses a buffer"
        if self._is_covered(offset, size):
            return False
        self._require(size)
        self.undo_bytes += size
        done = 0
        while done < size:
            self._sector_room(UNDO_OVERHEAD + 1)
            done += self._lay_undo_sectors(offset + done, old[done:] if done else old)
        self._remember(offset, size)
        return True

    def _lay_undo_sectors(self, offset: Offset, data: Buffer) -> int:
        """Fill what is left of the current buffer with records of `data`; returns the bytes that they took."""
        buffer, function, seq = self._buffer, self._crc, self.seq
        first = end = self.next_offset & BUFMASK
        done, size = 0, len(data)
        while done < size and BUFSIZE - end > UNDO_OVERHEAD:
            start = end
            piece = data[done : done + UNDO_ALIGN - (start & _SECTOR_MASK) - UNDO_OVERHEAD]
            fill = -len(piece) & 7
            length = UNDO_OVERHEAD + len(piece) + fill
            end = start + length
            front = FRONT.pack(HEAD_SIGNATURE, HEAD_TYPE_UNDO, length, seq)
            tail = TAIL.pack(TAIL_SIGNATURE, HEAD_TYPE_UNDO, length)
            covered = b"".join((UNDO_TARGET.pack(offset + done, len(piece), 0), piece, bytes(fill), tail))
            checksum = (function(front) ^ function(covered)).to_bytes(4, "little")
            record = b"".join((front, checksum, covered, _PADS[-end & _SECTOR_MASK]))
            buffer[start : start + len(record)] = record
            seq = (seq + 1) & _SEQ_MASK
            done += len(piece)
        self.seq = seq
        self._mark(first & ~_SECTOR_MASK, (end + _SECTOR_MASK) & ~_SECTOR_MASK)
        self._move_to(self._base + end)
        return done

    def append_redo(self, body: RedoBody) -> Offset:
        """Lay down a REDO record of at most REDO_PAYLOAD_MAX bytes of payload; returns where it begins."""
        return self._append(redo_record(self._version, self.seq, body))

    def append_redo_write(self, obj_id: int, localization: int, offset: int, data: bytes, *, more: bool) -> None:
        """Lay down what a write to a file did, in as many REDO_WRITE records as it takes; `more`: as in `RedoBody`.

        Ten records for 4 KiB each time a database commits: so whole sectors are made in one go, which takes half of the
        time, 15 us instead of 29 with compiled modules, 19 instead of 40 without.
        """
        size = len(data)
        self._require(redo_write_size(size))
        self.redo_bytes += size
        done = 0
        while size - done > REDO_PAYLOAD_MAX:
            self._sector_room(UNDO_ALIGN)
            done += self._lay_redo_sectors(obj_id, localization, offset + done, data[done:])
        if done < size:
            rest = data[done:]
            self.append_redo(RedoBody(obj_id, offset + done, len(rest), REDO_WRITE, localization, rest, more))

    def _lay_redo_sectors(self, obj_id: int, localization: int, offset: int, data: bytes) -> int:
        """Fill whole sectors of the current buffer with a record each, but for the last of `data`.

        Returns the bytes that they took.
        """
        buffer, function, seq = self._buffer, self._crc, self.seq
        first = self.next_offset & BUFMASK
        count = min((len(data) - 1) // REDO_PAYLOAD_MAX, (BUFSIZE - first) // UNDO_ALIGN)
        start = first
        for done in range(0, count * REDO_PAYLOAD_MAX, REDO_PAYLOAD_MAX):
            front = FRONT.pack(HEAD_SIGNATURE, HEAD_TYPE_REDO, UNDO_ALIGN, seq)
            piece = data[done : done + REDO_PAYLOAD_MAX]
            mark = MORE_FOLLOWS ^ seq
            covered = REDO_SECTOR_BODY.pack(
                obj_id, offset + done, REDO_PAYLOAD_MAX, REDO_WRITE, localization, 0, mark, piece, _REDO_SECTOR_TAIL
            )
            REDO_SECTOR.pack_into(buffer, start, front, function(front) ^ function(covered), covered)
            seq = (seq + 1) & _SEQ_MASK
            start += UNDO_ALIGN
        end = first + count * UNDO_ALIGN
        self.seq = seq
        self._mark(first, end)
        self._move_to(self._base + end)
        return count * REDO_PAYLOAD_MAX

    def begin_range(self, *, hidden: bool) -> None:
        """Let the header written next move first_offset to here.

        `hidden`: what follows must not be seen by a recovery that starts at the old first_offset, which the numbers
        would lead on to here.  A DUMMY whose number leaves out more than the ring can hold ends its range; it begins a
        sector, as within one the numbers of all records follow each other.
        """
        if hidden:
            self._require(UNDO_ALIGN)
            self._sector_room(UNDO_ALIGN)
            self.seq = (self.seq + HIDING_JUMPS * (self.capacity // DUMMY_SIZE_MIN + 1)) & _SEQ_MASK
            self._append_dummy()
        self.first_offset = self.next_offset

    def append_redo_sync(self) -> None:
        """Lay down a REDO_SYNC that lets REDO begin with itself; recovery runs REDO only if it finds one.

        Not at first_offset: to the original's recovery a REDO_SYNC that points there means the whole ring once that has
        wrapped (`hammer_recover.c: stage 2`).
        """
        if self.next_offset == self.first_offset:
            self._append_dummy()
        self._sector_room(REDO_OVERHEAD)
        self.append_redo(RedoBody(0, self.next_offset, 0, REDO_SYNC, 0, b""))

    def _append_dummy(self) -> None:
        self._append(dummy_record(self._version, self.seq, DUMMY_SIZE_MIN))

    def _append(self, record: bytes) -> Offset:
        assert len(record) <= UNDO_ALIGN, "a FIFO record crosses a sector"
        self._require(len(record))
        self._sector_room(len(record))
        place = self.next_offset
        start = place & BUFMASK
        self._buffer[start : start + len(record)] = record
        self._advance(start, start + len(record))
        return place

    def flush(self, *, begin: bool = False) -> int:
        """Write what was laid down since the last flush, oldest first; returns the bytes written.  No barrier.

        `begin`: the device is to begin with it before there is one.

        The buffer still being filled stays in memory.  Of a buffer written before, only the sectors from the one that
        was then unfinished on are written again.
        """
        written = 0
        run: list[Buffer] = []
        run_start = run_end = 0
        for base, (buffer, start, end) in self._dirty.items():
            place = self._to_zone2(base) + start
            if run and place != run_end:
                self._write(run_start, run_end, run, begin)
                run = []
            if not run:
                run_start = run_end = place
            run.append(buffer if end - start == BUFSIZE else memoryview(buffer)[start:end])
            run_end += end - start
            written += end - start
        if run:
            self._write(run_start, run_end, run, begin)
        self._dirty.clear()
        return written

    def _write(self, start: Offset, end: Offset, run: list[Buffer], begin: bool) -> None:
        self._volumes.write_vector(start, run)
        if begin:
            self._volumes.begin_writing(start, end - start)

    def clear_history(self) -> None:
        """Begin a new cycle: from here on every range is logged again."""
        self._history.clear()

    def _advance(self, start: int, end: int) -> None:
        """Account for a record laid down at start..end of the current buffer, and pad its sector for now."""
        pad = -end & _SECTOR_MASK
        if pad:
            self._buffer[end : end + pad] = _PADS[pad]
        self.seq = (self.seq + 1) & _SEQ_MASK
        self._mark(start & ~_SECTOR_MASK, end + pad)
        self._move_to(self._base + end)

    def _sector_room(self, needed: int) -> int:
        """Bytes left in the current sector, after giving it up to its PAD when it has less than `needed`."""
        if self._base != self.next_offset & ~BUFMASK:
            self._enter()
        room = UNDO_ALIGN - (self.next_offset & _SECTOR_MASK)
        if room >= needed:
            return room
        start = self.next_offset & BUFMASK
        self._buffer[start : start + room] = _PADS[room]
        self._mark(start & ~_SECTOR_MASK, start + room)
        self._move_to(self.next_offset + room)
        if self._base != self.next_offset & ~BUFMASK:
            self._enter()
        return UNDO_ALIGN

    def _move_to(self, offset: Offset) -> None:
        self.next_offset = _FIFO_START if offset == self._end else offset

    def _enter(self) -> None:
        """Make the buffer that next_offset lies in the current one.

        At its beginning nothing of the old content is wanted.  Anywhere else (only after a mount) the records before
        next_offset are read, and the sectors behind it are laid out anew: after a crash they may hold records whose
        numbers would one day seem to continue ours.
        """
        start = self.next_offset & BUFMASK
        self._base = self.next_offset - start
        self._buffer = bytearray(format_buffer(self._version, self.seq ^ _FORMAT_FLIP))
        keep = (start + _SECTOR_MASK) & ~_SECTOR_MASK
        if keep:
            self._buffer[:keep] = self._volumes.read(self._to_zone2(self._base), keep)
        self._mark(start & ~_SECTOR_MASK, BUFSIZE)

    def _mark(self, start: int, end: int) -> None:
        entry = self._dirty.get(self._base)
        if entry is not None:
            start = min(start, entry[1])
            end = max(end, entry[2])
        self._dirty[self._base] = (self._buffer, start, end)

    def _require(self, size: int) -> None:
        if self.space < size + _RESERVE:
            raise UndoExhaustedError(
                f"the UNDO FIFO has {self.space} of {self.capacity} bytes left, {size + _RESERVE} are needed"
            )

    def _to_zone2(self, zone3_offset: Offset) -> Offset:
        short = zone3_offset & SHORT_MASK
        return self._bigblocks[short // BIGBLOCK_SIZE] + (short & BIGBLOCK_MASK)

    def _is_covered(self, offset: Offset, size: int) -> bool:
        """Whether every unit that the range touches was logged."""
        logged = self._history.get(offset // BUFSIZE)
        if logged is None:
            return False
        first = (offset & BUFMASK) >> _HISTORY_UNIT_BITS
        last = ((offset & BUFMASK) + size - 1) >> _HISTORY_UNIT_BITS
        wanted = ((2 << (last - first)) - 1) << first
        return logged & wanted == wanted

    def _remember(self, offset: Offset, size: int) -> None:
        """Note the units that lie in the range as a whole."""
        unit = 1 << _HISTORY_UNIT_BITS
        first = ((offset & BUFMASK) + unit - 1) >> _HISTORY_UNIT_BITS
        end = ((offset & BUFMASK) + size) >> _HISTORY_UNIT_BITS
        if end > first:
            key = offset // BUFSIZE
            self._history[key] = self._history.get(key, 0) | ((1 << (end - first)) - 1) << first
