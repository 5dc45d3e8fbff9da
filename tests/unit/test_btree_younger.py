"""Scans for what changed: nothing that changed is missed, and what did not is not even read."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from btree_memory import HIGH, LOW, MemoryNodeStore, insert, record

from hammerfs.btree.tree import BTree
from hammerfs.ondisk.element import element_key, unpack_leaf, with_delete

FIRST_TID = 0x100000010
RECORDS = 8_000


def changed(tree: BTree, since: int, low: bytes = LOW, high: bytes = HIGH) -> list[bytes]:
    """What a scan has to deliver, by a look at everything."""
    return [
        raw for raw in tree.scan(low, high) if (leaf := unpack_leaf(raw)).create_tid > since or leaf.delete_tid > since
    ]


def grown(store: MemoryNodeStore, source: random.Random) -> Iterator[tuple[BTree, int]]:
    """A tree that changes in ten places at a time, with the TID before each batch; synced."""
    tree = store.tree()
    for number in range(0, RECORDS, 2):
        insert(tree, record(number, tid=FIRST_TID))
    tree.sync()
    for batch in range(1, 5):
        tid = FIRST_TID + 16 * batch
        for number in source.sample(range(1, RECORDS, 2), 5):
            if tree.lookup(element_key(record(number, tid=tid))) is None:
                insert(tree, record(number, tid=tid))
        for number in source.sample(range(0, RECORDS, 2), 5):
            key = element_key(record(number, tid=FIRST_TID))
            raw = tree.lookup(key)
            if raw is not None and not unpack_leaf(raw).delete_tid:
                tree.replace(key, with_delete(raw, tid, 0), tid)
        for number in source.sample(range(0, RECORDS, 2), 2):
            key = element_key(record(number, tid=FIRST_TID))
            if tree.lookup(key) is not None:
                tree.remove(key, tid)
        tree.sync()
        yield tree, tid - 16


@pytest.mark.parametrize("seed", range(3))
def test_everything_that_changed_is_found(seed: int) -> None:
    source = random.Random(seed)
    store = MemoryNodeStore()
    for tree, since in grown(store, source):
        for tid in (0, FIRST_TID, since, since + 16):
            assert list(tree.scan_younger(LOW, HIGH, tid)) == changed(tree, tid)
            low, high = sorted(element_key(record(source.randrange(RECORDS))) for _ in range(2))
            assert list(tree.scan_younger(low, high, tid)) == changed(tree, tid, low, high)


def test_leaves_that_did_not_change_are_not_read() -> None:
    store = MemoryNodeStore()
    for _, since in grown(store, random.Random(7)):
        last = since
    cold = store.tree()
    found = list(cold.scan_younger(LOW, HIGH, last))
    reads = cold.statistics().reads
    assert len(found) >= 10
    assert reads <= 4 * len(found)
    assert list(cold.scan(LOW, HIGH))
    assert cold.statistics().reads > 3 * reads


def test_a_scan_goes_on_behind_what_it_delivered_when_the_tree_changes() -> None:
    store = MemoryNodeStore()
    tree = store.tree()
    for number in range(0, 1000, 2):
        insert(tree, record(number, tid=FIRST_TID))
    tree.sync()
    seen = []
    for count, raw in enumerate(tree.scan_younger(LOW, HIGH, 0)):
        seen.append(unpack_leaf(raw).key)
        if count % 7 == 0:
            insert(tree, record(count * 2 + 1, tid=FIRST_TID + 16))
    assert [key for key in seen if not key % 2] == list(range(0, 1000, 2))
    assert seen == sorted(seen)
