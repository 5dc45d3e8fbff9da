"""Making volumes unreadable as a file system for good, without erasing what files held (`cmd_strip.c`).

Big-blocks of the B-tree and of meta-data are overwritten with zeros and taken out of the freemap, then every volume
header gives way to the word STRIPPED.  A freemap that leads nowhere ends the first part early, never the second.
"""

from __future__ import annotations

from collections.abc import Iterator

from hammerfs.ondisk.address import Offset, encode, layer1_offset, to_zone, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    BUFSIZE,
    LAYER1_ENTRY_SIZE,
    LAYER2_ENTRY_SIZE,
    LAYER2_SPAN,
    ZONE_BTREE,
    ZONE_FREEMAP,
    ZONE_META,
    ZONE_RAW_BUFFER,
    ZONE_UNAVAIL,
)
from hammerfs.ondisk.freemap import Layer1, Layer2
from hammerfs.ondisk.volume import VOLUME_HEADER_SIZE
from hammerfs.store.volumes import VolumeSet

STRIPPED = b"STRIPPED"
_WRITE_BYTES = BIGBLOCK_SIZE // 8


def strip(volumes: VolumeSet) -> Iterator[str]:
    """Strip all volumes; yields a line about each thing that is gone.  Durable when it has ended."""
    for zone, bigblock in list(_meta_bigblocks(volumes)):
        for start in range(0, BIGBLOCK_SIZE, _WRITE_BYTES):
            volumes.write(bigblock + start, bytes(_WRITE_BYTES))
        yield f"Stripped big-block {to_zone(zone, bigblock):016x}"
    for volume in volumes.volumes.values():
        volume.buffer[:VOLUME_HEADER_SIZE] = STRIPPED.ljust(VOLUME_HEADER_SIZE, b"\0")
        volume.device.write(0, volume.buffer)
        volume.device.barrier()
        yield f"Stripped volume header {volume.device.name}"


def _meta_bigblocks(volumes: VolumeSet) -> Iterator[tuple[int, Offset]]:
    """Big-blocks of the B-tree and of meta-data, each taken out of the freemap as it is delivered."""
    base = volumes.root.header.blockmap(ZONE_FREEMAP).phys_offset
    if not _is_bigblock(volumes, base):
        return
    taken_out = Layer2(ZONE_UNAVAIL, BIGBLOCK_SIZE, 0).pack(volumes.version)
    for span in _spans(volumes):
        layer1 = Layer1.unpack(volumes.read(base + layer1_offset(span), LAYER1_ENTRY_SIZE))
        if not layer1.available or not _is_bigblock(volumes, layer1.phys_offset):
            continue
        for index, entry in _layer2(volumes, layer1.phys_offset):
            bigblock = span + index * BIGBLOCK_SIZE
            if entry.zone in (ZONE_BTREE, ZONE_META) and volumes.covers(bigblock, BIGBLOCK_SIZE):
                volumes.write(layer1.phys_offset + index * LAYER2_ENTRY_SIZE, taken_out)
                yield entry.zone, bigblock


def _spans(volumes: VolumeSet) -> Iterator[Offset]:
    """Zone-2 addresses of what each layer-1 entry in use stands for."""
    for number, volume in volumes.volumes.items():
        size = volume.header.vol_buf_end - volume.header.vol_buf_beg
        for short in range(0, size, LAYER2_SPAN):
            yield encode(ZONE_RAW_BUFFER, number, short)


def _layer2(volumes: VolumeSet, base: Offset) -> Iterator[tuple[int, Layer2]]:
    per_buffer = BUFSIZE // LAYER2_ENTRY_SIZE
    for start in range(0, BIGBLOCK_SIZE, BUFSIZE):
        buffer = volumes.read(base + start, BUFSIZE)
        for number in range(per_buffer):
            entry = Layer2.unpack(buffer, number * LAYER2_ENTRY_SIZE)
            if entry.zone == ZONE_UNAVAIL:
                return
            yield start // LAYER2_ENTRY_SIZE + number, entry


def _is_bigblock(volumes: VolumeSet, offset: Offset) -> bool:
    aligned = zone_of(offset) == ZONE_RAW_BUFFER and not offset & BIGBLOCK_MASK
    return aligned and volumes.covers(offset, BIGBLOCK_SIZE)
