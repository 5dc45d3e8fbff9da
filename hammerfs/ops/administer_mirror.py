"""Mirroring, as far as it happens in a file system: the record that heads a stream, batches out, batches in.

The programs at both ends of a stream talk to each other; what they ask of a file system is what hammer(8) asks of the
kernel (`hammer_ioctl.h`: HAMMERIOC_GET_PSEUDOFS, MIRROR_READ, MIRROR_WRITE, SET_PSEUDOFS).

A PFS is meant by its number, by a name in the directory that the request is about, or by the place itself.  A name
serves for slaves that have no root directory yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from hammerfs.btree.changed import Unchanged
from hammerfs.errors import NoSpaceError, StreamError, UsageError
from hammerfs.fs.mirrorread import PAUSE_EVERY, Lost, changes, has_gone_on, source_state
from hammerfs.fs.mirrorwrite import BatchWriter, set_sync_tid, slave_record
from hammerfs.fs.pfs import link_target
from hammerfs.fs.work import Data, Done, Emit, Phase, Receive, Want, Work
from hammerfs.ondisk.address import Tid, pfs_localization, pfs_of
from hammerfs.ondisk.constants import MAX_PFSID, MAX_TID, OBJTYPE_SOFTLINK
from hammerfs.ondisk.element import BASE, LeafElement, first_key, last_key, unpack_leaf
from hammerfs.ondisk.mirror import HEAD_SIZE, Pass, Record, Skip, StreamParser, Sync, packed, padded
from hammerfs.ops.administer_sync import durable_tid
from hammerfs.ops.operation import Call, Operation, Result
from hammerfs.ops.pfs_claim import claimed

_PIECE = 256 * 1024
"""Bytes of a stream that travel in one step."""


def _pfs(call: Call) -> int:
    """The PFS that a request is about; UsageError when the mount does not show it."""
    if "pfs" in call.arguments:
        pfs = call.number("pfs", most=MAX_PFSID)
    else:
        name = os.fsencode(call.text("name", ""))
        pfs = pfs_of(call.place.localization) if not name else _named(call, name)
    if call.fs.options.pfs not in (0, pfs):
        raise UsageError(f"PFS {pfs} is not part of what is mounted")
    return pfs


def _named(call: Call, name: bytes) -> int:
    """The PFS that a name in a directory leads to, or lies in."""
    inode = call.fs.lookup(call.place, name)
    target = link_target(call.fs.readlink(inode)) if inode.data.obj_type == OBJTYPE_SOFTLINK else None
    return pfs_of(inode.localization) if target is None else target


def _state(call: Call) -> Work[Result]:
    """The record that heads a stream from this PFS, or tells its source how far it is mirrored to here.

    With `sync` everything that was accepted so far is part of it; the original leaves out what no flush has met yet.
    """
    pfs = _pfs(call)
    if call.flag("sync"):
        yield Want.DURABLE
    return {"pfs": pfs, "record": source_state(call.fs.ctx, pfs, durable_tid(call.fs)).copy().hex()}


# --- sending ------------------------------------------------------------------------------------


def _read(call: Call) -> Work[Result]:
    """One batch in key order, without what stands around it; `complete` unless it was interrupted.

    Each record whose data is nowhere is an item of the result, and so is the object that a piece goes up to.
    """
    pfs, begin, end = _pfs(call), call.tid("begin"), call.tid("end")
    piece = bytearray()
    last: Record | Pass | Skip | None = None
    records = 0
    complete = False
    yield Phase("mirroring")
    for record in changes(call.fs.ctx, pfs, begin, end):
        if record is None:
            yield Want.PAUSE
            continue
        if call.interrupted():
            break
        if isinstance(record, Lost):
            yield _lost(record)
        piece += packed(record)
        records += 1
        last = record
        if len(piece) >= _PIECE:
            yield _reached(record)
            yield Data(bytes(piece))
            yield Done(len(piece))
            piece.clear()
    else:
        complete = True
    if last is not None and piece:
        yield _reached(last)
        yield Data(bytes(piece))
    return {"complete": complete, "records": records}


def _reached(record: Record | Pass | Skip) -> Emit:
    """Which object mirroring has come to, a signed number as records hold it."""
    obj_id: int = BASE.unpack(record.high)[0] if isinstance(record, Skip) else record.leaf.obj_id
    return Emit({"at": obj_id})


def _lost(record: Lost) -> Emit:
    """Which record a target will lack, and why, for people."""
    leaf = record.leaf
    key = (
        f"lo={leaf.localization:08x} objid={leaf.obj_id & MAX_TID:016x} rt={leaf.rec_type:02x} "
        f"key={leaf.key & MAX_TID:016x} tid={leaf.create_tid:016x}"
    )
    place = f"dataoff={leaf.data_offset:016x}/{leaf.data_len}"
    return Emit({"lost": f"{key} {place}: {record.why}"})


def _split(call: Call) -> Work[Result]:
    """TIDs that cut a range into batches of about `bytes` each, the last one its end; and how much each will be."""
    ctx = call.fs.ctx
    pfs, begin, end, limit = _pfs(call), call.tid("begin"), call.tid("end"), call.number("bytes")
    localization = pfs_localization(pfs)
    sizes: dict[Tid, int] = {}
    uncounted = chunks = 0
    yield Phase("prescan")
    scan = ctx.tree.scan_changed(first_key(localization), last_key(localization), begin)
    for count, found in enumerate(scan, 1):
        if not isinstance(found, Unchanged):
            for tid, size in _weights(unpack_leaf(found)):
                if begin <= tid <= end:
                    sizes[tid] = sizes.get(tid, 0) + size
                    uncounted += size
        if uncounted > limit:
            uncounted = 0
            chunks += 1
            yield Emit({"chunk": chunks})
        if count % PAUSE_EVERY == 0:
            yield Done(PAUSE_EVERY)
            yield Want.PAUSE
    batches = [{"end": tid, "bytes": size} for tid, size in _cuts(sizes, limit)]
    if not batches or batches[-1]["end"] < end:
        batches = [*batches[:-1], {"end": end, "bytes": batches[-1]["bytes"] if batches else 0}]
    return {"batches": batches, "bytes": sum(sizes.values())}


def _weights(leaf: LeafElement) -> Iterator[tuple[Tid, int]]:
    """What an element adds to the batches that its creation and its deletion are in."""
    size = padded(HEAD_SIZE + 64)
    yield leaf.create_tid, size + padded(max(leaf.data_len, 0))
    if leaf.delete_tid:
        yield leaf.delete_tid, size


def _cuts(sizes: dict[Tid, int], limit: int) -> Iterator[tuple[Tid, int]]:
    total = 0
    tid = 0
    for tid in sorted(sizes):
        total += sizes[tid]
        if total >= limit:
            yield tid, total
            total = 0
    if total:
        yield tid, total


def _await(call: Call) -> Work[Result]:
    """Until something that is younger than `end` happened to the PFS, and no crash takes it back."""
    pfs, seen = _pfs(call), call.tid("end")
    if call.exclusive:
        raise UsageError("what nobody has mounted does not change")
    while True:
        newest = source_state(call.fs.ctx, pfs, durable_tid(call.fs)).sync_end_tid
        if newest > seen and has_gone_on(call.fs.ctx, pfs, seen):
            return {"tid": newest}
        seen = max(seen, newest)
        yield Want.NEWS


# --- receiving ----------------------------------------------------------------------------------


def _write(call: Call) -> Work[Result]:
    """Apply what the client sends of a batch to a slave; readers go on seeing it as it was.

    A SYNC record completes the batch; without it there may be more to come another time.
    """
    pfs = _pfs(call)
    with claimed(call.fs, pfs):
        return (yield from _apply_batch(call, pfs))


def _apply_batch(call: Call, pfs: int) -> Work[Result]:
    ctx = call.fs.ctx
    slave_record(ctx, pfs)
    writer = BatchWriter(ctx, pfs, call.tid("begin"), call.tid("end"))
    parser = StreamParser()
    records = 0
    complete = False
    yield Phase("mirroring")
    while piece := (yield Receive(_PIECE)):
        parser.feed(piece)
        while (record := parser.next_record()) is not None:
            if complete or not isinstance(record, Record | Pass | Skip | Sync):
                raise StreamError("the mirroring stream holds a record where only those of the B-tree may be")
            if isinstance(record, Sync):
                complete = True
                yield from _gently(writer.finish())
            else:
                yield from _applied(writer, record)
                records += 1
        yield Done(len(piece))
    parser.finish()
    return {"complete": complete, "records": records, "damaged": writer.damaged}


def _applied(writer: BatchWriter, record: Record | Pass | Skip) -> Work[None]:
    """Apply a record; once more after a flush when space is short, since that may set some free."""
    try:
        yield from _gently(writer.apply(record))
    except NoSpaceError:
        yield Want.DURABLE
        yield from _gently(writer.apply(record))


def _gently(steps: Iterator[None]) -> Work[None]:
    for _ in steps:
        yield Want.PAUSE


def _synced(call: Call) -> Work[Result]:
    """A batch has been applied: readers see the slave as of its end, durably."""
    pfs, tid = _pfs(call), call.tid("tid")
    with claimed(call.fs, pfs):
        set_sync_tid(call.fs.ctx, pfs, tid)
        yield Want.DURABLE
    return {"tid": tid}


def _within(call: Call) -> Work[Result]:
    """One batch from a PFS, `source`, to a slave in the same file system, and readers see it if it was complete."""
    ctx, pfs, source = call.fs.ctx, _pfs(call), call.number("source", most=MAX_PFSID)
    begin, end = call.tid("begin"), call.tid("end")
    if not 0 <= begin <= end <= source_state(ctx, source, durable_tid(call.fs)).sync_end_tid:
        raise UsageError(f"{begin:#x} to {end:#x} is no range of TIDs that PFS {source} has")
    with claimed(call.fs, pfs):
        slave_record(ctx, pfs)
        writer = BatchWriter(ctx, pfs, begin, end)
        yield Phase("mirroring")
        last: Record | Pass | Skip | None = None
        for record in changes(ctx, source, begin, end):
            if call.interrupted():
                if last is not None:
                    yield _reached(last)
                return {"complete": False, "damaged": writer.damaged}
            if isinstance(record, Lost):
                yield _lost(record)
            if record is not None:
                last = record
                yield from _applied(writer, record)
                yield Done(1)
        yield from _gently(writer.finish())
        set_sync_tid(ctx, pfs, end)
        yield Want.DURABLE
    return {"complete": True, "damaged": writer.damaged}


OPERATIONS = (
    Operation("mirror-state", _state),
    Operation("mirror-read", _read),
    Operation("mirror-split", _split),
    Operation("mirror-await", _await),
    Operation("mirror-write", _write, changes=True),
    Operation("mirror-synced", _synced, changes=True, alters_views=True),
    Operation("mirror-within", _within, changes=True, alters_views=True),
)
