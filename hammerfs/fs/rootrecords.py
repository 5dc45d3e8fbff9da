"""Records that hang on root inodes and are managed by hand: PFSs, snapshots, the cleanup configuration.

PFS records hang on the root inode of PFS 0, keyed by the PFS's localization.  Snapshots (keyed by their TID) and the
configuration (key 0) hang on the root inode of their own PFS, since version 3, and leave no history when they are
replaced or removed.  Sources: `hammer_ioctl.c: hammer_ioc_add_snapshot, hammer_ioc_del_snapshot,
hammer_ioc_get_snapshot, hammer_ioc_set_config`, `hammer_inode.c: hammer_save_pseudofs`.

What changes records here is back-end code, for works (`work.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hammerfs.fs.metadata import end_record, insert_record, read_record
from hammerfs.ondisk.address import Localization, Tid, pfs_localization, pfs_of
from hammerfs.ondisk.constants import (
    LOCALIZE_INODE,
    LOCALIZE_MISC,
    MAX_KEY,
    MAX_PFSID,
    MAX_TID,
    MIN_KEY,
    OBJID_ROOT,
    OBJTYPE_DIRECTORY,
    RECTYPE_CONFIG,
    RECTYPE_PFS,
    RECTYPE_SNAPSHOT,
)
from hammerfs.ondisk.element import base_key, pack_key, unpack_leaf
from hammerfs.ondisk.pfs import CONFIG_DATA_SIZE, PFS_DATA_SIZE, SNAPSHOT_DATA_SIZE, PfsData, SnapshotData

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

_NO_TYPE = 0
"""Snapshot and configuration records carry no object type."""


# --- PFSs ---------------------------------------------------------------------------------------


def pfs_records(ctx: Context) -> Iterator[tuple[int, PfsData]]:
    """All PFSs with their records, in the order of their ids; destroyed ones are among them."""
    low = pack_key(LOCALIZE_MISC, OBJID_ROOT, RECTYPE_PFS, 0, 1)
    high = pack_key(LOCALIZE_MISC, OBJID_ROOT, RECTYPE_PFS, pfs_localization(MAX_PFSID), MAX_TID)
    for raw in ctx.tree.scan_as_of(low, high, MAX_TID):
        element = unpack_leaf(raw)
        data = read_record(ctx, element)[:PFS_DATA_SIZE]
        yield pfs_of(element.key), PfsData(bytearray(data.ljust(PFS_DATA_SIZE, b"\0")))


def pfs_record(ctx: Context, pfs_id: int) -> PfsData | None:
    """One PFS's record, for changing; None when there never was one."""
    key = base_key(LOCALIZE_MISC, OBJID_ROOT, RECTYPE_PFS, pfs_localization(pfs_id))
    raw = ctx.tree.find_as_of(key, MAX_TID)
    if raw is None:
        return None
    data = read_record(ctx, unpack_leaf(raw))[:PFS_DATA_SIZE]
    return PfsData(bytearray(data.ljust(PFS_DATA_SIZE, b"\0")))


def save_pfs(ctx: Context, pfs_id: int, data: PfsData) -> None:
    """Replace a PFS's record; the one before becomes history."""
    key = pfs_localization(pfs_id)
    tid = ctx.alloc_tid()
    raw = ctx.tree.find_as_of(base_key(LOCALIZE_MISC, OBJID_ROOT, RECTYPE_PFS, key), MAX_TID)
    if raw is not None:
        end_record(ctx, tid, raw, nohistory=ctx.options.nohistory)
    insert_record(ctx, tid, LOCALIZE_MISC, OBJID_ROOT, RECTYPE_PFS, key, OBJTYPE_DIRECTORY, data.copy())


# --- snapshots ----------------------------------------------------------------------------------


def snapshots(ctx: Context, localization: Localization) -> list[SnapshotData]:
    """A PFS's snapshots, oldest first.  Their keys tell the TIDs, since some of the original's have another inside."""
    space = localization | LOCALIZE_INODE
    low = pack_key(space, OBJID_ROOT, RECTYPE_SNAPSHOT, MIN_KEY, 1)
    high = pack_key(space, OBJID_ROOT, RECTYPE_SNAPSHOT, MAX_KEY, MAX_TID)
    found = []
    for raw in ctx.tree.scan_as_of(low, high, MAX_TID):
        element = unpack_leaf(raw)
        snapshot = SnapshotData(
            bytearray(read_record(ctx, element)[:SNAPSHOT_DATA_SIZE].ljust(SNAPSHOT_DATA_SIZE, b"\0"))
        )
        snapshot.tid = element.key & MAX_TID
        found.append(snapshot)
    return sorted(found, key=lambda snapshot: snapshot.tid)


def add_snapshot(ctx: Context, localization: Localization, tid: Tid, time_us: int, label: bytes) -> bool:
    """Record a snapshot; False when there is one of that TID already, which stays as it is."""
    if _find(ctx, localization, RECTYPE_SNAPSHOT, _signed(tid)) is not None:
        return False
    data = SnapshotData(bytearray(SNAPSHOT_DATA_SIZE))
    data.tid, data.ts, data.label = tid, time_us, label
    _insert(ctx, localization, RECTYPE_SNAPSHOT, _signed(tid), data.copy())
    return True


def remove_snapshot(ctx: Context, localization: Localization, tid: Tid) -> bool:
    """Remove a snapshot's record; False when there is none of that TID."""
    return _destroy(ctx, localization, RECTYPE_SNAPSHOT, _signed(tid))


# --- configuration ------------------------------------------------------------------------------


def configuration(ctx: Context, localization: Localization) -> bytes | None:
    """The text of a PFS's cleanup configuration, None when it has none."""
    raw = _find(ctx, localization, RECTYPE_CONFIG, 0)
    return None if raw is None else read_record(ctx, unpack_leaf(raw)).split(b"\0", 1)[0]


def configure(ctx: Context, localization: Localization, text: bytes) -> None:
    """Replace a PFS's cleanup configuration; a NUL has to fit behind `text`."""
    assert len(text) < CONFIG_DATA_SIZE
    _destroy(ctx, localization, RECTYPE_CONFIG, 0)
    _insert(ctx, localization, RECTYPE_CONFIG, 0, text.ljust(CONFIG_DATA_SIZE, b"\0"))


# --- both ---------------------------------------------------------------------------------------


def _signed(tid: Tid) -> int:
    """A TID as the signed key that it is filed under."""
    return tid - (1 << 64) if tid >> 63 else tid


def _find(ctx: Context, localization: Localization, rec_type: int, key: int) -> bytes | None:
    return ctx.tree.find_as_of(base_key(localization | LOCALIZE_INODE, OBJID_ROOT, rec_type, key), MAX_TID)


def _insert(ctx: Context, localization: Localization, rec_type: int, key: int, data: bytes) -> None:
    tid = ctx.alloc_tid()
    insert_record(ctx, tid, localization | LOCALIZE_INODE, OBJID_ROOT, rec_type, key, _NO_TYPE, data)


def _destroy(ctx: Context, localization: Localization, rec_type: int, key: int) -> bool:
    raw = _find(ctx, localization, rec_type, key)
    if raw is None:
        return False
    end_record(ctx, ctx.alloc_tid(), raw, nohistory=True)
    return True
