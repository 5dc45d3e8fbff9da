"""Where the data of a record may lie: what holds for every record that a sound writer made.

Who gives a record's bytes back, or lets another record refer to them, goes by the same rule as `check` does when it
counts what is in use: a record for which no place is right stands for no space at all.  Source: `hammer_disk.h` (record
types, zones), `hammer_object.c: hammer_alloc_data`, `hammer_blockmap.c: hammer_blockmap_reserve`.
"""

from __future__ import annotations

from typing import Final

from hammerfs.ondisk.address import Offset, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BUFSIZE,
    DATA_ALIGN,
    LOCALIZE_INODE,
    LOCALIZE_MASK,
    LOCALIZE_MISC,
    RECTYPE_CONFIG,
    RECTYPE_DATA,
    RECTYPE_DB,
    RECTYPE_DIRENTRY,
    RECTYPE_EXT,
    RECTYPE_FIX,
    RECTYPE_INODE,
    RECTYPE_PFS,
    RECTYPE_SNAPSHOT,
    ZONE_LARGE_DATA,
    ZONE_META,
    ZONE_SMALL_DATA,
)
from hammerfs.ondisk.element import LeafElement
from hammerfs.ondisk.recordsizes import DATA_TYPES, RECORD_SIZES

_NAMES: Final = {
    RECTYPE_INODE: "inode",
    RECTYPE_DATA: "data",
    RECTYPE_DIRENTRY: "directory entry",
    RECTYPE_DB: "db",
    RECTYPE_EXT: "ext",
    RECTYPE_FIX: "fix",
    RECTYPE_PFS: "PFS",
    RECTYPE_SNAPSHOT: "snapshot",
    RECTYPE_CONFIG: "config",
}


def fault_of(element: LeafElement) -> str | None:
    """What is wrong with a record's type, localization, length, zone or alignment, in words; None when nothing is."""
    offset, size, kind = element.data_offset, element.data_len, element.rec_type
    if kind not in RECORD_SIZES:
        return f"unknown record type {kind:#06x}"
    least, most = RECORD_SIZES[kind]
    local = element.localization & LOCALIZE_MASK
    if local not in (LOCALIZE_INODE, LOCALIZE_MISC) or (kind == RECTYPE_INODE and local != LOCALIZE_INODE):
        return f"localization {element.localization:08x} is wrong for a record of type {_NAMES[kind]}"
    if not least <= size <= most:
        return f"{_NAMES[kind]} record of {size} bytes, {least} to {most} are possible"
    zone = ZONE_META
    if kind in DATA_TYPES:
        zone = ZONE_LARGE_DATA if size >= BUFSIZE else ZONE_SMALL_DATA
    return misplacement(zone, offset, size)


def misplacement(zone: int, offset: Offset, size: int) -> str | None:
    """Why `size` bytes of `zone`, one at least, cannot lie at an offset, in words; None when they can."""
    if zone_of(offset) != zone:
        return f"data of {size} bytes lies at {offset:016x}, not in zone {zone}"
    if offset % DATA_ALIGN:
        return f"data lies at {offset:016x}, which is not aligned to {DATA_ALIGN} bytes"
    span = BUFSIZE if size <= BUFSIZE else BIGBLOCK_SIZE
    if (offset ^ (offset + size - 1)) & -span:
        return f"data of {size} bytes at {offset:016x} crosses a boundary of {span} bytes"
    return None
