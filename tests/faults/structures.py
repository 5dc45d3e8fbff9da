"""Where each structure of an image lies, found by walking it; and bits to flip in them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from hammerfs.device.memory import MemoryDevice
from hammerfs.ondisk.address import Offset, encode, layer1_offset, layer2_offset, short_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BTREE_LEAF,
    BTREE_RECORD,
    INODE_MTIME_OFFSET,
    LAYER1_ENTRY_SIZE,
    LAYER2_ENTRY_SIZE,
    NODE_HEADER_SIZE,
    NODE_SIZE,
    RECTYPE_DATA,
    RECTYPE_DIRENTRY,
    RECTYPE_EXT,
    RECTYPE_FIX,
    RECTYPE_INODE,
    RECTYPE_PFS,
    ZONE_FREEMAP,
    ZONE_RAW_BUFFER,
)
from hammerfs.ondisk.element import LeafElement, unpack_internal, unpack_leaf
from hammerfs.ondisk.freemap import Layer1, Layer2
from hammerfs.ondisk.node import element_at, unpack_header
from hammerfs.store.volumes import VolumeSet

KINDS = {
    RECTYPE_INODE: "inode",
    RECTYPE_DATA: "data",
    RECTYPE_DIRENTRY: "directory entry",
    RECTYPE_FIX: "symlink target",
    RECTYPE_EXT: "extended attribute",
    RECTYPE_PFS: "PFS",
}


@dataclass(frozen=True)
class Structure:
    """`size` bytes under one CRC at `place` of the device.

    obj_id -- whose it is, for records of files
    element -- the B-tree element that refers to it, for data of records
    """

    kind: str
    place: int
    size: int
    obj_id: int = 0
    element: LeafElement | None = None

    @property
    def data_offset(self) -> Offset:
        """Where a record's data is, as its element has it."""
        assert self.element is not None
        return self.element.data_offset

    @property
    def file_offset(self) -> int:
        """Where in its file a data record begins."""
        assert self.element is not None
        return self.element.key - self.element.data_len


def structures(device: MemoryDevice) -> Iterator[Structure]:
    """Everything on a volume that a CRC covers, except the volume header and the FIFO."""
    volumes = VolumeSet.open([device])
    start = volumes.root.header.vol_buf_beg
    yield from _nodes(volumes, start, volumes.root.header.vol0_btree_root)
    layer1_base = volumes.root.header.blockmap(ZONE_FREEMAP).phys_offset
    end = volumes.root.header.vol_buf_end - start
    for number in range(end // BIGBLOCK_SIZE):
        bigblock = encode(ZONE_RAW_BUFFER, 0, number * BIGBLOCK_SIZE)
        where = layer1_base + layer1_offset(bigblock)
        layer1 = Layer1.unpack(volumes.read(where, LAYER1_ENTRY_SIZE))
        if not number:
            yield Structure("layer 1", start + short_of(where), LAYER1_ENTRY_SIZE)
        where = layer1.phys_offset + layer2_offset(bigblock)
        if Layer2.unpack(volumes.read(where, LAYER2_ENTRY_SIZE)).zone:
            yield Structure("layer 2", start + short_of(where), LAYER2_ENTRY_SIZE)


def _nodes(volumes: VolumeSet, start: int, offset: Offset) -> Iterator[Structure]:
    raw = volumes.read(offset, NODE_SIZE)
    header = unpack_header(raw)
    yield Structure("node header", start + short_of(offset), NODE_HEADER_SIZE)
    yield Structure("node elements", start + short_of(offset) + NODE_HEADER_SIZE, NODE_SIZE - NODE_HEADER_SIZE)
    for index in range(header.element_count):
        raw_element = element_at(raw, index)
        if header.kind != BTREE_LEAF:
            yield from _nodes(volumes, start, unpack_internal(raw_element).subtree_offset)
            continue
        element = unpack_leaf(raw_element)
        if element.btype == BTREE_RECORD and element.data_len and not element.delete_tid:
            size = INODE_MTIME_OFFSET if element.rec_type == RECTYPE_INODE else element.data_len
            place = start + short_of(element.data_offset)
            yield Structure(KINDS[element.rec_type], place, size, element.obj_id, element)


def flips(structure: Structure, count: int) -> list[int]:
    """Device bit numbers to flip: `count` of the structure's bits, the same in every run."""
    source = random.Random(structure.place)
    bits = range(structure.place * 8, (structure.place + structure.size) * 8)
    return source.sample(bits, min(count, len(bits)))


def flipped(device: MemoryDevice, bit: int) -> MemoryDevice:
    """A copy with one bit changed."""
    other = device.copy()
    place, shift = divmod(bit, 8)
    other.write(place, bytes([device.read(place, 1)[0] ^ (1 << shift)]))
    return other
