"""What stat(2) shows of an inode.

Nearly every request is answered with attributes, so they are built afresh each time from the inode's own fields: that
takes a microsecond or two, and no second copy could be out of date.  Only listings keep some, until anything changes
(`listing.py`).

The kernel may keep what it is told for a day.  Nobody else changes the mounted view, so what it caches can only become
wrong by changes that went through it.
"""

from __future__ import annotations

import os
import stat
from typing import Final

import pyfuse3

from hammerfs.fs.attributes import StatFs
from hammerfs.fs.inode import Inode
from hammerfs.fs.options import MountOptions
from hammerfs.ondisk.constants import (
    OBJTYPE_BDEV,
    OBJTYPE_CDEV,
    OBJTYPE_DBFILE,
    OBJTYPE_DIRECTORY,
    OBJTYPE_FIFO,
    OBJTYPE_PSEUDOFS,
    OBJTYPE_REGFILE,
    OBJTYPE_SOCKET,
    OBJTYPE_SOFTLINK,
)
from hammerfs.ondisk.inode import uuid_to_id
from hammerfs.vfs.nodeids import ROOT_NODE_ID, NodeIds

CACHE_SECONDS: Final = 24 * 3600.0
BLOCK_SIZE: Final = 64 * 1024
"""st_blksize: what programs choose their buffers by; HAMMER's larger block size."""
OWNERS_REMEMBERED_MAX: Final = 4096
TIME_US_MAX: Final = (1 << 63) - 1
"""Times are 64 bits without a sign; half of that keeps every reader's arithmetic signed."""

MODE_OF_TYPE: Final = {
    OBJTYPE_DIRECTORY: stat.S_IFDIR,
    OBJTYPE_REGFILE: stat.S_IFREG,
    OBJTYPE_DBFILE: stat.S_IFREG,
    OBJTYPE_FIFO: stat.S_IFIFO,
    OBJTYPE_CDEV: stat.S_IFCHR,
    OBJTYPE_BDEV: stat.S_IFBLK,
    OBJTYPE_SOFTLINK: stat.S_IFLNK,
    OBJTYPE_PSEUDOFS: stat.S_IFDIR,
    OBJTYPE_SOCKET: stat.S_IFSOCK,
}
TYPE_OF_MODE: Final = {
    0: OBJTYPE_REGFILE,
    stat.S_IFREG: OBJTYPE_REGFILE,
    stat.S_IFDIR: OBJTYPE_DIRECTORY,
    stat.S_IFIFO: OBJTYPE_FIFO,
    stat.S_IFCHR: OBJTYPE_CDEV,
    stat.S_IFBLK: OBJTYPE_BDEV,
    stat.S_IFSOCK: OBJTYPE_SOCKET,
}
DEVICE_MAJOR_MAX: Final = (1 << 12) - 1
DEVICE_MINOR_MAX: Final = (1 << 20) - 1


def stored_time(nanoseconds: int) -> int:
    """A time since 1970 as microseconds; what HAMMER cannot store becomes the earliest or latest that it can."""
    return min(max(nanoseconds // 1000, 0), TIME_US_MAX)


def device_number(major: int, minor: int) -> int:
    """A special file's device for stat(2); 0 for one that Linux cannot express, since part of it is another device."""
    if major > DEVICE_MAJOR_MAX or minor > DEVICE_MINOR_MAX:
        return 0
    return os.makedev(major, minor)


def absent_entry() -> pyfuse3.EntryAttributes:
    """The answer to a lookup that found nothing, which the kernel then remembers too."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(0)
    entry.entry_timeout = CACHE_SECONDS
    return entry


def bare_entry(node_id: int, obj_type: int) -> pyfuse3.EntryAttributes:
    """An entry whose inode cannot be read: listed by its name and type, and looked up again by whoever wants more."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(node_id)
    entry.st_mode = pyfuse3.ModeT(MODE_OF_TYPE.get(obj_type, stat.S_IFREG))
    entry.entry_timeout = 0
    entry.attr_timeout = 0
    return entry


def statvfs(numbers: StatFs) -> pyfuse3.StatvfsData:
    """What statfs(2) shows."""
    answer = pyfuse3.StatvfsData()
    answer.f_bsize = answer.f_frsize = numbers.block_size
    answer.f_blocks = numbers.blocks
    answer.f_bfree = numbers.blocks_free
    answer.f_bavail = numbers.blocks_available
    answer.f_files = numbers.files
    answer.f_ffree = answer.f_favail = numbers.files_free
    answer.f_namemax = numbers.name_max
    return answer


class OwnerNumbers(dict[bytes, int]):
    """From the uuid in an inode to the uid or gid it holds, remembered: three times as fast as decoding it again.

    With an override, every owner is that one.
    """

    def __init__(self, override: int | None) -> None:
        super().__init__()
        self._override = override

    def __missing__(self, raw: bytes) -> int:
        if len(self) >= OWNERS_REMEMBERED_MAX:
            self.clear()
        number = uuid_to_id(raw) if self._override is None else self._override
        self[raw] = number
        return number


class Attributes:
    """Builds EntryAttributes for one mount."""

    def __init__(self, node_ids: NodeIds, options: MountOptions) -> None:
        self._node_ids = node_ids
        self._uids = OwnerNumbers(options.uid)
        self._gids = OwnerNumbers(options.gid)

    def referenced(self, inode: Inode) -> pyfuse3.EntryAttributes:
        """For answers that name an inode to the kernel (LOOKUP, CREATE, READDIRPLUS ...): counts a reference."""
        return self.of(inode, self._node_ids.reference(inode.localization, inode.obj_id, inode.as_of))

    def of(self, inode: Inode, node_id: int) -> pyfuse3.EntryAttributes:
        """All attributes of an inode."""
        data = inode.data
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = node_id
        entry.st_mode = MODE_OF_TYPE.get(data.obj_type, 0) | (data.mode & 0o7777)
        entry.st_nlink = data.nlinks
        entry.st_uid = self._uids[data.uid]
        entry.st_gid = self._gids[data.gid]
        entry.st_size = size = data.size
        entry.st_blocks = (size + 511) >> 9
        entry.st_blksize = BLOCK_SIZE
        entry.st_atime_ns = data.atime * 1000
        entry.st_mtime_ns = data.mtime * 1000
        entry.st_ctime_ns = data.ctime * 1000
        entry.attr_timeout = CACHE_SECONDS
        entry.entry_timeout = CACHE_SECONDS
        if data.rmajor or data.rminor:
            entry.st_rdev = device_number(data.rmajor, data.rminor)
        return entry

    def dots(self, directory: Inode, node_id: int) -> tuple[pyfuse3.EntryAttributes, pyfuse3.EntryAttributes]:
        """`.` and `..` for a listing: the kernel takes inode number and type from them and counts no reference."""
        parent = node_id
        if node_id != ROOT_NODE_ID and directory.data.parent_obj_id:
            parent = (
                self._node_ids.peek(directory.localization, directory.data.parent_obj_id, directory.as_of) or node_id
            )
        return bare_entry(node_id, OBJTYPE_DIRECTORY), bare_entry(parent, OBJTYPE_DIRECTORY)
