"""The B-tree against a sorted dictionary, with versions, removals, syncs, small caches and reopening from the bytes."""

from __future__ import annotations

from bisect import bisect_left
from unittest import mock

import pytest
from btree_memory import HIGH, LOW, MemoryNodeStore, walk
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hammerfs.btree.tree import BTree
from hammerfs.errors import DuplicateKey, MissingKey, NoSpaceError
from hammerfs.ondisk.constants import MAX_TID
from hammerfs.ondisk.element import base_key, element_key, record_element, unpack_leaf, with_delete

FIRST_TID = 0x100000000
RECORDS = st.tuples(st.sampled_from([1, 2, 1 << 16]), st.integers(-3, 3), st.integers(-40, 400))
"""Localization, obj_id and key: few enough to meet again, many enough to fill several leaves."""
CACHE_NODES = st.sampled_from([1, 30, 1000])

Record = tuple[int, int, int]


class TreeAgainstDictionary(RuleBasedStateMachine):
    """`model` maps packed keys to elements; `visible` says what a record's state is now."""

    @initialize(
        cache_nodes=CACHE_NODES,
        mirror=st.booleans(),
        version=st.sampled_from([6, 7]),
        fanout=st.sampled_from([63, 63, 8, 4]),
    )
    def open(self, cache_nodes: int, mirror: bool, version: int, fanout: int) -> None:
        # Few elements to a node make deep trees, and nodes that come and go.
        self.smaller_nodes = [
            mock.patch("hammerfs.btree.node.LEAF_ELEMENTS", fanout),
            mock.patch("hammerfs.btree.tree.LEAF_ELEMENTS", fanout),
            mock.patch("hammerfs.btree.node.INTERNAL_ELEMENTS", fanout - 1),
        ]
        for patch in self.smaller_nodes:
            patch.start()
        self.store = MemoryNodeStore(version)
        self.cache_nodes, self.mirror, self.fanout = cache_nodes, mirror, fanout
        self.tree: BTree = self.store.tree(cache_nodes=cache_nodes, mirror=mirror)
        self.model: dict[bytes, bytes] = {}
        self.alive: dict[bytes, bytes] = {}
        self.tid = FIRST_TID

    def teardown(self) -> None:
        for patch in getattr(self, "smaller_nodes", []):
            patch.stop()

    # --- changes ---

    def write(self, record: Record, kind: int = 0x10) -> None:
        """Create a record, or overwrite it: its old version ends where the new one begins."""
        localization, obj_id, number = record
        self.tid += 16
        base = base_key(localization, obj_id, kind, number)
        if base in self.alive:
            self.end(base)
        element = record_element(localization, obj_id, kind, number, self.tid, 1, 0, 0, 0, 0)
        key = element_key(element)
        self.tree.insert(key, element, self.tid)
        self.model[key] = element
        self.alive[base] = key

    def end(self, base: bytes) -> None:
        key = self.alive.pop(base)
        self.model[key] = with_delete(self.model[key], self.tid, 2)
        self.tree.replace(key, self.model[key], self.tid)

    @rule(record=RECORDS)
    def write_one(self, record: Record) -> None:
        self.write(record)

    @rule(record=RECORDS, count=st.integers(50, 250), step=st.sampled_from([-3, -1, 1, 2]))
    def write_a_run(self, record: Record, count: int, step: int) -> None:
        localization, obj_id, number = record
        for distance in range(count):
            self.write((localization, obj_id, number + distance * step))

    @rule(record=RECORDS, count=st.integers(50, 150))
    def overwrite_one_often(self, record: Record, count: int) -> None:
        for _ in range(count):
            self.write(record)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def delete_one(self, data: st.DataObject) -> None:
        self.tid += 16
        self.end(data.draw(st.sampled_from(sorted(self.alive))))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), count=st.integers(1, 400), step=st.sampled_from([1, 1, 2, 7]), tracked=st.booleans())
    def remove_a_range(self, data: st.DataObject, count: int, step: int, tracked: bool) -> None:
        keys = sorted(self.model)
        start = data.draw(st.integers(0, len(keys) - 1))
        self.tid += 16
        for key in keys[start : start + count * step : step]:
            self.tree.remove(key, self.tid if tracked else 0)
            del self.model[key]
            self.alive = {base: live for base, live in self.alive.items() if live != key}

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def insert_twice(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model)))
        with pytest.raises(DuplicateKey):
            self.tree.insert(key, self.model[key], self.tid)

    @rule(record=RECORDS)
    def remove_what_is_not_there(self, record: Record) -> None:
        localization, obj_id, number = record
        absent = base_key(localization, obj_id, 0x11, number) + bytes(8)
        with pytest.raises(MissingKey):
            self.tree.remove(absent, 0)
        with pytest.raises(MissingKey):
            self.tree.replace(absent, b"", 0)

    @rule(record=RECORDS)
    def run_out_of_space(self, record: Record) -> None:
        localization, obj_id, number = record
        self.store.space, before = 0, self.store.space
        try:
            for distance in range(200):
                self.write((localization, obj_id, number + distance), kind=0x13)
        except NoSpaceError:
            pass
        self.store.space += before

    # --- shape ---

    @rule(residue=st.integers(0, 3), modulus=st.sampled_from([1, 2, 4]))
    def move_nodes(self, residue: int, modulus: int) -> None:
        """Every node is met once, and none is moved that is not on disk yet."""
        nodes = len(self.store.allocated)
        key, examined = LOW, 0
        while key is not None:
            moves = self.tree.move_nodes(key, lambda offset: offset // 4096 % modulus == residue % modulus)
            examined += moves.examined
            key = moves.behind
        assert examined == nodes == len(self.store.allocated)

    def fill_once(self, saturation: int) -> int:
        removed = row = 0
        while row < self.tree.height:
            key = LOW
            while key is not None:
                step = self.tree.fill_step(key, row, saturation)
                removed += step.removed
                key = step.next
            row += 1
        return removed

    @rule(saturation=st.sampled_from([31, 53, 62]))
    def fill_nodes(self, saturation: int) -> None:
        """At last no parent could do with fewer children."""
        saturation = min(saturation, self.fanout - 1)
        nodes = len(self.store.allocated)
        removed = self.fill_once(saturation)
        while again := self.fill_once(saturation):  # parents that were filled bring children together
            removed += again
        self.sync()
        assert len(self.store.allocated) <= nodes - removed
        for counts in walk(self.store, mirror=self.mirror).families:
            assert len(counts) <= max(1, -(-sum(counts) // saturation)) or len(counts) == 1

    # --- sync and memory ---

    @rule()
    def sync(self) -> None:
        estimate = self.tree.dirty_nodes
        self.store.written.clear()
        self.tree.sync()
        assert sum(not fresh for _, fresh in self.store.written) <= estimate
        assert self.tree.dirty_nodes == self.tree.fresh_nodes == 0
        assert walk(self.store, mirror=self.mirror).elements == [self.model[key] for key in sorted(self.model)]

    @rule()
    def reopen(self) -> None:
        self.sync()
        self.tree = self.store.tree(cache_nodes=self.cache_nodes, mirror=self.mirror)

    @rule()
    def drop_clean(self) -> None:
        self.tree.drop_clean()

    # --- reading ---

    @rule(record=RECORDS, back=st.integers(-1, 4000))
    def find_as_of(self, record: Record, back: int) -> None:
        as_of = MAX_TID if back < 0 else max(self.tid - back, 1)
        base = base_key(record[0], record[1], 0x10, record[2])
        found = [element for key, element in self.model.items() if key.startswith(base) and seen(element, as_of)]
        assert len(found) <= 1
        assert self.tree.find_as_of(base, as_of) == (found[0] if found else None)

    @rule(low=RECORDS, high=RECORDS, back=st.integers(-1, 4000))
    def scan(self, low: Record, high: Record, back: int) -> None:
        as_of = MAX_TID if back < 0 else max(self.tid - back, 1)
        first = base_key(low[0], low[1], 0x10, low[2]) + bytes(8)
        last = base_key(high[0], high[1], 0x10, high[2]) + b"\xff" * 8
        expected = [self.model[key] for key in sorted(self.model) if first <= key <= last]
        assert list(self.tree.scan(first, last)) == expected
        assert list(self.tree.scan_reverse(first, last)) == expected[::-1]
        assert list(self.tree.scan_as_of(first, last, as_of)) == [e for e in expected if seen(e, as_of)]

    @rule(record=RECORDS)
    def last_before(self, record: Record) -> None:
        key = base_key(record[0], record[1], 0x10, record[2])
        keys = sorted(self.model)
        index = bisect_left(keys, key)
        assert self.tree.last_before(key) == (self.model[keys[index - 1]] if index else None)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), every=st.integers(1, 40), record=RECORDS)
    def change_during_a_scan(self, data: st.DataObject, every: int, record: Record) -> None:
        there_all_the_time = dict(self.model)
        delivered = []
        for count, element in enumerate(self.tree.scan(LOW, HIGH)):
            delivered.append(element_key(element))
            if count % every == 0 and count < 200:
                self.write((record[0], record[1], record[2] + count))
            elif count % every == 1 and count < 200:
                key = data.draw(st.sampled_from(sorted(self.model)))
                self.tree.remove(key, 0)
                del self.model[key]
                there_all_the_time.pop(key, None)
                self.alive = {base: live for base, live in self.alive.items() if live != key}
        assert delivered == sorted(set(delivered))
        assert there_all_the_time.keys() <= set(delivered)

    @invariant()
    def counts_make_sense(self) -> None:
        assert self.tree.dirty_nodes >= 0
        assert 0 <= self.tree.fresh_nodes <= len(self.store.allocated)


def seen(element: bytes, as_of: int) -> bool:
    leaf = unpack_leaf(element)
    return leaf.create_tid <= as_of and (leaf.delete_tid == 0 or as_of < leaf.delete_tid)


TreeAgainstDictionary.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestTreeAgainstDictionary = TreeAgainstDictionary.TestCase
