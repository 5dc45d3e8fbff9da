"""How many data bytes a record of each type holds: what `check` expects, and what a mirroring stream may bring."""

from __future__ import annotations

from typing import Final

from hammerfs.ondisk.constants import (
    BUFSIZE,
    INODE_DATA_SIZE,
    MAX_NAME,
    RECTYPE_CONFIG,
    RECTYPE_DATA,
    RECTYPE_DB,
    RECTYPE_DIRENTRY,
    RECTYPE_EXT,
    RECTYPE_FIX,
    RECTYPE_INODE,
    RECTYPE_PFS,
    RECTYPE_SNAPSHOT,
    XBUFSIZE,
)
from hammerfs.ondisk.direntry import ENTRY_HEADER_SIZE
from hammerfs.ondisk.pfs import CONFIG_DATA_SIZE, SNAPSHOT_DATA_SIZE

DATA_TYPES: Final = (RECTYPE_DATA, RECTYPE_DB)
"""Those whose data lies in a data zone; that of all others lies in the meta-data zone."""
RECORD_SIZES: Final = {
    RECTYPE_INODE: (INODE_DATA_SIZE, INODE_DATA_SIZE),
    RECTYPE_DATA: (1, XBUFSIZE),
    RECTYPE_DIRENTRY: (ENTRY_HEADER_SIZE + 1, ENTRY_HEADER_SIZE + MAX_NAME),
    RECTYPE_DB: (1, XBUFSIZE),
    RECTYPE_EXT: (1, BUFSIZE),
    RECTYPE_FIX: (1, BUFSIZE),
    RECTYPE_PFS: (1, BUFSIZE),
    RECTYPE_SNAPSHOT: (SNAPSHOT_DATA_SIZE, SNAPSHOT_DATA_SIZE),
    RECTYPE_CONFIG: (1, CONFIG_DATA_SIZE),
}
"""Least and most data bytes of each record type; a type that is not here is unknown."""
