"""The checker and the reports on images that DragonFly's own code wrote."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judge import CRASHED, WITH_REDO

from hammerfs.device.file import FileDevice
from hammerfs.device.overlay import OverlayDevice
from hammerfs.ondisk.constants import BTREE_LEAF, RECTYPE_DATA, RECTYPE_DIRENTRY, RECTYPE_INODE, ZONE_FREEMAP, ZONE_UNDO
from hammerfs.ondisk.node import unpack_header
from hammerfs.ops.check import Report, check_devices
from hammerfs.ops.check_btree import TreeWalk
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.check_usage import Usage
from hammerfs.ops.progress import SilentProgress
from hammerfs.ops.show import show_lines
from hammerfs.store.volumes import VolumeSet

Original = Callable[[str], Path]
Manifest = Callable[[str], dict[str, Any]]

CLEAN = ["g1-basic", "g2-history", "g5-pfs", "g5-slave", "g6-v1", "g6-v2", "g6-v4", "g6-v5", "g6-v6", "g7-dedup"]
CLEAN += ["g8-twovol", "g10-upgrade-v1to7", "g10-upgrade-v6to7", "g11-nohistory"]
FRESH = [f"n0-mkfs-{name}" for name in ("v1", "v2", "v3", "v4", "v5", "v6", "v7", "multi")]


def devices_of(name: str, manifest: Manifest, original: Original) -> list[FileDevice]:
    files = [volume["file"].removesuffix(".zst") for volume in manifest(name)["volumes"]]
    return [FileDevice(str(original(file)), writable=False) for file in files]


def check(name: str, manifest: Manifest, original: Original) -> Report:
    devices = devices_of(name, manifest, original)
    try:
        return check_devices(devices)
    finally:
        for device in devices:
            device.close()


@pytest.mark.parametrize("name", CLEAN)
def test_an_unmounted_image_is_clean(name: str, golden_manifest: Manifest, golden_original: Original) -> None:
    report = check(name, golden_manifest, golden_original)
    assert not report.problems
    assert not report.recovery_pending
    assert {note.kind for note in report.notes} <= {"volume header"}


@pytest.mark.parametrize("name", CLEAN)
def test_everything_was_looked_at(name: str, golden_manifest: Manifest, golden_original: Original) -> None:
    manifest = golden_manifest(name)
    report = check(name, golden_manifest, golden_original)
    trees = [key for key in manifest if key in ("tree", "tree_root", "tree_m1", "tree_s1", "tree_m2", "tree_slave")]
    trees += ["current_tree"] if "current_tree" in manifest else []
    entries = sum(sum(row["path"] != "/" for row in manifest[tree]) for tree in trees)
    inodes = sum(len({row["objid"] for row in manifest[tree]}) for tree in trees)
    assert report.counts["entries"] == entries
    assert report.counts["inodes"] == inodes


@pytest.mark.parametrize("name", FRESH)
def test_a_fresh_image_is_clean(name: str, golden_manifest: Manifest, golden_original: Original) -> None:
    report = check(name, golden_manifest, golden_original)
    assert not report.problems
    assert {note.kind for note in report.notes} == {"volume header"}  # newfs_hammer leaves entry CRCs stale
    assert report.counts["inodes"] == 1


@pytest.mark.parametrize("name", [*CRASHED, *WITH_REDO])
def test_a_crashed_image_is_clean_behind_its_recovery(
    name: str, golden_manifest: Manifest, golden_original: Original
) -> None:
    report = check(name, golden_manifest, golden_original)
    assert not report.problems
    assert report.recovery_pending
    messages = golden_manifest(name).get("ro_mount_kernel_messages", [])
    undone = next((line for line in messages if line.startswith("recovery undo")), None)
    if undone is not None:
        assert f"({report.counts['FIFO bytes active']} bytes)" in undone


@pytest.mark.parametrize("name", FRESH)
def test_show_prints_what_hammer_prints(name: str, golden_manifest: Manifest, golden_original: Original) -> None:
    devices = devices_of(name, golden_manifest, golden_original)
    assert list(show_lines(VolumeSet.open(devices))) == golden_manifest(name)["show"]
    for device in devices:
        device.close()


# --- flipped bits ------------------------------------------------------------------------------------


class Anatomy:
    """Where the structures of an image lie on its only device."""

    def __init__(self, device: FileDevice) -> None:
        self.volumes = VolumeSet.open([device])
        self.reader = ImageReader(self.volumes)
        walk = TreeWalk(self.reader, Usage(), Report(), SilentProgress())
        leaves = list(walk.leaves())
        self.leaves = [leaf.offset for leaf in leaves]
        self.records = [element for leaf in leaves for element in leaf.elements]

    def on_device(self, offset: int) -> int:
        return self.volumes.root.header.vol_buf_beg + (offset & ((1 << 52) - 1))

    def record(self, rec_type: int, rng: random.Random, span: int | None = None) -> int:
        element = rng.choice([record for record in self.records if record.rec_type == rec_type])
        return self.on_device(element.data_offset) + rng.randrange(span or element.data_len)

    def place(self, structure: str, rng: random.Random) -> int:
        root = self.volumes.root.header
        layer1 = root.blockmap(ZONE_FREEMAP).phys_offset
        sectors = (root.blockmap(ZONE_UNDO).alloc_offset & ((1 << 52) - 1)) // 512
        places: dict[str, Callable[[], int]] = {
            "node header": lambda: self.on_device(rng.choice(self.leaves)) + rng.randrange(64),
            "node element": lambda: self.on_device(rng.choice(self.leaves)) + rng.randrange(64, 4096),
            "root node": lambda: self.on_device(root.vol0_btree_root) + rng.randrange(4096),
            "inode data": lambda: self.record(RECTYPE_INODE, rng, 112),
            "directory entry": lambda: self.record(RECTYPE_DIRENTRY, rng),
            "file data": lambda: self.record(RECTYPE_DATA, rng),
            "layer 1": lambda: self.on_device(layer1) + rng.randrange(1 << 23),
            "layer 2": lambda: self.on_device(layer1) + (1 << 23) + rng.randrange(1 << 23),
            "FIFO": lambda: self.on_device(root.undo_bigblock(0)) + rng.randrange(sectors) * 512 + rng.randrange(24),
        }
        return places[structure]()


WORDS = {
    "node header": "B-tree node",
    "node element": "B-tree node",
    "root node": "B-tree node",
    "inode data": "data CRC mismatch",
    "directory entry": "data CRC mismatch",
    "file data": "file data",
    "layer 1": "freemap layer 1",
    "layer 2": "freemap layer 2",
    "FIFO": "UNDO FIFO",
}


@pytest.mark.parametrize("name", ["g2-history", "g10-upgrade-v1to7"])
@pytest.mark.parametrize("structure", WORDS)
def test_a_flipped_bit_is_found(structure: str, name: str, golden_original: Original) -> None:
    device = FileDevice(str(golden_original(f"{name}.img")), writable=False)
    anatomy = Anatomy(device)
    rng = random.Random(f"{name} {structure}")
    for _ in range(8):
        damaged = OverlayDevice(device)
        offset, bit = anatomy.place(structure, rng), rng.randrange(8)
        damaged.write(offset, bytes([damaged.read(offset, 1)[0] ^ (1 << bit)]))
        report = check_devices([damaged])
        assert any(WORDS[structure] in str(problem) for problem in report.problems), f"bit {bit} of byte {offset}"
    device.close()


def test_leaves_are_visited_in_key_order(golden_original: Original) -> None:
    device = FileDevice(str(golden_original("g1-basic.img")), writable=False)
    anatomy = Anatomy(device)
    keys = [record.packed_key() for record in anatomy.records]
    assert keys == sorted(set(keys))
    assert len(anatomy.leaves) > 10
    for leaf in anatomy.leaves:
        assert unpack_header(anatomy.reader.read(leaf, 4096)).kind == BTREE_LEAF
    device.close()
