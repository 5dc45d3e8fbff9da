"""The B-tree's operations: order, splits, removal, as-of, scans among changes, what a sync writes."""

from __future__ import annotations

import random
from unittest import mock

import pytest
from btree_memory import DATA, HIGH, LOCALIZATION, LOW, MemoryNodeStore, insert, record, walk

from hammerfs.btree.tree import UNDO_PER_NODE, BTree
from hammerfs.errors import DuplicateKey, MissingKey, NoSpaceError
from hammerfs.ondisk.constants import MAX_TID, NODE_SIZE
from hammerfs.ondisk.element import BASE_KEY_SIZE, element_key, record_element, unpack_leaf, with_delete
from hammerfs.ondisk.node import element_at, unpack_header

TID = 0x100000010


@pytest.fixture
def store() -> MemoryNodeStore:
    return MemoryNodeStore()


@pytest.fixture
def tree(store: MemoryNodeStore) -> BTree:
    return store.tree()


def filled(tree: BTree, numbers: list[int] | range) -> dict[bytes, bytes]:
    return {insert(tree, element): element for element in map(record, numbers)}


def shuffled(count: int, seed: int = 1) -> list[int]:
    numbers = list(range(count))
    random.Random(seed).shuffle(numbers)
    return numbers


def test_an_empty_tree_holds_nothing(tree: BTree) -> None:
    assert tree.lookup(element_key(record(1))) is None
    assert list(tree.scan(LOW, HIGH)) == []
    assert list(tree.scan_reverse(LOW, HIGH)) == []
    assert tree.last_before(HIGH) is None
    assert tree.dirty_nodes == tree.fresh_nodes == 0


@pytest.mark.parametrize("numbers", [range(5000), range(5000, 0, -1), shuffled(5000)], ids=["up", "down", "random"])
def test_what_was_inserted_is_found_before_and_after_a_sync(
    store: MemoryNodeStore, tree: BTree, numbers: list[int] | range
) -> None:
    expected = filled(tree, numbers)
    for again in (tree, None, store.tree()):
        if again is None:
            tree.sync()
            assert walk(store).elements == [expected[key] for key in sorted(expected)]
            again = tree
        elif again is not tree:
            again = store.tree()
        assert all(again.lookup(key) == element for key, element in expected.items())
        assert list(again.scan(LOW, HIGH)) == [expected[key] for key in sorted(expected)]
        assert list(again.scan_reverse(LOW, HIGH)) == [expected[key] for key in sorted(expected, reverse=True)]
        assert again.lookup(element_key(record(-3))) is None


def test_scans_keep_to_their_range(tree: BTree) -> None:
    filled(tree, range(0, 1000, 2))
    low, high = element_key(record(101)), element_key(record(300))
    numbers = [unpack_leaf(element).key for element in tree.scan(low, high)]
    assert numbers == list(range(102, 301, 2))
    assert [unpack_leaf(element).key for element in tree.scan_reverse(low, high)] == numbers[::-1]
    assert list(tree.scan(high, low)) == list(tree.scan_reverse(high, low)) == []


def test_last_before_is_the_neighbour_to_the_left_in_whatever_leaf(tree: BTree) -> None:
    filled(tree, shuffled(2000))
    for number in range(1, 2000):
        before = tree.last_before(element_key(record(number)))
        assert before is not None
        assert unpack_leaf(before).key == number - 1
    assert tree.last_before(element_key(record(0))) is None


@pytest.mark.parametrize("step", [1, 16384], ids=["adjacent", "file data"])
def test_ascending_insertion_fills_nodes(store: MemoryNodeStore, tree: BTree, step: int) -> None:
    filled(tree, range(0, 20000 * step, step))
    tree.sync()
    found = walk(store)
    assert sum(found.leaves) / (63 * len(found.leaves)) >= 0.95


def test_ascending_insertion_before_other_records_fills_nodes_too(store: MemoryNodeStore, tree: BTree) -> None:
    for number in range(200):
        insert(tree, record(number, obj_id=9))
    for number in range(10000):
        insert(tree, record(number, obj_id=5))
    tree.sync()
    found = walk(store)
    assert sum(found.leaves) / (63 * len(found.leaves)) >= 0.85


def test_random_insertion_leaves_nodes_two_thirds_full(store: MemoryNodeStore, tree: BTree) -> None:
    filled(tree, shuffled(20000))
    tree.sync()
    found = walk(store)
    assert 0.6 < sum(found.leaves) / (63 * len(found.leaves)) < 0.8


def test_a_key_is_inserted_once(tree: BTree) -> None:
    filled(tree, range(200))
    with pytest.raises(DuplicateKey, match="0000000000000007"):
        insert(tree, record(7))
    assert len(list(tree.scan(LOW, HIGH))) == 200


@pytest.mark.parametrize("synced", [False, True])
def test_what_is_not_there_cannot_be_changed(tree: BTree, synced: bool) -> None:
    filled(tree, range(200))
    if synced:
        tree.sync()
    key = element_key(record(1000))
    with pytest.raises(MissingKey, match="00000000000003e8"):
        tree.remove(key, TID)
    with pytest.raises(MissingKey):
        tree.replace(key, record(1000), TID)
    assert tree.dirty_nodes == (0 if synced else 1)


def test_replace_keeps_the_key_and_changes_the_rest(store: MemoryNodeStore, tree: BTree) -> None:
    expected = filled(tree, range(500))
    tree.sync()
    key = element_key(record(250))
    tree.replace(key, with_delete(expected[key], TID + 16, 99), TID + 16)
    tree.sync()
    element = store.tree().lookup(key)
    assert element is not None
    assert unpack_leaf(element).delete_tid == TID + 16
    assert len(walk(store).elements) == 500


@pytest.mark.parametrize("order", [range(5000), range(4999, -1, -1), shuffled(5000, 2)], ids=["up", "down", "random"])
def test_removing_everything_leaves_an_empty_leaf_as_root(
    store: MemoryNodeStore, tree: BTree, order: list[int] | range
) -> None:
    filled(tree, shuffled(5000))
    tree.sync()
    depths = []
    for count, number in enumerate(order):
        tree.remove(element_key(record(number)), 0)
        if count % 500 == 0:
            tree.sync()
            depths.append(walk(store).depths.pop())
    tree.sync()
    found = walk(store)
    assert found.elements == []
    assert len(store.allocated) == 1
    assert depths[0] == 2
    assert depths == sorted(depths, reverse=True)
    insert(tree, record(1))
    tree.sync()
    assert walk(store).elements == [record(1)]


def test_ranges_given_up_and_taken_again_keep_all_boundaries(store: MemoryNodeStore, tree: BTree) -> None:
    """Whole internal nodes go away, and their range, which is left to narrower neighbours, fills again."""
    filled(tree, range(0, 60000, 3))
    tree.sync()
    for low, high in ((0, 15000), (20001, 40000), (50001, 60000)):
        for number in range(low, high):
            if number % 3 == 0:
                tree.remove(element_key(record(number)), 0)
        tree.sync()
        walk(store)
    tree = store.tree()
    for number in (14999, 20002, 39999 - 2, 30001, 50002, 59999, 1, 2):
        insert(tree, record(number))
        tree.sync()
        walk(store)
    filled(tree, [n for n in range(60001, 0, -1) if n % 3 == 1 and tree.lookup(element_key(record(n))) is None])
    tree.sync()
    walk(store)


def versions(tree: BTree, number: int, count: int, gap: int = 0) -> None:
    """A record overwritten `count - 1` times, each version living for 16 TIDs less `gap`."""
    for step in range(count):
        tid = TID + 16 * step
        element = record(number, tid)
        if step < count - 1:
            element = with_delete(element, tid + 16 - gap, 0)
        tree.insert(element_key(element), element, tid + 16)


def visible(element: bytes, as_of: int) -> bool:
    leaf = unpack_leaf(element)
    return leaf.create_tid <= as_of and (not leaf.delete_tid or leaf.delete_tid > as_of)


def test_a_scan_of_a_moment_passes_the_versions_of_others_by(store: MemoryNodeStore, tree: BTree) -> None:
    """It shows what it would show if it looked at each, and reads a few leaves of the many that a record fills."""
    for number, count in ((10, 700), (11, 1), (12, 300), (13, 2)):
        versions(tree, number, count, gap=number % 3)
    tree.sync()
    walk(store)
    elements = list(tree.scan(LOW, HIGH))
    for as_of in [*range(TID - 1, TID + 16 * 700, 77), TID + 16 * 699, MAX_TID]:
        fresh = store.tree()
        with mock.patch.object(store, "read_node", wraps=store.read_node) as reads:
            shown = fresh.list_as_of(LOW, HIGH, as_of)
        assert shown == [element for element in elements if visible(element, as_of)]
        assert list(fresh.scan_as_of(LOW, HIGH, as_of)) == shown
        assert reads.call_count <= 12, f"{reads.call_count} of {len(store.pages)} nodes"


def test_each_moment_sees_its_version_wherever_splits_put_it(store: MemoryNodeStore, tree: BTree) -> None:
    for number in range(0, 100, 10):
        versions(tree, number, 200, gap=3)
    tree.sync()
    walk(store)
    base = element_key(record(50))[:BASE_KEY_SIZE]
    for as_of in range(TID - 1, TID + 16 * 200):
        found = tree.find_as_of(base, as_of)
        step, rest = divmod(as_of - TID, 16)
        if as_of < TID or (rest >= 13 and step < 199):
            assert found is None
        else:
            assert found is not None
            assert unpack_leaf(found).create_tid == TID + 16 * step
            assert list(tree.scan_as_of(base, base + b"\xff" * 8, as_of)) == [found]
    newest = tree.find_as_of(base, MAX_TID)
    assert newest is not None
    assert unpack_leaf(newest).create_tid == TID + 16 * 199
    assert len(list(tree.scan_as_of(LOW, HIGH, MAX_TID))) == 10
    assert tree.find_as_of(element_key(record(51))[:BASE_KEY_SIZE], MAX_TID) is None


def test_a_leaf_that_is_looked_into_once_takes_no_memory(store: MemoryNodeStore, tree: BTree) -> None:
    for number in range(0, 100, 10):
        versions(tree, number, 200)
    tree.sync()
    base = element_key(record(50))[:BASE_KEY_SIZE]
    tree = store.tree()
    found, kept = [], []
    with mock.patch.object(store, "read_node", wraps=store.read_node) as reads:
        for _ in range(3):
            found.append(tree.find_as_of(base, TID + 16 * 100))
            kept.append((tree.statistics().cached_nodes, reads.call_count))
            tree.find_as_of(element_key(record(0))[:BASE_KEY_SIZE], TID)  # somewhere else
    assert [element and unpack_leaf(element).create_tid for element in found] == [TID + 16 * 100] * 3
    (nodes, first), (again, second), (at_last, third) = kept
    assert first == nodes + 1, "the leaf was read and not kept"
    assert (again, second) == (nodes + 1, first + 2), "it is kept the second time; the other one was read once"
    assert (at_last, third) == (nodes + 2, second + 1), "and not read any more"


def test_a_deleted_record_with_a_long_history_is_not_found_now(tree: BTree) -> None:
    versions(tree, 5, 300)
    last = record(5, TID + 16 * 299)
    tree.replace(element_key(last), with_delete(last, TID + 16 * 300, 0), TID + 16 * 300)
    base = element_key(last)[:BASE_KEY_SIZE]
    assert tree.find_as_of(base, MAX_TID) is None
    assert tree.find_as_of(base, TID + 16 * 300 - 1) is not None


def test_a_scan_survives_insertions_and_removals_around_it(tree: BTree) -> None:
    filled(tree, range(0, 2000, 2))
    seen = []
    for element in tree.scan(LOW, HIGH):
        number = unpack_leaf(element).key
        seen.append(number)
        if number % 4 == 2:
            insert(tree, record(number + 1))
        if number % 4 == 0 and number:
            insert(tree, record(number - 3))
            if number >= 100 and number % 100 == 0:
                for past in range(number - 100, number - 60, 2):
                    tree.remove(element_key(record(past)), 0)
        if number % 300 == 0:
            tree.sync()
            tree.drop_clean()
    expected = [number for number in range(2000) if number % 2 == 0 or number % 4 == 3]
    assert seen == expected


def test_a_reverse_scan_survives_changes_too(tree: BTree) -> None:
    filled(tree, range(1000))
    seen = []
    for element in tree.scan_reverse(LOW, HIGH):
        number = unpack_leaf(element).key
        seen.append(number)
        tree.remove(element_key(element), 0)
    assert seen == list(range(999, -1, -1))
    assert list(tree.scan(LOW, HIGH)) == []


def test_a_scan_shows_what_changed_ahead_of_it(tree: BTree) -> None:
    expected = filled(tree, range(10))
    scan = tree.scan_as_of(LOW, HIGH, MAX_TID)
    assert next(scan) == record(0)
    key = element_key(record(1))
    tree.replace(key, with_delete(expected[key], TID + 16, 0), TID + 16)
    assert next(scan) == record(2)


def test_sync_writes_each_changed_node_once_and_knows_the_fresh_ones(store: MemoryNodeStore, tree: BTree) -> None:
    filled(tree, range(10000))
    assert tree.fresh_nodes == len(store.allocated) - 1
    assert tree.dirty_nodes == 1
    assert tree.undo_estimate() == UNDO_PER_NODE >= NODE_SIZE
    tree.sync()
    assert sorted(offset for offset, _ in store.written) == sorted(store.allocated)
    assert tree.dirty_nodes == tree.fresh_nodes == tree.undo_estimate() == 0
    store.written.clear()
    tree.sync()
    assert store.written == []
    insert(tree, record(10001, TID + 16))
    assert (tree.dirty_nodes, tree.fresh_nodes) == (3, 0)
    tree.sync()
    assert len(store.written) == 3
    assert not any(fresh for _, fresh in store.written)
    assert tree.statistics().writes == len(store.allocated) + 3


def test_sync_in_steps_lets_readers_in_between(store: MemoryNodeStore) -> None:
    tree = store.tree(cache_nodes=20)
    expected = filled(tree, range(10000))
    steps = 0
    for _ in tree.sync_in_steps():
        steps += 1
        for number in range(0, 10000, 500):
            assert tree.lookup(element_key(record(number))) is not None
    assert steps >= 2
    assert tree.dirty_nodes == tree.fresh_nodes == 0
    assert len(walk(store).elements) == len(expected)


def test_nodes_kept_beyond_the_bound_because_they_were_dirty_go_after_the_sync(store: MemoryNodeStore) -> None:
    tree = store.tree(cache_nodes=20)
    filled(tree, range(10000))
    assert tree.statistics().cached_nodes > 150
    tree.sync()
    tree.lookup(element_key(record(5)))
    assert tree.statistics().cached_nodes <= 23


def test_mirror_tids_reach_the_root_once_per_sync(store: MemoryNodeStore, tree: BTree) -> None:
    filled(tree, shuffled(10000))
    tree.sync()
    insert(tree, record(20000, TID + 160))
    tree.remove(element_key(record(30)), TID + 320)
    assert unpack_header(store.pages[store.root]).mirror_tid == TID
    tree.sync()
    walk(store)
    assert unpack_header(store.pages[store.root]).mirror_tid == TID + 320


def test_mirror_tids_that_rise_between_splits_reach_the_root(store: MemoryNodeStore, tree: BTree) -> None:
    for number in range(10000):
        insert(tree, record(number, TID + 16 * number))
    tree.sync()
    walk(store)
    assert unpack_header(store.pages[store.root]).mirror_tid == TID + 16 * 9999


def test_a_removed_leaf_leaves_its_mirror_tid_to_a_neighbour(store: MemoryNodeStore, tree: BTree) -> None:
    filled(tree, range(1000))
    tree.sync()
    for number in range(63, 126):
        tree.remove(element_key(record(number)), TID + 16)
    tree.sync()
    walk(store)
    root = store.pages[store.root]
    mirrors = [int.from_bytes(element_at(root, index)[40:48], "little") for index in range(3)]
    assert mirrors == [TID + 16, TID, TID]
    assert unpack_header(root).mirror_tid == TID + 16


def test_without_mirror_only_the_leaf_is_written(store: MemoryNodeStore) -> None:
    tree = store.tree(mirror=False)
    filled(tree, range(10000))
    tree.sync()
    store.written.clear()
    insert(tree, record(20000, TID + 16))
    assert tree.dirty_nodes == 1
    tree.sync()
    assert len(store.written) == 1
    walk(store, mirror=False)


def test_a_pinned_ancestor_that_did_not_change_is_not_written(store: MemoryNodeStore, tree: BTree) -> None:
    filled(tree, range(10000))
    tree.sync()
    store.written.clear()
    tree.remove(element_key(record(5)), 0)
    assert tree.dirty_nodes == 3
    tree.sync()
    assert len(store.written) == 1


def test_running_out_of_space_changes_nothing(store: MemoryNodeStore, tree: BTree) -> None:
    store.space = 0
    expected = filled(tree, range(63))
    with pytest.raises(NoSpaceError):
        insert(tree, record(100))
    store.space = 1  # a new leaf but no new root
    with pytest.raises(NoSpaceError):
        insert(tree, record(100))
    assert store.space == 1
    assert list(tree.scan(LOW, HIGH)) == list(expected.values())
    tree.sync()
    assert walk(store).elements == list(expected.values())
    store.space = 2
    insert(tree, record(100))
    tree.sync()
    assert len(walk(store).leaves) == 2


def test_a_node_split_and_emptied_before_any_sync_never_reaches_the_disk(store: MemoryNodeStore, tree: BTree) -> None:
    filled(tree, range(64))
    for number in range(64):
        tree.remove(element_key(record(number)), 0)
    assert (tree.dirty_nodes, tree.fresh_nodes) == (0, 1)
    tree.sync()
    assert walk(store).elements == []
    assert store.written == [(store.root, True)]


@pytest.mark.parametrize("cache_nodes", [1, 16, 50])
def test_a_small_cache_costs_reads_only(store: MemoryNodeStore, cache_nodes: int) -> None:
    tree = store.tree(cache_nodes=cache_nodes)
    expected = {}
    for count, number in enumerate(shuffled(5000)):
        element = record(number)
        expected[insert(tree, element)] = element
        if count % 100 == 0:
            tree.sync()
        if count % 7 == 0:
            assert tree.lookup(element_key(record(number))) == element
    tree.sync()
    assert walk(store).elements == [expected[key] for key in sorted(expected)]
    for key, element in expected.items():
        assert tree.lookup(key) == element
    figures = tree.statistics()
    assert figures.cached_nodes <= cache_nodes + 8
    assert figures.evictions > 0


def test_nodes_in_use_survive_eviction(store: MemoryNodeStore) -> None:
    """Touched ones get a second chance: looking at one region often must not cost a read each time."""
    filled(tree := store.tree(), range(20000))
    tree.sync()
    tree = store.tree(cache_nodes=64)
    hot, far = element_key(record(5)), range(0, 20000, 63)
    for number in far:
        tree.lookup(hot)
        tree.lookup(element_key(record(number)))
    assert tree.statistics().reads < len(far) + 40


def test_dropped_and_invalidated_nodes_are_read_again(store: MemoryNodeStore, tree: BTree) -> None:
    filled(tree, range(1000))
    tree.sync()
    before = tree.statistics().reads
    tree.lookup(element_key(record(5)))
    assert tree.statistics().reads == before
    for forget in (tree.drop_clean, lambda: tree.invalidate(store.root)):
        forget()
        assert tree.statistics().cached_nodes == 0
        assert tree.lookup(element_key(record(5))) == record(5)
        assert tree.statistics().cached_nodes == 2
    tree.invalidate(store.root + (1 << 24))
    assert tree.statistics().cached_nodes == 2


def test_dropping_keeps_what_is_dirty(tree: BTree) -> None:
    expected = filled(tree, range(1000))
    tree.drop_clean()
    assert list(tree.scan(LOW, HIGH)) == list(expected.values())


def test_localization_obj_id_type_and_key_order_in_this_sequence(tree: BTree) -> None:
    elements = [
        record(number, obj_id=obj_id)[:36] + localization.to_bytes(4, "little") + record(number)[40:]
        for localization in (1, LOCALIZATION, 1 << 16)
        for obj_id in (-(1 << 63) + 1, -1, 0, 1, 1 << 40)
        for number in (-(1 << 63), -5, 0, 7, (1 << 63) - 1)
    ]
    for element in random.Random(3).sample(elements, len(elements)):
        insert(tree, element)
    assert list(tree.scan(LOW, HIGH)) == elements


def version(number: int, tid: int, deleted: int) -> bytes:
    """A version of record `number`, made by transaction `tid` and ended by `deleted`, 0 if it lives."""
    element = record_element(LOCALIZATION, 1, DATA, number, tid, 0, 0, 0, 0, 0)
    return with_delete(element, deleted, 0) if deleted else element


@pytest.mark.parametrize("is_alive", [True, False])
def test_the_present_is_found_without_a_walk_through_thousands_of_older_versions(tree: BTree, is_alive: bool) -> None:
    """A page that a database writes with each transaction leaves a version behind each time."""
    count = 5000
    newest = version(5, TID + 16 * count, 0 if is_alive else TID + 16 * (count + 1))
    history = [version(5, TID + 16 * number, TID + 16 * (number + 1)) for number in range(count)]
    neighbours = [version(number, TID, 0) for number in (3, 4, 6, 7)]
    for element in [*history, newest, *neighbours]:
        insert(tree, element)
    expected = sorted([newest] * is_alive + neighbours, key=element_key)
    with mock.patch.object(BTree, "_batch", autospec=True, side_effect=BTree._batch) as batch:
        assert tree.list_as_of(LOW, HIGH, MAX_TID) == expected
        assert batch.call_count <= 4
        assert list(tree.scan_as_of(LOW, HIGH, MAX_TID)) == expected
        assert batch.call_count <= 8
    assert len(list(tree.scan(LOW, HIGH))) == count + 5
    assert len(tree.list_as_of(LOW, HIGH, TID + 16 * 100)) == 5
