"""Taking away for good what a PFS holds from a TID on: all of it when it is destroyed, what a mirror had only begun to
write when a slave becomes a master (`hammer_pfs.c: hammer_pfs_rollback`).

Back-end code, for works (`work.py`): no history is left, and a record that was ended since lives again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from hammerfs.fs.metadata import end_record
from hammerfs.ondisk.address import Localization, Tid
from hammerfs.ondisk.constants import (
    LOCALIZE_MASK,
    MAX_KEY,
    MAX_OBJID,
    MAX_RECTYPE,
    MAX_TID,
    MIN_KEY,
    MIN_OBJID,
    RECTYPE_INODE,
)
from hammerfs.ondisk.element import element_key, pack_key, unpack_leaf, with_delete

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

RECORDS_PER_STEP = 64


def roll_back(ctx: Context, localization: Localization, first_tid: Tid) -> Iterator[int]:
    """Bring a PFS back to what it was before `first_tid`, in steps; yields how many records each one looked at.

    Between two steps anything may happen but changes of this very PFS.
    """
    low = pack_key(localization, MIN_OBJID, 0, MIN_KEY, 1)
    high = pack_key(localization | LOCALIZE_MASK, MAX_OBJID, MAX_RECTYPE, MAX_KEY, MAX_TID)
    tid = ctx.alloc_tid()
    while batch := list(islice(ctx.tree.scan(low, high), RECORDS_PER_STEP)):
        for raw in batch:
            _undo(ctx, raw, first_tid, tid)
        low = element_key(batch[-1]) + b"\0"
        yield len(batch)


def is_empty(ctx: Context, localization: Localization) -> bool:
    """Whether no record of a PFS is left, of any time."""
    low = pack_key(localization, MIN_OBJID, 0, MIN_KEY, 1)
    high = pack_key(localization | LOCALIZE_MASK, MAX_OBJID, MAX_RECTYPE, MAX_KEY, MAX_TID)
    return next(ctx.tree.scan(low, high), None) is None


def _undo(ctx: Context, raw: bytes, first_tid: Tid, tid: Tid) -> None:
    element = unpack_leaf(raw)
    if element.create_tid >= first_tid:
        end_record(ctx, tid, raw, nohistory=True)
    elif element.delete_tid and element.delete_tid >= first_tid:
        ctx.tree.replace(element_key(raw), with_delete(raw, 0, 0), tid)
        if element.rec_type == RECTYPE_INODE:
            ctx.root.inode_count += 1
