"""Writing to what DragonFly's own code made, and to fresh file systems of every version.

Every test makes the same kinds of changes to a mounted file system and to a model, with flushes in between.  Then what
is on disk has to show the model, its past has to show what the model was at each flush, and `check` has to be content.
Memory holds what is written; the golden images stay as they are.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from zlib import crc32

import pytest
from judge import READ_ONLY, Golden, LastingOverlay, Tree, as_tree, closing, differences, problems, shown, view
from tree_model import Clock, Model
from workload import MIB, Workload

from hammerfs.device.base import Device
from hammerfs.device.memory import MemoryDevice
from hammerfs.fs.metadata import read_record
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.ondisk.address import Tid, volume_of
from hammerfs.ondisk.constants import (
    CAP_DIR_LOCAL_INO,
    CAP_DIRHASH_ALG1,
    LOCALIZE_INODE,
    LOCALIZE_MISC,
    MAX_MASTERS,
    OBJTYPE_DIRECTORY,
    RECTYPE_DIRENTRY,
    RECTYPE_INODE,
)
from hammerfs.ondisk.direntry import name_key, unpack_entry
from hammerfs.ondisk.element import ROOT_LEFT_BOUNDARY, ROOT_RIGHT_BOUNDARY, LeafElement, element_key, unpack_leaf
from hammerfs.ondisk.inode import InodeData
from hammerfs.ops.mkfs import FormatRequest, plan_format, write_file_system

ROOT_PFS = MountOptions()
WRITABLE = {
    "g1-basic": ROOT_PFS,
    "g2-history": ROOT_PFS,
    "g3-crash-v1": ROOT_PFS,
    "g3-crash-v3": ROOT_PFS,
    "g3-crash-v4": ROOT_PFS,
    "g3-crash-wrap": ROOT_PFS,
    "g5-pfs": MountOptions(pfs=1),
    "g6-v1": ROOT_PFS,
    "g6-v2": ROOT_PFS,
    "g6-v4": ROOT_PFS,
    "g6-v5": ROOT_PFS,
    "g6-v6": ROOT_PFS,
    "g7-dedup": ROOT_PFS,
    "g8-twovol": ROOT_PFS,
    "g10-upgrade-v1to7": ROOT_PFS,
    "g10-upgrade-v6to7": ROOT_PFS,
    "g11-nohistory": ROOT_PFS,
}
TREES = ("tree_m1", "current_tree", "tree", "tree_rw")
VERSIONS = range(1, 8)
FSID = uuid.UUID("5a04417f-6264-5e4c-8546-50172727e03c")
SMALL_UNDO = 8 * MIB
IN_PLACE = ["stat_mtime_us", "stat_ctime_us"]
"""An as-of view has no mtime of its own: it is updated in place, and the view shows the ctime of the record; that of a
directory does not move with its entries."""
CROWD = b"the crowd"

Moments = list[tuple[Tid, Tree]]


def change_everything(fs: FileSystem, clock: Clock, seed: int, rounds: int) -> tuple[Tree, Moments]:
    """Random changes with flushes between them, and crowds that split and empty nodes; unmounts.

    Returns the tree as it has to be now, and as it was at each flush.
    """
    work = Workload(fs, Model.of(fs), seed, clock)
    start = fs.ctx.root.next_tid | (MAX_MASTERS - 1)  # mkfs writes its records with a TID that it does not count
    moments = [(start, work.model.tree())]
    for _ in range(rounds):
        work.run(40)
        assert differences(work.model.tree(), view(fs, describe=shown)) == []
        moments.append((work.flush(), work.model.tree()))
        assert differences(work.model.tree(), view(fs, describe=shown)) == []
    work.fill(CROWD, 600)
    moments.append((work.flush(), work.model.tree()))
    work.touch(CROWD, 0o640)
    work.flush()
    work.thin_out(CROWD, 3)
    work.release()
    fs.close_now()
    return work.model.tree(), moments


def judge_result(
    devices: Sequence[Device], options: MountOptions, clock: Clock, expected: Tree, moments: Moments
) -> None:
    """What was written, read by a new mount, by `check`, and as of each moment."""
    with closing(FileSystem.open(devices, options, clock)) as fs:
        assert differences(expected, view(fs, describe=shown)) == []
    assert problems(devices) == []
    for tid, tree in moments:
        with closing(FileSystem.open(devices, MountOptions(as_of=tid, pfs=options.pfs))) as fs:
            assert differences(tree, view(fs, describe=shown), IN_PLACE) == []


@pytest.mark.parametrize("name", WRITABLE)
def test_golden_images_can_be_written_to(name: str, images: Golden) -> None:
    devices, options, clock = images.devices(name), WRITABLE[name], Clock()
    fs = FileSystem.open(devices, options, clock)
    expected, moments = change_everything(fs, clock, crc32(name.encode()), rounds=3)
    judge_result(devices, options, clock, expected, moments)
    manifest = images.manifest(name)
    original = as_tree(next(manifest[key] for key in TREES if key in manifest))
    with closing(FileSystem.open(devices, MountOptions(as_of=moments[0][0], pfs=options.pfs))) as fs:
        assert differences(original, view(fs), ["mtime_us", "atime_us", *IN_PLACE]) == []


def elements(fs: FileSystem) -> Iterator[LeafElement]:
    """Every element of every leaf, the past included."""
    low, high = element_key(ROOT_LEFT_BOUNDARY), element_key(ROOT_RIGHT_BOUNDARY)
    return map(unpack_leaf, fs.ctx.tree.scan(low, high))


def made(version: int, sizes: Sequence[int]) -> list[LastingOverlay]:
    """A fresh file system with a small UNDO FIFO, in memory."""
    request = FormatRequest(
        label="WRITE", version=version, undo_size=SMALL_UNDO, fsid=FSID, time_ns=1_700_000_000 * 10**9, force=True
    )
    plan = plan_format(request, sizes)
    devices = [LastingOverlay(MemoryDevice(size, name=f"volume {number}")) for number, size in enumerate(sizes)]
    write_file_system(plan.layout, devices)
    return devices


ONE_VOLUME = [320 * MIB]
TWO_VOLUMES = [48 * MIB, 280 * MIB]
"""The first is so small that some zones have to go to the second."""


@pytest.mark.parametrize("sizes", [ONE_VOLUME, TWO_VOLUMES], ids=["one volume", "two volumes"])
@pytest.mark.parametrize("version", VERSIONS)
def test_fresh_file_systems_can_be_written_to(version: int, sizes: list[int]) -> None:
    devices, clock = made(version, sizes), Clock()
    fs = FileSystem.open(devices, ROOT_PFS, clock)
    expected, moments = change_everything(fs, clock, version * 100 + len(sizes), rounds=4)
    judge_result(devices, ROOT_PFS, clock, expected, moments)
    with closing(FileSystem.open(devices, READ_ONLY)) as fs:
        assert {volume_of(element.data_offset) for element in elements(fs)} == set(range(len(sizes)))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_undo_fifo_wraps(version: int) -> None:
    """A few files in each leaf change, so that every flush logs much of many nodes, until the FIFO's end is passed."""
    devices, clock = made(version, ONE_VOLUME), Clock()
    fs = FileSystem.open(devices, ROOT_PFS, clock)
    work = Workload(fs, Model.of(fs), version, clock)
    work.fill(CROWD, 1500)
    work.flush()
    assert fs.ctx.undo is not None
    places = [fs.ctx.undo.next_offset]
    for turn in range(300):
        work.touch(CROWD, 0o600 + turn % 8, every=40, first=turn % 40)
        work.flush()
        places.append(fs.ctx.undo.next_offset)
        if places[-1] < places[-2]:
            break
    assert places[-1] < places[-2]
    work.run(100)
    work.release()
    expected = work.model.tree()
    fs.close_now()
    judge_result(devices, ROOT_PFS, clock, expected, [])


@pytest.mark.parametrize("version", VERSIONS)
def test_directories_are_laid_out_as_their_version_demands(version: int) -> None:
    """Entries beside the inodes from version 2 on, the second hash algorithm from version 6 on."""
    devices, clock = made(version, ONE_VOLUME), Clock()
    with closing(FileSystem.open(devices, ROOT_PFS, clock)) as fs:
        Workload(fs, Model.of(fs), version, clock).run(250)
    flags = (CAP_DIR_LOCAL_INO if version >= 2 else 0) | (CAP_DIRHASH_ALG1 if version >= 6 else 0)
    seen = 0
    with closing(FileSystem.open(devices, READ_ONLY)) as fs:
        for element in elements(fs):
            if element.rec_type == RECTYPE_DIRENTRY:
                entry = unpack_entry(read_record(fs.ctx, element))
                first, last = name_key(flags, entry.name)
                assert element.localization == (LOCALIZE_INODE if version >= 2 else LOCALIZE_MISC)
                assert first <= element.key <= last
                seen += 1
            elif element.rec_type == RECTYPE_INODE and element.obj_type == OBJTYPE_DIRECTORY:
                assert InodeData.unpack(read_record(fs.ctx, element)).cap_flags == flags
    assert seen > 20
