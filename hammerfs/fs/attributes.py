"""Attributes of inodes: changing them, and what statfs(2) is told."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from hammerfs.errors import CorruptionError, FileOperationError
from hammerfs.fs import filedata
from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.metadata import read_record
from hammerfs.fs.namespace import writable
from hammerfs.fs.pfs import expand_link
from hammerfs.ondisk.address import LONG_MASK
from hammerfs.ondisk.constants import (
    BASE_SYMLINK_SIZE,
    BIGBLOCK_SIZE,
    BUFSIZE,
    FIXKEY_SYMLINK,
    LOCALIZE_MISC,
    MAX_NAME,
    OBJTYPE_REGFILE,
    OBJTYPE_SOFTLINK,
    RECTYPE_FIX,
)
from hammerfs.ondisk.element import base_key, unpack_leaf
from hammerfs.ondisk.inode import id_to_uuid

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

RELATIME_US = 24 * 3600 * 1_000_000
"""An access time as old as this moves with the next access, whatever the other times are."""


class StatFs(NamedTuple):
    """Sizes in blocks of `block_size` bytes; `blocks_available` leaves out what is kept for removals and meta-data."""

    block_size: int
    blocks: int
    blocks_free: int
    blocks_available: int
    files: int
    files_free: int
    name_max: int


def setattr_(
    ctx: Context,
    inode: Inode,
    *,
    mode: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
    size: int | None = None,
    atime_us: int | None = None,
    mtime_us: int | None = None,
    ctime_us: int | None = None,
) -> None:
    """Change attributes; times in microseconds.  ctime moves to now unless it is given.

    A size that the file has already is no change.  Whoever wants times to move by it tells them: ftruncate(2) and
    O_TRUNC do, truncate(2) does not, and the kernel then goes on showing the times it knows.
    """
    writable(ctx, inode)
    data = inode.data
    if size is not None:
        if data.obj_type != OBJTYPE_REGFILE:
            raise FileOperationError(errno.EISDIR if inode.is_directory else errno.EINVAL)
        if size == data.size and all(value is None for value in (mode, uid, gid, atime_us, mtime_us, ctime_us)):
            return
        if size > data.size:
            ctx.space.check_write(BUFSIZE)
    if not inode.dirty & Dirty.INODE:
        ctx.space.check_change()
    if size is not None and size != data.size:
        filedata.truncate(ctx, inode, size)
    if mode is not None:
        data.mode = mode & 0o7777
    if uid is not None:
        data.uid = id_to_uuid(uid)
    if gid is not None:
        data.gid = id_to_uuid(gid)
    if atime_us is not None:
        data.atime = atime_us
    if mtime_us is not None:
        data.mtime = mtime_us
    data.ctime = ctx.clock() if ctime_us is None else ctime_us
    # One and the same moment as mtime and ctime, or none, is what the kernel's write-back cache sends after a write.
    # Redoing that write moves the times, too; what else they may be set to only a flush makes durable.
    beyond = mode is not None or uid is not None or gid is not None or atime_us is not None or mtime_us != ctime_us
    ctx.dirty.mark(inode, Dirty.WRITTEN if inode.dirty & Dirty.DATA and not beyond else Dirty.INODE)


def correct_times(ctx: Context, inode: Inode, mtime_us: int, ctime_us: int) -> None:
    """Have mtime and ctime be these, as long as the change that moved them waits to be written.

    Not later: a record of its own in the history for some milliseconds, or a flush instead of REDO, is not worth it.
    """
    if inode.dirty & Dirty.WRITTEN:
        inode.data.mtime, inode.data.ctime = mtime_us, ctime_us
        ctx.dirty.mark(inode, Dirty.WRITTEN)


def accessed(ctx: Context, inode: Inode) -> None:
    """Move atime as `relatime` does, when it is not later than the other times or a day old; in place, without history.

    What has lost its last name is left alone, for its record may be about to go.
    """
    data = inode.data
    if ctx.read_only or inode.read_only or not data.nlinks:
        return
    now = ctx.clock()
    if data.mtime < data.atime > data.ctime and now - data.atime < RELATIME_US:
        return
    data.atime = now
    ctx.dirty.mark(inode, Dirty.TIMES)


def readlink(ctx: Context, inode: Inode) -> bytes:
    """A symlink's target."""
    data = inode.data
    if data.obj_type != OBJTYPE_SOFTLINK:
        raise FileOperationError(errno.EINVAL)
    if data.size <= BASE_SYMLINK_SIZE:
        return expand_link(ctx, data.symlink[: data.size])
    key = (RECTYPE_FIX, FIXKEY_SYMLINK)
    pending = inode.general.get(key)
    if pending is None and inode.capture is not None:
        pending = inode.capture.general.get(key)
    if pending is not None:
        return pending
    base = base_key(inode.localization | LOCALIZE_MISC, inode.obj_id, RECTYPE_FIX, FIXKEY_SYMLINK)
    raw = ctx.tree.find_as_of(base, inode.as_of)
    if raw is None:
        raise CorruptionError(f"symlink {inode.obj_id:#x} without a target")
    return read_record(ctx, unpack_leaf(raw))


def statfs(ctx: Context) -> StatFs:
    """Space as a whole; free space counts in big-blocks, so it moves in steps of 8 MiB."""
    per_bigblock = BIGBLOCK_SIZE // BUFSIZE
    # A read-only mount takes the header's counters as they are, so they may be any numbers.
    total = min(max(ctx.root.total_bigblocks, 0), LONG_MASK // BIGBLOCK_SIZE) * per_bigblock
    available = min(ctx.space.available // BUFSIZE, total)
    return StatFs(
        block_size=BUFSIZE,
        blocks=total,
        blocks_free=min(max(available, ctx.blockmap.allocatable_bigblocks * per_bigblock), total),
        blocks_available=available,
        files=max(ctx.root.inode_count, 0) + available,
        files_free=available,
        name_max=MAX_NAME,
    )
