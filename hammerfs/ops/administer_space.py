"""What gives space back, as operations: prune, reblock, rebalance, dedup.

Each takes `begin`, where an earlier run stopped, as two numbers (kind of record, object id), or none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from hammerfs.errors import UsageError
from hammerfs.fs import rootrecords
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Want, Work
from hammerfs.ondisk.address import Tid, pfs_of, to_zone
from hammerfs.ondisk.constants import LOCALIZE_MASK, MAX_OBJID, MAX_TID, MIN_OBJID, RECORD_ZONES
from hammerfs.ops.dedup import dedup
from hammerfs.ops.operation import Call, Operation, Result
from hammerfs.ops.prune import prune
from hammerfs.ops.rebalance import rebalance, saturation_of
from hammerfs.ops.reblock import Parts, free_level_of, range_of, reblock
from hammerfs.ops.record_range import FIRST, LAST, Position, RecordRange
from hammerfs.ops.retention import BetweenSnapshots, Everything, Moment, Rule, demanded_tids

_BIGBLOCKS_PER_STRETCH = 500
_PARTS = {"btree": Parts.BTREE, "inodes": Parts.INODES, "dirs": Parts.DIRS, "data": Parts.DATA}


def _begin(call: Call, default: Position) -> Position:
    numbers = call.numbers("begin")
    if not numbers:
        return default
    if len(numbers) != 2:
        raise UsageError("argument 'begin' has to be a kind of record and an object id")
    begin = Position(*numbers)
    if not (0 <= begin.localization <= LOCALIZE_MASK and MIN_OBJID <= begin.obj_id <= MAX_OBJID):
        raise UsageError(f"no record lies at {begin.localization:#x}, {begin.obj_id:#x}, where work was to begin")
    return begin


def _report(call: Call, outcome: Any) -> Result:
    result = asdict(outcome)
    result["position"] = list(outcome.position)
    return {"pfs": pfs_of(call.place.localization), **result}


# --- pruning ------------------------------------------------------------------------------------
def _moments(call: Call) -> Iterator[Moment]:
    """Snapshots on record, and those of softlinks that the client has found: pairs of a TID and seconds."""
    for tid, seconds in call.pairs("links"):
        yield Moment(tid, seconds or None)
    for snapshot in rootrecords.snapshots(call.fs.ctx, call.place.localization):
        yield Moment(snapshot.tid, snapshot.ts // 1_000_000 or None)


def _prune_min(call: Call) -> int:
    record = rootrecords.pfs_record(call.fs.ctx, pfs_of(call.place.localization))
    return 0 if record is None else max(0, record.prune_min)


def _demanded(call: Call) -> tuple[list[Tid], int]:
    """The TIDs that pruning has to respect, and how many snapshots there are."""
    moments = list(_moments(call))
    tids = demanded_tids(moments, _prune_min(call), call.fs.ctx.clock() // 1_000_000)
    return tids, len({moment.tid for moment in moments})


def _plan(call: Call) -> Work[Result]:
    """What `prune` would respect."""
    yield from ()
    tids, count = _demanded(call)
    pfs = pfs_of(call.place.localization)
    record = rootrecords.pfs_record(call.fs.ctx, pfs)
    folder = b"" if record is None else record.snapshots.split(b"\0", 1)[0]
    return {
        "pfs": pfs,
        "prune_min": _prune_min(call),
        "tids": tids,
        "snapshots": count,
        "folder": os.fsdecode(folder),
    }


def _prune(call: Call) -> Work[Result]:
    fs, pfs = call.fs, pfs_of(call.place.localization)
    rule: Rule
    if call.flag("everything"):
        yield from _forget_snapshots(call)
        rule = Everything(_shown_until(fs, pfs))
    else:
        tids, _ = _demanded(call)
        if not tids:
            raise UsageError("No snapshots found")
        rule = BetweenSnapshots(tids)
    yield Want.DURABLE
    outcome = yield from prune(fs, pfs, rule, call.interrupted, _begin(call, LAST))
    yield Want.DURABLE
    return _report(call, outcome)


def _forget_snapshots(call: Call) -> Iterator[Want]:
    for snapshot in rootrecords.snapshots(call.fs.ctx, call.place.localization):
        rootrecords.remove_snapshot(call.fs.ctx, call.place.localization, snapshot.tid)
        yield Want.PAUSE


def _shown_until(fs: FileSystem, pfs: int) -> Tid:
    """A slave is shown as of its sync TID, and may hold what came later of a batch that is not complete."""
    record = rootrecords.pfs_record(fs.ctx, pfs)
    return record.sync_end_tid if record is not None and record.is_slave else MAX_TID


# --- what there is to gain ------------------------------------------------------------------------
def _reclaimable(call: Call) -> Work[Result]:
    """Bytes that are free in big-blocks that hold something else, the ones being appended to left out."""
    ctx, size = call.fs.ctx, 0
    for count, (bigblock, zone) in enumerate(ctx.freemap.owned(), 1):
        if zone in RECORD_ZONES and not ctx.blockmap.is_append_point(to_zone(zone, bigblock)):
            size += max(0, ctx.freemap.layer2(bigblock).bytes_free)
        if count % _BIGBLOCKS_PER_STRETCH == 0:
            yield Want.PAUSE
    return {"reclaimable": size}


# --- moving and filling -------------------------------------------------------------------------
def _reblock(call: Call) -> Work[Result]:
    """`parts` names what is moved, `percentage` how full a big-block may be for that, `all_pfs` takes all of them."""
    words = call.text("parts").split(",")
    if not words or any(word not in _PARTS for word in words):
        raise UsageError(f"argument 'parts' names some of {', '.join(_PARTS)}")
    parts = Parts(0)
    for word in words:
        parts |= _PARTS[word]
    level = free_level_of(_percentage(call, 100, 0))
    reach = range_of(pfs_of(call.place.localization), parts, _begin(call, FIRST), call.flag("all_pfs"))
    yield Want.DURABLE
    outcome = yield from reblock(call.fs, reach, parts, level, call.interrupted)
    yield Want.DURABLE
    return {"free_level": level, **_report(call, outcome)}


def _rebalance(call: Call) -> Work[Result]:
    saturation = saturation_of(_percentage(call, 85, 50))
    reach = RecordRange(pfs_of(call.place.localization), _begin(call, FIRST), all_pfs=call.flag("all_pfs"))
    outcome = yield from rebalance(call.fs, reach, saturation, call.interrupted)
    yield Want.DURABLE
    return _report(call, outcome)


def _dedup(call: Call) -> Work[Result]:
    """`memory` bounds the index, `crc_begin` is where an earlier run stopped."""
    return _deduplicated(call, simulate=False)


def _dedup_simulate(call: Call) -> Work[Result]:
    """What `dedup` would gain, if equal CRCs mean equal data."""
    return _deduplicated(call, simulate=True)


def _deduplicated(call: Call, *, simulate: bool) -> Work[Result]:
    pfs, memory, begin = pfs_of(call.place.localization), call.number("memory", 1 << 30), call.number("crc_begin", 0)
    yield Want.DURABLE
    outcome = yield from dedup(call.fs, pfs, memory, call.interrupted, simulate=simulate, crc_begin=begin)
    yield Want.DURABLE
    return {"pfs": pfs, "ratio": outcome.ratio, **asdict(outcome)}


def _percentage(call: Call, default: int, least: int) -> int:
    percentage = call.number("percentage", default)
    if not least <= percentage <= 100:
        raise UsageError(f"a percentage has to be between {least} and 100")
    return percentage


OPERATIONS = (
    Operation("reclaimable", _reclaimable),
    Operation("prune-plan", _plan),
    Operation("prune", _prune, changes=True, alters_views=True),
    Operation("reblock", _reblock, changes=True),
    Operation("rebalance", _rebalance, changes=True),
    Operation("dedup", _dedup, changes=True),
    Operation("dedup-simulate", _dedup_simulate),
)
