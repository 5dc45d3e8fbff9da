"""Extended attributes in EXT records, a documented extension of the format (docs/format.md).

The record type exists in HAMMER and goes away with its inode, but nothing there ever wrote one.  Ours: key = CRC-32 of
the attribute's full name in the upper word (masked positive), a collision count in the lower; data = length of the name
(2 bytes), name, value.  Like every record they have history: an as-of view shows the attributes of its time.
"""

from __future__ import annotations

import errno
import zlib
from typing import TYPE_CHECKING

from hammerfs.errors import CorruptionError, FileOperationError
from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.metadata import pend_record, read_record
from hammerfs.fs.namespace import writable
from hammerfs.ondisk.constants import BUFSIZE, LOCALIZE_MISC, MAX_KEY, MAX_NAME, MAX_TID, RECTYPE_EXT
from hammerfs.ondisk.element import pack_key, unpack_leaf

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

XATTR_CREATE = 1
XATTR_REPLACE = 2
_LENGTH_SIZE = 2
_COLLISIONS = 0xFFFFFFFF


def _pack(name: bytes, value: bytes) -> bytes:
    return len(name).to_bytes(_LENGTH_SIZE, "little") + name + value


def _unpack(data: bytes) -> tuple[bytes, bytes]:
    end = _LENGTH_SIZE + int.from_bytes(data[:_LENGTH_SIZE], "little")
    if len(data) < end:
        raise CorruptionError("extended attribute record that is too short")
    return data[_LENGTH_SIZE:end], data[end:]


def _attributes(ctx: Context, inode: Inode, low: int, high: int) -> dict[int, bytes]:
    """Record data by key, disk below capture below pending."""
    found: dict[int, bytes] = {}
    if inode.on_disk:
        localization = inode.localization | LOCALIZE_MISC
        first = pack_key(localization, inode.obj_id, RECTYPE_EXT, low, 1)
        last = pack_key(localization, inode.obj_id, RECTYPE_EXT, high, MAX_TID)
        for raw in ctx.tree.scan_as_of(first, last, inode.as_of):
            element = unpack_leaf(raw)
            found[element.key] = read_record(ctx, element)
    layers = ([inode.capture.general] if inode.capture is not None else []) + [inode.general]
    for layer in layers:
        for (rec_type, key), data in layer.items():
            if rec_type == RECTYPE_EXT and low <= key <= high:
                if data is None:
                    found.pop(key, None)
                else:
                    found[key] = data
    return found


def _locate(ctx: Context, inode: Inode, name: bytes) -> tuple[int | None, bytes, int]:
    """(key, value, free key) of an attribute; key is None when it does not exist."""
    low = (zlib.crc32(name) & 0x7FFFFFFF) << 32
    found = _attributes(ctx, inode, low, low + _COLLISIONS)
    for key, data in found.items():
        stored, value = _unpack(data)
        if stored == name:
            return key, value, key
    free = low
    while free in found:
        free += 1
    return None, b"", free


def get(ctx: Context, inode: Inode, name: bytes) -> bytes:
    """An attribute's value; ENODATA when there is none."""
    key, value, _ = _locate(ctx, inode, name)
    if key is None:
        raise FileOperationError(errno.ENODATA)
    return value


def names(ctx: Context, inode: Inode) -> list[bytes]:
    """The names of all attributes."""
    return [_unpack(data)[0] for data in _attributes(ctx, inode, 0, MAX_KEY).values()]


def set_(ctx: Context, inode: Inode, name: bytes, value: bytes, flags: int = 0) -> None:
    """Set an attribute; XATTR_CREATE and XATTR_REPLACE as in setxattr(2)."""
    writable(ctx, inode)
    if len(name) > MAX_NAME:
        raise FileOperationError(errno.ERANGE)
    data = _pack(name, value)
    if len(data) > BUFSIZE:
        raise FileOperationError(errno.E2BIG)
    key, _, free = _locate(ctx, inode, name)
    if key is None and flags & XATTR_REPLACE:
        raise FileOperationError(errno.ENODATA)
    if key is not None and flags & XATTR_CREATE:
        raise FileOperationError(errno.EEXIST)
    ctx.space.check_write(2 * BUFSIZE)
    _change(ctx, inode, free, data)


def remove(ctx: Context, inode: Inode, name: bytes) -> None:
    """Remove an attribute; ENODATA when there is none."""
    writable(ctx, inode)
    key, _, _ = _locate(ctx, inode, name)
    if key is None:
        raise FileOperationError(errno.ENODATA)
    ctx.space.check_remove()
    _change(ctx, inode, key, None)


def _change(ctx: Context, inode: Inode, key: int, data: bytes | None) -> None:
    pend_record(ctx, inode, RECTYPE_EXT, key, data)
    inode.data.ctime = ctx.clock()
    ctx.dirty.mark(inode, Dirty.GENERAL | Dirty.INODE)
