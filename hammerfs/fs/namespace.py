"""Create, link, unlink, rename: changes of names, in memory, each one atomic for the flusher.

Every function checks before it changes anything, so that a refusal leaves nothing behind.  Renames and replacements
bind the entry records they leave, so that no crash shows half of them.
"""

from __future__ import annotations

import errno
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from hammerfs.errors import CorruptionError, FileOperationError, ReadOnlyError
from hammerfs.fs import directory as names
from hammerfs.fs import filedata
from hammerfs.fs.directory import Entry
from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.lookup import refuse_moment, refuse_removal
from hammerfs.fs.metadata import drop_pending, pend_record
from hammerfs.fs.records import EntryRecord, RecordState, bind
from hammerfs.ondisk.address import ObjId
from hammerfs.ondisk.constants import (
    BASE_SYMLINK_SIZE,
    BUFSIZE,
    CAP_DIR_LOCAL_INO,
    CAP_DIRHASH_ALG1,
    FIXKEY_SYMLINK,
    MAX_KEY,
    MAX_MASTERS,
    MAX_TID,
    OBJID_ROOT,
    OBJTYPE_DIRECTORY,
    OBJTYPE_SOFTLINK,
    RECTYPE_FIX,
    SF_NOHISTORY,
    UF_NODUMP,
    UF_NOHISTORY,
    VERSION_DIRENT_INODE_LOCALIZED,
    VERSION_DIRHASH_ALG1,
)
from hammerfs.ondisk.inode import InodeData, id_to_uuid

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
LINKS_MAX = (1 << 32) - 1
"""What FUSE can tell of; on disk there is room for more."""
_INHERITED_FLAGS = UF_NODUMP | UF_NOHISTORY | SF_NOHISTORY
_OBJ_ID_CHUNK_TIDS = 64
"""A directory sets aside this many TIDs' worth of object ids, so that its files lie side by side in the B-tree."""
_RECORD_SPACE = BUFSIZE


def writable(ctx: Context, inode: Inode) -> None:
    """Raise ReadOnlyError unless the inode may change."""
    if ctx.read_only:
        raise ReadOnlyError("read-only file system")
    if inode.read_only:
        if inode.live and not inode.data.nlinks:
            raise CorruptionError(f"object {inode.obj_id:#x} is named, but its link count is 0: it cannot be changed")
        raise ReadOnlyError("the past is read-only")


def _editable(ctx: Context, directory: Inode) -> None:
    writable(ctx, directory)
    if not directory.is_directory:
        raise FileOperationError(errno.ENOTDIR)
    if not directory.data.nlinks:
        raise FileOperationError(errno.ENOENT)


def _touch_directory(ctx: Context, directory: Inode, now: int) -> None:
    directory.data.mtime = now
    directory.data.ctime = max(directory.data.ctime, now)
    ctx.dirty.mark(directory, Dirty.TIMES)


def _alloc_obj_id(ctx: Context, directory: Inode) -> int:
    if directory.next_obj_id >= directory.stop_obj_id:
        directory.next_obj_id = ctx.alloc_tid(_OBJ_ID_CHUNK_TIDS)
        directory.stop_obj_id = directory.next_obj_id + _OBJ_ID_CHUNK_TIDS * MAX_MASTERS
    obj_id = directory.next_obj_id
    directory.next_obj_id += 1
    return obj_id


def _new_inode(ctx: Context, directory: Inode, obj_type: int, mode: int, uid: int, gid: int) -> Inode:
    now = ctx.clock()
    parent = directory.data
    data = InodeData(mode=mode & 0o7777, obj_type=obj_type, ctime=now, mtime=now, atime=now, nlinks=1)
    data.uflags = parent.uflags & _INHERITED_FLAGS
    data.uid = id_to_uuid(uid)
    data.gid = id_to_uuid(gid)
    if parent.mode & stat.S_ISGID:
        data.gid = parent.gid
        if obj_type == OBJTYPE_DIRECTORY:
            data.mode |= stat.S_ISGID
    data.parent_obj_id = directory.obj_id
    if obj_type == OBJTYPE_DIRECTORY:
        if ctx.version >= VERSION_DIRENT_INODE_LOCALIZED:
            data.cap_flags |= CAP_DIR_LOCAL_INO
        if ctx.version >= VERSION_DIRHASH_ALG1:
            data.cap_flags |= CAP_DIRHASH_ALG1
    inode = Inode(directory.localization, _alloc_obj_id(ctx, directory), MAX_TID, data, on_disk=False, read_only=False)
    ctx.inodes.add(inode)
    if obj_type == OBJTYPE_DIRECTORY:
        ctx.inodes.names.begin(inode, upto=MAX_KEY)
    return inode


def _enter_new(ctx: Context, directory: Inode, name: bytes, key: int, inode: Inode) -> None:
    names.add(ctx, directory, name, key, inode)
    ctx.dirty.mark(inode, Dirty.INODE)
    _touch_directory(ctx, directory, inode.data.ctime)


def _free_name(ctx: Context, directory: Inode, name: bytes, space: int) -> int:
    """Check that `name` can be entered; returns its key."""
    _editable(ctx, directory)
    names.check_name(name)
    found, key = names.find_or_key(ctx, directory, name)
    if found is not None:
        raise FileOperationError(errno.EEXIST)
    if b"@@" in name:
        refuse_moment(ctx, directory, name)
    ctx.space.check_write(space)
    return key


def create(
    ctx: Context,
    directory: Inode,
    name: bytes,
    obj_type: int,
    mode: int,
    uid: int,
    gid: int,
    rmajor: int = 0,
    rminor: int = 0,
) -> Inode:
    """A new object of any type but a symlink."""
    key = _free_name(ctx, directory, name, _RECORD_SPACE)
    inode = _new_inode(ctx, directory, obj_type, mode, uid, gid)
    inode.data.rmajor = rmajor
    inode.data.rminor = rminor
    _enter_new(ctx, directory, name, key, inode)
    return inode


def create_again(ctx: Context, directory: Inode, name: bytes, obj_id: ObjId, data: InodeData) -> Inode:
    """A new file as it was created before a crash; the directory's times are left to whoever knows them.

    A file that has the name was removed before the crash, or the name would not have been free.  A read-only mount does
    this in memory.
    """
    entry, key = names.find_or_key(ctx, directory, name)
    if entry is not None:
        removed = _target(ctx, directory, entry)
        if removed.is_directory or not removed.data.nlinks:
            raise CorruptionError(f"a file was created by the name of object {removed.obj_id:#x}, which cannot lose it")
        names.remove(ctx, directory, entry, removed)
        _drop_link(ctx, removed, data.ctime)
        _, key = names.find_or_key(ctx, directory, name)
    ctx.root.next_tid = max(ctx.root.next_tid, obj_id)
    inode = Inode(directory.localization, obj_id, MAX_TID, replace(data, size=0), on_disk=False, read_only=False)
    ctx.inodes.add(inode)
    names.add(ctx, directory, name, key, inode)
    ctx.dirty.mark(inode, Dirty.INODE)
    return inode


def symlink(ctx: Context, directory: Inode, name: bytes, target: bytes, uid: int, gid: int) -> Inode:
    """A new symlink; a short target lives in the inode, a long one in a FIX record."""
    if not target:
        raise FileOperationError(errno.ENOENT)
    if len(target) >= BUFSIZE:
        raise FileOperationError(errno.ENAMETOOLONG)
    key = _free_name(ctx, directory, name, _RECORD_SPACE + len(target))
    inode = _new_inode(ctx, directory, OBJTYPE_SOFTLINK, 0o777, uid, gid)
    inode.data.size = len(target)
    if len(target) <= BASE_SYMLINK_SIZE:
        inode.data.symlink = target
    else:
        pend_record(ctx, inode, RECTYPE_FIX, FIXKEY_SYMLINK, target)
    _enter_new(ctx, directory, name, key, inode)
    return inode


def link(ctx: Context, inode: Inode, directory: Inode, name: bytes) -> None:
    """One more name for an object that is no directory."""
    writable(ctx, inode)
    if inode.is_directory:
        raise FileOperationError(errno.EPERM)
    if inode.localization != directory.localization:
        raise FileOperationError(errno.EXDEV)
    key = _free_name(ctx, directory, name, _RECORD_SPACE)
    if not inode.data.nlinks:
        raise FileOperationError(errno.ENOENT)
    if inode.data.nlinks >= LINKS_MAX:
        raise FileOperationError(errno.EMLINK)
    now = ctx.clock()
    names.add(ctx, directory, name, key, inode)
    inode.data.nlinks += 1
    inode.data.ctime = now
    ctx.dirty.mark_moved(inode)
    _touch_directory(ctx, directory, now)


def unlink(ctx: Context, directory: Inode, name: bytes, *, hold: bool = False) -> Inode:
    """Take a name away from an object that is no directory; returns the object, with `hold` as if it were open."""
    return _remove(ctx, directory, name, wants_directory=False, hold=hold)


def rmdir(ctx: Context, directory: Inode, name: bytes, *, hold: bool = False) -> Inode:
    """Remove an empty directory; returns it, with `hold` as if it were open."""
    return _remove(ctx, directory, name, wants_directory=True, hold=hold)


def _remove(ctx: Context, directory: Inode, name: bytes, *, wants_directory: bool, hold: bool) -> Inode:
    _editable(ctx, directory)
    entry = names.find(ctx, directory, name)
    if entry is None:
        raise _absent(ctx, directory, name)
    inode = _target(ctx, directory, entry)
    writable(ctx, inode)
    _check_removable(ctx, inode, wants_directory)
    if inode.data.nlinks > 1:
        ctx.space.check_remove()
    now = ctx.clock()
    names.remove(ctx, directory, entry, inode)
    inode.opens += hold
    _drop_link(ctx, inode, now)
    _touch_directory(ctx, directory, now)
    return inode


def _absent(ctx: Context, directory: Inode, name: bytes) -> FileOperationError:
    if b"@@" in name:
        refuse_removal(ctx, directory, name)
    return FileOperationError(errno.ENOENT)


def _target(ctx: Context, directory: Inode, entry: Entry) -> Inode:
    return ctx.inodes.get(ctx, entry.localization, entry.obj_id, directory.as_of)


def _check_removable(ctx: Context, inode: Inode, wants_directory: bool) -> None:
    if inode.is_directory != wants_directory:
        raise FileOperationError(errno.ENOTDIR if wants_directory else errno.EISDIR)
    if wants_directory and not names.is_empty(ctx, inode):
        raise FileOperationError(errno.ENOTEMPTY)


def _drop_link(ctx: Context, inode: Inode, now: int) -> None:
    inode.data.nlinks -= 1
    inode.data.ctime = now
    ctx.dirty.mark(inode, Dirty.INODE)
    if not inode.data.nlinks and not inode.opens:
        abandon(ctx, inode)


def abandon(ctx: Context, inode: Inode) -> None:
    """No name and no open handle are left: its data goes, and what never reached the disk goes at once."""
    drop_pending(ctx, inode.general)
    filedata.discard_from(ctx, inode, 0)
    if not inode.on_disk and inode.capture is None and not inode.links:
        ctx.dirty.discard(inode)
        ctx.inodes.forget(inode)


def rename(
    ctx: Context,
    directory: Inode,
    name: bytes,
    new_directory: Inode,
    new_name: bytes,
    flags: int = 0,
    *,
    hold: bool = False,
) -> Inode | None:
    """Move an object to another name, replacing or exchanging what stands there.

    Returns what was replaced, with `hold` as if it were open.
    """
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
        raise FileOperationError(errno.EINVAL)
    _editable(ctx, directory)
    _editable(ctx, new_directory)
    names.check_name(new_name)
    entry = names.find(ctx, directory, name)
    if entry is None:
        raise _absent(ctx, directory, name)
    if directory.localization != new_directory.localization:
        raise FileOperationError(errno.EXDEV)
    inode = _target(ctx, directory, entry)
    writable(ctx, inode)
    standing, key = names.find_or_key(ctx, new_directory, new_name)
    victim = None if standing is None else _target(ctx, new_directory, standing)
    if victim is not None:
        writable(ctx, victim)
    elif b"@@" in new_name:
        refuse_moment(ctx, new_directory, new_name)
    ctx.space.check_write(2 * _RECORD_SPACE)
    if flags & RENAME_EXCHANGE:
        if standing is None or victim is None:
            raise FileOperationError(errno.ENOENT)
        moves = _moves_above(ctx, inode, new_directory) + _moves_above(ctx, victim, directory)
        if inode is not victim:
            _exchange(ctx, directory, entry, inode, new_directory, standing, victim, moves)
        return None
    if victim is not None and flags & RENAME_NOREPLACE:
        raise FileOperationError(errno.EEXIST)
    if victim is inode:
        return None
    moves = _moves_above(ctx, inode, new_directory)
    if victim is not None:
        _check_removable_by(ctx, inode, victim)
    _move(ctx, directory, entry, inode, new_directory, new_name, key, standing, victim, moves, hold=hold)
    return victim


def _check_removable_by(ctx: Context, inode: Inode, victim: Inode) -> None:
    if inode.is_directory and not victim.is_directory:
        raise FileOperationError(errno.ENOTDIR)
    if victim.is_directory and not inode.is_directory:
        raise FileOperationError(errno.EISDIR)
    if victim.is_directory and not names.is_empty(ctx, victim):
        raise FileOperationError(errno.ENOTEMPTY)


def _moves_above(ctx: Context, inode: Inode, new_directory: Inode) -> list[EntryRecord]:
    """Refuse to move a directory below itself; what a directory's move has to land together with.

    That is what moved, and no group has taken, of the directories above its new place: on disk one of them may still
    be below it, and both would hang on each other and on nothing else.
    """
    moves: list[EntryRecord] = []
    if not inode.is_directory:
        return moves
    above = new_directory
    passed = set()
    while True:
        if above is inode:
            raise FileOperationError(errno.EINVAL)
        if above.on_disk or above.capture is not None:
            moves += [record for record in above.links if record.state is RecordState.SETUP]
        if above.obj_id == OBJID_ROOT or not above.data.parent_obj_id:
            return moves
        if above.obj_id in passed:
            raise CorruptionError(f"directory {above.obj_id:#x} is its own ancestor")
        passed.add(above.obj_id)
        above = ctx.inodes.get(ctx, above.localization, above.data.parent_obj_id, MAX_TID)


def _move(
    ctx: Context,
    directory: Inode,
    entry: Entry,
    inode: Inode,
    new_directory: Inode,
    new_name: bytes,
    key: int,
    standing: Entry | None,
    victim: Inode | None,
    moves: list[EntryRecord],
    *,
    hold: bool,
) -> None:
    now = ctx.clock()
    new_key = None if standing is None else names.keys_for(ctx, new_directory, new_name)
    left: list[EntryRecord] = names.remove(ctx, directory, entry, inode)
    if standing is not None and victim is not None and new_key is not None:
        victim.opens += hold
        left += names.remove(ctx, new_directory, standing, victim)
        key = new_key()
    left.append(names.add(ctx, new_directory, new_name, key, inode))
    bind(left + moves)
    if victim is not None:
        _drop_link(ctx, victim, now)
    _settle_moved(ctx, inode, new_directory, now)
    _touch_directory(ctx, directory, now)
    if new_directory is not directory:
        _touch_directory(ctx, new_directory, now)


def _exchange(
    ctx: Context,
    directory: Inode,
    entry: Entry,
    inode: Inode,
    new_directory: Inode,
    standing: Entry,
    victim: Inode,
    moves: list[EntryRecord],
) -> None:
    now = ctx.clock()
    new_key = names.keys_for(ctx, new_directory, standing.name)
    key = names.keys_for(ctx, directory, entry.name)
    left = names.remove(ctx, directory, entry, inode)
    left += names.remove(ctx, new_directory, standing, victim)
    left.append(names.add(ctx, new_directory, standing.name, new_key(), inode))
    left.append(names.add(ctx, directory, entry.name, key(), victim))
    bind(left + moves)
    _settle_moved(ctx, inode, new_directory, now)
    _settle_moved(ctx, victim, directory, now)
    _touch_directory(ctx, directory, now)
    if new_directory is not directory:
        _touch_directory(ctx, new_directory, now)


def _settle_moved(ctx: Context, inode: Inode, parent: Inode, now: int) -> None:
    inode.data.parent_obj_id = parent.obj_id
    inode.data.ctime = now
    ctx.dirty.mark_moved(inode)
