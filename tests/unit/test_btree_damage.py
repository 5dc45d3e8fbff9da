"""Damaged nodes: whatever a page says, the answer is a CorruptionError that names it, or the truth."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable

import pytest
from btree_memory import HIGH, LOW, MemoryNodeStore, insert, record, walk
from hypothesis import given
from hypothesis import strategies as st

from hammerfs.btree.node import Bounds, decode, glimpse
from hammerfs.btree.tree import BTree
from hammerfs.errors import CorruptionError, MissingKey
from hammerfs.ondisk.address import Offset
from hammerfs.ondisk.constants import NODE_SIZE
from hammerfs.ondisk.element import element_key, unpack_internal, unpack_leaf
from hammerfs.ondisk.node import element_at, pack_node, unpack_header

COUNT = 10000
PARENT, ELEMENT_COUNT, KIND = 8, 16, 20
BTYPE, CREATE, SUBTREE = 35, 16, 48


def place(index: int, field: int = 0) -> int:
    """Where a field of an element is on the page."""
    return 64 + 64 * index + field


def built(version: int = 7) -> MemoryNodeStore:
    """A tree of three levels: a root, three internal nodes, leaves of 63 adjacent records."""
    store = MemoryNodeStore(version)
    tree = store.tree()
    for number in range(COUNT):
        insert(tree, record(number))
    tree.sync()
    return store


def child(store: MemoryNodeStore, offset: Offset, index: int) -> Offset:
    return unpack_internal(element_at(store.pages[offset], index)).subtree_offset


@pytest.fixture
def store() -> MemoryNodeStore:
    return built()


@pytest.fixture
def inner(store: MemoryNodeStore) -> Offset:
    """The second internal node."""
    return child(store, store.root, 1)


@pytest.fixture
def leaf(store: MemoryNodeStore, inner: Offset) -> Offset:
    """The third leaf below it."""
    return child(store, inner, 2)


def first_number(store: MemoryNodeStore, leaf: Offset) -> int:
    return unpack_leaf(element_at(store.pages[leaf], 0)).key


def refused(store: MemoryNodeStore, broken: Offset, number: int, says: str) -> None:
    """Reading, changing and scanning what lies below `broken` fails with its name; the rest is usable."""
    tree = store.tree()
    key = element_key(record(number))
    for action in (
        lambda: tree.lookup(key),
        lambda: tree.find_as_of(key[:22], 1 << 60),
        lambda: list(tree.scan(LOW, HIGH)),
        lambda: list(tree.scan_reverse(LOW, HIGH)),
        lambda: tree.remove(key, 0),
        lambda: insert(tree, record(number, 0x200000000)),
    ):
        with pytest.raises(CorruptionError, match=says) as caught:
            action()
        assert caught.value.offset == broken
    if broken != store.root:
        assert tree.lookup(element_key(record(0))) == record(0)
        assert tree.lookup(element_key(record(COUNT - 1))) == record(COUNT - 1)


LEAF_DAMAGE = {
    "type of a deleted node": (KIND, b"D", "unknown type 0x44"),
    "type of an internal node": (KIND, b"I", "type I where its parent says L"),
    "too many elements": (ELEMENT_COUNT, struct.pack("<i", 64), "count of 64"),
    "negative count": (ELEMENT_COUNT, struct.pack("<i", -1), "count of -1"),
    "no parent": (PARENT, bytes(8), "parent 0000000000000000 instead of"),
    "other parent": (PARENT, struct.pack("<Q", 0x8000000000001000), "parent 8000000000001000 instead of"),
    "no record": (place(5, BTYPE), b"L", "no record"),
    "order": (place(5), record(0)[:40], "out of order"),
    "equal keys": (place(5, 8), None, "out of order"),
    "left of its range": (place(0, 8), bytes(8), "outside the range"),
    "right of its range": (place(62, 8), struct.pack("<q", COUNT), "outside the range"),
}


@pytest.mark.parametrize("name", LEAF_DAMAGE)
def test_a_damaged_leaf(store: MemoryNodeStore, leaf: Offset, name: str) -> None:
    at, new, says = LEAF_DAMAGE[name]
    number = first_number(store, leaf)
    store.edit(leaf, at, struct.pack("<q", number + 4) if new is None else new)
    refused(store, leaf, number + 1, says)


def self_link(store: MemoryNodeStore, inner: Offset) -> tuple[int, bytes]:
    return place(2, SUBTREE), struct.pack("<Q", inner)


def root_link(store: MemoryNodeStore, inner: Offset) -> tuple[int, bytes]:
    return place(2, SUBTREE), struct.pack("<Q", store.root)


def cousin_link(store: MemoryNodeStore, inner: Offset) -> tuple[int, bytes]:
    return place(2, SUBTREE), struct.pack("<Q", child(store, child(store, store.root, 0), 2))


@pytest.mark.parametrize("link", [self_link, root_link, cousin_link])
@pytest.mark.parametrize("warm", [False, True])
def test_a_link_to_a_node_that_belongs_elsewhere(
    store: MemoryNodeStore, inner: Offset, link: Callable[[MemoryNodeStore, Offset], tuple[int, bytes]], warm: bool
) -> None:
    number = first_number(store, child(store, inner, 2))
    store.edit(inner, *link(store, inner))
    tree = store.tree()
    if warm:
        tree.lookup(element_key(record(150)))
        tree.lookup(element_key(record(first_number(store, child(store, inner, 0)))))
    key = element_key(record(number))
    for action in (
        lambda: tree.lookup(key),
        lambda: list(tree.scan(LOW, HIGH)),
        lambda: insert(tree, record(number, 0x200000000)),
    ):
        with pytest.raises(CorruptionError):
            action()


INNER_DAMAGE = {
    "type of a leaf": (KIND, b"L", "type L where its parent says I"),
    "no children": (ELEMENT_COUNT, struct.pack("<i", 0), "count of 0"),
    "too many children": (ELEMENT_COUNT, struct.pack("<i", 63), "count of 63"),
    "order": (place(5), record(0)[:35], "out of order"),
    "left of its range": (place(0, 8), struct.pack("<q", 5), "outside the range"),
    "right of its range": (place(61, 8), None, "outside the range"),
    "child is a record": (place(5, BTYPE), b"R", "no child"),
    "child in another zone": (place(5, SUBTREE), struct.pack("<Q", 0xA000000000800000), "a800000|a000000000800000"),
    "child off the grid": (place(5, SUBTREE), struct.pack("<Q", 0x8000000000800010), "8000000000800010"),
    "child within a page": (place(60, SUBTREE), struct.pack("<Q", 0x8000000000800100), "8000000000800100"),
    "no child": (place(5, SUBTREE), bytes(8), "0000000000000000"),
    "right boundary with a child": (place(61, SUBTREE), struct.pack("<Q", 1), "right boundary"),
    "right boundary with a type": (place(61, BTYPE), b"L", "right boundary"),
}


@pytest.mark.parametrize("name", INNER_DAMAGE)
def test_a_damaged_internal_node(store: MemoryNodeStore, inner: Offset, name: str) -> None:
    at, new, says = INNER_DAMAGE[name]
    count = unpack_header(store.pages[inner]).element_count
    assert count == 61  # so that element 61 is the right boundary
    number = first_number(store, child(store, inner, 2))
    store.edit(inner, at, struct.pack("<q", COUNT) if new is None else new)
    refused(store, inner, number, says)


def test_two_elements_for_one_child(store: MemoryNodeStore, inner: Offset) -> None:
    number = first_number(store, child(store, inner, 2))
    store.edit(inner, place(5, SUBTREE), struct.pack("<Q", child(store, inner, 2)))
    refused(store, inner, number, "two elements for one child")


def test_a_wrong_type_of_child(store: MemoryNodeStore, inner: Offset, leaf: Offset) -> None:
    store.edit(inner, place(2, BTYPE), b"I")
    refused(store, leaf, first_number(store, leaf), "type L where its parent says I")


def test_a_damaged_root(store: MemoryNodeStore) -> None:
    store.edit(store.root, PARENT, struct.pack("<Q", store.root))
    refused(store, store.root, 5, "instead of 0000000000000000")


def test_a_missing_node_is_the_store_s_to_report(store: MemoryNodeStore, leaf: Offset) -> None:
    number = first_number(store, leaf)
    del store.pages[leaf]
    refused(store, leaf, number, "nothing there")


def test_a_short_read(store: MemoryNodeStore, leaf: Offset) -> None:
    number = first_number(store, leaf)
    store.pages[leaf] = store.pages[leaf][:1000]
    refused(store, leaf, number, "only 1000 bytes")


@pytest.mark.parametrize("version", [6, 7])
def test_every_flipped_bit_is_noticed(version: int) -> None:
    store = built(version)
    inner = child(store, store.root, 1)
    sound = store.pages[inner]
    key = element_key(record(first_number(store, child(store, inner, 2))))
    for bit in range(0, NODE_SIZE * 8, 37):
        page = bytearray(sound)
        page[bit // 8] ^= 1 << bit % 8
        store.pages[inner] = bytes(page)
        with pytest.raises(CorruptionError, match="wrong CRC"):
            store.tree().lookup(key)


def test_version_7_accepts_nodes_from_before_the_upgrade() -> None:
    store = built(6)
    store.version = 7
    tree = store.tree()
    assert len(list(tree.scan(LOW, HIGH))) == COUNT
    insert(tree, record(COUNT))
    tree.sync()
    walk(store)


def test_an_endless_descent_ends(store: MemoryNodeStore) -> None:
    """A chain of nodes, each sound by itself, that is deeper than any tree."""
    root = store.pages[store.root]
    base = element_at(root, 0)[:40]
    right = element_at(root, unpack_header(root).element_count)
    for level in range(100):
        offset = store.root if level == 0 else (0x8000000010000000 + level * NODE_SIZE)
        parent = 0 if level == 0 else store.root if level == 1 else offset - NODE_SIZE
        link = base + struct.pack("<QQ8x", 0, 0x8000000010000000 + (level + 1) * NODE_SIZE)
        store.pages[offset] = pack_node(7, parent, 1, ord("I"), 0, link + right)
    tree = store.tree()
    for action in (
        lambda: tree.lookup(element_key(record(5))),
        lambda: list(tree.scan(LOW, HIGH)),
        lambda: insert(tree, record(5)),
    ):
        with pytest.raises(CorruptionError, match="levels below the root"):
            action()


@pytest.mark.parametrize("edge", ["left", "right"])
def test_boundaries_narrower_than_the_range_widen_for_an_insertion(edge: str) -> None:
    """As the original leaves them when it removes a node: a search finds nothing there, an insertion stretches them."""
    store = MemoryNodeStore()
    tree = store.tree()
    for number in range(0, COUNT * 10, 10):
        insert(tree, record(number))
    tree.sync()
    left, inner = child(store, store.root, 0), child(store, store.root, 1)
    if edge == "left":  # the separator before `inner` moves to the left, its own first boundary does not
        number = first_number(store, child(store, inner, 0)) - 7
        store.edit(store.root, place(1, 8), struct.pack("<q", number - 1))
        store.edit(left, place(61, 8), struct.pack("<q", number - 1))
    else:
        number = first_number(store, child(store, inner, 60)) + 623
        store.edit(inner, place(61, 8), struct.pack("<q", number - 1))
    walk(store)
    for tree in (store.tree(), store.tree(cache_nodes=1), store.tree(mirror=False)):
        key = element_key(record(number))
        assert tree.lookup(key) is None
        assert tree.find_as_of(key[:22], 1 << 60) is None
        after = next(tree.scan(key, HIGH))
        assert unpack_leaf(after).key == number // 10 * 10 + 10
        before = tree.last_before(key)
        assert before is not None
        assert unpack_leaf(before).key == number // 10 * 10
        assert len(list(tree.scan(LOW, HIGH))) == len(list(tree.scan_reverse(LOW, HIGH))) == COUNT
    insert(tree := store.tree(), record(number))
    tree.sync()
    assert len(walk(store).elements) == COUNT + 1
    assert store.tree().lookup(key) == record(number)


@given(
    where=st.integers(0, 3),
    edits=st.lists(st.tuples(st.integers(4, NODE_SIZE - 8), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
)
def test_no_page_leads_anywhere_but_to_an_answer_or_a_corruption_error(
    where: int, edits: list[tuple[int, bytes]]
) -> None:
    store = SOUND.copy()
    root = store.root
    inner = child(store, root, 1)
    target = (root, inner, child(store, inner, 2), child(store, inner, 60))[where]
    for at, new in edits:
        store.edit(target, at, new)
    tree = store.tree(cache_nodes=40)
    exercise(tree)


@given(
    records=st.lists(st.tuples(st.sampled_from([3, 3, 3, 5]), st.integers(0, 200)), min_size=1, max_size=63),
    edits=st.lists(st.tuples(st.integers(4, NODE_SIZE - 8), st.binary(min_size=1, max_size=8)), max_size=2),
    sought=st.tuples(st.integers(2, 6), st.integers(0, 200)),
    is_sorted=st.booleans(),
)
def test_a_glimpse_of_a_page_says_what_the_node_says(
    records: list[tuple[int, int]], edits: list[tuple[int, bytes]], sought: tuple[int, int], is_sorted: bool
) -> None:
    """Of one record's versions and of others, sound or damaged: the same element, or the same complaint."""
    chosen = sorted(set(records)) if is_sorted else records
    elements = [record(number, tid) for number, tid in chosen]
    store = MemoryNodeStore()
    store.pages[store.root] = pack_node(7, 0x8000000000001000, len(elements), ord("L"), 0, b"".join(elements))
    for at, new in edits:
        store.edit(store.root, at, new)
    page, key = store.pages[store.root], element_key(record(*sought))
    bounds = Bounds(0x8000000000001000, ord("L"), element_key(record(3, 1)), element_key(record(5, 190)))

    def by_node() -> bytes | None:
        node = decode(page, store.root, 7, bounds)
        index = bisect_right(node.keys, key)
        return node.element(index - 1) if index else None

    def told(ask: Callable[[], bytes | None]) -> bytes | str | None:
        try:
            return ask()
        except CorruptionError as error:
            return str(error)

    assert told(lambda: glimpse(page, store.root, 7, bounds, key)) == told(by_node)


def exercise(tree: BTree) -> None:
    named = []
    for number in range(0, COUNT, 900):
        key = element_key(record(number))
        for action in (
            lambda key=key: tree.lookup(key),
            lambda key=key: tree.find_as_of(key[:22], 1 << 60),
            lambda key=key: list(tree.scan(key, key + b"\xff")),
            lambda key=key: tree.last_before(key),
            lambda number=number: insert(tree, record(number, 0x300000000)),
            lambda number=number: tree.remove(element_key(record(number, 0x300000000)), 0),
        ):
            try:
                action()
            except MissingKey:
                pass
            except CorruptionError as error:
                named.append(error.offset)
    assert None not in named


SOUND = built()
