"""The sending end of mirroring: what a PFS has that its mirror has not, as records of a stream.

A batch covers the TIDs from `begin` to `end`, both inclusive, and shows the PFS as it was at `end`: what was created
later is left out, what was deleted later is told as alive.  So the source may be busy meanwhile.  `end` is a TID up to
which no crash can take anything back; else the mirror could be ahead of its source for ever.

Elements that are older than `begin` travel without data, for the other side to tell what is gone from what is old
(`hammer_mirror.c: hammer_ioc_mirror_read`; `cmd_mirror.c: hammer_cmd_mirror_read`).  So does one whose data is nowhere:
a target that has it keeps it, one that has it not lacks it.  The original ends there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hammerfs.btree.changed import Unchanged
from hammerfs.errors import CorruptionError, UsageError
from hammerfs.fs.pfs import load_pfs
from hammerfs.fs.recorddata import read_data
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Tid, pfs_localization
from hammerfs.ondisk.element import LeafElement, first_key, last_key, unpack_leaf, with_delete
from hammerfs.ondisk.mirror import Pass, Record, Skip
from hammerfs.ondisk.pfs import PFS_DATA_SIZE, PfsData
from hammerfs.ondisk.recordplace import fault_of

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

PAUSE_EVERY = 64
"""Elements between two pauses: about 2 ms."""


def source_state(ctx: Context, pfs: int, durable: Tid) -> PfsData:
    """The record of a PFS as its batches are headed by it, patchable; UsageError when there is no such PFS.

    A master's sync TID is `durable`, the highest one that no crash takes back, a slave's is what it was mirrored up to
    (`hammer_pfs.c: hammer_ioc_get_pseudofs`).
    """
    stored = load_pfs(ctx, pfs_localization(pfs))
    if stored is None and pfs:
        raise UsageError(f"there is no PFS {pfs} in this file system")
    state = PfsData(bytearray(PFS_DATA_SIZE if stored is None else stored.copy()))
    if stored is None:
        state.shared_uuid = state.unique_uuid = ctx.volumes.fsid
    if not state.is_slave:
        state.sync_end_tid = durable
    return state


@dataclass(frozen=True, slots=True)
class Lost(Pass):
    """What goes in the place of a record whose data is nowhere, and why it does."""

    why: str


def changes(ctx: Context, pfs: int, begin: Tid, end: Tid) -> Iterator[Record | Pass | Skip | None]:
    """The records of a batch in key order; None where others may run.

    Raises CorruptionError when the tree cannot be read, DeviceError when the device cannot; data that cannot be
    verified is sent on as damaged.
    """
    localization = pfs_localization(pfs)
    scan = ctx.tree.scan_changed(first_key(localization), last_key(localization), begin)
    for count, found in enumerate(scan, 1):
        if isinstance(found, Unchanged):
            yield Skip(found.low, found.high)
        else:
            record = _told(ctx, found, begin, end)
            if record is not None:
                yield record
        if count % PAUSE_EVERY == 0:
            yield None


def has_gone_on(ctx: Context, pfs: int, since: Tid) -> bool:
    """Whether a PFS may have something to tell of what came after `since`.

    What went without history counts, too, and that leaves its trace in a leaf as a whole: so one that two PFSs share
    says it of both.  Nodes where nothing happened are not read, so this takes no time worth a pause.
    """
    localization = pfs_localization(pfs)
    if ctx.tree.newest_tid <= since:
        return False
    scan = ctx.tree.scan_changed(first_key(localization), last_key(localization), since + 1, first=False)
    return any(not isinstance(found, Unchanged) for found in scan)


def _told(ctx: Context, raw: bytes, begin: Tid, end: Tid) -> Record | Pass | None:
    """What a batch says of an element, None when it is too young for it."""
    leaf = unpack_leaf(raw)
    if leaf.create_tid > end:
        return None
    if leaf.delete_tid > end:
        raw = with_delete(raw, 0, 0)
    if leaf.create_tid < begin:
        return Pass(raw)
    try:
        data = _data(ctx, leaf)
    except CorruptionError as error:
        return Lost(raw, error.what)
    return Record(raw, data, damaged=not crc.record_matches(ctx.version, leaf.data_crc, leaf.rec_type, data))


def _data(ctx: Context, leaf: LeafElement) -> bytes:
    """The data of a record; CorruptionError when no sound writer made that, which no target would take."""
    fault = fault_of(leaf)
    if fault is not None:
        raise CorruptionError(fault)
    return read_data(ctx, leaf)
