"""The kinds of generated workloads: each draws a plan from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from crash_lib.generated import TASKS_MAX, WORKS, Plan
from crash_lib.mirroring import MirrorSource
from crash_lib.operations import FILLER, OPERATIONS, WEIGHTS, carry_out, random_step
from crash_lib.twin import Twin
from hammerfs.fs import rootrecords
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Want, Work
from hammerfs.ondisk.address import Offset, to_zone2
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BUFSIZE,
    HBUFSIZE,
    OBJTYPE_DIRECTORY,
    OBJTYPE_REGFILE,
    ZONE_LARGE_DATA,
)
from hammerfs.ops import dedup as sharing
from hammerfs.ops import prune as pruning
from hammerfs.ops import reblock as moving
from hammerfs.ops.operation import Call
from hammerfs.ops.rebalance import rebalance, saturation_of
from hammerfs.ops.reblock import Parts
from hammerfs.ops.record_range import RecordRange
from hammerfs.ops.registry import begin, find
from hammerfs.ops.retention import BetweenSnapshots
from hammerfs.store.undo import UndoFifo

ALL = {**dict.fromkeys(OPERATIONS, 1), **WEIGHTS}
NAMES = {"create": 6, "symlink": 1, "link": 4, "remove": 4, "rename": 4, "move": 8, "write": 1, "open": 1, "release": 1}
DATA = {"create": 3, "write": 12, "truncate": 4, "remove": 1, "move": 1, "open": 1, "release": 1}
BIRTHS = {
    "create_file": 16,
    "patch": 8,
    "remove": 8,
    "move": 2,
    "rename": 1,
    "link": 1,
    "truncate": 2,
    "chmod": 1,
    "touch": 1,
    "open": 1,
    "release": 1,
}
ATTRIBUTES = {
    "create": 4,
    "chmod": 6,
    "touch": 6,
    "set_xattr": 4,
    "remove_xattr": 2,
    "write": 2,
    "symlink": 2,
    "link": 1,
}
_WIND_BYTES = 1024 * 1024
"""UNDO laid down in one cycle while a FIFO is wound forward."""


def mixed(seed: int) -> Plan:
    """Everything, one task."""
    return Plan(steps=_steps(seed, 20, 60), weights=ALL)


def tasks(seed: int) -> Plan:
    """Everything, two to four tasks."""
    count = 2 + seed % (TASKS_MAX - 1)
    return Plan(tasks=count, steps=_steps(seed, 30, 70), weights=ALL, fsyncs=0.4)


def names(seed: int) -> Plan:
    """Names above all: created, linked, moved, replaced, removed."""
    return Plan(tasks=1 + seed % TASKS_MAX, steps=_steps(seed, 30, 70), weights=NAMES, fsyncs=0.25)


def data(seed: int) -> Plan:
    """Contents above all: small and large writes, appends, truncations."""
    return Plan(tasks=1 + seed % TASKS_MAX, steps=_steps(seed, 20, 50), weights=DATA, fsyncs=0.4)


def redo(seed: int) -> Plan:
    """A few files, overwritten, extended and truncated in small pieces with fsyncs behind them, and flushes between."""
    return Plan(
        version=(7, 7, 6, 5, 4)[seed % 5],
        tasks=1 + seed % TASKS_MAX,
        steps=_steps(seed, 30, 70),
        weights={"patch": 16, "write": 1, "truncate": 4, "chmod": 1, "touch": 2},
        fsyncs=0.6,
        syncs=0.02,
        flushes=0.1,
        contents=1,
        nohistory=bool(seed % 2),
        prepare=three_files,
    )


def births(seed: int) -> Plan:
    """New files that are fsynced, directories of such files too, and their few names given up, away and taken again."""
    return Plan(
        version=(7, 7, 6, 5, 4)[seed % 5],
        tasks=1 + seed % TASKS_MAX,
        steps=_steps(seed, 30, 80),
        weights=BIRTHS,
        fsyncs=0.7,
        syncs=0.01,
        flushes=0.02,
        contents=0.8,
        nohistory=bool(seed % 2),
        prepare=two_directories,
    )


def moves(seed: int) -> Plan:
    """Names that are given to other objects, one after the other, with fsyncs of what has little to do with most."""
    return Plan(
        tasks=1 + seed % TASKS_MAX,
        steps=_steps(seed, 40, 80),
        weights={"create_file": 4, "move": 12, "rename": 6, "link": 1, "write": 2, "chmod": 2},
        fsyncs=0.12,
        syncs=0.01,
        flushes=0.0,
        contents=1,
        prepare=two_directories,
    )


def attributes(seed: int) -> Plan:
    """Attributes and extended attributes."""
    return Plan(tasks=1 + seed % TASKS_MAX, steps=_steps(seed, 30, 60), weights=ATTRIBUTES)


def versions(seed: int) -> Plan:
    """Everything, on format versions 1 to 7 in turn."""
    return Plan(version=1 + seed % 7, tasks=1 + seed // 7 % TASKS_MAX, steps=_steps(seed, 20, 60), weights=ALL)


def volumes(seed: int) -> Plan:
    """Everything, and every third time what fsync does by REDO, on two or three volumes."""
    plan = redo(seed) if seed % 3 == 0 else Plan(steps=_steps(seed, 20, 50), weights=ALL)
    return replace(plan, volumes=2 + seed % 2, tasks=1 + seed // 2 % TASKS_MAX)


def early(seed: int) -> Plan:
    """Flush groups that are closed early: meta-data goes out in the middle, further groups follow at once."""
    return Plan(tasks=TASKS_MAX, steps=_steps(seed, 40, 80), weights=ALL, fsyncs=0.1, flushes=0.3, early=True)


def wrap(seed: int) -> Plan:
    """The FIFO begins anew in the middle of the workload."""
    left = random.Random(seed).randrange(BUFSIZE, 8 * BUFSIZE, 512)
    return Plan(
        version=(7, 7, 6, 4, 3)[seed % 5],
        tasks=1 + seed % TASKS_MAX,
        steps=_steps(seed, 30, 60),
        weights=ALL,
        prepare=lambda twin: wind(twin.fs, left),
    )


def reuse(seed: int) -> Plan:
    """No history and two big-blocks left: what was freed is used again as soon as that is allowed."""
    return Plan(
        steps=24,
        weights={"rewrite": 12, "create": 2},
        fsyncs=0.02,
        syncs=0.05,
        flushes=0.93,
        nohistory=True,
        prepare=lambda twin: fill(twin, leave=2),
        tune=without_reserve,
    )


def recycle(seed: int) -> Plan:
    """What is moved frees big-blocks beside cycles that are not closed; zones go on to the one that was freed last."""
    plan = regain(seed)
    assert plan.maintain is not None
    maintain = plan.maintain

    def tune(fs: FileSystem) -> None:
        without_reserve(fs)
        prefer_freed(fs)

    return replace(
        plan,
        weights={"rewrite": 8, "create": 2, "patch": 2},
        tasks=2,
        steps=50,
        fsyncs=0.4,
        syncs=0.0,
        flushes=0.5,
        tune=tune,
        maintain=lambda fs, source: _slowly(maintain(fs, source)),
    )


def full(seed: int) -> Plan:
    """A nearly full volume: writes are refused, removals go on."""
    return Plan(
        tasks=1 + seed % TASKS_MAX,
        steps=60,
        weights={**DATA, "rewrite": 6, "remove": 3},
        nohistory=bool(seed % 2),
        prepare=lambda twin: fill(twin, leave=8),
    )


def prune(seed: int) -> Plan:
    """History is taken away under two snapshots, which stay, and B-tree nodes are filled up again."""

    def maintain(fs: FileSystem, source: random.Random) -> Work[Any]:
        tids = [snapshot.tid for snapshot in rootrecords.snapshots(fs.ctx, 0)]
        if source.random() < 0.3:
            return rebalance(fs, RecordRange(0), saturation_of(85), _never)
        return pruning.prune(fs, 0, BetweenSnapshots(tids), _never)

    return _with_history(seed, maintain)


def reblock(seed: int) -> Plan:
    """Records, data and nodes get other places while they are changed."""

    def maintain(fs: FileSystem, source: random.Random) -> Work[Any]:
        parts = source.choice([Parts.EVERYTHING, Parts.DATA, Parts.BTREE, Parts.INODES | Parts.DIRS])
        return moving.reblock(fs, moving.range_of(0, parts), parts, 0, _never)

    return _with_history(seed, maintain)


def dedup(seed: int) -> Plan:
    """Equal data is brought together, and moved apart again."""

    def maintain(fs: FileSystem, source: random.Random) -> Work[Any]:
        if source.random() < 0.3:
            return moving.reblock(fs, moving.range_of(0, Parts.DATA), Parts.DATA, 0, _never)
        return sharing.dedup(fs, 0, 1 << 20, _never)

    weights = {"create": 3, "write": 6, "patch": 6, "truncate": 2, "remove": 2}
    return replace(_with_history(seed, maintain), weights=weights)


def regain(seed: int) -> Plan:
    """Nearly all big-blocks hold next to nothing: what is moved out of them, and what is written, fills them anew."""

    def maintain(fs: FileSystem, source: random.Random) -> Work[Any]:
        return moving.reblock(fs, moving.range_of(0, Parts.DATA), Parts.DATA, BIGBLOCK_SIZE // 2, _never)

    return replace(reuse(seed), prepare=lambda twin: fill(twin, leave=3), maintain=maintain)


def mirror(seed: int) -> Plan:
    """A slave is mirrored to, moment after moment, while others change what is beside it."""
    origin = MirrorSource(seed, WORKS + 1)
    return Plan(
        tasks=1 + seed % TASKS_MAX,
        steps=_steps(seed, 30, 60),
        weights=ALL,
        early=not seed % 3,
        prepare=origin.make_slave,
        maintain=lambda fs, _: origin.next_batch(fs),
        further=origin.complaints,
    )


def revolume(seed: int) -> Plan:
    """Volumes come and go: a third one comes and the second or third goes, or the second goes and comes again."""
    changes = [
        [("volume-add", 2), ("volume-del", 1)],
        [("volume-add", 2), ("volume-del", 2)],
        [("volume-del", 1), ("volume-add", 1)],
    ][seed % 3]

    def maintain(fs: FileSystem, source: random.Random) -> Work[Any]:
        operation, number = changes.pop(0)
        call = Call(fs, fs.root, {"device": f"volume{number}.img", "reblock": True})
        return begin(find(operation), call)

    return Plan(
        version=(7, 7, 6, 4, 3)[seed % 5],
        volumes=2,
        spares=1,
        tasks=1 + seed // 3 % TASKS_MAX,
        steps=_steps(seed, 20, 50),
        weights=ALL,
        maintain=maintain,
    )


def live(seed: int) -> Plan:
    """Live deduplication: a few large contents are written again and again, with little space and mostly no history."""
    return Plan(
        version=(7, 7, 6, 5)[seed % 4],
        tasks=1 + seed % TASKS_MAX,
        steps=_steps(seed, 20, 40),
        weights={"create": 3, "repeat": 12, "truncate": 2, "remove": 3, "write": 1},
        fsyncs=0.1,
        flushes=0.4,
        nohistory=bool(seed % 3),
        dedup=True,
        prepare=(lambda twin: fill(twin, leave=8)) if seed % 2 else None,
    )


PLANS: dict[str, Callable[[int], Plan]] = {
    plan.__name__: plan
    for plan in (
        *(
            mixed,
            tasks,
            names,
            moves,
            data,
            redo,
            births,
            attributes,
            versions,
            volumes,
            early,
            wrap,
            reuse,
            recycle,
            full,
        ),
        *(prune, reblock, dedup, regain, revolume, live, mirror),
    )
}


def _with_history(seed: int, maintain: Callable[[FileSystem, random.Random], Work[Any]]) -> Plan:
    """Everything, beside works on what was there before."""
    return Plan(
        tasks=1 + seed % TASKS_MAX, steps=_steps(seed, 20, 50), weights=ALL, prepare=old_ones, maintain=maintain
    )


def _steps(seed: int, low: int, high: int) -> int:
    return random.Random(seed).randint(low, high)


def _slowly(steps: Work[Any]) -> Work[Any]:
    """Work that lets others have several turns behind each of its steps."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        yield step
        for _ in range(6):
            yield Want.PAUSE


def _never() -> bool:
    return False


def old_ones(twin: Twin) -> None:
    """Some history with two snapshots in it, and what nobody demands before, between and behind them."""
    source = random.Random("history")
    flusher = twin.fs.flusher
    assert flusher is not None
    drawn = [name for name, weight in ALL.items() for _ in range(weight)]
    for moment in range(9):
        for _ in range(8):
            carry_out(twin, random_step(source, drawn))
        flusher.flush_now()
        if moment in (2, 5):
            rootrecords.add_snapshot(twin.fs.ctx, 0, twin.fs.ctx.root.next_tid, 0, b"%d" % moment)
    twin.release_all()


def three_files(twin: Twin) -> None:
    """Something to change that is there already."""
    for name in (b"a", b"b", b"c"):
        twin.create(twin.root, name, OBJTYPE_REGFILE)


def two_directories(twin: Twin) -> None:
    """Places for new files."""
    for name in (b"a", b"b"):
        twin.create(twin.root, name, OBJTYPE_DIRECTORY)


def wind(fs: FileSystem, left: int) -> None:
    """Fill the FIFO with records that restore what is there, until at most `left` bytes come before its end."""
    ctx, flusher = fs.ctx, fs.flusher
    assert flusher is not None
    undo = ctx.undo
    assert undo is not None
    place = to_zone2(ctx.root.btree_root)
    while _ahead(undo) > left:
        until = max(left, _ahead(undo) - _WIND_BYTES)
        while _ahead(undo) > until:
            undo.log(place, ctx.volumes.read(place, 448))
            undo.clear_history()
        flusher.flush_now()


def _ahead(undo: UndoFifo) -> int:
    return undo.capacity - (undo.next_offset & (1 << 52) - 1)


def fill(twin: Twin, leave: int) -> None:
    """Take all big-blocks but a few, with one block of data at the end of each.

    Nothing is appended behind it, so they are as good as full, and quickly checked.
    """
    fs = twin.fs
    without_reserve(fs)
    blockmap, flusher = fs.ctx.blockmap, fs.flusher
    assert flusher is not None
    node = twin.create(twin.root, FILLER, OBJTYPE_REGFILE)
    assert node is not None
    full_at_last = False
    while blockmap.allocatable_bigblocks > leave or not full_at_last:
        twin.write(node, len(node.content), bytes(BUFSIZE))
        flusher.flush_now()
        claim = blockmap._claims[blockmap._current[ZONE_LARGE_DATA]]
        full_at_last = claim.append_off == BIGBLOCK_SIZE
        claim.append_off = max(claim.append_off, BIGBLOCK_SIZE - BUFSIZE)


def without_reserve(fs: FileSystem) -> None:
    """Let data have the space that is kept for meta-data; a few files need little of that."""
    fs.ctx.space._meta_reserve = HBUFSIZE


def prefer_freed(fs: FileSystem) -> None:
    """Let zones go on to the big-block that was freed last, if it may be used again."""
    freemap = fs.ctx.freemap
    candidates, give = freemap.candidates, freemap.give
    freed: dict[Offset, None] = {}

    def give_and_note(bigblock: Offset, zone: int, size: int) -> bool:
        is_free = give(bigblock, zone, size)
        if is_free:
            freed.pop(bigblock, None)
            freed[bigblock] = None
        return is_free

    def freed_first(start: Offset, zone: int) -> Iterator[Offset]:
        yield from [bigblock for bigblock in reversed(freed) if not freemap.layer2(bigblock).zone]
        yield from candidates(start, zone)

    freemap.give = give_and_note  # type: ignore[method-assign]
    freemap.candidates = freed_first  # type: ignore[method-assign]
