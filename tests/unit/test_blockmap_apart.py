"""The other append points of the B-tree's zone: nodes of a group side by side, and no big-block withheld by it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest
from small_filesystem import FILE, assert_clean, fresh, mount

from hammerfs.btree.node import Node, group_of
from hammerfs.device.base import Device
from hammerfs.errors import CorruptionError, NoSpaceError
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import Offset, bigblock_of, encode, volume_of
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, NODE_SIZE, ZONE_BTREE, ZONE_META
from hammerfs.store.blockmap import Blockmap

NODES_OF_A_BIGBLOCK = BIGBLOCK_SIZE // NODE_SIZE


@pytest.fixture(autouse=True)
def room_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hammerfs.store.blockmap.APART_BIGBLOCKS_MIN", 6)


def grow(fs: FileSystem, prefix: str, files: int = 1200) -> None:
    """Fill some twenty leaves at a time, a flush in between, as a writer of days would."""
    for number in range(files):
        fs.create(fs.root, f"{prefix}{number}".encode(), FILE, 0o644, 0, 0, 0, 0)
        if number % 300 == 299:
            assert fs.flusher is not None
            fs.flusher.flush_now()


def bigblocks_of_nodes(devices: Sequence[Device]) -> dict[int, set[Offset]]:
    """Where the nodes of each group lie that hold nothing for another one, read from the disk."""
    fs = mount(devices)
    cache = fs.ctx.tree._cache
    found: dict[int, set[Offset]] = defaultdict(set)

    def walk(node: Node) -> None:
        groups = {group_of(key, internal=bool(node.children)) for key in node.keys}
        if len(groups) == 1:
            found[groups.pop()].add(bigblock_of(node.offset))
        for index in range(len(node.children)):
            walk(cache.child(node, index))

    walk(cache.load_root())
    fs.close_now()
    return found


def until_full(blockmap: Blockmap) -> Iterator[Offset]:
    """Leaves, as many as find space."""
    with suppress(NoSpaceError):
        while True:
            yield blockmap.alloc(ZONE_BTREE, NODE_SIZE)


def test_each_group_lies_in_a_bigblock_of_its_own() -> None:
    devices = fresh()
    fs = mount(devices)
    grow(fs, "file", 9000)
    fs.close_now()
    places = bigblocks_of_nodes(devices)
    # The first leaf of all lies where leaves of contents go on, whatever it is for now.
    assert len(places[0]) == 1
    assert len(places[1] - places[0]) == len(places[2]) == len(places[3]) == 1
    assert len(places[0] | places[1] | places[2] | places[3]) == 4
    assert_clean(devices)


def test_they_stay_there_when_it_was_mounted_again() -> None:
    devices = fresh()
    for prefix in ("first", "second", "third"):
        fs = mount(devices)
        grow(fs, prefix, 3000)
        fs.close_now()
    places = bigblocks_of_nodes(devices)
    assert len(places[0]) == 1
    assert len(places[1] - places[0]) == 1
    internal = places[2] | places[3]
    assert 1 <= len(internal) <= 2
    assert not internal & (places[0] | places[1])
    assert_clean(devices)


def test_where_room_is_short_all_nodes_lie_together(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = fresh()
    fs = mount(devices)
    grow(fs, "first")
    monkeypatch.setattr("hammerfs.store.blockmap.APART_BIGBLOCKS_MIN", 1000)
    for _ in range(3):
        home = fs.ctx.root.btree_root
        offset = fs.ctx.blockmap.alloc_apart(ZONE_BTREE, NODE_SIZE, 1, home)
        assert bigblock_of(offset) != bigblock_of(home)
        assert fs.ctx.blockmap.is_append_point(offset)
        fs.ctx.blockmap.free(offset, NODE_SIZE)
    assert not fs.ctx.blockmap.is_append_point(home)
    fs.close_now()
    assert_clean(devices)


def test_the_last_space_for_leaves_is_what_internal_nodes_did_not_need() -> None:
    blockmap = mount(fresh()).ctx.blockmap
    home = blockmap.alloc(ZONE_BTREE, NODE_SIZE)
    apart = [blockmap.alloc_apart(ZONE_BTREE, NODE_SIZE, group, home) for group in (1, 2, 3)]
    while blockmap.allocatable_bigblocks:
        blockmap.alloc(ZONE_META, BIGBLOCK_SIZE // 512)
    leaves = list(until_full(blockmap))
    for place in apart:
        assert sum(bigblock_of(offset) == bigblock_of(place) for offset in leaves) == NODES_OF_A_BIGBLOCK - 1
    assert len(set(leaves)) == len(leaves)


def test_where_the_root_cannot_be_told_a_node_finds_space_all_the_same() -> None:
    blockmap = mount(fresh()).ctx.blockmap
    nowhere = encode(ZONE_BTREE, 7, 0)
    with pytest.raises(CorruptionError):
        blockmap._enter_apart(ZONE_BTREE + 16, nowhere)
    assert blockmap.is_append_point(blockmap.alloc_apart(ZONE_BTREE, NODE_SIZE, 1, nowhere))


@pytest.mark.parametrize("group", [1, 2, 3])
def test_a_volume_that_goes_takes_no_nodes_of_a_group(group: int) -> None:
    fs = mount(fresh(count=2))
    blockmap = fs.ctx.blockmap
    first = blockmap.alloc_apart(ZONE_BTREE, NODE_SIZE, group, blockmap.alloc(ZONE_BTREE, NODE_SIZE))
    blockmap.withhold(volume_of(first))
    second = blockmap.alloc_apart(ZONE_BTREE, NODE_SIZE, group, first)
    assert volume_of(second) != volume_of(first)
