"""The freemap: who owns each 8 MiB big-block and how much of it is free.

Entries are decoded and verified when first needed, changed as objects and written back, CRCs and all, by `sync` under
UNDO: thousands of allocations in one big-block cost one UNDO record.  A mount reads no more than layer 1's entries, one
per 4 TiB, so it costs the same whatever the size.  Source: `hammer_blockmap.c`, `hammer_disk.h`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hammerfs.errors import CorruptionError
from hammerfs.ondisk.address import Offset, encode, layer1_offset, layer2_offset, short_of, volume_of, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    BLOCKMAP_UNAVAIL,
    BUFMASK,
    BUFSIZE,
    DATA_ALIGN,
    LAYER1_ENTRY_SIZE,
    LAYER2_ENTRY_SIZE,
    LAYER2_RADIX,
    LAYER2_SPAN,
    NODE_SIZE,
    ZONE_BTREE,
    ZONE_FREEMAP,
    ZONE_RAW_BUFFER,
)
from hammerfs.ondisk.freemap import Layer1, Layer2, layer1_crc_ok, layer2_crc_ok
from hammerfs.store.buffers import MetaBuffers
from hammerfs.store.volumes import VolumeSet

_ENTRIES_PER_BUFFER = BUFSIZE // LAYER2_ENTRY_SIZE
_CLEAN_LIMIT = 4096
BYTES_FREE_MIN = -(1 << 31)
"""Dedup makes several records refer to the same bytes, so this is far below what anyone needs."""


class FreeMap:
    """Layer 1 and layer 2 of a mounted file system, keyed by zone-2 offsets of big-blocks.

    withheld -- number of the volume that nothing is to be allocated on; None when there is none
    """

    def __init__(self, volumes: VolumeSet, buffers: MetaBuffers) -> None:
        self._volumes = volumes
        self._buffers = buffers
        self._covers = volumes.covers
        self._layer1_base = volumes.root.header.blockmap(ZONE_FREEMAP).phys_offset
        self._layer1: dict[int, Layer1] = {}
        self._layer2: dict[Offset, Layer2] = {}
        self._dirty1: set[int] = set()
        self._dirty2: set[Offset] = set()
        self.withheld: int | None = None
        self._spans = [
            (number, volume.header.vol_buf_end - volume.header.vol_buf_beg)
            for number, volume in sorted(volumes.volumes.items())
        ]

    def layer1(self, offset: Offset) -> Layer1:
        """The verified layer-1 entry that covers `offset`."""
        position = layer1_offset(offset)
        entry = self._layer1.get(position)
        if entry is None:
            if not self._is_bigblock(self._layer1_base):
                raise CorruptionError("freemap layer 1 at an impossible address", offset=self._layer1_base)
            raw = self._buffers.read(self._layer1_base + position, LAYER1_ENTRY_SIZE)
            if not layer1_crc_ok(self._volumes.version, raw):
                raise CorruptionError("freemap layer-1 entry with a bad CRC", offset=self._layer1_base + position)
            entry = Layer1.unpack(raw)
            if entry.available and not self._is_bigblock(entry.phys_offset):
                where = self._layer1_base + position
                raise CorruptionError(
                    f"freemap layer 2 at the impossible address {entry.phys_offset:016x}", offset=where
                )
            if entry.available and entry.blocks_free > LAYER2_RADIX:
                where = self._layer1_base + position
                raise CorruptionError(f"freemap layer-1 entry with {entry.blocks_free} free big-blocks", offset=where)
            self._layer1[position] = entry
        return entry

    def _is_bigblock(self, offset: Offset) -> bool:
        aligned = zone_of(offset) == ZONE_RAW_BUFFER and not offset & BIGBLOCK_MASK
        return aligned and self._covers(offset, BIGBLOCK_SIZE)

    def layer2(self, bigblock: Offset) -> Layer2:
        """The verified layer-2 entry of a big-block; change it only through `own`, `take` and `give`."""
        entry = self._layer2.get(bigblock)
        if entry is None:
            where = self._layer2_address(bigblock)
            raw = self._buffers.read(where, LAYER2_ENTRY_SIZE)
            if not layer2_crc_ok(self._volumes.version, raw):
                raise CorruptionError("freemap layer-2 entry with a bad CRC", offset=where)
            entry = Layer2.unpack(raw)
            odd = (entry.bytes_free | entry.append_off) % (NODE_SIZE if entry.zone == ZONE_BTREE else DATA_ALIGN)
            if entry.bytes_free > BIGBLOCK_SIZE or entry.append_off > BIGBLOCK_SIZE or odd:
                raise CorruptionError("freemap layer-2 entry with impossible counts", offset=where)
            self._layer2[bigblock] = entry
        return entry

    def take(self, bigblock: Offset, zone: int, end: int, size: int) -> bool:
        """Account `size` bytes ending at `end` within a big-block to `zone`; True when this took a free big-block."""
        entry = self.layer2(bigblock)
        fresh = entry.zone == 0
        if fresh:
            self._count_free(bigblock, -1)
            entry.zone = zone
        elif entry.zone != zone:
            raise CorruptionError(f"big-block of zone {entry.zone} allocated in zone {zone}", offset=bigblock)
        if entry.bytes_free - size < BYTES_FREE_MIN:
            raise CorruptionError("big-block with more references than can be counted", offset=bigblock)
        entry.bytes_free -= size
        entry.append_off = max(entry.append_off, end)
        self._dirty2.add(bigblock)
        return fresh

    def give(self, bigblock: Offset, zone: int, size: int) -> bool:
        """Account `size` bytes as free again; True when the whole big-block became free."""
        entry = self.verify_owned(bigblock, zone, size)
        entry.bytes_free += size
        self._dirty2.add(bigblock)
        if entry.bytes_free != BIGBLOCK_SIZE:
            return False
        entry.zone = 0
        entry.append_off = 0
        self._count_free(bigblock, +1)
        return True

    def verify_owned(self, bigblock: Offset, zone: int, size: int) -> Layer2:
        """The entry of a big-block in which `zone` owns `size` bytes at least; CorruptionError when it does not."""
        entry = self.layer2(bigblock)
        if entry.zone != zone or size < 0 or entry.bytes_free + size > BIGBLOCK_SIZE:
            raise CorruptionError(f"{size} bytes freed that zone {zone} does not own", offset=bigblock)
        return entry

    def candidates(self, start: Offset, zone: int) -> Iterator[Offset]:
        """Big-blocks from `start` on, once around all volumes, that are free or owned by `zone` and not full."""
        home = volume_of(start)
        spans = [span for span in self._spans if span[0] != self.withheld]
        ordered = [span for span in spans if span[0] >= home] + [span for span in spans if span[0] < home]
        if ordered[0][0] == home:
            ordered.append(ordered[0])
        else:
            start = encode(zone_of(start), ordered[0][0], 0)
            ordered.append((ordered[0][0], 0))
        for index, (number, size) in enumerate(ordered):
            first = start & (1 << 52) - 1 & -BIGBLOCK_SIZE if index == 0 else 0
            last = min(size, (start & (1 << 52) - 1)) if index == len(ordered) - 1 else size
            yield from self._candidates_in(number, first, last, zone)

    def _candidates_in(self, volume: int, first: int, last: int, zone: int) -> Iterator[Offset]:
        position = first
        while position < last:
            bigblock = encode(ZONE_RAW_BUFFER, volume, position)
            span = self.layer1(bigblock)
            if not span.available:
                position = (position // LAYER2_SPAN + 1) * LAYER2_SPAN
                continue
            where = self._layer2_address(bigblock)
            index = (where & BUFMASK) // LAYER2_ENTRY_SIZE
            zones = self._buffers.read(where & ~BUFMASK, BUFSIZE)[::LAYER2_ENTRY_SIZE]
            for slot in range(index, _ENTRIES_PER_BUFFER):
                if position >= last:
                    return
                bigblock = encode(ZONE_RAW_BUFFER, volume, position)
                position += BIGBLOCK_SIZE
                if zones[slot] in (0, zone) or bigblock in self._layer2:
                    entry = self.layer2(bigblock)
                    if entry.zone == 0 or (entry.zone == zone and entry.append_off < BIGBLOCK_SIZE):
                        yield bigblock

    def owned(self, volume: int | None = None) -> Iterator[tuple[Offset, int]]:
        """Big-blocks of all volumes or of one that belong to a zone, with that; entries may change between two."""
        for number, size in self._spans:
            if volume is not None and number != volume:
                continue
            for position in range(0, size, BIGBLOCK_SIZE):
                bigblock = encode(ZONE_RAW_BUFFER, number, position)
                if not self.layer1(bigblock).available:
                    continue
                known = self._layer2.get(bigblock)
                zone = self._buffers.read(self._layer2_address(bigblock), 1)[0] if known is None else known.zone
                if zone:
                    yield bigblock, zone

    def free_bigblocks(self, volume: int | None = None) -> int:
        """Free big-blocks of all volumes or of one, as layer 1 counts them."""
        return sum(
            self.layer1(encode(ZONE_RAW_BUFFER, number, position)).blocks_free
            for number, size in self._spans
            if volume is None or number == volume
            for position in range(0, size, LAYER2_SPAN)
        )

    def begin_volume(self, number: int, size: int, entries: Sequence[tuple[Offset, Layer1]]) -> None:
        """Describe one more volume: the size of its buffer area, and its layer-1 entries with where their reach begins.

        Its layer 2 lies on the volume already.  CorruptionError when something describes the volume already.
        """
        for described, _ in entries:
            if self.layer1(described).available:
                raise CorruptionError(
                    f"freemap layer-1 entry of volume {number}, which does not exist,", offset=described
                )
        self._spans = sorted([*self._spans, (number, size)])
        for described, entry in entries:
            position = layer1_offset(described)
            self._layer1[position] = entry
            self._dirty1.add(position)

    def describes(self, number: int) -> bool:
        """Whether a volume is one of the file system."""
        return any(other == number for other, _ in self._spans)

    def end_volume(self, number: int) -> None:
        """Describe a volume no longer, on which nothing is owned."""
        assert all(volume_of(bigblock) != number for bigblock in self._dirty2), (
            "a volume went that was changed just now"
        )
        (size,) = [size for other, size in self._spans if other == number]
        for start in range(0, size, LAYER2_SPAN):
            position = layer1_offset(encode(ZONE_RAW_BUFFER, number, start))
            self._layer1[position] = Layer1(0, BLOCKMAP_UNAVAIL)
            self._dirty1.add(position)
        self._spans = [span for span in self._spans if span[0] != number]
        for bigblock in [bigblock for bigblock in self._layer2 if volume_of(bigblock) == number]:
            del self._layer2[bigblock]
        self._buffers.forget_volume(number)

    def can_append_at(self, start: Offset, zone: int) -> bool:
        """Whether a zone may go on at `start`: within a volume, or at the end of all zone offsets, and aligned."""
        inside = zone_of(start) == zone and any(
            volume_of(start) == number and short_of(start) <= size for number, size in self._spans
        )
        alignment = NODE_SIZE if zone == ZONE_BTREE else DATA_ALIGN
        return (inside or start == encode(zone + 1, 0, 0)) and start % alignment == 0

    def sync(self) -> None:
        """Write the changed entries into their buffers, under UNDO."""
        for position in sorted(self._dirty1):
            self._buffers.modify(self._layer1_base + position, self._layer1[position].pack(self._volumes.version))
        for bigblock in sorted(self._dirty2):
            self._buffers.modify(self._layer2_address(bigblock), self._layer2[bigblock].pack(self._volumes.version))
        self._dirty1.clear()
        self._dirty2.clear()
        if len(self._layer2) > _CLEAN_LIMIT:
            self._layer2.clear()

    @property
    def dirty_entries(self) -> int:
        """Entries that `sync` will write; each costs an UNDO record of its own."""
        return len(self._dirty1) + len(self._dirty2)

    def _count_free(self, bigblock: Offset, step: int) -> None:
        span = self.layer1(bigblock)
        if not 0 <= span.blocks_free + step <= LAYER2_RADIX:
            where = self._layer1_base + layer1_offset(bigblock)
            raise CorruptionError("freemap layer-1 entry that does not count its free big-blocks right", offset=where)
        span.blocks_free += step
        self._dirty1.add(layer1_offset(bigblock))

    def _layer2_address(self, bigblock: Offset) -> Offset:
        span = self.layer1(bigblock)
        if not span.available:
            raise CorruptionError("offset beyond the freemap", offset=bigblock)
        return span.phys_offset + layer2_offset(bigblock)
