"""The volume header (`hammer_volume_ondisk`, 1928 bytes) and the 16 blockmap entries in it.

Only volume 0's header carries the `vol0_` fields.  `vol_crc` is written but proves nothing: the original never checks
it and its own recovery leaves it stale, so readers must not insist on it.
"""

from __future__ import annotations

from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Offset, to_zone2
from hammerfs.ondisk.constants import (
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    MAX_UNDO_BIGBLOCKS,
    MAX_ZONES,
    ZONE_FREEMAP,
)
from hammerfs.ondisk.fields import BytesField, IntField, Structure, UuidField

BLOCKMAP_ENTRY_SIZE = 40
BLOCKMAP_ARRAY_OFFSET = 264
UNDO_ARRAY_OFFSET = BLOCKMAP_ARRAY_OFFSET + MAX_ZONES * BLOCKMAP_ENTRY_SIZE
VOLUME_HEADER_SIZE = UNDO_ARRAY_OFFSET + MAX_UNDO_BIGBLOCKS * 8
VOLUME_CRC_OFFSET = 156
NEXT_TID_OFFSET = 248
FIXED_RANGES = (
    (0, 80),  # signature, areas, uuids
    (144, 148),  # vol_no
    (164, 168),  # vol_rootvol
    (
        BLOCKMAP_ARRAY_OFFSET + ZONE_FREEMAP * BLOCKMAP_ENTRY_SIZE,
        BLOCKMAP_ARRAY_OFFSET + ZONE_FREEMAP * BLOCKMAP_ENTRY_SIZE + 8,
    ),
    (UNDO_ARRAY_OFFSET, VOLUME_HEADER_SIZE),
)
"""What stays as mkfs wrote it for as long as the volume exists, as byte ranges of its header."""


class BlockmapEntry(Structure):
    """Allocation state of one zone: zone-X offsets, except `phys_offset` (zone 2, freemap only)."""

    SIZE = BLOCKMAP_ENTRY_SIZE
    __slots__ = ()

    phys_offset = IntField("Q", 0)
    first_offset = IntField("Q", 8)
    next_offset = IntField("Q", 16)
    alloc_offset = IntField("Q", 24)
    entry_crc = IntField("I", 36)

    def _covered(self) -> memoryview:
        return memoryview(self.raw)[self.base : self.base + 36]

    def update_crc(self, version: int) -> None:
        """Set entry_crc from the other fields."""
        self.entry_crc = crc.function_for(version)(self._covered())

    def crc_ok(self, version: int) -> bool:
        """Whether entry_crc matches; informational only, the original never verifies it."""
        return crc.matches(version, self.entry_crc, self._covered())


class VolumeHeader(Structure):
    """One volume's header.  Offsets `vol_*_beg` and `vol_buf_end` count from the start of the device."""

    SIZE = VOLUME_HEADER_SIZE
    __slots__ = ()

    vol_signature = IntField("Q", 0)
    vol_bot_beg = IntField("q", 8)
    vol_mem_beg = IntField("q", 16)
    vol_buf_beg = IntField("q", 24)
    vol_buf_end = IntField("q", 32)
    vol_fsid = UuidField(48)
    vol_fstype = UuidField(64)
    vol_label = BytesField(64, 80)
    vol_no = IntField("i", 144)
    vol_count = IntField("i", 148)
    vol_version = IntField("I", 152)
    vol_crc = IntField("I", VOLUME_CRC_OFFSET)
    vol_flags = IntField("I", 160)
    vol_rootvol = IntField("I", 164)
    vol0_stat_bigblocks = IntField("q", 200)
    vol0_stat_freebigblocks = IntField("q", 208)
    vol0_stat_inodes = IntField("q", 224)
    vol0_btree_root = IntField("Q", 240)
    vol0_next_tid = IntField("Q", NEXT_TID_OFFSET)

    @property
    def label(self) -> str:
        """The label up to its NUL, decoded as file names are."""
        return self.vol_label.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def blockmap(self, zone: int) -> BlockmapEntry:
        """The blockmap entry of a zone; writes go to this header."""
        return BlockmapEntry(self.raw, self.base + BLOCKMAP_ARRAY_OFFSET + zone * BLOCKMAP_ENTRY_SIZE)

    def undo_bigblock(self, index: int) -> Offset:
        """Zone-2 address of the UNDO FIFO's `index`th big-block, 0 when unassigned."""
        start = self.base + UNDO_ARRAY_OFFSET + index * 8
        return int.from_bytes(self.raw[start : start + 8], "little")

    def set_undo_bigblock(self, index: int, zone2_offset: Offset) -> None:
        """Assign the `index`th big-block of the UNDO FIFO."""
        assert not isinstance(self.raw, bytes)
        start = self.base + UNDO_ARRAY_OFFSET + index * 8
        self.raw[start : start + 8] = zone2_offset.to_bytes(8, "little")

    def undo_to_zone2(self, zone3_offset: Offset) -> Offset:
        """Where an UNDO FIFO offset lies on disk (`hammer_undo_lookup`)."""
        index = (zone3_offset & ((1 << 52) - 1)) // BIGBLOCK_SIZE
        return to_zone2(self.undo_bigblock(index)) + (zone3_offset & BIGBLOCK_MASK)

    def update_crc(self) -> None:
        """Set vol_crc from the rest of the header."""
        self.vol_crc = crc.split_crc(crc.function_for(self.vol_version), self.copy(), VOLUME_CRC_OFFSET)

    def crc_ok(self) -> bool:
        """Whether vol_crc matches; informational only."""
        return crc.split_matches(self.vol_version, self.vol_crc, self.copy(), VOLUME_CRC_OFFSET)
