"""Space gained by itself when it runs out: what no snapshot shows goes, then snapshots do, oldest first.

What hammer(8)'s cleanup may do by night this does when it must, and within the same limits.  A PFS whose configuration
has no `prune` that is ever due keeps its history and its snapshots.  The newest snapshot of a PFS stays, as everything
since then would go with it; so do those younger than the PFS's prune-min, whose removal would bring nothing.  Slaves
are left alone: their history is their master's matter.

Softlinks to snapshots lie anywhere and are not looked for, so only the format's own records count, since version 3.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hammerfs.errors import NoSpaceError, UsageError
from hammerfs.fs import rootrecords
from hammerfs.fs.context import Context
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Want, Work
from hammerfs.ondisk.address import Tid, pfs_localization, to_zone
from hammerfs.ondisk.constants import RECORD_ZONES, VERSION_SNAPSHOT_RECORDS
from hammerfs.ondisk.pfs import PfsData, SnapshotData
from hammerfs.ops.cleanup_config import default_config, parse_config
from hammerfs.ops.escaping import on_one_line
from hammerfs.ops.prune import prune
from hammerfs.ops.reblock import Parts, free_level_of, range_of, reblock
from hammerfs.ops.retention import BetweenSnapshots, Moment, demanded_tids

log = logging.getLogger(__name__)

_FILL_PERCENTAGES = (20, 50, 90)
"""Emptiest big-blocks first: they give the most for what is moved."""
_BIGBLOCKS_PER_STRETCH = 500


@dataclass
class Relief:
    """What was done to gain space.

    enough -- as much can be written as was wanted; removed -- snapshots; records -- pruned ones
    """

    enough: bool = False
    removed: int = 0
    records: int = 0


class _Candidate(NamedTuple):
    """A snapshot that may go."""

    tid: Tid
    pfs: int
    label: bytes


def relieve(fs: FileSystem, wanted: int) -> Work[Relief]:
    """Gain space until `wanted` bytes can be written, or nothing is left that may be given up."""
    relief = Relief()
    yield Want.DURABLE
    for pfs in _prunable(fs.ctx):
        yield from _prune(fs, pfs, relief)
    yield from _gather(fs, wanted)
    while not _is_enough(fs, wanted):
        candidate = min(_candidates(fs.ctx), default=None)
        if candidate is None:
            return relief
        if rootrecords.remove_snapshot(fs.ctx, pfs_localization(candidate.pfs), candidate.tid):
            relief.removed += 1
            log.warning(
                "space runs out: snapshot %#018x %s of PFS %d, the oldest, was removed",
                candidate.tid,
                on_one_line(os.fsdecode(candidate.label)),
                candidate.pfs,
            )
        yield Want.DURABLE
        yield from _prune(fs, candidate.pfs, relief)
        yield from _gather(fs, wanted)
    relief.enough = True
    return relief


def _is_enough(fs: FileSystem, wanted: int) -> bool:
    return fs.ctx.space.available >= wanted


# --- what may go --------------------------------------------------------------------------------
def _prunable(ctx: Context) -> dict[int, PfsData]:
    """PFSs that are masters, have snapshots, and whose configuration lets them be pruned."""
    if ctx.version < VERSION_SNAPSHOT_RECORDS:
        return {}
    return {
        pfs: record
        for pfs, record in rootrecords.pfs_records(ctx)
        if not record.is_deleted
        and not record.is_slave
        and pfs not in ctx.rewritten_pfs
        and _may_be_pruned(ctx, pfs)
        and rootrecords.snapshots(ctx, pfs_localization(pfs))
    }


def _may_be_pruned(ctx: Context, pfs: int) -> bool:
    """Whether `prune` is ever due, as `hammer cleanup` reads the configuration; what cannot be read forbids it."""
    text = rootrecords.configuration(ctx, pfs_localization(pfs))
    try:
        lines = list(parse_config(default_config("") if text is None else os.fsdecode(text)))
    except UsageError:
        return False
    return any(line.word == "prune" and line.period for line in lines)


def _candidates(ctx: Context) -> Iterator[_Candidate]:
    now = ctx.clock() // 1_000_000
    for pfs, record in _prunable(ctx).items():
        snapshots = rootrecords.snapshots(ctx, pfs_localization(pfs))
        counting = set(demanded_tids(map(_moment, snapshots), max(0, record.prune_min), now))
        for snapshot in snapshots[:-1]:
            if snapshot.tid in counting:
                yield _Candidate(snapshot.tid, pfs, snapshot.label.split(b"\0", 1)[0])


def _moment(snapshot: SnapshotData) -> Moment:
    return Moment(snapshot.tid, snapshot.ts // 1_000_000 or None)


# --- how it goes --------------------------------------------------------------------------------
def _prune(fs: FileSystem, pfs: int, relief: Relief) -> Work[None]:
    """Take away what lies between the snapshots of a PFS, as far as they count."""
    ctx = fs.ctx
    record = rootrecords.pfs_record(ctx, pfs)
    snapshots = rootrecords.snapshots(ctx, pfs_localization(pfs))
    prune_min = 0 if record is None else max(0, record.prune_min)
    tids = demanded_tids(map(_moment, snapshots), prune_min, ctx.clock() // 1_000_000)
    if tids:
        outcome = yield from prune(fs, pfs, BetweenSnapshots(tids))
        relief.records += outcome.records + outcome.entries
        yield Want.DURABLE


def _gather(fs: FileSystem, wanted: int) -> Work[None]:
    """Reblock, if that can bring enough, and no longer than it takes."""
    for percentage in _FILL_PERCENTAGES:
        if _is_enough(fs, wanted):
            return
        level = free_level_of(percentage)
        if fs.ctx.space.available + (yield from _gatherable(fs.ctx, level)) < wanted and percentage < 90:
            continue
        try:
            reach = range_of(0, Parts.EVERYTHING, all_pfs=True)
            yield from reblock(fs, reach, Parts.EVERYTHING, level, lambda: _is_enough(fs, wanted))
        except NoSpaceError:
            return
        yield Want.DURABLE


def _gatherable(ctx: Context, level: int) -> Work[int]:
    """Bytes free in big-blocks with `level` of them or more, those being appended to left out."""
    size = 0
    for count, (bigblock, zone) in enumerate(ctx.freemap.owned(), 1):
        if zone in RECORD_ZONES and not ctx.blockmap.is_append_point(to_zone(zone, bigblock)):
            free = ctx.freemap.layer2(bigblock).bytes_free
            size += free if free >= level else 0
        if count % _BIGBLOCKS_PER_STRETCH == 0:
            yield Want.PAUSE
    return size
