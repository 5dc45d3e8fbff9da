"""The scan for changes: it passes over as much as it can, and over nothing that happened."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from btree_memory import MemoryNodeStore, insert, record, walk

from hammerfs.btree.changed import Unchanged
from hammerfs.btree.tree import BTree
from hammerfs.ondisk.constants import LOCALIZE_MASK, MAX_KEY, MAX_OBJID, MAX_RECTYPE, MAX_TID, MIN_KEY, MIN_OBJID
from hammerfs.ondisk.element import BASE, element_key, unpack_key, with_delete

FIRST = BASE.pack(MIN_OBJID, MIN_KEY, 1, 0, 0, 0, 0, 0)
LAST = BASE.pack(MAX_OBJID, MAX_KEY, MAX_TID, 0, MAX_RECTYPE, 0, 0, LOCALIZE_MASK)
OLD, NEW = 0x1000, 0x2000


def filled(numbers: Iterable[int], cache_nodes: int = 1000) -> tuple[MemoryNodeStore, BTree]:
    """A tree of records of the TID OLD, on its disk."""
    store = MemoryNodeStore()
    tree = store.tree(cache_nodes=cache_nodes)
    for number in numbers:
        insert(tree, record(number, OLD))
    tree.sync()
    return store, tree


def scanned(tree: BTree, tid: int = NEW) -> list[bytes | Unchanged]:
    """The whole scan, after it was seen to be in order and without holes in what it says."""
    found = list(tree.scan_changed(FIRST, LAST, tid))
    at = element_key(FIRST)
    for item in found:
        low = element_key(item.low if isinstance(item, Unchanged) else item)
        high = element_key(item.high) if isinstance(item, Unchanged) else low
        assert at <= low <= high
        at = high
    return found


def covers(found: list[bytes | Unchanged], key: bytes) -> bool:
    """Whether the scan says that nothing changed at a key."""
    return any(element_key(item.low) <= key < element_key(item.high) for item in found if isinstance(item, Unchanged))


def test_an_unchanged_tree_is_one_leaf_and_ranges() -> None:
    _, tree = filled(range(9000))
    found = scanned(tree)
    elements = [item for item in found if not isinstance(item, Unchanged)]
    assert 0 < len(elements) <= 63
    assert 1 <= len(found) - len(elements) <= 3
    assert len([item for item in scanned(tree, OLD) if not isinstance(item, Unchanged)]) == 9000
    assert not any(isinstance(item, Unchanged) for item in scanned(tree, OLD))


@pytest.mark.parametrize("number", [0, 1, 4500, 8999])
def test_a_change_is_found_with_the_rest_of_its_leaf(number: int) -> None:
    _, tree = filled(range(9000))
    raw = record(number, OLD)
    tree.replace(element_key(raw), with_delete(raw, NEW, 5), NEW)
    tree.sync()
    found = scanned(tree)
    assert with_delete(raw, NEW, 5) in found
    assert sum(not isinstance(item, Unchanged) for item in found) <= 2 * 63
    assert not covers(found, element_key(raw))


@pytest.mark.parametrize("seed", range(12))
def test_what_was_removed_is_in_no_unchanged_range(seed: int) -> None:
    """Whole leaves, and whole nodes above them, may have gone with it."""
    chosen = random.Random(seed)
    count = chosen.choice([3000, 9000, 12000])
    store, tree = filled(range(count))
    start = chosen.choice([0, chosen.randrange(count)])
    gone = range(start, min(count, start + chosen.choice([1, 70, 4000, 8000])))
    for number in gone:
        tree.remove(element_key(record(number, OLD)), NEW)
    tree.sync()
    walk(store)
    found = scanned(store.tree())
    left = {number for number in range(count) if covers(found, element_key(record(number, OLD)))}
    assert not left & set(gone)
    told = {item for item in found if not isinstance(item, Unchanged)}
    for number in set(range(count)) - set(gone):
        assert number in left or record(number, OLD) in told


@pytest.mark.parametrize("child", [0, 1, 2])
def test_a_whole_subtree_that_was_removed_is_in_no_unchanged_range(child: int) -> None:
    """Its neighbour inherits the range, with nodes between it and the leaves that nothing else has touched."""
    store, tree = filled(range(12000))
    bounds = [unpack_key(key).key for key in tree._cache.load_root().keys] + [12000]
    start, stop = max(bounds[child], 0), min(bounds[child + 1], 12000)
    for number in range(start, stop):
        tree.remove(element_key(record(number, OLD)), NEW)
    tree.sync()
    walk(store)
    found = scanned(store.tree())
    assert not any(covers(found, element_key(record(number, OLD))) for number in range(start, stop))


def test_it_gives_way_to_changes_and_loses_nothing() -> None:
    chosen = random.Random(7)
    _, tree = filled(range(0, 20000, 2), cache_nodes=30)
    found = []
    fresh = iter(chosen.sample(range(1, 20000, 2), 3000))
    for item in tree.scan_changed(FIRST, LAST, NEW):
        found.append(item)
        for number in (next(fresh, None), next(fresh, None)):
            if number is not None:
                insert(tree, record(number, NEW))
        if chosen.random() < 0.1:
            tree.sync()
    keys = [element_key(item.low if isinstance(item, Unchanged) else item) for item in found]
    assert keys == sorted(keys)
    for number in range(0, 20000, 2):
        raw = record(number, OLD)
        assert covers(found, element_key(raw)) or raw in found


def test_it_stays_within_its_bounds() -> None:
    _, tree = filled(range(9000))
    low, high = record(4000, OLD)[:40], record(5000, OLD)[:40]
    found = list(tree.scan_changed(low, high, OLD))
    assert found == [record(number, OLD) for number in range(4000, 5001)]
    found = list(tree.scan_changed(low, high, NEW))
    assert found[0] == record(4000, OLD)
    assert isinstance(found[-1], Unchanged)
    assert found[-1].high == high


def test_the_cache_stays_within_its_bound() -> None:
    store, _ = filled(range(20000))
    tree = store.tree(cache_nodes=64)
    assert sum(not isinstance(item, Unchanged) for item in tree.scan_changed(FIRST, LAST, OLD)) == 20000
    assert tree.statistics().cached_nodes <= 64 + 10
