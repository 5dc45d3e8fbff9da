"""`blockmap` and `checkmap`: the freemap, and the freemap against what is in use, in the lines of hammer(8).

Source: `cmd_blockmap.c`.  Letters mark what is wrong: `B` a CRC, `A` append_off, `F` bytes_free.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hammerfs.errors import CorruptionError
from hammerfs.ondisk.address import Offset, encode, short_of, to_zone, to_zone2, volume_of, zone_of
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
from hammerfs.store.volumes import VolumeSet


def blockmap_lines(volumes: VolumeSet) -> Iterator[str]:
    """Layer 1 and layer 2 of every volume.

    What layer 2 holds for places beyond a volume's end is left out, whatever it is: `check` tells when it is not what
    it should be.  The original goes on until it finds a sound entry that says there is nothing.
    """
    yield from header_lines(volumes.root.header)
    reader = ImageReader(volumes)
    base = volumes.root.header.blockmap(ZONE_FREEMAP).phys_offset
    if not _is_bigblock(volumes, base):
        raise CorruptionError("freemap layer 1 at an impossible address", offset=base)
    bad1 = bad2 = 0
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
        count = _bigblocks_from(volumes, start)
        if layer1.available and count and _is_bigblock(volumes, layer1.phys_offset):
            for line, bad in _layer2_lines(reader, layer1, start, count):
                bad2 += bad
                yield line
    if bad1:
        yield f"{bad1} bad layer1"
    if bad2:
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


def _layer2_lines(reader: ImageReader, layer1: Layer1, start: int, count: int) -> Iterator[tuple[str, int]]:
    """The lines of `count` entries of one layer-2 big-block, each with the number of faults in it."""
    for index, raw in enumerate(islice(_entries(reader, layer1.phys_offset, LAYER2_ENTRY_SIZE), count)):
        entry = Layer2.unpack(raw)
        flags = (
            " " if layer2_crc_ok(reader.version, raw) else "B",
            "A" if entry.append_off > BIGBLOCK_SIZE else " ",
            " " if 0 <= entry.bytes_free <= BIGBLOCK_SIZE else "F",
        )
        faults = 3 - flags.count(" ")
        offset = start + index * BIGBLOCK_SIZE
        yield (
            f"{''.join(flags)}     {offset:016x} zone={entry.zone:<2} app={entry.append_off:<7} "
            f"free={entry.bytes_free:<7}",
            faults,
        )


def checkmap_lines(volumes: VolumeSet) -> Iterator[str]:
    """Bytes in use per big-block against layer 2; `BZ` a wrong zone, `BM` a wrong count."""
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
    for line in _differences(usage, freemap):
        errors += 1
        yield line
    if errors:
        yield f"{errors} errors"


def _differences(usage: Usage, freemap: FreemapState) -> Iterator[str]:
    for key, used in sorted(usage.used.items(), key=lambda item: bigblock_number(item[0] << BIGBLOCK_BITS)):
        offset = key << BIGBLOCK_BITS
        entry = freemap.owned.get(bigblock_number(offset)) or Layer2(0, 0, BIGBLOCK_SIZE)
        zone = offset >> 60
        free = BIGBLOCK_SIZE - used
        if entry.zone != zone:
            yield f"BZ\tblock={to_zone2(offset):016x} calc zone={zone:<2}, got zone={entry.zone:<2}"
        elif entry.bytes_free != free:
            yield f"BM\tblock={to_zone2(offset):016x} zone={zone:<2} calc {free} free, got {entry.bytes_free}"
