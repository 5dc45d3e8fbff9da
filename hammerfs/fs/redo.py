"""Recovery stage 2: run again what fast fsyncs made durable: writes, truncations, new files (`hammer_recover.c`).

Stage 1 keeps the FIFO's range; here the records from where the newest REDO_SYNC points to the end of the range are
executed in order, as ordinary writes, and flushed in one durable cycle.  A crash before that cycle is closed rolls all
of it back and starts again: the range on disk, with its REDO_SYNC, is only given up by the closing header.  A read-only
mount stops before the flush.

A file that no flush had written is created again, as the object that it was, for the records behind that are about it.

What we laid in one step is executed together or, where the range ends before the last record of it, not at all: no
fsync was acknowledged that needs it.  A record of DragonFly's says all by itself.

Ours lies within the range (`redolog.py`); what DragonFly wrote may begin in front of it.  A TERM record says that the
flush in which it stands committed what it names.  In front of the range such flushes stay, so a TERM there cancels the
earlier records it covers: a TERM_WRITE those whose bytes lie in its range, a TERM_TRUNC all truncations of the object.
Within the range the flush was undone, so TERMs mean nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from hammerfs.errors import CorruptionError, FileOperationError, HammerError
from hammerfs.fs import filedata, namespace
from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.options import REDO_REQUIRED, REDO_SKIPPED
from hammerfs.ondisk.address import Localization, ObjId, Offset
from hammerfs.ondisk.constants import (
    HEAD_TYPE_PAD,
    HEAD_TYPE_REDO,
    LOCALIZE_PFS_MASK,
    MAX_TID,
    OBJID_ROOT,
    OBJTYPE_REGFILE,
    REDO_CREATE,
    REDO_TERM_TRUNC,
    REDO_TERM_WRITE,
    REDO_TOUCH,
    REDO_TRUNC,
    REDO_WRITE,
)
from hammerfs.ondisk.creation import unpack_creation
from hammerfs.ondisk.fifo import RedoBody, redo_body
from hammerfs.store.fiforeader import FifoReader
from hammerfs.store.recovery import FifoRange, RecoveryResult
from hammerfs.store.rootvolume import NEXT_TID_MAX

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

log = logging.getLogger("hammerfs.redo")
_SEQ_MASK = 0xFFFFFFFF
_TIDS_AHEAD_MAX = 1 << 40
"""More than anybody gives out between two headers: object ids of new files are beyond what the last one tells."""
_RUN = (REDO_WRITE, REDO_TRUNC, REDO_CREATE, REDO_TOUCH)


class _Numbered(NamedTuple):
    """A REDO record with its place in the order of the FIFO."""

    order: int
    body: RedoBody


def replay(ctx: Context, recovered: RecoveryResult) -> None:
    """Execute in memory what must be redone, as the mount's REDO policy says.  The caller flushes.

    CorruptionError when that cannot be and the policy does not allow for it, for example because records in front of
    the range, which the REDO_SYNC asks for, were overwritten meanwhile.
    """
    start = recovered.redo_sync_offset
    assert start is not None, "no REDO waits"
    policy = ctx.options.skip_redo
    if policy == REDO_SKIPPED:
        log.warning("recovery redo skipped: what only fsync made durable is given up")
        return
    executed = 0
    ctx.space.replaying = True
    try:
        for together in _applicable(FifoReader(ctx.volumes), recovered.fifo, start):
            executed += _execute_together(ctx, together)
    except HammerError as error:
        if policy == REDO_REQUIRED:
            raise CorruptionError(
                f"what fsync made durable cannot be redone: {error}; mounting with -o skip_redo=1 redoes what can be"
            ) from error
        log.warning("recovery redo ended after %d records, the rest is given up: %s", executed, error)
    finally:
        ctx.space.replaying = False
    log.info("recovery redo: %d records executed", executed)


def _applicable(reader: FifoReader, fifo: FifoRange, start: Offset) -> Iterator[list[RedoBody]]:
    """The records to run, in order, those laid in one step together."""
    inside = reader.distance(fifo.first, start) <= fifo.length
    before: list[_Numbered] = []
    if inside:
        skip = reader.distance(fifo.first, start)
        within = _records(reader, start, fifo.length - skip, None)
    else:
        before = list(_records(reader, start, reader.distance(start, fifo.first), fifo.checked_seq))
        within = _records(reader, fifo.first, fifo.length, None)
    for body in _unmasked(before):
        yield [body]
    yield from _whole(record.body for record in within if record.body.flags in _RUN)


def _whole(bodies: Iterable[RedoBody]) -> Iterator[list[RedoBody]]:
    """All but the last ones if those laid in one step with them are not there: a crash cut it short."""
    begun: list[RedoBody] = []
    for body in bodies:
        begun.append(body)
        if not body.more:
            yield begun
            begun = []


def _records(reader: FifoReader, start: Offset, length: int, last_seq: int | None) -> Iterator[_Numbered]:
    """REDO records of a range; with `last_seq` the range must count up to it without a gap, or it was overwritten."""
    seen = 0
    seq: int | None = None
    for order, place in enumerate(reader.scan(start, length)):
        seen += place.size
        if place.kind == HEAD_TYPE_PAD:
            continue
        if seq is not None and place.seq != (seq + 1) & _SEQ_MASK:
            break
        seq = place.seq
        if place.kind == HEAD_TYPE_REDO:
            body = redo_body(place.record())
            if body is None:
                raise CorruptionError("UNDO FIFO: REDO record that is too short", offset=place.offset)
            yield _Numbered(order, body)
    if seen != length or (last_seq is not None and seq != last_seq):
        raise CorruptionError("UNDO FIFO: the REDO records that recovery needs are gone from here on", offset=start)


def _unmasked(records: list[_Numbered]) -> Iterator[RedoBody]:
    """Records in front of the range that no later TERM there covers."""
    terms: dict[tuple[ObjId, Localization, int], list[_Numbered]] = {}
    for record in records:
        if record.body.flags in (REDO_TERM_WRITE, REDO_TERM_TRUNC):
            terms.setdefault((record.body.obj_id, record.body.localization, record.body.flags), []).append(record)
    for record in records:
        body = record.body
        if body.flags == REDO_WRITE:
            later = terms.get((body.obj_id, body.localization, REDO_TERM_WRITE), [])
            if not any(term.order > record.order and _covers(term.body, body) for term in later):
                yield body
        elif body.flags == REDO_TRUNC:
            later = terms.get((body.obj_id, body.localization, REDO_TERM_TRUNC), [])
            if not any(term.order > record.order for term in later):
                yield body


def _covers(term: RedoBody, write: RedoBody) -> bool:
    return term.offset <= write.offset and write.offset + write.size <= term.offset + term.size


def _execute_together(ctx: Context, bodies: list[RedoBody]) -> int:
    """Run records that were laid in one step; returns how many did something.

    A record that creates a file tells its times as they were when all of them had been laid.
    """
    count = 0
    born: Inode | None = None
    for body in bodies:
        if body.flags == REDO_CREATE:
            born = _create(ctx, body)
            count += born is not None
        elif born is not None:
            times = born.data.mtime, born.data.ctime
            count += _execute(ctx, body)
            born.data.mtime, born.data.ctime = times
        else:
            count += _execute(ctx, body)
    return count


def _create(ctx: Context, body: RedoBody) -> Inode | None:
    """Make a file that no flush had written; None when its directory no longer exists."""
    creation = unpack_creation(body.data[: body.size]) if 0 <= body.size <= len(body.data) else None
    pfs = body.localization & LOCALIZE_PFS_MASK
    limit = min(ctx.root.next_tid + _TIDS_AHEAD_MAX, NEXT_TID_MAX - _TIDS_AHEAD_MAX)
    is_possible = OBJID_ROOT < body.obj_id < limit
    directory = None if creation is None else _get(ctx, pfs, creation.directory)
    if directory is not None and not (directory.is_directory and directory.data.nlinks):
        is_possible = False
    if creation is None or not is_possible or _get(ctx, pfs, body.obj_id) is not None:
        raise CorruptionError(f"UNDO FIFO: REDO record that creates object {body.obj_id:#x}, which is impossible")
    if directory is None:
        return None
    return namespace.create_again(ctx, directory, creation.name, body.obj_id, creation.data)


def _get(ctx: Context, pfs: Localization, obj_id: ObjId) -> Inode | None:
    try:
        return ctx.inodes.get(ctx, pfs, obj_id, MAX_TID)
    except FileOperationError:
        return None


def _execute(ctx: Context, body: RedoBody) -> bool:
    """Run one record; False when its object no longer exists."""
    inode = _get(ctx, body.localization & LOCALIZE_PFS_MASK, body.obj_id)
    if inode is not None and inode.is_directory and body.flags == REDO_TOUCH:
        inode.data.mtime = body.offset
        ctx.dirty.mark(inode, Dirty.TIMES)
        return True
    if inode is None or inode.data.obj_type != OBJTYPE_REGFILE or body.flags == REDO_TOUCH:
        return False
    times = inode.data.mtime, inode.data.ctime
    if body.flags == REDO_WRITE:
        if not 0 <= body.size <= len(body.data):
            raise CorruptionError(f"REDO_WRITE of {body.size} bytes holds {len(body.data)}")
        filedata.write(ctx, inode, body.offset, body.data[: body.size])
    else:
        filedata.truncate(ctx, inode, body.offset)
    if ctx.read_only:
        # So that each read-only mount of a crashed image shows the same.
        inode.data.mtime, inode.data.ctime = times
    return True
