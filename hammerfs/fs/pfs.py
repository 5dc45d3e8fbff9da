"""Pseudo file systems: their records, and the `@@` names that lead to them and into the past.

A PFS has an inode space of its own, told apart by the upper half of the localization.  Its record hangs on the root
inode of PFS 0.  A slave is read-only and shown as of its sync TID.  Sources: `hammer_inode.c: hammer_load_pseudofs`,
`hammer_subs.c: hammer_str_to_tid`, `hammer_vnops.c: hammer_vop_nresolve, hammer_vop_readlink`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hammerfs.fs.metadata import read_record
from hammerfs.ondisk.address import Localization, Tid, pfs_localization
from hammerfs.ondisk.constants import LOCALIZE_MISC, MAX_TID, OBJID_ROOT, RECTYPE_PFS
from hammerfs.ondisk.element import base_key, unpack_leaf
from hammerfs.ondisk.pfs import PFS_DATA_SIZE, PfsData

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

_AT_NAME = re.compile(rb"(?s)(.*?)@@(-1|0[xX][0-9a-fA-F]{16})(?::(\d{5}))?\Z")
_PFS_LINK = re.compile(rb"@@PFS(\d{5})\Z")
_PFS_TARGET = re.compile(rb"@@(?:PFS|(?:-1|0[xX][0-9a-fA-F]{16}):)(\d{5})\Z")


class AtName(NamedTuple):
    """A name with a moment: `base@@0x<tid>`, and the PFS that `:<id>` names, if any."""

    base: bytes
    tid: Tid
    pfs: int | None


def parse_at_name(name: bytes) -> AtName | None:
    """The parts of an `@@` name, None when it is an ordinary one."""
    match = _AT_NAME.match(name)
    if match is None:
        return None
    base, tid, pfs = match.groups()
    return AtName(base, MAX_TID if tid == b"-1" else int(tid, 16), None if pfs is None else int(pfs))


def load_pfs(ctx: Context, localization: Localization) -> PfsData | None:
    """A PFS's record as it is now, None when there is none or the PFS was destroyed."""
    raw = ctx.tree.find_as_of(base_key(LOCALIZE_MISC, OBJID_ROOT, RECTYPE_PFS, localization), MAX_TID)
    if raw is None:
        return None
    data = PfsData(read_record(ctx, unpack_leaf(raw)).ljust(PFS_DATA_SIZE, b"\0"))
    return None if data.is_deleted else data


def view_of(ctx: Context, localization: Localization, as_of: Tid) -> Tid:
    """The moment at which a PFS is shown when `as_of` is asked for: a slave is never shown beyond its sync TID."""
    data = load_pfs(ctx, localization)
    if data is None or not data.is_slave:
        return as_of
    return min(as_of, data.sync_end_tid)


def link_target(target: bytes) -> int | None:
    """The PFS that a symlink leads to, as it is on disk or as it reads; None when it leads elsewhere."""
    match = _PFS_TARGET.match(target)
    return None if match is None else int(match.group(1))


def expand_link(ctx: Context, target: bytes) -> bytes:
    """What readlink shows of a symlink: `@@PFS00001` on disk reads as a path into the PFS."""
    match = _PFS_LINK.match(target)
    if match is None:
        return target
    pfs = int(match.group(1))
    data = load_pfs(ctx, pfs_localization(pfs))
    if data is not None and data.is_slave:
        return b"@@0x%016x:%05d" % (data.sync_end_tid, pfs)
    return b"@@-1:%05d" % pfs
