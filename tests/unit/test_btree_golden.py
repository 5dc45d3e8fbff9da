"""Trees that the original wrote: every node verifies, every record is found, and the tree may be changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hammerfs.btree.tree import BTree
from hammerfs.device.file import FileDevice
from hammerfs.ondisk.address import Offset
from hammerfs.ondisk.constants import MAX_TID, NODE_SIZE
from hammerfs.ondisk.element import BASE_KEY_SIZE, ROOT_LEFT_BOUNDARY, ROOT_RIGHT_BOUNDARY, element_key, unpack_leaf
from hammerfs.store.volumes import VolumeSet

LOW, HIGH = element_key(ROOT_LEFT_BOUNDARY), element_key(ROOT_RIGHT_BOUNDARY)

IMAGES = {
    "g1-basic": ["g1-basic"],
    "g2-history": ["g2-history"],
    "g6-v1": ["g6-v1"],
    "g8-twovol": ["g8-vol0", "g8-vol1"],
    "g10-upgrade-v1to7": ["g10-upgrade-v1to7"],
    "g11-nohistory": ["g11-nohistory"],
}


class VolumeNodes:
    """Reads nodes from volumes; keeps to itself what is written."""

    def __init__(self, volumes: VolumeSet) -> None:
        self.version = volumes.version
        self.volumes = volumes
        self.changed: dict[Offset, bytes] = {}
        self.free = 0x8FE0000000000000
        self.root = volumes.root.header.vol0_btree_root

    def read_node(self, offset: Offset) -> bytes:
        return self.changed.get(offset) or self.volumes.read(offset, NODE_SIZE)

    def write_node(self, offset: Offset, raw: bytes, fresh: bool) -> None:
        self.changed[offset] = raw

    def alloc_node(self, group: int, home: Offset) -> Offset:
        self.free += NODE_SIZE
        return self.free

    def free_node(self, offset: Offset) -> None:
        self.changed.pop(offset, None)

    def set_root(self, offset: Offset) -> None:
        self.root = offset


@pytest.mark.parametrize("name", IMAGES)
def test_a_tree_of_the_original(golden_original: Callable[[str], Path], name: str) -> None:
    devices = [FileDevice(str(golden_original(f"{part}.img")), writable=False) for part in IMAGES[name]]
    volumes = VolumeSet.open(devices)
    try:
        store = VolumeNodes(volumes)
        tree = BTree(store, store.root, cache_nodes=500)
        elements = list(tree.scan(LOW, HIGH))
        keys = [element_key(element) for element in elements]
        assert len(keys) > 63
        assert keys == sorted(set(keys))
        assert list(tree.scan_reverse(LOW, HIGH)) == elements[::-1]
        each_version_is_found(tree, elements)
        can_be_emptied_and_filled(store, tree, dict(zip(keys, elements, strict=True)))
    finally:
        volumes.close()


def each_version_is_found(tree: BTree, elements: list[bytes]) -> None:
    for element in elements:
        leaf = unpack_leaf(element)
        key = element_key(element)
        base = key[:BASE_KEY_SIZE]
        assert tree.lookup(key) == element
        assert tree.find_as_of(base, leaf.create_tid) == element
        assert tree.find_as_of(base, leaf.create_tid - 1) != element
        if leaf.delete_tid:
            assert tree.find_as_of(base, leaf.delete_tid - 1) == element
            assert tree.find_as_of(base, leaf.delete_tid) != element
        else:
            assert tree.find_as_of(base, MAX_TID) == element
    alive = [element for element in elements if not unpack_leaf(element).delete_tid]
    assert list(tree.scan_as_of(LOW, HIGH, MAX_TID)) == alive


def can_be_emptied_and_filled(store: VolumeNodes, tree: BTree, records: dict[bytes, bytes]) -> None:
    half = list(records)[: len(records) // 2]
    for key in half:
        tree.remove(key, 0)
    tree.sync()
    for key in reversed(half):
        tree.insert(key, records[key], 0)
    tree.sync()
    again = BTree(store, store.root, cache_nodes=500)
    assert list(again.scan(LOW, HIGH)) == list(records.values())
