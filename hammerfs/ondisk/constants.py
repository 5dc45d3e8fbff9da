"""The fixed numbers of HAMMER1 (`hammer_disk.h`, `hammer_btree.h`): sizes in bytes, limits, type codes.

Every number that the format prescribes is written down once, here; no other module spells one out.
"""

from __future__ import annotations

from typing import Final

# --- buffers and big-blocks ---------------------------------------------------------------------
BUFSIZE: Final = 16 * 1024
"""File system buffer; all I/O below the 1 MiB mark of a file, and all meta-data, is in these."""
XBUFSIZE: Final = 64 * 1024
"""Data buffer of a file at and beyond XDEMARC."""
HBUFSIZE: Final = BUFSIZE // 2
"""Largest file whose single block is stored as a fragment in the small-data zone."""
XDEMARC: Final = 1024 * 1024
"""File offset where the block size changes from BUFSIZE to XBUFSIZE."""
BUFMASK: Final = BUFSIZE - 1
XBUFMASK: Final = XBUFSIZE - 1
BIGBLOCK_BITS: Final = 23
BIGBLOCK_SIZE: Final = 1 << BIGBLOCK_BITS
BIGBLOCK_MASK: Final = BIGBLOCK_SIZE - 1
DATA_ALIGN: Final = 16
"""Small data is allocated in multiples of this."""

# --- signed and unsigned ranges -----------------------------------------------------------------
MIN_KEY: Final = -(1 << 63)
MAX_KEY: Final = (1 << 63) - 1
MIN_OBJID: Final = MIN_KEY
MAX_OBJID: Final = MAX_KEY
MAX_TID: Final = (1 << 64) - 1
MAX_RECTYPE: Final = 0xFFFF
MAX_FILE_SIZE: Final = MAX_KEY

# --- zones --------------------------------------------------------------------------------------
ZONE_RAW_VOLUME: Final = 1
ZONE_RAW_BUFFER: Final = 2
ZONE_UNDO: Final = 3
ZONE_FREEMAP: Final = 4
ZONE_BTREE: Final = 8
ZONE_META: Final = 9
ZONE_LARGE_DATA: Final = 10
ZONE_SMALL_DATA: Final = 11
ZONE_UNAVAIL: Final = 15
MAX_ZONES: Final = 16
RECORD_ZONES: Final = (ZONE_BTREE, ZONE_META, ZONE_LARGE_DATA, ZONE_SMALL_DATA)
"""Zones whose big-blocks are classified in layer 2 and whose addresses are zone-2 addresses."""

# --- volumes ------------------------------------------------------------------------------------
MAX_VOLUMES: Final = 256
ROOT_VOLNO: Final = 0
VOLUME_SIGNATURE: Final = 0xC8414D4DC5523031
VOLUME_SIGNATURE_REVERSED: Final = 0x313052C54D4D41C8
FSTYPE_STRING: Final = "DragonFly HAMMER"
FSTYPE_UUID: Final = "61dc63ac-6e38-11dc-8513-01301bb8a9f5"
VOL_JUNK_SIZE: Final = BUFSIZE * 16
"""Where the boot area begins: the volume header has these bytes to itself."""
BOOT_AREA_MIN: Final = 32 * 1024
BOOT_AREA_MAX: Final = 256 << 20
MEMORY_LOG_MIN: Final = 256 * 1024
MEMORY_LOG_MAX: Final = 64 << 30
LABEL_SIZE: Final = 64
"""Bytes of a label field, its closing NUL included."""
VOLUME_VERSION_MIN: Final = 1
VOLUME_VERSION_MAX: Final = 7
VOLUME_VERSION_DEFAULT: Final = 7
VERSION_DIRENT_INODE_LOCALIZED: Final = 2
VERSION_SNAPSHOT_RECORDS: Final = 3
VERSION_UNDO_SEQUENCED: Final = 4
VERSION_DEDUP: Final = 5
VERSION_DIRHASH_ALG1: Final = 6
VERSION_CRC32C: Final = 7

# --- freemap ------------------------------------------------------------------------------------
LAYER1_ENTRY_SIZE: Final = 32
LAYER2_ENTRY_SIZE: Final = 16
LAYER1_RADIX: Final = BIGBLOCK_SIZE // LAYER1_ENTRY_SIZE
LAYER2_RADIX: Final = BIGBLOCK_SIZE // LAYER2_ENTRY_SIZE
LAYER2_SPAN: Final = LAYER2_RADIX * BIGBLOCK_SIZE
"""Bytes described by one layer-1 entry, that is, by one big-block of layer 2 (4 TiB)."""
BLOCKMAP_UNAVAIL: Final = (1 << 64) - 1

# --- UNDO/REDO FIFO -----------------------------------------------------------------------------
MIN_UNDO_BIGBLOCKS: Final = 64
MAX_UNDO_BIGBLOCKS: Final = 128
UNDO_ALIGN: Final = 512
"""From version 4 on every sector of this size begins with a numbered record."""
FIFO_HEAD_ALIGN: Final = 8
HEAD_SIGNATURE: Final = 0xC84E
TAIL_SIGNATURE: Final = 0xC74F
HEAD_TYPE_PAD: Final = 0x8040
HEAD_TYPE_DUMMY: Final = 0x0041
HEAD_TYPE_UNDO: Final = 0x0043
HEAD_TYPE_REDO: Final = 0x0044
REDO_WRITE: Final = 0x01
REDO_TRUNC: Final = 0x02
REDO_TERM_WRITE: Final = 0x04
REDO_TERM_TRUNC: Final = 0x08
REDO_SYNC: Final = 0x10
REDO_CREATE: Final = 0x10000
"""Ours: the file begins here, see `creation.py`.  To the original a record with these flags says nothing."""
REDO_TOUCH: Final = 0x20000
"""Ours: the directory has what stands in place of an offset for its mtime.  The same holds of it."""

# --- B-tree -------------------------------------------------------------------------------------
NODE_SIZE: Final = 4096
ELEMENT_SIZE: Final = 64
NODE_HEADER_SIZE: Final = 64
LEAF_ELEMENTS: Final = 63
INTERNAL_ELEMENTS: Final = 62
BTREE_INTERNAL: Final = ord("I")
BTREE_LEAF: Final = ord("L")
BTREE_RECORD: Final = ord("R")
BTREE_DELETED: Final = ord("D")
BTREE_NONE: Final = 0

# --- localization -------------------------------------------------------------------------------
LOCALIZE_INODE: Final = 0x00000001
LOCALIZE_MISC: Final = 0x00000002
LOCALIZE_MASK: Final = 0x0000FFFF
LOCALIZE_PFS_MASK: Final = 0xFFFF0000
MAX_LOCALIZATION: Final = 0xFFFFFFFF
MAX_PFSID: Final = 65535
ROOT_PFSID: Final = 0

# --- record and object types --------------------------------------------------------------------
RECTYPE_INODE: Final = 0x0001
RECTYPE_DATA: Final = 0x0010
RECTYPE_DIRENTRY: Final = 0x0011
RECTYPE_DB: Final = 0x0012
RECTYPE_EXT: Final = 0x0013
RECTYPE_FIX: Final = 0x0014
RECTYPE_PFS: Final = 0x0015
RECTYPE_SNAPSHOT: Final = 0x0016
RECTYPE_CONFIG: Final = 0x0017
RECTYPE_CLEAN_START: Final = RECTYPE_EXT
"""Records of this type and above go away with their inode (`hammer_ip_delete_clean`)."""
FIXKEY_SYMLINK: Final = 1

OBJTYPE_DIRECTORY: Final = 1
OBJTYPE_REGFILE: Final = 2
OBJTYPE_DBFILE: Final = 3
OBJTYPE_FIFO: Final = 4
OBJTYPE_CDEV: Final = 5
OBJTYPE_BDEV: Final = 6
OBJTYPE_SOFTLINK: Final = 7
OBJTYPE_PSEUDOFS: Final = 8
OBJTYPE_SOCKET: Final = 9

# --- inodes -------------------------------------------------------------------------------------
INODE_DATA_SIZE: Final = 128
INODE_CRC_SIZE: Final = 112
"""mtime and atime are outside the inode's CRC: both may be updated in place."""
INODE_MTIME_OFFSET: Final = 112
INODE_ATIME_OFFSET: Final = 120
INODE_DATA_VERSION: Final = 1
OBJID_ROOT: Final = 1
BASE_SYMLINK_SIZE: Final = 24
"""A target this long or shorter lives in the inode, a longer one in a FIX record."""
CAP_DIRHASH_MASK: Final = 0x03
CAP_DIRHASH_ALG0: Final = 0x00
CAP_DIRHASH_ALG1: Final = 0x01
CAP_DIR_LOCAL_INO: Final = 0x04
UF_NODUMP: Final = 0x00000001
UF_IMMUTABLE: Final = 0x00000002
UF_APPEND: Final = 0x00000004
UF_NOHISTORY: Final = 0x00000040
SF_IMMUTABLE: Final = 0x00020000
SF_APPEND: Final = 0x00040000
SF_NOHISTORY: Final = 0x00400000
MAX_NAME: Final = 255

# --- transactions -------------------------------------------------------------------------------
MAX_MASTERS: Final = 16
"""TIDs advance in steps of this when a master id is kept in their low bits."""
PFSD_SLAVE: Final = 0x00000001
PFSD_DELETED: Final = 0x80000000

# --- mirroring streams --------------------------------------------------------------------------
MREC_SIGNATURE: Final = 0x4DD97272
MREC_SIGNATURE_REVERSED: Final = 0x7272D94D
MREC_ALIGN: Final = 8
"""Each record of a stream is padded to a multiple of this; its size does not count the padding."""
MREC_REC: Final = 1
MREC_PFSD: Final = 2
MREC_UPDATE: Final = 3
MREC_SYNC: Final = 4
MREC_SKIP: Final = 5
MREC_PASS: Final = 6
MREC_TERM: Final = 7
MREC_IDLE: Final = 8
MRECF_TYPE_MASK: Final = 0x000000FF
MRECF_CRC_ERROR: Final = 0x80000000
MRECF_DATA_CRC_BAD: Final = 0x40000000
MRECF_NODATA: Final = 0x10000000
PFSD_VERSION: Final = 1
"""Version of the PFS data in a stream (`HAMMER_IOC_PSEUDOFS_VERSION`)."""
