"""`hammer -f blkdevs mirror-copy`: from one PFS to another one of a file system that nobody has mounted.

Two processes cannot have the volumes open, and one needs no stream: batches go as records from one part of the B-tree
to the other (`ops/administer_mirror.py`).
"""

from __future__ import annotations

import sys
from time import monotonic

from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.mirror_end import MirrorEnd, create_slave, end_at, is_missing, reaching_end
from hammerfs.cli.mirror_progress import MirrorProgress
from hammerfs.cli.reach import watching, working


def copy_within(options: HammerOptions, source: str, target: str) -> int:
    """Bring the slave `target` to where `source` is; 0, also when -t ended it before."""
    if is_missing(options, target):
        with reaching_end(options, source) as end:
            shared = end.state().shared_uuid
        create_slave(options, target, shared)
    with (
        working(options, writable=True) as desk,
        end_at(desk, options, source) as from_end,
        end_at(desk, options, target) as to_end,
    ):
        _batches(options, from_end, to_end)
    print(f"Mirror-read {source} succeeded", file=sys.stderr)
    return 0


def _batches(options: HammerOptions, source: MirrorEnd, target: MirrorEnd) -> None:
    state = source.state(sync=True)
    begin = max(target.demand_slave_of(state).sync_end_tid + 1, state.sync_beg_tid)
    end = state.sync_end_tid
    progress = MirrorProgress(options)
    if begin > end:
        print("Mirror-read: No work to do", file=sys.stderr)
        return
    batches = [{"end": end, "bytes": 0}]
    if not options.bulk:
        arguments = {"begin": begin, "end": end, "bytes": max(1, options.splitup_bytes)}
        told = source.call("mirror-split", arguments, progress.prescan())
        batches = told["batches"]
        progress.cut(batches, told["bytes"])
    number = source.call("mirror-state", {})["pfs"]
    deadline = monotonic() + options.timeout if options.timeout else None
    with watching(options) as hearing:
        hearing.on_item = progress.item
        for batch in batches:
            seconds = 0 if deadline is None else max(1, round(deadline - monotonic()))
            arguments = {"source": number, "begin": begin, "end": batch["end"]}
            told = target.call("mirror-within", arguments, hearing, seconds)
            if told["damaged"]:
                print(f"Mirror-write {target.path}: {told['damaged']} records are damaged", file=sys.stderr)
            if not told["complete"]:
                progress.interrupted(source.path)
                return
            begin = batch["end"] + 1
