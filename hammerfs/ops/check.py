"""`check`: a complete, read-only verification of a HAMMER file system.

Phases: volume headers; freemap layers; UNDO FIFO; the B-tree with all records, names and data; then what only the
whole shows: accounting, link counts, orphans, PFSs.  Nothing is ever written: an image that needs recovery is looked at
through an overlay in memory, as the next mount would find it.

Time and memory are linear in what is there: a row of arrays an inode and a directory entry, a row a big-block, and file
data in bounded batches.
"""

from __future__ import annotations

from collections.abc import Sequence

from hammerfs.device.base import Device
from hammerfs.device.overlay import OverlayDevice
from hammerfs.errors import HammerError
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import MAX_MASTERS
from hammerfs.ops.check_btree import TreeWalk
from hammerfs.ops.check_freemap import check_freemap
from hammerfs.ops.check_namespace import Namespace
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.check_records import RecordChecker
from hammerfs.ops.check_report import Problem, Report
from hammerfs.ops.check_undo import ActiveRange, check_undo
from hammerfs.ops.check_usage import Usage, compare
from hammerfs.ops.check_volumes import KIND as HEADER
from hammerfs.ops.check_volumes import ROOT, check_counts, check_headers, check_zones
from hammerfs.ops.progress import Progress, SilentProgress
from hammerfs.store.membership import dismiss_strangers
from hammerfs.store.recovery import recover_stage1
from hammerfs.store.volumes import VolumeSet

__all__ = ["Problem", "Report", "check_devices", "check_volumes"]

MKFS_TID: Tid = 0x100000001
"""What mkfs gives its records while it leaves vol0_next_tid one below (`newfs_hammer.c: format_root_directory`)."""


def check_devices(
    devices: Sequence[Device], progress: Progress | None = None, data: bool = True, mirrored: bool = False
) -> Report:
    """Check what is on the devices as recovery in memory leaves it; raises HammerError when it cannot be opened.

    `data=False` leaves out file contents; `mirrored=True` insists on mirror TIDs that no nomirror mount ever touched.
    """
    report = Report()
    progress = progress or SilentProgress()
    volumes = VolumeSet.open([OverlayDevice(device) for device in devices], strangers=True)
    check_headers(volumes, report)
    active = check_undo(ImageReader(volumes), report, progress)
    if active is not None and active.size:
        _note_pending(active, report)
    _recover(volumes, report)
    _check_contents(volumes, report, progress, data, mirrored)
    return report


def check_volumes(
    volumes: VolumeSet, progress: Progress | None = None, data: bool = True, mirrored: bool = False
) -> Report:
    """Check open volumes as they are, without recovery; `data` and `mirrored` as in `check_devices`."""
    report = Report()
    progress = progress or SilentProgress()
    check_headers(volumes, report)
    active = check_undo(ImageReader(volumes), report, progress)
    if active is not None and active.size:
        _note_pending(active, report)
    _check_contents(volumes, report, progress, data, mirrored)
    return report


def _note_pending(active: ActiveRange, report: Report) -> None:
    report.recovery_pending = True
    report.note(
        "UNDO FIFO",
        active.first,
        f"recovery is pending: {active.size} bytes up to {active.end:016x} would be rolled back by the next mount",
    )


def _recover(volumes: VolumeSet, report: Report) -> None:
    """Roll back in memory, so that what follows sees what the next mount would; what prevents that is a problem."""
    try:
        result = recover_stage1(volumes, collapse=False)
    except HammerError as error:
        report.problem("UNDO FIFO", "", f"recovery is not possible: {error}")
        return
    if result.redo_sync_offset is not None:
        report.note("UNDO FIFO", result.redo_sync_offset, "a mount for writing would run REDO from here on")
    for sentence in dismiss_strangers(volumes):
        report.note(HEADER, ROOT, sentence)
    check_counts(volumes, report)


def _check_contents(volumes: VolumeSet, report: Report, progress: Progress, data: bool, mirrored: bool) -> None:
    """Everything but headers and FIFO, whose state recovery changes."""
    reader = ImageReader(volumes)
    namespace = Namespace(reader, report)
    _check_tree(reader, namespace, report, progress, data, mirrored)
    namespace.name_findings()


def _check_tree(
    reader: ImageReader, namespace: Namespace, report: Report, progress: Progress, data: bool, mirrored: bool
) -> None:
    volumes = reader.volumes
    check_zones(volumes.root.header, report)
    freemap = check_freemap(reader, report, progress)
    usage = Usage()
    records = RecordChecker(reader, usage, namespace, report, data)
    walk = TreeWalk(reader, usage, report, progress, mirrored=mirrored)
    progress.phase("B-tree", freemap.btree_nodes())
    for leaf in walk.leaves():
        namespace.complete = walk.complete
        records.leaf(leaf)
    records.finish()
    _check_next_tid(volumes, records.highest_tid, report)
    if not walk.complete:
        report.note("B-tree", "", "accounting and names were not compared, since part of the tree cannot be read")
        return
    compare(usage, freemap, volumes.version, report)
    namespace.finish(progress)
    inodes = volumes.root.header.vol0_stat_inodes
    if inodes != namespace.undeleted_inodes:
        report.problem(HEADER, ROOT, f"says {inodes} inodes, there are {namespace.undeleted_inodes}")


def _check_next_tid(volumes: VolumeSet, highest: Tid, report: Report) -> None:
    """INV-8: no TID that a record carries will be given out again."""
    next_tid = volumes.root.header.vol0_next_tid
    if highest > next_tid | (MAX_MASTERS - 1) and highest != MKFS_TID:
        report.problem(HEADER, ROOT, f"next TID {next_tid:016x} is below TID {highest:016x} of a record")
