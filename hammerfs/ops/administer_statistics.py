"""What a mounted file system has done since it was mounted, as counters that only grow.

They are named as hammer(8) stats names them.  What a search compares its key with, `elements`, bisection does not tell:
it is counted as what halving takes at most, where the original halves down to four elements and goes on one by one.
"""

from __future__ import annotations

from hammerfs.fs.work import Work
from hammerfs.ops.operation import Call, Operation, Result


def _statistics(call: Call) -> Work[Result]:
    yield from ()
    fs, ctx = call.fs, call.fs.ctx
    tree = ctx.tree.statistics()
    flusher, undo = fs.flusher, ctx.undo
    return {
        "btree": {
            "lookups": tree.lookups,
            "searches": tree.searches,
            "inserts": tree.inserts,
            "deletes": tree.deletes,
            "elements": tree.compared,
            "splits": tree.splits,
            "iterations": tree.visits + tree.scanned,
            "rootiters": tree.descents,
            "reciters": 0 if flusher is None else flusher.statistics_records,
        },
        "io": {
            "requests": fs.requests_served(),
            "file_read": fs.bytes_read,
            "file_write": fs.bytes_written,
            "disk_read": ctx.volumes.bytes_read,
            "disk_write": ctx.volumes.bytes_written,
            "inode_flushes": 0 if flusher is None else flusher.statistics_inodes,
            "commits": ctx.blockmap.cycle - 1,
            "undo": 0 if undo is None else undo.undo_bytes,
            "redo": 0 if undo is None else undo.redo_bytes,
        },
    }


OPERATIONS = (Operation("statistics", _statistics),)
