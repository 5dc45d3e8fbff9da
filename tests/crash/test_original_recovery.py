"""DragonFly's own recovery accepts what hammerfs lays into the FIFO: what it would run again gives what ours gives.

The original is the model in `original_recovery.py`, which first has to come to what DragonFly itself made of its own
images.  Then FIFOs are compared that hammerfs wrote, cut at many positions with everything kept: what UNDO alone
leaves, and the operations that the original would run on it, against what our recovery gives.

Only positions are compared at which no fsync is under way.  Of one that was cut short the original, which does not know
that records say that more follow, would run what is there, where ours runs nothing; neither was acknowledged.  And of
files only those that a flush has written: of the others the original knows nothing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from crash_lib.cuts import WHOLE, Cutter
from crash_lib.generated import Plan, Workload, record
from crash_lib.plans import PLANS, three_files, wind
from crash_lib.small import FILE, mount
from crash_lib.twin import Twin
from original_recovery import Operation, OriginalFailedError, OriginalRecovery

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.overlay import OverlayDevice
from hammerfs.device.recording import RecordingDevice
from hammerfs.fs import redo
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import REDO_REQUIRED, REDO_SKIPPED
from hammerfs.ondisk.constants import REDO_SYNC
from hammerfs.ondisk.fifo import REDO_OVERHEAD, RedoBody
from hammerfs.store.undo import UndoFifo

CUTS = 40
"""Positions of one workload that are compared; those at which an fsync has just ended are among them."""
Files = dict[int, bytes]
"""Contents of regular files by object id."""


# --- what is compared ---------------------------------------------------------------------------
def files_of(fs: FileSystem) -> Files:
    """Every file that has a name."""
    found: Files = {}
    waiting = [fs.root]
    while waiting:
        inode = waiting.pop()
        if inode.data.obj_type == FILE:
            found[inode.obj_id] = fs.read(inode, 0, inode.data.size)
        elif inode.is_directory:
            waiting += [fs.lookup(inode, entry.name) for entry in fs.readdir(inode, 0)]
    return found


def recovered(devices: Sequence[MemoryDevice], skip_redo: int) -> Files:
    """What our recovery gives, on a copy; that REDO is skipped where that is asked for need not be logged."""
    with mock.patch.object(redo.log, "disabled", skip_redo == REDO_SKIPPED):
        fs = mount([OverlayDevice(item) for item in devices], xattr=True, read_only=True, skip_redo=skip_redo)
    return files_of(fs)


def run_again(files: Files, operations: Sequence[Operation]) -> Files:
    """What write(2) and ftruncate(2) make of the files."""
    after = dict(files)
    for operation in operations:
        content = after.get(operation.obj_id)
        if content is None:
            continue
        offset, data = operation.offset, operation.data
        if data is None:
            content = content[:offset].ljust(offset, b"\0")
        else:
            content = content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]
        after[operation.obj_id] = content
    return after


# --- the model itself ---------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["g4-crash-redo", "g4-crash-redo-ext", "g4-crash-redo-v4"])
def test_the_model_runs_what_dragonfly_ran(
    name: str, golden_image: Callable[[str], Path], golden_manifest: Callable[[str], dict[str, Any]]
) -> None:
    image = golden_image(name)
    device = MemoryDevice(content=image.read_bytes())
    operations = OriginalRecovery([device]).operations()
    assert operations
    after = run_again(recovered([device], REDO_SKIPPED), operations)
    found = {(len(content), hashlib.sha256(content).hexdigest()) for content in after.values()}
    expected = {
        (entry["size"], entry["sha256"]) for entry in golden_manifest(name)["tree_rw"] if entry["type"] == "file"
    }
    assert found == expected


# --- what hammerfs writes -----------------------------------------------------------------------
@dataclass
class Recorded:
    """A workload, and from where to where in its log each of its fsyncs was under way."""

    workload: Workload
    fsyncs: list[tuple[int, int]] = field(default_factory=list)

    def positions(self) -> list[int]:
        """Where no fsync is under way, as many as are compared, the ends of fsyncs before others."""
        length = len(self.workload.log.entries)
        quiet = [at for at in range(length + 1) if not any(begin < at < end for begin, end in self.fsyncs)]
        ends = [at for at in quiet if any(end == at for _, end in self.fsyncs)]
        source = random.Random(length)
        chosen = source.sample(ends, min(len(ends), CUTS * 2 // 3))
        return sorted({*chosen, *source.sample(quiet, min(len(quiet), CUTS - len(chosen)))})


def redo_around_the_end(seed: int) -> Plan:
    """Fast fsyncs while the FIFO begins anew, and few flushes, so that what they lay stays in its range."""
    left = random.Random(seed).randrange(2048, 12288, 512)

    def prepare(twin: Twin) -> None:
        three_files(twin)
        wind(twin.fs, left)

    weights = {"patch": 16, "truncate": 2}
    return replace(PLANS["redo"](seed), prepare=prepare, weights=weights, flushes=0.02, syncs=0.01)


KINDS: dict[str, tuple[Callable[[int], Plan], Sequence[int]]] = {
    "redo": (PLANS["redo"], (1, 2, 4, 5)),
    "births": (PLANS["births"], (1, 2)),
    "mixed": (PLANS["mixed"], (1, 2)),
    "wrap": (PLANS["wrap"], (1, 2)),
    "volumes": (PLANS["volumes"], (3, 6)),
    "redo around the end": (redo_around_the_end, (1, 2, 3, 5, 6)),
}
"""Plans and seeds; those of a seed draw from versions 4 to 7."""


def recorded_workload(plan: Plan, seed: int) -> Recorded:
    fsyncs: list[tuple[int, int]] = []
    original = FileSystem.fsync

    async def fsync(fs: FileSystem, inode: Inode, datasync: bool = False) -> None:
        device = fs.ctx.volumes.root.device
        assert isinstance(device, RecordingDevice)
        begin = len(device.log.entries)
        await original(fs, inode, datasync)
        fsyncs.append((begin, len(device.log.entries)))

    with mock.patch.object(FileSystem, "fsync", fsync):
        return Recorded(record(plan, seed), fsyncs)


def images(noted: Recorded) -> Iterator[list[MemoryDevice]]:
    """The volumes at each position that is compared, everything kept."""
    workload = noted.workload
    positions = noted.positions()
    for cut in Cutter(workload.log.entries, workload.bases).cuts():
        if cut.position in positions:
            yield cut.images((WHOLE,) * len(cut.uncertain))


@dataclass
class Compared:
    """How often.

    redone -- with something to run again; around -- with that in a range that goes around the ring's end
    different -- the original came to something else, or would have panicked
    created -- files that only ours finds, as no flush had written them
    """

    images: int = 0
    redone: int = 0
    around: int = 0
    different: int = 0
    created: int = 0


def compare(kind: str, change: Callable[[list[Operation]], list[Operation]] = list) -> Compared:
    """All workloads of a kind; `change` lets the original run something else."""
    result = Compared()
    plan, seeds = KINDS[kind]
    for seed in seeds:
        for image in images(recorded_workload(plan(seed), seed)):
            result.images += 1
            found = OriginalRecovery(image)
            ours = recovered(image, REDO_REQUIRED)
            try:
                operations = change(found.operations())
            except OriginalFailedError:
                result.different += 1
                continue
            before = recovered(image, REDO_SKIPPED)
            result.created += len(ours.keys() - before.keys())
            ours = {number: content for number, content in ours.items() if number in before}
            result.different += run_again(before, operations) != ours
            result.redone += bool(operations)
            result.around += bool(operations) and found.wrapped
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_the_original_runs_what_ours_runs(kind: str) -> None:
    result = compare(kind)
    assert not result.different
    assert result.images > CUTS
    if kind.startswith("redo"):
        assert result.redone > 40
    if kind == "redo around the end":
        assert result.around > 10
    assert (result.created > 10) == (kind == "births")


@pytest.mark.parametrize(
    "change",
    [lambda found: found[:-1], lambda found: found[::-1], lambda found: found[1:]],
    ids=["last", "order", "first"],
)
def test_the_comparison_sees_an_operation_less_and_another_order(
    change: Callable[[list[Operation]], list[Operation]],
) -> None:
    assert compare("redo", change).different


def test_the_comparison_sees_a_redo_sync_where_the_range_begins() -> None:
    """The original takes that for REDO in front of a range that wraps, and does not find it."""

    def append_redo_sync(undo: UndoFifo) -> None:
        undo._sector_room(REDO_OVERHEAD)
        undo.append_redo(RedoBody(0, undo.next_offset, 0, REDO_SYNC, 0, b""))

    with mock.patch.object(UndoFifo, "append_redo_sync", append_redo_sync):
        assert compare("redo around the end").different
