"""Phase 6: link counts, orphans and directories that the root cannot be reached from, per PFS.

An inode without links and without entries waits for its deletion: a file that was open when the machine crashed.  That
is a note, since the next mount removes it (`hammer_inode.c: hammer_inode_unloadable_check`).
"""

from __future__ import annotations

from hammerfs.ondisk.address import pfs_localization
from hammerfs.ondisk.constants import OBJID_ROOT, OBJTYPE_DIRECTORY
from hammerfs.ops.check_inodes import NO_INODE, InodeTable
from hammerfs.ops.check_report import Owner, Report

LINKS = "link count"
ORPHAN = "orphan"


def check_links(pfs_id: int, table: InodeTable, report: Report) -> None:
    """All live inodes of one PFS."""
    for at, live in enumerate(table.live):
        if live:
            report.count("inodes")
            _check_inode(pfs_id, table, at, report)
    _check_reachable(pfs_id, table, report)


def _place(pfs_id: int, obj_id: int) -> str:
    return f"lo={pfs_localization(pfs_id):08x} objid={obj_id & ((1 << 64) - 1):016x}"


def _check_inode(pfs_id: int, table: InodeTable, at: int, report: Report) -> None:
    nlinks, entries = table.nlinks[at], table.entries[at]
    obj_id = table.obj_id[at]
    directory = table.obj_type[at] == OBJTYPE_DIRECTORY
    place, owner = _place(pfs_id, obj_id), Owner(pfs_id, obj_id)
    if obj_id == OBJID_ROOT:
        if entries or not directory or nlinks != 1:
            report.problem(
                LINKS,
                place,
                f"the root is of type {table.obj_type[at]}, {nlinks} links, {entries} entries",
                owner,
            )
        return
    if not entries and not nlinks:
        report.note(ORPHAN, place, "without links or entries: it waits for its deletion", owner)
    elif not entries:
        report.problem(ORPHAN, place, f"no directory entry leads to it, nlinks is {nlinks}", owner)
    elif directory and (nlinks != 1 or entries != 1):
        report.problem(LINKS, place, f"a directory with nlinks {nlinks} and {entries} entries", owner)
    elif nlinks != entries:
        report.problem(LINKS, place, f"nlinks is {nlinks}, {entries} entries lead to it", owner)


def _check_reachable(pfs_id: int, table: InodeTable, report: Report) -> None:
    """Follow each directory to the root; one that comes back to itself is cut off with all that is below."""
    unknown, good, bad = 0, 1, 2
    state = bytearray(len(table.obj_id))
    root = table.find_live(OBJID_ROOT)
    for start, obj_type in enumerate(table.obj_type):
        if obj_type != OBJTYPE_DIRECTORY or not table.live[start] or not table.entries[start]:
            continue
        path: list[int] = []
        at = start
        on_path: set[int] = set()
        while at not in (root, NO_INODE) and state[at] == unknown and at not in on_path:
            path.append(at)
            on_path.add(at)
            at = table.find_live(table.holder[at]) if table.entries[at] else NO_INODE
        looped = at in on_path or (at >= 0 and at != root and state[at] == bad)
        if at in on_path:
            report.problem(
                ORPHAN,
                _place(pfs_id, table.obj_id[at]),
                "a directory that is its own ancestor, not reached from the root",
                Owner(pfs_id, table.obj_id[at]),
            )
        for step in path:
            state[step] = bad if looped else good
