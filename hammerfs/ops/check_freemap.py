"""Phase 2: the freemap's two layers, read in 16 KiB buffers; most of a large volume is buffers of equal entries.

Kept for the accounting: one row per big-block that is neither free nor beyond a volume's end.  Source:
`hammer_blockmap.c`, `hammer_disk.h` (layer 1 and 2), newfs_hammer's `initialize_freemap` for what lies beyond the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hammerfs.errors import HammerError
from hammerfs.ondisk.address import Offset, bigblock_of, short_of, volume_of, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_BITS,
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    BUFSIZE,
    DATA_ALIGN,
    LAYER1_ENTRY_SIZE,
    LAYER1_RADIX,
    LAYER2_ENTRY_SIZE,
    LAYER2_RADIX,
    LAYER2_SPAN,
    NODE_SIZE,
    RECORD_ZONES,
    ZONE_BTREE,
    ZONE_FREEMAP,
    ZONE_RAW_BUFFER,
    ZONE_UNAVAIL,
    ZONE_UNDO,
)
from hammerfs.ondisk.freemap import Layer1, Layer2, layer1_crc_ok, layer2_crc_ok
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.check_report import Report
from hammerfs.ops.check_volumes import KIND as HEADER
from hammerfs.ops.check_volumes import ROOT, undo_bigblocks
from hammerfs.ops.progress import Progress
from hammerfs.store.volumes import VolumeSet

LAYER1 = "freemap layer 1"
LAYER2 = "freemap layer 2"


@dataclass
class FreemapState:
    """What the freemap says.

    owned -- big-block number (zone-2 address without label, in big-blocks) to its entry, zones 3, 4 and 8 to 11
    free -- big-blocks of zone 0
    total -- big-blocks within the volumes
    metadata -- zone-2 addresses of the big-blocks that hold the freemap itself
    """

    owned: dict[int, Layer2] = field(default_factory=dict)
    free: int = 0
    total: int = 0
    metadata: set[Offset] = field(default_factory=set)

    def btree_nodes(self) -> int:
        """Nodes that the bytes in use in zone 8 make up."""
        owned = [entry.bytes_free for entry in self.owned.values() if entry.zone == ZONE_BTREE]
        return sum(BIGBLOCK_SIZE - free for free in owned) // NODE_SIZE


def bigblock_number(offset: Offset) -> int:
    """Key of a big-block in `FreemapState.owned`, whatever zone labels the offset."""
    return (offset & ((1 << 60) - 1)) >> BIGBLOCK_BITS


def check_freemap(reader: ImageReader, report: Report, progress: Progress) -> FreemapState:
    """Verify both layers; the result is what accounting compares with."""
    root = reader.volumes.root.header
    base = root.blockmap(ZONE_FREEMAP).phys_offset
    state = FreemapState()
    state.metadata.add(bigblock_of(base))
    limits = _bigblocks_of_volumes(reader.volumes)
    progress.phase("freemap", sum(limits.values()))
    for index, entry in _layer1_entries(reader, base, report):
        volume = volume_of(index * LAYER2_SPAN)
        first = short_of(index * LAYER2_SPAN) // BIGBLOCK_SIZE
        expected = max(0, min(LAYER2_RADIX, limits.get(volume, 0) - first))
        _check_layer1(reader, index, entry, expected, state, report)
        progress.advance(expected)
    _check_header_counts(root.vol0_stat_bigblocks, root.vol0_stat_freebigblocks, state, report)
    _check_reserved_zones(reader.volumes, state, report)
    report.count("big-blocks", state.total)
    report.count("free big-blocks", state.free)
    return state


def _bigblocks_of_volumes(volumes: VolumeSet) -> dict[int, int]:
    """Whole big-blocks in each volume's buffer area."""
    return {
        number: (volume.header.vol_buf_end - volume.header.vol_buf_beg) // BIGBLOCK_SIZE
        for number, volume in volumes.volumes.items()
    }


def _layer1_entries(reader: ImageReader, base: Offset, report: Report) -> Iterator[tuple[int, Layer1]]:
    """Index and entry of layer 1; of equal neighbours, nearly all of which say UNAVAIL, one is verified."""
    per_buffer = BUFSIZE // LAYER1_ENTRY_SIZE
    for first in range(0, LAYER1_RADIX, per_buffer):
        where = base + first * LAYER1_ENTRY_SIZE
        try:
            raw = reader.read_uncached(where, BUFSIZE)
        except HammerError as error:
            report.problem(LAYER1, where, str(error))
            continue
        for index, count in _runs(raw, LAYER1_ENTRY_SIZE):
            start = index * LAYER1_ENTRY_SIZE
            if not layer1_crc_ok(reader.version, raw[start : start + LAYER1_ENTRY_SIZE]):
                report.problem(
                    LAYER1, where + start, f"CRC mismatch ({count} entries)" if count > 1 else "CRC mismatch"
                )
                continue
            entry = Layer1.unpack(raw, start)
            if entry.available:
                report.count("layer-1 entries", count)
                for repeated in range(count):
                    yield first + index + repeated, entry
            elif entry.blocks_free:
                report.problem(LAYER1, where + start, f"{entry.blocks_free} free big-blocks where there is no volume")


def _check_layer1(
    reader: ImageReader, index: int, entry: Layer1, expected: int, state: FreemapState, report: Report
) -> None:
    where = reader.volumes.root.header.blockmap(ZONE_FREEMAP).phys_offset + index * LAYER1_ENTRY_SIZE
    bad_address = zone_of(entry.phys_offset) != ZONE_RAW_BUFFER or entry.phys_offset & BIGBLOCK_MASK
    if bad_address or volume_of(entry.phys_offset) not in reader.volumes.volumes:
        report.problem(LAYER1, where, f"its layer 2 has the impossible address {entry.phys_offset:016x}")
        return
    if not expected:
        report.problem(
            LAYER1, where, f"it describes space of volume {volume_of(index * LAYER2_SPAN)} that is not there"
        )
        return
    state.metadata.add(entry.phys_offset)
    state.total += expected
    free = _check_layer2(reader, index, entry.phys_offset, expected, state, report)
    state.free += free
    if entry.blocks_free != free:
        report.problem(LAYER1, where, f"says {entry.blocks_free} free big-blocks, layer 2 has {free}")


def _check_layer2(
    reader: ImageReader, index: int, base: Offset, expected: int, state: FreemapState, report: Report
) -> int:
    """Verify one layer-2 big-block; returns how many of its entries are free."""
    per_buffer = BUFSIZE // LAYER2_ENTRY_SIZE
    free = 0
    for first in range(0, LAYER2_RADIX, per_buffer):
        where = base + first * LAYER2_ENTRY_SIZE
        try:
            raw = reader.read_uncached(where, BUFSIZE)
        except HammerError as error:
            report.problem(LAYER2, where, str(error))
            continue
        for start, count in _runs(raw, LAYER2_ENTRY_SIZE):
            number = bigblock_number(index * LAYER2_SPAN) + first + start
            inside = max(0, min(count, expected - first - start))
            place = where + start * LAYER2_ENTRY_SIZE
            piece = raw[start * LAYER2_ENTRY_SIZE : (start + 1) * LAYER2_ENTRY_SIZE]
            free += _check_entries(reader.version, piece, place, number, (inside, count), state, report)
    return free


def _runs(raw: bytes, size: int) -> Iterator[tuple[int, int]]:
    """Index and length of runs of equal entries of `size` bytes; what is alike to the end costs one comparison."""
    total = len(raw) // size
    start = 0
    while start < total:
        piece = raw[start * size : (start + 1) * size]
        end = start + 1
        if raw.endswith(piece * (total - start)):
            end = total
        while end < total and raw.startswith(piece, end * size):
            end += 1
        yield start, end - start
        start = end


def _check_entries(
    version: int,
    raw: bytes,
    where: Offset,
    number: int,
    spans: tuple[int, int],
    state: FreemapState,
    report: Report,
) -> int:
    """A run of equal entries, `spans` of them inside the volume and in all; returns how many are free."""
    inside, count = spans
    if not layer2_crc_ok(version, raw):
        report.problem(LAYER2, where, f"CRC mismatch ({count} entries)" if count > 1 else "CRC mismatch")
        return 0
    entry = Layer2.unpack(raw)
    if entry.zone == ZONE_UNAVAIL:
        if inside:
            report.problem(LAYER2, where, f"{inside} big-blocks within the volume are marked unavailable")
        return 0
    if count > inside:
        report.problem(LAYER2, where, f"{count - inside} big-blocks beyond the volume's end have zone {entry.zone}")
    odd = (entry.append_off | entry.bytes_free) % (NODE_SIZE if entry.zone == ZONE_BTREE else DATA_ALIGN)
    if odd or not 0 <= entry.append_off <= BIGBLOCK_SIZE or entry.bytes_free > BIGBLOCK_SIZE:
        report.problem(LAYER2, where, f"impossible append_off {entry.append_off} or bytes_free {entry.bytes_free}")
    if entry.zone == 0:
        if entry.bytes_free != BIGBLOCK_SIZE or entry.append_off:
            report.problem(
                LAYER2, where, f"a free big-block has append_off {entry.append_off}, bytes_free {entry.bytes_free}"
            )
        return inside
    if entry.zone not in (ZONE_UNDO, ZONE_FREEMAP, *RECORD_ZONES):
        report.problem(LAYER2, where, f"zone {entry.zone} cannot own a big-block")
    state.owned.update((number + offset, entry) for offset in range(count))
    return 0


def _check_header_counts(total: int, free: int, state: FreemapState, report: Report) -> None:
    if free != state.free:
        report.problem(HEADER, ROOT, f"says {free} free big-blocks, the freemap has {state.free}")
    usable = state.total - sum(entry.zone in (ZONE_UNDO, ZONE_FREEMAP) for entry in state.owned.values())
    if total != usable:
        report.problem(HEADER, ROOT, f"says {total} big-blocks for data, the freemap has {usable}")


def _check_reserved_zones(volumes: VolumeSet, state: FreemapState, report: Report) -> None:
    """Zones 3 and 4 own exactly the FIFO's and the freemap's big-blocks."""
    for zone, name, wanted in (
        (ZONE_UNDO, "the UNDO FIFO", set(undo_bigblocks(volumes.root.header))),
        (ZONE_FREEMAP, "the freemap", state.metadata),
    ):
        numbers = {bigblock_number(offset) for offset in wanted}
        owned = {number for number, entry in state.owned.items() if entry.zone == zone}
        for number in sorted(numbers - owned):
            report.problem(LAYER2, _address(number), f"{name} lies in this big-block, which is not in zone {zone}")
        for number in sorted(owned - numbers):
            report.problem(LAYER2, _address(number), f"zone {zone} owns this big-block, but {name} does not use it")


def _address(number: int) -> Offset:
    return (ZONE_RAW_BUFFER << 60) | (number << BIGBLOCK_BITS)
