"""`blockmap` and `checkmap`: the freemap, and the freemap against what is in use, in the lines of hammer(8).

Source: `cmd_blockmap.c`.  Letters mark what is wrong: `B` a CRC, `A` append_off, `F` bytes_free.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hammerfs.errors import CorruptionError
from hammerfs.ondisk.address import (
    Offset,
    encode,
    layer1_offset,
    layer2_offset,
    short_of,
    to_zone,
    to_zone2,
    volume_of,
    zone_of,
)
from hammerfs.ondisk.constants import (
    BIGBLOCK_BITS,
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    BLOCKMAP_UNAVAIL,
    BUFSIZE,
    LAYER1_ENTRY_SIZE,
    LAYER2_ENTRY_SIZE,
    LAYER2_RADIX,
    LAYER2_SPAN,
    ZONE_FREEMAP,
    ZONE_RAW_BUFFER,
    ZONE_UNDO,
)
from hammerfs.ondisk.freemap import Layer1, Layer2, layer1_crc_ok, layer2_crc_ok
from hammerfs.ops.check_btree import TreeWalk
from hammerfs.ops.check_freemap import FreemapState, bigblock_number, check_freemap
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.check_report import Report
from hammerfs.ops.check_usage import Usage
from hammerfs.ops.check_volumes import undo_bigblocks
from hammerfs.ops.progress import SilentProgress
from hammerfs.ops.show_header import header_lines
from hammerfs.ops.zone_statistics import ZoneStatistics
from hammerfs.store.volumes import VolumeSet


def blockmap_lines(volumes: VolumeSet, counts: bool = False, whole: bool = False) -> Iterator[str]:
    """Layer 1 and layer 2 of every volume; with `counts` also places, CRCs, and how full each zone is.

    What layer 2 holds for places beyond a volume's end is left out, whatever it is: `check` tells when it is not what
    it should be.  The original goes on until it finds a sound entry that says there is nothing.  With `whole` both
    print it, half a million lines for each entry of layer 1.
    """
    yield from header_lines(volumes.root.header)
    reader = ImageReader(volumes)
    base = volumes.root.header.blockmap(ZONE_FREEMAP).phys_offset
    if not _is_bigblock(volumes, base):
        raise CorruptionError("freemap layer 1 at an impossible address", offset=base)
    bad1 = bad2 = 0
    zones = ZoneStatistics()
    absent = Layer1(0, BLOCKMAP_UNAVAIL).pack(volumes.version)
    for index, raw in enumerate(_entries(reader, base, LAYER1_ENTRY_SIZE)):
        if raw == absent:
            continue
        layer1 = Layer1.unpack(raw)
        sound = layer1_crc_ok(volumes.version, raw)
        if sound and not layer1.available:
            continue
        bad1 += not sound
        start = encode(ZONE_FREEMAP, 0, 0) + index * LAYER2_SPAN
        yield f"{' ' if sound else 'B'} layer1 {start:016x} @{layer1.phys_offset:016x} blocks-free {layer1.blocks_free}"
        count = LAYER2_RADIX if whole else _bigblocks_from(volumes, start)
        if layer1.available and count and _is_bigblock(volumes, layer1.phys_offset):
            for offset, entry, found in _layer2_entries(reader, layer1, start, count):
                flags = _flags(reader.version, entry, found)
                bad2 += 3 - flags.count(" ")
                zones.add_bigblock(entry)
                places, rest = _details(offset, entry, raw, found) if counts else ("", "")
                yield (
                    f"{flags}     {offset:016x} zone={entry.zone:<2} {places}app={entry.append_off:<7} "
                    f"free={entry.bytes_free:<7}{rest}"
                )
    if counts:
        yield from zones.lines()
    if bad1 or counts:
        yield f"{bad1} bad layer1"
    if bad2 or counts:
        yield f"{bad2} bad layer2"


def _entries(reader: ImageReader, base: Offset, size: int) -> Iterator[bytes]:
    """All entries of a layer's big-block."""
    for place in range(base, base + BIGBLOCK_SIZE, BUFSIZE):
        buffer = reader.read_uncached(place, BUFSIZE)
        for start in range(0, BUFSIZE, size):
            yield buffer[start : start + size]


def _is_bigblock(volumes: VolumeSet, offset: Offset) -> bool:
    """Whether a big-block of the freemap can be there."""
    aligned = zone_of(offset) == ZONE_RAW_BUFFER and not offset & BIGBLOCK_MASK
    return aligned and volumes.covers(offset, BIGBLOCK_SIZE)


def _bigblocks_from(volumes: VolumeSet, start: Offset) -> int:
    """Whole big-blocks of a volume's buffer area from `start` on, of those that one layer-1 entry covers."""
    if not volumes.covers(to_zone2(start), BIGBLOCK_SIZE):
        return 0
    header = volumes.volumes[volume_of(start)].header
    return min((header.vol_buf_end - header.vol_buf_beg - short_of(start)) // BIGBLOCK_SIZE, LAYER2_RADIX)


def _layer2_entries(
    reader: ImageReader, layer1: Layer1, start: Offset, count: int
) -> Iterator[tuple[Offset, Layer2, bytes]]:
    """`count` entries of one layer-2 big-block: the offset that each is about, what it says, and its bytes."""
    for index, raw in enumerate(islice(_entries(reader, layer1.phys_offset, LAYER2_ENTRY_SIZE), count)):
        yield start + index * BIGBLOCK_SIZE, Layer2.unpack(raw), raw


def _flags(version: int, entry: Layer2, raw: bytes) -> str:
    """Three letters for what is wrong."""
    crc = " " if layer2_crc_ok(version, raw) else "B"
    append = "A" if entry.append_off > BIGBLOCK_SIZE else " "
    return f"{crc}{append}{' ' if 0 <= entry.bytes_free <= BIGBLOCK_SIZE else 'F'}"


def _details(offset: Offset, entry: Layer2, raw1: bytes, raw2: bytes) -> tuple[str, str]:
    """The columns that -v adds: where the entries of an offset lie in the layers, how full it is, and their CRCs."""
    first, second = layer1_offset(offset), layer2_offset(offset)
    places = (
        f"vol={volume_of(offset):<3} L1#={first // LAYER1_ENTRY_SIZE:<6} L2#={second // LAYER2_ENTRY_SIZE:<6} "
        f"L1={first:<7} L2={second:<7} "
    )
    fill = (BIGBLOCK_SIZE - entry.bytes_free) * 100 / BIGBLOCK_SIZE
    crcs = "-".join(f"{int.from_bytes(raw[-4:], 'little'):08x}" for raw in (raw1, raw2))
    return places, f" fill={fill:<5.1f} crc={crcs}"


def checkmap_lines(volumes: VolumeSet, counts: bool = False) -> Iterator[str]:
    """Bytes in use per big-block against layer 2; `BZ` a wrong zone, `BM` a wrong count.

    With `counts` also what is right, and how full each zone is.
    """
    yield from header_lines(volumes.root.header)
    reader = ImageReader(volumes)
    report = Report()
    usage = Usage()
    freemap = check_freemap(reader, report, SilentProgress())
    yield "Collecting allocation info from freemap: done"
    for leaf in TreeWalk(reader, usage, report, SilentProgress()).leaves():
        for element in leaf.elements:
            if element.data_offset:
                usage.add(element.data_offset, element.data_len)
    yield "Collecting allocation info from B-Tree: done"
    for problem in report.problems:
        yield f"B    {problem}"
    for bigblock in undo_bigblocks(volumes.root.header):
        usage.add(to_zone(ZONE_UNDO, bigblock), BIGBLOCK_SIZE)
    for bigblock in freemap.metadata:
        usage.add(to_zone(ZONE_FREEMAP, bigblock), BIGBLOCK_SIZE)
    yield "Collecting allocation info from UNDO: done"
    errors = report.problem_total
    zones = ZoneStatistics()
    for line in _compared(usage, freemap, zones):
        is_wrong = line.startswith("B")
        errors += is_wrong
        if is_wrong or counts:
            yield line
    if counts:
        yield from zones.lines()
        yield f"{report.problem_total} bad nodes"
    if errors or counts:
        yield f"{errors} errors"


def _compared(usage: Usage, freemap: FreemapState, zones: ZoneStatistics) -> Iterator[str]:
    for key, used in sorted(usage.used.items(), key=lambda item: bigblock_number(item[0] << BIGBLOCK_BITS)):
        offset = key << BIGBLOCK_BITS
        entry = freemap.owned.get(bigblock_number(offset)) or Layer2(0, 0, BIGBLOCK_SIZE)
        zones.add_bigblock(entry)
        zone = offset >> 60
        free = BIGBLOCK_SIZE - used
        # The freemap's own address is told, of everything else the raw one.
        block = offset if zone == ZONE_FREEMAP else to_zone2(offset)
        if entry.zone != zone:
            yield f"BZ\tblock={block:016x} calc zone={zone:<2}, got zone={entry.zone:<2}"
        elif entry.bytes_free != free:
            yield f"BM\tblock={block:016x} zone={zone:<2} calc {free} free, got {entry.bytes_free}"
        else:
            yield f"\tblock={block:016x} zone={zone:<2} {free} free (correct)"
