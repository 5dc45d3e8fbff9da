"""A fresh file system as bytes: parameters in, (volume, offset, data) extents out, no device and no clock in sight.

Follows `newfs_hammer.c: format_volume`, `format_root_directory` and `ondisk.c: format_freemap`, `initialize_freemap`,
`format_undomap`.  The original allocates its way through the volumes with a bootstrap allocator; since nothing is ever
freed on the way, the outcome can be written down directly.  Volume 0's big-blocks, in order:

    layer 1 | layer 2, one per 4 TiB | UNDO FIFO ... | B-tree root | root inode and PFS record | free ...

Every other volume begins with its own layer-2 big-blocks, and the rest of it is free.  Only what is named here is
written: on a device that held other data, the tail of the B-tree's and the meta-data's big-blocks keeps that data.

Two traits of the original that byte equality demands: `vol_crc` stays 0, and the `entry_crc` of zones 8 and 9 is the
one from before the root directory was allocated.  Nobody verifies either of them (see `ondisk.volume`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from hammerfs.ondisk import address, crc, fifo
from hammerfs.ondisk.address import Offset
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BLOCKMAP_UNAVAIL,
    BTREE_LEAF,
    BUFMASK,
    BUFSIZE,
    CAP_DIR_LOCAL_INO,
    CAP_DIRHASH_ALG1,
    DATA_ALIGN,
    FSTYPE_UUID,
    INODE_DATA_SIZE,
    LAYER1_ENTRY_SIZE,
    LAYER1_RADIX,
    LAYER2_ENTRY_SIZE,
    LAYER2_RADIX,
    LOCALIZE_INODE,
    LOCALIZE_MISC,
    MAX_UNDO_BIGBLOCKS,
    MAX_ZONES,
    NODE_SIZE,
    OBJID_ROOT,
    OBJTYPE_DIRECTORY,
    RECTYPE_INODE,
    RECTYPE_PFS,
    ROOT_VOLNO,
    UNDO_ALIGN,
    VERSION_DIRENT_INODE_LOCALIZED,
    VERSION_DIRHASH_ALG1,
    VOL_JUNK_SIZE,
    VOLUME_SIGNATURE,
    ZONE_BTREE,
    ZONE_FREEMAP,
    ZONE_META,
    ZONE_RAW_BUFFER,
    ZONE_UNAVAIL,
    ZONE_UNDO,
)
from hammerfs.ondisk.element import record_element
from hammerfs.ondisk.freemap import Layer1, Layer2
from hammerfs.ondisk.inode import InodeData
from hammerfs.ondisk.node import pack_node
from hammerfs.ondisk.pfs import PFS_DATA_SIZE, PfsData
from hammerfs.ondisk.volume import VolumeHeader

FIRST_TID = 0x0000000100000000
"""The header's next_tid; everything below is set aside for uses nobody has found yet."""
CREATE_TID = FIRST_TID + 1
"""create_tid of the root directory's records: one above next_tid, as the original leaves it."""
UNDO_EXTENT_SIZE = 1 << 20
"""The FIFO is handed out in pieces of this size, so that formatting 1 GiB of it needs little memory."""


class Extent(NamedTuple):
    """`data` belongs at byte `offset` of volume `volume`'s device."""

    volume: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class FormatParameters:
    """What decides every byte of a fresh file system.  Sizes are bytes, `time_us` is microseconds since 1970.

    `boot_area_size` and `memory_log_size` are multiples of BUFSIZE; `label` is at most LABEL_SIZE - 1 bytes.
    """

    label: bytes
    volume_sizes: tuple[int, ...]
    version: int
    undo_bigblocks: int
    boot_area_size: int
    memory_log_size: int
    fsid: uuid.UUID
    time_us: int


class VolumeGeometry(NamedTuple):
    """Where the areas of one volume begin, in bytes from the start of its device.

    `buffer_begin` exceeds `buffer_end` when the device is too small for its areas; `bigblocks` is 0 then.
    """

    number: int
    boot_begin: int
    memory_begin: int
    buffer_begin: int
    buffer_end: int

    @property
    def bigblocks(self) -> int:
        """Whole big-blocks in the buffer area; what is left over at its end is never used."""
        return max(0, self.buffer_end - self.buffer_begin) // BIGBLOCK_SIZE

    @property
    def layer2_bigblocks(self) -> int:
        """Big-blocks of layer 2 that describe this volume, one per 4 TiB begun."""
        return -(-self.bigblocks // LAYER2_RADIX)

    @property
    def freemap_bigblocks(self) -> int:
        """Big-blocks at the start of this volume that hold the freemap: layer 2, and layer 1 on volume 0."""
        return self.layer2_bigblocks + (self.number == ROOT_VOLNO)

    def device_offset(self, bigblock: int) -> int:
        """Where a big-block of this volume begins on its device."""
        return self.buffer_begin + bigblock * BIGBLOCK_SIZE


def volume_geometry(number: int, size: int, boot_area_size: int, memory_log_size: int) -> VolumeGeometry:
    """The areas of a volume on a device of `size` bytes."""
    memory_begin = VOL_JUNK_SIZE + boot_area_size
    return VolumeGeometry(number, VOL_JUNK_SIZE, memory_begin, memory_begin + memory_log_size, size & ~BUFMASK)


class _Run(NamedTuple):
    """Neighbouring big-blocks with the same layer-2 entry, and how many they are."""

    bigblocks: int
    entry: Layer2


@dataclass(frozen=True)
class FormatLayout:
    """Where everything of a fresh file system lies; `contents` and `headers` render it.

    `layer1_entries`, `layer2` and `header` do so for a volume by itself, one that joins an older file system, too.

    The caller has made sure that the volumes are large enough (`mkfs.plan_format`): volume 0 holds its freemap, the
    UNDO FIFO and the two big-blocks of the root directory, every other volume more than its freemap.
    """

    parameters: FormatParameters

    @cached_property
    def volumes(self) -> tuple[VolumeGeometry, ...]:
        """One geometry per volume, by number."""
        p = self.parameters
        return tuple(
            volume_geometry(number, size, p.boot_area_size, p.memory_log_size)
            for number, size in enumerate(p.volume_sizes)
        )

    @property
    def undo_bigblock(self) -> int:
        """Index of the UNDO FIFO's first big-block on volume 0."""
        return self.volumes[ROOT_VOLNO].freemap_bigblocks

    @property
    def btree_bigblock(self) -> int:
        """Index of the big-block that holds the B-tree's root node, on volume 0."""
        return self.undo_bigblock + self.parameters.undo_bigblocks

    @property
    def meta_bigblock(self) -> int:
        """Index of the big-block that holds the root inode and the PFS record, on volume 0."""
        return self.btree_bigblock + 1

    @property
    def root_bigblocks_needed(self) -> int:
        """Big-blocks of volume 0 that formatting itself takes."""
        return self.meta_bigblock + 1

    @property
    def usable_bigblocks(self) -> int:
        """`vol0_stat_bigblocks`: everything except the freemap and the UNDO FIFO."""
        return sum(v.bigblocks - v.freemap_bigblocks for v in self.volumes) - self.parameters.undo_bigblocks

    @property
    def free_bigblocks(self) -> int:
        """`vol0_stat_freebigblocks`: what is left once the root directory exists."""
        return self.usable_bigblocks - 2

    @property
    def preallocated_size(self) -> int:
        """Bytes of volume 0 taken by the freemap and the UNDO FIFO, as newfs_hammer reports them."""
        return self.btree_bigblock * BIGBLOCK_SIZE

    @property
    def contents_size(self) -> int:
        """Bytes that `contents` adds up to, within a few thousand: what a progress report counts against."""
        freemap = sum(volume.freemap_bigblocks for volume in self.volumes)
        return (freemap + self.parameters.undo_bigblocks) * BIGBLOCK_SIZE

    def contents(self) -> Iterator[Extent]:
        """Everything but the volume headers."""
        yield from self._undo_fifo()
        yield self._layer1()
        for volume in self.volumes:
            yield from self.layer2(volume)
        yield from self._root_directory()

    def headers(self) -> Iterator[Extent]:
        """The volume headers, volume 0's last: without it no other volume belongs to anything."""
        for volume in reversed(self.volumes):
            yield Extent(volume.number, 0, self.header(volume, len(self.volumes)))

    def _zone_offset(self, zone: int, bigblock: int, within: int = 0) -> Offset:
        return address.encode(zone, ROOT_VOLNO, bigblock * BIGBLOCK_SIZE + within)

    def _undo_fifo(self) -> Iterator[Extent]:
        """The whole FIFO, really written: a hole would cost every first append an allocation in the backing file.

        Versions before 4 ignore the sequence numbers, but the original formats their FIFO in the same way.
        """
        begin = self.volumes[ROOT_VOLNO].device_offset(self.undo_bigblock)
        sectors_per_buffer = BUFSIZE // UNDO_ALIGN
        buffers_per_extent = UNDO_EXTENT_SIZE // BUFSIZE
        for start in range(0, self.parameters.undo_bigblocks * BIGBLOCK_SIZE, UNDO_EXTENT_SIZE):
            first = start // BUFSIZE
            buffers = [
                fifo.format_buffer(self.parameters.version, number * sectors_per_buffer)
                for number in range(first, first + buffers_per_extent)
            ]
            yield Extent(ROOT_VOLNO, begin + start, b"".join(buffers))

    def _runs(self, volume: VolumeGeometry) -> Iterator[_Run]:
        """A volume's layer-2 entries up to its last whole big-block."""
        used = volume.freemap_bigblocks
        yield _Run(used, Layer2(ZONE_FREEMAP, BIGBLOCK_SIZE, 0))
        if volume.number == ROOT_VOLNO:
            yield _Run(self.parameters.undo_bigblocks, Layer2(ZONE_UNDO, BIGBLOCK_SIZE, 0))
            yield _Run(1, Layer2(ZONE_BTREE, NODE_SIZE, BIGBLOCK_SIZE - NODE_SIZE))
            meta = _aligned(INODE_DATA_SIZE) + _aligned(PFS_DATA_SIZE)
            yield _Run(1, Layer2(ZONE_META, meta, BIGBLOCK_SIZE - meta))
            used = self.root_bigblocks_needed
        yield _Run(volume.bigblocks - used, Layer2(0, 0, BIGBLOCK_SIZE))

    def _layer1(self) -> Extent:
        """Layer 1: each volume owns 1024 neighbouring entries, one per 4 TiB; unused ones are UNAVAIL."""
        version = self.parameters.version
        entries = bytearray(Layer1(0, BLOCKMAP_UNAVAIL).pack(version) * LAYER1_RADIX)
        for volume in self.volumes:
            for described, entry in self.layer1_entries(volume):
                at = address.layer1_offset(described)
                entries[at : at + LAYER1_ENTRY_SIZE] = entry.pack(version)
        return Extent(ROOT_VOLNO, self.volumes[ROOT_VOLNO].device_offset(0), bytes(entries))

    def layer1_entries(self, volume: VolumeGeometry) -> Iterator[tuple[Offset, Layer1]]:
        """A volume's entries of layer 1, each with the offset that its reach begins at."""
        first_free = self.root_bigblocks_needed if volume.number == ROOT_VOLNO else volume.freemap_bigblocks
        first_layer2 = volume.freemap_bigblocks - volume.layer2_bigblocks
        for index in range(volume.layer2_bigblocks):
            begin, end = index * LAYER2_RADIX, (index + 1) * LAYER2_RADIX
            free = min(end, volume.bigblocks) - min(max(begin, first_free), volume.bigblocks)
            location = address.encode(ZONE_RAW_BUFFER, volume.number, (first_layer2 + index) * BIGBLOCK_SIZE)
            yield address.encode(ZONE_RAW_BUFFER, volume.number, begin * BIGBLOCK_SIZE), Layer1(free, location)

    def layer2(self, volume: VolumeGeometry) -> Iterator[Extent]:
        """A volume's layer-2 big-blocks; the last one is filled up with entries that say unavailable."""
        version = self.parameters.version
        unavailable = Layer2(ZONE_UNAVAIL, BIGBLOCK_SIZE, 0).pack(version)
        first_layer2 = volume.freemap_bigblocks - volume.layer2_bigblocks
        runs = [(run.bigblocks, run.entry.pack(version)) for run in self._runs(volume)]
        for index in range(volume.layer2_bigblocks):
            entries = bytearray()
            begin, end = index * LAYER2_RADIX, (index + 1) * LAYER2_RADIX
            position = 0
            for count, packed in runs:
                overlap = min(end, position + count) - max(begin, position)
                entries += packed * max(0, overlap)
                position += count
            missing = LAYER2_RADIX - len(entries) // LAYER2_ENTRY_SIZE
            entries += unavailable * missing
            assert len(entries) == BIGBLOCK_SIZE, "layer-2 runs do not tile a big-block"
            yield Extent(volume.number, volume.device_offset(first_layer2 + index), bytes(entries))

    def _root_directory(self) -> Iterator[Extent]:
        """The B-tree's root node, a leaf of two records, and the data of both."""
        p = self.parameters
        inode, pfs = self._root_inode(), self._root_pfs()
        inode_offset = self._zone_offset(ZONE_META, self.meta_bigblock)
        pfs_offset = inode_offset + _aligned(INODE_DATA_SIZE)
        elements = [
            self._element(LOCALIZE_INODE, RECTYPE_INODE, inode_offset, inode),
            self._element(LOCALIZE_MISC, RECTYPE_PFS, pfs_offset, pfs),
        ]
        node = pack_node(p.version, 0, len(elements), BTREE_LEAF, 0, b"".join(elements))
        root = self.volumes[ROOT_VOLNO]
        yield Extent(ROOT_VOLNO, root.device_offset(self.btree_bigblock), node)
        meta = inode.ljust(_aligned(INODE_DATA_SIZE), b"\0") + pfs
        yield Extent(ROOT_VOLNO, root.device_offset(self.meta_bigblock), meta)

    def _element(self, localization: int, rec_type: int, data_offset: Offset, data: bytes) -> bytes:
        p = self.parameters
        return record_element(
            localization=localization,
            obj_id=OBJID_ROOT,
            rec_type=rec_type,
            key=0,
            create_tid=CREATE_TID,
            create_ts=p.time_us // 1_000_000,
            obj_type=OBJTYPE_DIRECTORY,
            data_offset=data_offset,
            data_len=len(data),
            data_crc=crc.record_crc(crc.function_for(p.version), rec_type, data),
        )

    def _root_inode(self) -> bytes:
        p = self.parameters
        capabilities = 0
        if p.version >= VERSION_DIRENT_INODE_LOCALIZED:
            capabilities |= CAP_DIR_LOCAL_INO
        if p.version >= VERSION_DIRHASH_ALG1:
            capabilities |= CAP_DIRHASH_ALG1
        inode = InodeData(
            mode=0o755,
            ctime=p.time_us,
            mtime=p.time_us,
            atime=p.time_us,
            obj_type=OBJTYPE_DIRECTORY,
            cap_flags=capabilities,
            nlinks=1,
        )
        return inode.pack()

    def _root_pfs(self) -> bytes:
        p = self.parameters
        pfs = PfsData(bytearray(PFS_DATA_SIZE))
        pfs.sync_low_tid = 1
        pfs.shared_uuid = p.fsid
        pfs.unique_uuid = p.fsid
        pfs.label = p.label
        return pfs.copy()

    def header(self, volume: VolumeGeometry, count: int) -> bytes:
        """The header of one of `count` volumes, padded to the buffer that the original writes."""
        p = self.parameters
        header = VolumeHeader(bytearray(BUFSIZE))
        header.vol_signature = VOLUME_SIGNATURE
        header.vol_bot_beg = volume.boot_begin
        header.vol_mem_beg = volume.memory_begin
        header.vol_buf_beg = volume.buffer_begin
        header.vol_buf_end = volume.buffer_end
        header.vol_fsid = p.fsid
        header.vol_fstype = uuid.UUID(FSTYPE_UUID)
        header.vol_label = p.label
        header.vol_no = volume.number
        header.vol_count = count
        header.vol_version = p.version
        header.vol_rootvol = ROOT_VOLNO
        if volume.number == ROOT_VOLNO:
            self._fill_root_header(header)
        return bytes(header.raw)

    def _fill_root_header(self, header: VolumeHeader) -> None:
        p = self.parameters
        header.vol0_stat_bigblocks = self.usable_bigblocks
        header.vol0_stat_freebigblocks = self.free_bigblocks
        header.vol0_stat_inodes = 1
        header.vol0_btree_root = self._zone_offset(ZONE_BTREE, self.btree_bigblock)
        header.vol0_next_tid = FIRST_TID
        for index in range(MAX_UNDO_BIGBLOCKS):
            place = self._zone_offset(ZONE_RAW_BUFFER, self.undo_bigblock + index)
            header.set_undo_bigblock(index, place if index < p.undo_bigblocks else BLOCKMAP_UNAVAIL)
        layer1_place = self._zone_offset(ZONE_RAW_BUFFER, 0)
        self._set_zone(header, ZONE_FREEMAP, layer1_place, 0, layer1_place, _zone_end(ZONE_RAW_BUFFER))
        undo_begin = address.encode(ZONE_UNDO, 0, 0)
        undo_end = undo_begin + p.undo_bigblocks * BIGBLOCK_SIZE
        self._set_zone(header, ZONE_UNDO, BLOCKMAP_UNAVAIL, undo_begin, undo_begin, undo_end)
        for zone in range(ZONE_BTREE, MAX_ZONES):
            begin = address.encode(zone, 0, 0)
            self._set_zone(header, zone, 0, begin, begin, _zone_end(zone))
        # After the CRCs on purpose: the original allocates the root directory without renewing them.
        btree, meta = header.blockmap(ZONE_BTREE), header.blockmap(ZONE_META)
        btree.next_offset = self._zone_offset(ZONE_BTREE, self.btree_bigblock, NODE_SIZE)
        meta_used = _aligned(INODE_DATA_SIZE) + _aligned(PFS_DATA_SIZE)
        meta.next_offset = self._zone_offset(ZONE_META, self.meta_bigblock, meta_used)

    def _set_zone(self, header: VolumeHeader, zone: int, phys: int, first: int, next_: int, alloc: int) -> None:
        entry = header.blockmap(zone)
        entry.phys_offset = phys
        entry.first_offset = first
        entry.next_offset = next_
        entry.alloc_offset = alloc
        entry.update_crc(self.parameters.version)


def _aligned(size: int) -> int:
    return (size + DATA_ALIGN - 1) & ~(DATA_ALIGN - 1)


def _zone_end(zone: int) -> Offset:
    return address.encode(zone, 255, address.SHORT_MASK)
