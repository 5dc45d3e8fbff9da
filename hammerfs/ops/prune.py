"""`prune`, `prune-everything`: take records out of the B-tree that no demanded moment shows (`hammer_prune.c`).

Records are looked at from the last to the first, so that the cycle files of DragonFly and ours mean the same.  What
goes was deleted before, so no mirror needs to hear of it: mirror TIDs stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from hammerfs.errors import CorruptionError
from hammerfs.fs import strays
from hammerfs.fs.context import Context
from hammerfs.fs.metadata import read_record
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.recorddata import verify_owner
from hammerfs.fs.work import Done, Phase, Want, Work
from hammerfs.ondisk.address import Localization, ObjId, Tid, zone_of
from hammerfs.ondisk.constants import (
    INODE_DATA_SIZE,
    LOCALIZE_PFS_MASK,
    MAX_TID,
    NODE_SIZE,
    RECTYPE_DIRENTRY,
    RECTYPE_INODE,
    ZONE_LARGE_DATA,
    ZONE_META,
    ZONE_SMALL_DATA,
)
from hammerfs.ondisk.element import LeafElement, element_key, unpack_leaf
from hammerfs.ondisk.inode import InodeData
from hammerfs.ondisk.recordplace import fault_of
from hammerfs.ops.operation import never
from hammerfs.ops.record_range import LAST, Position, RecordRange, key_before, position_of
from hammerfs.ops.retention import Rule

_BATCH = 128
_DATA_ZONES = {ZONE_LARGE_DATA, ZONE_META, ZONE_SMALL_DATA}


@dataclass
class PruneOutcome:
    """What a run did.

    position -- where the next run goes on if this one was interrupted
    scanned -- records looked at; records, entries -- those taken away that were no directory entries, and that were
    size -- bytes that they and emptied nodes took; oldest_tid -- the lowest create_tid that was met
    damaged -- records that are not what anybody wrote, and were left with their space
    """

    position: Position = LAST
    interrupted: bool = False
    scanned: int = 0
    records: int = 0
    entries: int = 0
    size: int = 0
    oldest_tid: Tid = MAX_TID
    damaged: int = 0


def prune(
    fs: FileSystem, pfs: int, rule: Rule, interrupted: Callable[[], bool] = never, begin: Position = LAST
) -> Work[PruneOutcome]:
    """Prune one PFS, from `begin` down to its first record."""
    outcome = PruneOutcome(begin)
    reach = RecordRange(pfs, last=begin)
    low, high = reach.low, reach.high
    yield Phase("pruning")
    while high >= low:
        batch = list(islice(fs.ctx.tree.scan_reverse(low, high), _BATCH))
        if not batch:
            break
        nameless = _prune_batch(fs.ctx, batch, rule, outcome)
        for localization, obj_id in nameless:
            strays.let_go(fs.ctx, localization, obj_id)
        last = element_key(batch[-1])
        outcome.position = position_of(last)
        yield Done(len(batch))
        yield Want.PAUSE
        if interrupted():
            outcome.interrupted = True
            break
        high = key_before(last)
    fs.ctx.inodes.forget_past()
    return outcome


def _prune_batch(
    ctx: Context, batch: list[bytes], rule: Rule, outcome: PruneOutcome
) -> list[tuple[Localization, ObjId]]:
    """Look at some records; returns inodes without a name that nothing will ever delete."""
    nameless = []
    for raw in batch:
        element = unpack_leaf(raw)
        outcome.scanned += 1
        outcome.oldest_tid = min(outcome.oldest_tid, element.create_tid)
        if not element.delete_tid:
            if element.rec_type == RECTYPE_INODE and _is_nameless(ctx, element):
                nameless.append((element.localization & LOCALIZE_PFS_MASK, element.obj_id))
        elif rule.dispensable(element.create_tid, element.delete_tid):
            if _has_data(element) and fault_of(element) is not None:
                # Whoever prunes next would come by it, too: it must not keep all that lies behind it.
                outcome.damaged += 1
                continue
            outcome.size += _destroy(ctx, raw, element)
            if element.rec_type == RECTYPE_DIRENTRY:
                outcome.entries += 1
            else:
                outcome.records += 1
    return nameless


def _has_data(element: LeafElement) -> bool:
    return bool(element.data_offset) and zone_of(element.data_offset) in _DATA_ZONES


def _destroy(ctx: Context, raw: bytes, element: LeafElement) -> int:
    """Remove a record with its data; the bytes given back."""
    if _has_data(element):
        # Before anything changes: what is found wrong afterwards would leave half of it done.
        verify_owner(ctx, element)
    nodes = ctx.tree.statistics().removals
    ctx.tree.remove(element_key(raw), 0)
    ctx.inodes.record_vanished(element)
    size = (ctx.tree.statistics().removals - nodes) * NODE_SIZE
    if _has_data(element):
        ctx.blockmap.free(element.data_offset, element.data_len)
        size += element.data_len
    return size


def _is_nameless(ctx: Context, element: LeafElement) -> bool:
    """Whether an inode lives without a link; a damaged one is left to whoever looks for damage."""
    try:
        data = read_record(ctx, element)
    except CorruptionError:
        return False
    return len(data) == INODE_DATA_SIZE and not InodeData.unpack(data).nlinks
