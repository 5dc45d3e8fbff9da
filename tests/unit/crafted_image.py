"""A HAMMER image put together record by record, so that a test can say exactly what is wrong with it.

Independent of the code that writes file systems: it lays out one volume by the format's rules, packs the given records
into a B-tree from the bottom up, and fills in the freemap from what it allocated.
"""

from __future__ import annotations

import uuid
import zlib
from dataclasses import dataclass, field

from hammerfs.device.memory import MemoryDevice
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import encode, pfs_localization
from hammerfs.ondisk.constants import (
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    BLOCKMAP_UNAVAIL,
    BTREE_INTERNAL,
    BTREE_LEAF,
    BTREE_NONE,
    BTREE_RECORD,
    BUFMASK,
    BUFSIZE,
    CAP_DIR_LOCAL_INO,
    CAP_DIRHASH_ALG1,
    ELEMENT_SIZE,
    FSTYPE_UUID,
    INTERNAL_ELEMENTS,
    LAYER1_RADIX,
    LAYER2_RADIX,
    LEAF_ELEMENTS,
    LOCALIZE_INODE,
    LOCALIZE_MISC,
    NODE_SIZE,
    OBJID_ROOT,
    OBJTYPE_DIRECTORY,
    OBJTYPE_REGFILE,
    RECORD_ZONES,
    RECTYPE_DATA,
    RECTYPE_DIRENTRY,
    RECTYPE_INODE,
    RECTYPE_PFS,
    UNDO_ALIGN,
    VOLUME_SIGNATURE,
    ZONE_BTREE,
    ZONE_FREEMAP,
    ZONE_LARGE_DATA,
    ZONE_META,
    ZONE_RAW_BUFFER,
    ZONE_SMALL_DATA,
    ZONE_UNAVAIL,
    ZONE_UNDO,
)
from hammerfs.ondisk.direntry import name_key, pack_entry
from hammerfs.ondisk.element import BASE, ROOT_LEFT_BOUNDARY, ROOT_RIGHT_BOUNDARY, InternalElement, LeafElement
from hammerfs.ondisk.fifo import format_buffer
from hammerfs.ondisk.freemap import Layer1, Layer2
from hammerfs.ondisk.inode import InodeData
from hammerfs.ondisk.node import pack_node
from hammerfs.ondisk.pfs import PFS_DATA_SIZE, PfsData
from hammerfs.ondisk.volume import VolumeHeader

BUFFERS_START = 1 << 20
"""Where on the device the buffer area begins."""
TID = 0x100000010
NEXT_TID = 0x100001000
DIRECTORY_FLAGS = CAP_DIRHASH_ALG1 | CAP_DIR_LOCAL_INO
FSID = uuid.UUID("0f0e0d0c-0b0a-0908-0706-050403020100")


@dataclass
class CraftedImage:
    """Allocation state and records; `finish` writes the tree, the freemap and the header.

    records -- elements in any order; tests may change, drop or add some before `finish`
    leaves, nodes -- offsets of the B-tree's nodes, set by `finish`
    root -- the header's B-tree root, set by `finish`
    """

    version: int = 7
    bigblocks: int = 24
    records: list[LeafElement] = field(default_factory=list)
    layer2: dict[int, Layer2] = field(default_factory=dict)
    leaves: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    root: int = 0

    def __post_init__(self) -> None:
        self.device = MemoryDevice(BUFFERS_START + self.bigblocks * BIGBLOCK_SIZE)
        self._next: dict[int, int] = {}
        self._taken = 3
        for number, zone in ((0, ZONE_FREEMAP), (1, ZONE_FREEMAP), (2, ZONE_UNDO)):
            self.layer2[number] = Layer2(zone, BIGBLOCK_SIZE, 0)

    # --- space -----------------------------------------------------------------------------------

    def place(self, zone: int, data: bytes) -> int:
        """Allocate and write `data` as `hammer_blockmap_alloc` would; returns the zone-encoded offset."""
        size = (len(data) + 15) & ~15
        at = self._next.get(zone)
        if at is not None and size <= BUFSIZE and (at ^ (at + size - 1)) & ~BUFMASK:
            at = (at + BUFMASK) & ~BUFMASK
        if at is None or at & BIGBLOCK_MASK == 0 or (at ^ (at + size - 1)) & ~BIGBLOCK_MASK:
            at = self._taken * BIGBLOCK_SIZE
            self.layer2[self._taken] = Layer2(zone, 0, BIGBLOCK_SIZE)
            self._taken += 1
        self._next[zone] = at + size
        entry = self.layer2[at // BIGBLOCK_SIZE]
        entry.bytes_free -= size
        entry.append_off = (at & BIGBLOCK_MASK) + size
        self.device.write(BUFFERS_START + at, data)
        return encode(zone, 0, at)

    # --- records ---------------------------------------------------------------------------------

    def add(self, element: LeafElement, data: bytes) -> LeafElement:
        """Place a record's data where its type belongs and add the record."""
        zone = ZONE_META
        if element.rec_type == RECTYPE_DATA:
            zone = ZONE_LARGE_DATA if len(data) >= BUFSIZE else ZONE_SMALL_DATA
        checksum = crc.record_crc(crc.function_for(self.version), element.rec_type, data)
        offset = self.place(zone, data)
        element = element._replace(data_offset=offset, data_len=len(data), data_crc=checksum)
        self.records.append(element)
        return element

    def inode(self, obj_id: int, inode: InodeData, pfs: int = 0, tid: int = TID) -> LeafElement:
        """An inode."""
        local = pfs_localization(pfs) | LOCALIZE_INODE
        return self.add(element(local, obj_id, RECTYPE_INODE, 0, inode.obj_type, tid), inode.pack())

    def directory(self, obj_id: int, parent: int, pfs: int = 0) -> LeafElement:
        """A directory's inode."""
        data = InodeData(
            mode=0o755, obj_type=OBJTYPE_DIRECTORY, cap_flags=DIRECTORY_FLAGS, nlinks=1, parent_obj_id=parent
        )
        return self.inode(obj_id, data, pfs)

    def file(self, obj_id: int, size: int = 0, nlinks: int = 1, pfs: int = 0) -> LeafElement:
        """A regular file's inode, without data."""
        return self.inode(obj_id, InodeData(mode=0o644, obj_type=OBJTYPE_REGFILE, nlinks=nlinks, size=size), pfs)

    def entry(self, directory: int, name: bytes, target: int, obj_type: int, pfs: int = 0) -> LeafElement:
        """A directory entry."""
        key, _ = name_key(DIRECTORY_FLAGS, name)
        local = pfs_localization(pfs)
        made = element(local | LOCALIZE_INODE, directory, RECTYPE_DIRENTRY, key, obj_type, TID)
        return self.add(made, pack_entry(target, local, name))

    def data(self, obj_id: int, start: int, content: bytes, pfs: int = 0) -> LeafElement:
        """File data from byte `start` on."""
        local = pfs_localization(pfs) | LOCALIZE_MISC
        made = element(local, obj_id, RECTYPE_DATA, start + len(content), OBJTYPE_REGFILE, TID)
        return self.add(made, content)

    def pfs_record(self, pfs: int, flags: int = 0, sync_end_tid: int = 0) -> LeafElement:
        """A PFS's record in the root PFS."""
        data = PfsData(bytearray(PFS_DATA_SIZE))
        data.mirror_flags = flags
        data.sync_end_tid = sync_end_tid
        made = element(LOCALIZE_MISC, OBJID_ROOT, RECTYPE_PFS, pfs_localization(pfs), 0, TID)
        return self.add(made, data.copy())

    def change(self, old: LeafElement, **fields: int) -> LeafElement:
        """Replace a record's element by one with other fields; its data stays."""
        new = old._replace(**fields)
        self.records[self.records.index(old)] = new
        return new

    def rewrite(self, old: LeafElement, data: bytes) -> LeafElement:
        """Give a record other data of the same length, with a matching CRC."""
        assert len(data) == old.data_len
        self.device.write(self.device_offset(old.data_offset), data)
        return self.change(old, data_crc=crc.record_crc(crc.function_for(self.version), old.rec_type, data))

    # --- the whole -------------------------------------------------------------------------------

    def finish(self) -> MemoryDevice:
        """Write everything that was not written yet; returns the device."""
        self._write_tree()
        self._write_freemap()
        self._write_fifo()
        self._write_header()
        return self.device

    def device_offset(self, offset: int) -> int:
        """Where a zone-encoded offset lies on the device."""
        return BUFFERS_START + (offset & ((1 << 52) - 1))

    def header(self) -> VolumeHeader:
        """The header as it is on the device, detached."""
        return VolumeHeader(bytearray(self.device.read(0, BUFSIZE)))

    def write_header(self, header: VolumeHeader) -> None:
        """Put a header back, its CRC made to match."""
        header.update_crc()
        self.device.write(0, header.copy())

    def node(self, offset: int) -> bytes:
        """A node's bytes."""
        return self.device.read(self.device_offset(offset), NODE_SIZE)

    def write_node(self, offset: int, raw: bytes) -> None:
        """Put a node back, its CRC made to match."""
        checksum = crc.function_for(self.version)(raw[4:])
        self.device.write(self.device_offset(offset), checksum.to_bytes(4, "little") + raw[4:])

    def _write_tree(self) -> None:
        self.records.sort(key=lambda record: record.packed_key())
        groups = [self.records[at : at + LEAF_ELEMENTS] for at in range(0, len(self.records), LEAF_ELEMENTS)]
        level = [(self.place(ZONE_BTREE, bytes(NODE_SIZE)), group[0].pack(), BTREE_LEAF, group) for group in groups]
        self.leaves = [offset for offset, *_ in level]
        self.nodes = list(self.leaves)
        plans: dict[int, tuple[int, int, bytes]] = {
            offset: (kind, len(group), b"".join(record.pack() for record in group)) for offset, _, kind, group in level
        }
        children = [(offset, first, kind) for offset, first, kind, _ in level]
        parents: dict[int, int] = {}
        right = ROOT_RIGHT_BOUNDARY.ljust(ELEMENT_SIZE, b"\0")
        while len(children) > 1:
            above = []
            for at in range(0, len(children), INTERNAL_ELEMENTS):
                offset = self.place(ZONE_BTREE, bytes(NODE_SIZE))
                group2 = children[at : at + INTERNAL_ELEMENTS]
                end = children[at + INTERNAL_ELEMENTS][1] if at + INTERNAL_ELEMENTS < len(children) else right
                left = ROOT_LEFT_BOUNDARY if at == 0 else group2[0][1]
                plans[offset] = (BTREE_INTERNAL, len(group2), _internal_elements(group2, left, end))
                parents.update({child: offset for child, _, _ in group2})
                above.append((offset, group2[0][1], BTREE_INTERNAL))
            self.nodes.extend(offset for offset, _, _ in above)
            children = above
        self.root = children[0][0]
        for offset, (kind, count, elements) in plans.items():
            raw = pack_node(self.version, parents.get(offset, 0), count, kind, NEXT_TID, elements)
            self.device.write(self.device_offset(offset), raw)

    def _write_freemap(self) -> None:
        free = self.bigblocks - len(self.layer2)
        unavailable = Layer1(0, BLOCKMAP_UNAVAIL).pack(self.version)
        first = Layer1(free, encode(ZONE_RAW_BUFFER, 0, BIGBLOCK_SIZE)).pack(self.version)
        self.device.write(BUFFERS_START, first + unavailable * (LAYER1_RADIX - 1))
        entries = [self.layer2.get(number, Layer2(0, 0, BIGBLOCK_SIZE)) for number in range(self.bigblocks)]
        beyond = Layer2(ZONE_UNAVAIL, BIGBLOCK_SIZE, 0).pack(self.version) * (LAYER2_RADIX - self.bigblocks)
        packed = b"".join(entry.pack(self.version) for entry in entries)
        self.device.write(BUFFERS_START + BIGBLOCK_SIZE, packed + beyond)

    def _write_fifo(self) -> None:
        sectors = BUFSIZE // UNDO_ALIGN
        for index in range(BIGBLOCK_SIZE // BUFSIZE):
            raw = format_buffer(self.version, index * sectors)
            self.device.write(BUFFERS_START + 2 * BIGBLOCK_SIZE + index * BUFSIZE, raw)

    def _write_header(self) -> None:
        header = VolumeHeader(bytearray(BUFSIZE))
        header.vol_signature = VOLUME_SIGNATURE
        header.vol_bot_beg = BUFSIZE
        header.vol_mem_beg = 2 * BUFSIZE
        header.vol_buf_beg = BUFFERS_START
        header.vol_buf_end = self.device.size
        header.vol_fsid = FSID
        header.vol_fstype = uuid.UUID(FSTYPE_UUID)
        header.vol_label = b"CRAFTED"
        header.vol_count = 1
        header.vol_version = self.version
        header.vol0_stat_bigblocks = self.bigblocks - 3
        header.vol0_stat_freebigblocks = self.bigblocks - len(self.layer2)
        header.vol0_stat_inodes = sum(r.rec_type == RECTYPE_INODE and not r.delete_tid for r in self.records)
        header.vol0_btree_root = self.root
        header.vol0_next_tid = NEXT_TID
        for zone in RECORD_ZONES:
            entry = header.blockmap(zone)
            entry.first_offset = encode(zone, 0, 0)
            entry.next_offset = encode(zone, 0, self._next.get(zone, 0))
            entry.alloc_offset = encode(zone, 255, (1 << 52) - 1)
            entry.update_crc(self.version)
        freemap = header.blockmap(ZONE_FREEMAP)
        freemap.phys_offset = freemap.next_offset = encode(ZONE_RAW_BUFFER, 0, 0)
        freemap.alloc_offset = encode(ZONE_RAW_BUFFER, 255, (1 << 52) - 1)
        freemap.update_crc(self.version)
        undo = header.blockmap(ZONE_UNDO)
        undo.phys_offset = BLOCKMAP_UNAVAIL
        undo.first_offset = undo.next_offset = encode(ZONE_UNDO, 0, 0)
        undo.alloc_offset = encode(ZONE_UNDO, 0, BIGBLOCK_SIZE)
        undo.update_crc(self.version)
        header.set_undo_bigblock(0, encode(ZONE_RAW_BUFFER, 0, 2 * BIGBLOCK_SIZE))
        self.write_header(header)


def element(localization: int, obj_id: int, rec_type: int, key: int, obj_type: int, tid: int) -> LeafElement:
    """A live record that has no data yet."""
    return LeafElement(obj_id, key, tid, 0, rec_type, obj_type, BTREE_RECORD, localization, 1, 0, 0, 0, 0)


def _internal_elements(children: list[tuple[int, bytes, int]], left: bytes, right: bytes) -> bytes:
    """Elements for children of (offset, first element's bytes, kind), then the right boundary."""
    packed = []
    for index, (offset, first, kind) in enumerate(children):
        obj_id, key, create, delete, rec_type, _, _, local = BASE.unpack_from(left if index == 0 else first)
        packed.append(InternalElement(obj_id, key, create, delete, rec_type, 0, kind, local, NEXT_TID, offset).pack())
    obj_id, key, create, _, rec_type, _, _, local = BASE.unpack_from(right)
    packed.append(InternalElement(obj_id, key, create, 0, rec_type, 0, BTREE_NONE, local, 0, 0).pack())
    return b"".join(packed)


def sample(version: int = 7) -> CraftedImage:
    """Two directories, files with small, large and no data, a hard link, a PFS; three leaves."""
    image = CraftedImage(version)
    image.pfs_record(0)
    image.pfs_record(1)
    image.directory(OBJID_ROOT, 0)
    image.directory(OBJID_ROOT, 0, pfs=1)
    image.directory(0x1000, OBJID_ROOT)
    image.entry(OBJID_ROOT, b"directory", 0x1000, OBJTYPE_DIRECTORY)
    image.file(0x2000, size=100)
    image.entry(0x1000, b"small", 0x2000, OBJTYPE_REGFILE)
    image.data(0x2000, 0, bytes(range(100)).ljust(112, b"\0"))
    image.file(0x2001, size=2 * BUFSIZE, nlinks=2)
    image.entry(0x1000, b"large", 0x2001, OBJTYPE_REGFILE)
    image.entry(OBJID_ROOT, b"large too", 0x2001, OBJTYPE_REGFILE)
    for index in range(2):
        image.data(0x2001, index * BUFSIZE, zlib.crc32(b"%d" % index).to_bytes(4, "little") * (BUFSIZE // 4))
    for number in range(60):
        image.file(0x3000 + number)
        image.entry(0x1000, b"empty %d" % number, 0x3000 + number, OBJTYPE_REGFILE)
    image.file(0x4000, pfs=1)
    image.entry(OBJID_ROOT, b"in the pfs", 0x4000, OBJTYPE_REGFILE, pfs=1)
    return image
