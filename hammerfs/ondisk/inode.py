"""Inode data (`hammer_inode_data`, 128 bytes): what stat(2) shows, plus capability flags and a short symlink.

uids and gids are uuids whose last four bytes hold the number (`hammer_guid_to_uuid`).  Times are microseconds since
1970.  `parent_obj_id` is reliable for directories only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hammerfs.ondisk.constants import INODE_DATA_SIZE, INODE_DATA_VERSION

LAYOUT = struct.Struct("<HHIIIQq16s16sBBHIQQ24sQQ")
assert LAYOUT.size == INODE_DATA_SIZE


@dataclass(slots=True)
class InodeData:
    """One inode's attributes.  `mode` holds the permission bits (07777), `obj_type` the file type."""

    mode: int = 0
    uflags: int = 0
    rmajor: int = 0
    rminor: int = 0
    ctime: int = 0
    parent_obj_id: int = 0
    uid: bytes = b"\0" * 16
    gid: bytes = b"\0" * 16
    obj_type: int = 0
    cap_flags: int = 0
    nlinks: int = 0
    size: int = 0
    symlink: bytes = b""
    mtime: int = 0
    atime: int = 0
    version: int = INODE_DATA_VERSION

    def pack(self) -> bytes:
        """The 128 bytes on disk."""
        return LAYOUT.pack(
            self.version,
            self.mode,
            self.uflags,
            self.rmajor,
            self.rminor,
            self.ctime,
            self.parent_obj_id,
            self.uid,
            self.gid,
            self.obj_type,
            self.cap_flags,
            0,
            0,
            self.nlinks,
            self.size,
            self.symlink,
            self.mtime,
            self.atime,
        )

    @classmethod
    def unpack(cls, raw: bytes | bytearray | memoryview) -> InodeData:
        """Read 128 bytes; the symlink field is returned whole, NULs included."""
        (
            version,
            mode,
            uflags,
            rmajor,
            rminor,
            ctime,
            parent,
            uid,
            gid,
            obj_type,
            cap_flags,
            _,
            _,
            nlinks,
            size,
            symlink,
            mtime,
            atime,
        ) = LAYOUT.unpack_from(raw, 0)
        return cls(
            mode,
            uflags,
            rmajor,
            rminor,
            ctime,
            parent,
            uid,
            gid,
            obj_type,
            cap_flags,
            nlinks,
            size,
            symlink,
            mtime,
            atime,
            version,
        )


def id_to_uuid(number: int) -> bytes:
    """A uid or gid as the 16 bytes stored in an inode."""
    return b"\0" * 12 + (number & 0xFFFFFFFF).to_bytes(4, "little")


def uuid_to_id(raw: bytes) -> int:
    """The uid or gid in an inode's 16 bytes."""
    return int.from_bytes(raw[12:16], "little")
