"""A node store in memory for B-tree tests, records to fill it with, and a walk that believes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from hammerfs.btree.tree import BTree
from hammerfs.errors import CorruptionError, NoSpaceError
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Offset, Tid, encode
from hammerfs.ondisk.constants import BTREE_INTERNAL, BTREE_LEAF, BTREE_NONE, BTREE_RECORD, NODE_SIZE, ZONE_BTREE
from hammerfs.ondisk.element import (
    ROOT_LEFT_BOUNDARY,
    ROOT_RIGHT_BOUNDARY,
    element_key,
    record_element,
    unpack_internal,
    unpack_leaf,
)
from hammerfs.ondisk.node import crc_ok, element_at, pack_node, unpack_header

LOW = element_key(ROOT_LEFT_BOUNDARY)
HIGH = element_key(ROOT_RIGHT_BOUNDARY)
ROOT = encode(ZONE_BTREE, 0, 0x800000)
LOCALIZATION = 2
DATA = 0x10


class MemoryNodeStore:
    """Nodes in a dictionary.  Remembers what was written and freed, and has `space` nodes left to give."""

    def __init__(self, version: int = 7) -> None:
        self.version = version
        self.pages: dict[Offset, bytes] = {ROOT: pack_node(version, 0, 0, BTREE_LEAF, 0, b"")}
        self.root = ROOT
        self.next = ROOT + NODE_SIZE
        self.space = 1 << 40
        self.allocated: set[Offset] = {ROOT}
        self.written: list[tuple[Offset, bool]] = []

    def read_node(self, offset: Offset) -> bytes:
        if offset not in self.pages:
            raise CorruptionError("nothing there", offset=offset)
        return self.pages[offset]

    def write_node(self, offset: Offset, raw: bytes, fresh: bool) -> None:
        assert offset in self.allocated
        assert fresh == (offset not in self.pages)
        self.pages[offset] = raw
        self.written.append((offset, fresh))

    def alloc_node(self, group: int, home: Offset) -> Offset:
        if not self.space:
            raise NoSpaceError("no space for a B-tree node")
        self.space -= 1
        offset, self.next = self.next, self.next + NODE_SIZE
        self.allocated.add(offset)
        return offset

    def free_node(self, offset: Offset) -> None:
        self.allocated.remove(offset)
        self.pages.pop(offset, None)
        self.space += 1

    def set_root(self, offset: Offset) -> None:
        assert offset in self.allocated
        self.root = offset

    def tree(self, *, cache_nodes: int = 1000, mirror: bool = True) -> BTree:
        """The tree as it is on disk, opened anew."""
        return BTree(self, self.root, cache_nodes=cache_nodes, mirror=mirror)

    def copy(self) -> MemoryNodeStore:
        """Another store with the same nodes."""
        other = MemoryNodeStore(self.version)
        other.pages, other.allocated = dict(self.pages), set(self.allocated)
        other.root, other.next = self.root, self.next
        return other

    def edit(self, offset: Offset, at: int, new: bytes) -> None:
        """Change bytes of a node and give it a right CRC again."""
        page = bytearray(self.pages[offset])
        page[at : at + len(new)] = new
        page[:4] = crc.function_for(self.version)(page[4:]).to_bytes(4, "little")
        self.pages[offset] = bytes(page)


def record(number: int, tid: Tid = 0x100000010, obj_id: int = 1) -> bytes:
    """A live data record without data."""
    return record_element(LOCALIZATION, obj_id, DATA, number, tid, 0, 0, 0, 0, 0)


def insert(tree: BTree, element: bytes) -> bytes:
    """Insert an element as the transaction that created it; its key."""
    key = element_key(element)
    tree.insert(key, element, unpack_leaf(element).create_tid)
    return key


@dataclass
class Walk:
    """Everything that is in a tree on disk, verified by rules written down a second time."""

    store: MemoryNodeStore
    mirror: bool = True
    elements: list[bytes] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)
    """Element count of each leaf."""
    families: list[list[int]] = field(default_factory=list)
    """Element counts of the children of each internal node."""
    depths: set[int] = field(default_factory=set)
    offsets: set[Offset] = field(default_factory=set)

    def run(self) -> Walk:
        self._node(self.store.root, 0, None, LOW, HIGH, 1 << 64, 0)
        keys = [element_key(element) for element in self.elements]
        assert keys == sorted(set(keys))
        assert len(self.depths) == 1
        assert self.offsets == self.store.allocated
        return self

    def _node(
        self, offset: Offset, parent: Offset, kind: int | None, low: bytes, high: bytes, mirror: Tid, depth: int
    ) -> None:
        assert offset not in self.offsets
        self.offsets.add(offset)
        raw = self.store.pages[offset]
        assert crc_ok(self.store.version, raw)
        header = unpack_header(raw)
        assert header.parent == parent
        assert kind in (None, header.kind)
        if self.mirror:
            assert header.mirror_tid <= mirror
        count = header.element_count
        elements = [element_at(raw, index) for index in range(count + (header.kind == BTREE_INTERNAL))]
        keys = [element_key(element) for element in elements]
        assert keys == sorted(set(keys))
        if header.kind == BTREE_LEAF:
            assert not keys or (low <= keys[0] and keys[-1] < high)
            assert count or not parent
            self._leaf(elements, header.mirror_tid, depth)
            return
        assert header.kind == BTREE_INTERNAL
        assert 1 <= count <= 62
        assert parent == 0 or low <= keys[0]
        assert keys[-1] <= high
        for index, element in enumerate(elements[:count]):
            link = unpack_internal(element)
            if self.mirror:
                assert link.mirror_tid <= header.mirror_tid
            self._node(
                link.subtree_offset, offset, link.btype, keys[index], keys[index + 1], link.mirror_tid, depth + 1
            )
        children = [unpack_internal(element).subtree_offset for element in elements[:count]]
        self.families.append([unpack_header(self.store.pages[child]).element_count for child in children])
        right = unpack_internal(elements[count])
        assert (right.btype, right.subtree_offset) == (BTREE_NONE, 0)

    def _leaf(self, elements: list[bytes], mirror_tid: Tid, depth: int) -> None:
        for element in elements:
            leaf = unpack_leaf(element)
            assert leaf.btype == BTREE_RECORD
            assert max(leaf.create_tid, leaf.delete_tid) <= mirror_tid
        self.elements += elements
        self.leaves.append(len(elements))
        self.depths.add(depth)


def walk(store: MemoryNodeStore, *, mirror: bool = True) -> Walk:
    """Verify every invariant of the tree on disk."""
    return Walk(store, mirror).run()
