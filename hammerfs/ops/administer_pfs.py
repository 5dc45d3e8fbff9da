"""Pseudo file systems: their state, creation, change, promotion, demotion and destruction (`hammer_pfs.c`).

A PFS that is about to change its nature must not be in use: nothing in it may be open.  From then on it is frozen,
so that what the front end knows of it and what the B-tree holds are the same while the work goes on.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hammerfs.errors import BusyError, ReadOnlyError, UsageError
from hammerfs.fs import pfsremoval
from hammerfs.fs.metadata import insert_record
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.rootrecords import pfs_record, save_pfs
from hammerfs.fs.work import Done, Phase, Want, Work
from hammerfs.ondisk.address import pfs_localization, pfs_of
from hammerfs.ondisk.constants import (
    CAP_DIR_LOCAL_INO,
    CAP_DIRHASH_ALG1,
    LABEL_SIZE,
    LOCALIZE_INODE,
    MAX_PFSID,
    MAX_TID,
    OBJID_ROOT,
    OBJTYPE_DIRECTORY,
    PFSD_DELETED,
    PFSD_SLAVE,
    RECTYPE_INODE,
    ROOT_PFSID,
    VERSION_DIRENT_INODE_LOCALIZED,
    VERSION_DIRHASH_ALG1,
)
from hammerfs.ondisk.element import base_key
from hammerfs.ondisk.inode import InodeData, id_to_uuid
from hammerfs.ondisk.pfs import PFS_DATA_SIZE, PfsData
from hammerfs.ops.administer_sync import durable_tid
from hammerfs.ops.operation import Call, Operation, Result
from hammerfs.ops.pfs_claim import claimed

PRUNE_MIN_MAX: Final = (1 << 31) - 1
_TIDS: Final = {"sync_beg_tid", "sync_end_tid"}
_UUIDS: Final = {"shared_uuid", "unique_uuid"}
_TEXTS: Final = {"label", "snapshots"}
_ID_MAX: Final = 0xFFFFFFFF
"""The greatest number of a user or a group."""


# --- which one ----------------------------------------------------------------------------------


def _id_of(call: Call) -> int:
    """The PFS asked for: by number, or the one that the path lies in."""
    pfs_id = call.number("pfs", pfs_of(call.place.localization))
    if not 0 <= pfs_id <= MAX_PFSID:
        raise UsageError(f"there cannot be a PFS {pfs_id}")
    return pfs_id


def _existing(fs: FileSystem, pfs_id: int) -> PfsData:
    record = pfs_record(fs.ctx, pfs_id)
    if record is None or record.is_deleted:
        raise UsageError(f"there is no PFS#{pfs_id}")
    return record


def described(fs: FileSystem, pfs_id: int, record: PfsData) -> Result:
    """A PFS's state for a client; a master is always synchronized up to what is durable."""
    return {
        "pfs": pfs_id,
        "slave": record.is_slave,
        "sync_beg_tid": record.sync_beg_tid,
        "sync_end_tid": record.sync_end_tid if record.is_slave else durable_tid(fs),
        "shared_uuid": str(record.shared_uuid),
        "unique_uuid": str(record.unique_uuid),
        "label": _text(record.label),
        "snapshots": _text(record.snapshots),
        "prune_min": record.prune_min,
        "version": fs.ctx.version,
    }


def _text(field: bytes) -> str:
    return os.fsdecode(field.split(b"\0", 1)[0])


def _get(call: Call) -> Work[Result]:
    """A PFS's state; with `to_change` only where it could be promoted, demoted or destroyed at this moment."""
    yield from ()
    pfs_id = _id_of(call)
    record = _existing(call.fs, pfs_id)
    if call.flag("to_change"):
        if call.fs.ctx.read_only:
            raise ReadOnlyError("the file system is read-only")
        _demand_unused(call.fs, pfs_id)
    return described(call.fs, pfs_id, record)


# --- creation and change ------------------------------------------------------------------------


def _create(call: Call) -> Work[Result]:
    """A new PFS with the lowest free id; a slave's root comes with the first mirror-write."""
    fs, ctx = call.fs, call.fs.ctx
    if pfs_of(call.place.localization) != ROOT_PFSID:
        raise UsageError(
            "You are attempting to access a PFS softlink from a PFS.  It may not represent the PFS on the main "
            "filesystem mount that you expect!  You may only access PFS softlinks via the main filesystem mount!"
        )
    pfs_id = next((number for number in range(1, MAX_PFSID + 1) if _is_free(fs, number)), None)
    if pfs_id is None:
        raise UsageError("all PFSs in use")
    ctx.space.check_change()
    with _frozen(fs, pfs_id):
        # What an interrupted destruction has left must not come back to life.
        yield from _remove_contents(fs, pfs_id)
        record = PfsData(bytearray(PFS_DATA_SIZE))
        record.sync_beg_tid = record.sync_end_tid = 1
        record.shared_uuid, record.unique_uuid = uuid.uuid1(), uuid.uuid1()
        ctx.inodes.read_only_pfs.discard(pfs_localization(pfs_id))
        if call.flag("slave"):
            record.mirror_flags = PFSD_SLAVE
        else:
            _make_root(fs, pfs_id, call.number("uid", 0, most=_ID_MAX), call.number("gid", 0, most=_ID_MAX))
        save_pfs(ctx, pfs_id, record)
    yield Want.DURABLE
    return described(fs, pfs_id, record)


def _is_free(fs: FileSystem, pfs_id: int) -> bool:
    record = pfs_record(fs.ctx, pfs_id)
    return record is None or record.is_deleted


def _make_root(fs: FileSystem, pfs_id: int, uid: int, gid: int) -> None:
    """A PFS's root directory (`hammer_inode.c: hammer_mkroot_pseudofs`), if it has none."""
    ctx = fs.ctx
    localization = pfs_localization(pfs_id) | LOCALIZE_INODE
    if ctx.tree.find_as_of(base_key(localization, OBJID_ROOT, RECTYPE_INODE, 0), MAX_TID) is not None:
        return
    now = ctx.clock()
    data = InodeData(mode=0o755, obj_type=OBJTYPE_DIRECTORY, ctime=now, mtime=now, atime=now, nlinks=1)
    data.uid, data.gid = id_to_uuid(uid), id_to_uuid(gid)
    if ctx.version >= VERSION_DIRENT_INODE_LOCALIZED:
        data.cap_flags |= CAP_DIR_LOCAL_INO
    if ctx.version >= VERSION_DIRHASH_ALG1:
        data.cap_flags |= CAP_DIRHASH_ALG1
    tid = ctx.alloc_tid()
    insert_record(ctx, tid, localization, OBJID_ROOT, RECTYPE_INODE, 0, OBJTYPE_DIRECTORY, data.pack())
    ctx.root.inode_count += 1


def _update(call: Call) -> Work[Result]:
    """Change fields of a PFS's record."""
    fs = call.fs
    pfs_id = _id_of(call)
    record = _existing(fs, pfs_id)
    for name in _TIDS & call.arguments.keys():
        setattr(record, name, call.tid(name))
    for name in _UUIDS & call.arguments.keys():
        setattr(record, name, _uuid(name, call.text(name)))
    for name in _TEXTS & call.arguments.keys():
        text = os.fsencode(call.text(name))
        if len(text) >= LABEL_SIZE:
            raise UsageError(f"{name} is too long, {LABEL_SIZE - 1} character limit")
        setattr(record, name, text)
    if "prune_min" in call.arguments:
        record.prune_min = min(max(call.number("prune_min"), 0), PRUNE_MIN_MAX)
    fs.ctx.space.check_change()
    save_pfs(fs.ctx, pfs_id, record)
    yield Want.DURABLE
    return described(fs, pfs_id, record)


def _uuid(name: str, text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise UsageError(f"{name}: '{text}' is no uuid") from None


# --- what it is ---------------------------------------------------------------------------------


def _demand_unused(fs: FileSystem, pfs_id: int) -> None:
    localization = pfs_localization(pfs_id)
    if fs.root.localization == localization:
        raise BusyError(f"PFS#{pfs_id} is what is mounted here")
    if any(inode.localization == localization for inode in fs.ctx.inodes.opened()):
        raise BusyError(f"PFS#{pfs_id} is in use: files in it are open")


@contextmanager
def _frozen(fs: FileSystem, pfs_id: int) -> Iterator[None]:
    """Nothing of the PFS changes within the block, and afterwards nobody remembers anything of it."""
    _demand_unused(fs, pfs_id)
    inodes = fs.ctx.inodes
    localization = pfs_localization(pfs_id)
    with claimed(fs, pfs_id):
        inodes.freeze(localization)
        try:
            yield
        finally:
            inodes.thaw(localization)


def _upgrade(call: Call) -> Work[Result]:
    """A slave becomes a master, as it was at its last synchronization."""
    fs = call.fs
    pfs_id = _id_of(call)
    record = _existing(fs, pfs_id)
    if pfs_id == ROOT_PFSID:
        raise UsageError("You cannot upgrade PFS#0 (It should already be a master)")
    if not record.is_slave:
        raise UsageError("It is already a master")
    with _frozen(fs, pfs_id):
        yield Want.DURABLE
        yield Phase("rolling back")
        for count in pfsremoval.roll_back(fs.ctx, pfs_localization(pfs_id), record.sync_end_tid + 1):
            yield Done(count)
            yield Want.PAUSE
        record = _existing(fs, pfs_id)
        record.mirror_flags &= ~PFSD_SLAVE
        _make_root(fs, pfs_id, 0, 0)
        save_pfs(fs.ctx, pfs_id, record)
        fs.ctx.inodes.read_only_pfs.discard(pfs_localization(pfs_id))
        yield Want.DURABLE
    return described(fs, pfs_id, record)


def _downgrade(call: Call) -> Work[Result]:
    """A master becomes a slave, synchronized up to now."""
    fs = call.fs
    pfs_id = _id_of(call)
    record = _existing(fs, pfs_id)
    if pfs_id == ROOT_PFSID:
        raise UsageError("You cannot downgrade PFS#0")
    if record.is_slave:
        raise UsageError("It is already a slave")
    with _frozen(fs, pfs_id):
        yield Want.DURABLE
        record = _existing(fs, pfs_id)
        record.mirror_flags |= PFSD_SLAVE
        record.sync_end_tid = max(record.sync_end_tid, durable_tid(fs))
        save_pfs(fs.ctx, pfs_id, record)
        fs.ctx.inodes.read_only_pfs.add(pfs_localization(pfs_id))
        yield Want.DURABLE
    return described(fs, pfs_id, record)


def _destroy(call: Call) -> Work[Result]:
    """Everything that a PFS holds goes, and its id is free again.

    The record says so before anything is removed: what an interruption leaves belongs to nobody.
    """
    fs = call.fs
    pfs_id = _id_of(call)
    record = _existing(fs, pfs_id)
    if pfs_id == ROOT_PFSID:
        raise UsageError("You cannot destroy PFS#0")
    with _frozen(fs, pfs_id):
        yield Want.DURABLE
        record = _existing(fs, pfs_id)
        record.mirror_flags |= PFSD_DELETED
        save_pfs(fs.ctx, pfs_id, record)
        yield Want.DURABLE
        yield from _remove_contents(fs, pfs_id)
        yield Want.DURABLE
    return described(fs, pfs_id, record)


def _remove_contents(fs: FileSystem, pfs_id: int) -> Work[None]:
    if pfsremoval.is_empty(fs.ctx, pfs_localization(pfs_id)):
        return
    yield Phase("destroying")
    for count in pfsremoval.roll_back(fs.ctx, pfs_localization(pfs_id), 0):
        yield Done(count)
        yield Want.PAUSE


OPERATIONS = (
    Operation("pfs-get", _get),
    Operation("pfs-create", _create, changes=True, alters_views=True),
    Operation("pfs-update", _update, changes=True, alters_views=True),
    Operation("pfs-upgrade", _upgrade, changes=True, alters_views=True),
    Operation("pfs-downgrade", _downgrade, changes=True, alters_views=True),
    Operation("pfs-destroy", _destroy, changes=True, alters_views=True),
)
