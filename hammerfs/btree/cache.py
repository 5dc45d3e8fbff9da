"""Decoded nodes by offset: bounded, verified when they come in, and the only place that knows which are dirty.

Invariants:
- A node in the cache was verified against the very parent element that refers to it; a hit whose parent is another one
  is a second reference to the same node, and damage.
- A dirty node is never evicted.  With `mirror` the parent of a dirty node is dirty, too ("pinned"), because `sync()`
  carries mirror_tid up to the root: so it finds all ancestors in memory, and `dirty` counts all that it may write.
- Nothing is evicted while an operation holds nodes: `evict` is called between operations only.

Eviction gives second chances: one pass takes away the oldest nodes that nobody touched since the last one, an eighth of
the capacity at a time, so that its cost is spread over that many reads.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from hammerfs.btree.node import ROOT_BOUNDS, Key, Node, decode, glimpse
from hammerfs.btree.nodestore import NodeStore
from hammerfs.errors import CorruptionError
from hammerfs.ondisk.address import Offset, bigblock_of

MAX_DEPTH = 24
"""Levels of any tree that a file system can hold, several times over; what is deeper is damaged."""
LEVELS = range(MAX_DEPTH)
SYNC_BATCH = 64
_GLIMPSED_MAX = 1 << 16
"""How many leaves are remembered that were looked into once."""

Path = list[tuple[Node, int]]
"""Nodes from the root to a leaf, each with the index of the child taken (0 in the leaf)."""


class NodeCache:
    """The nodes of one tree.  Hot paths read `nodes`, `limit` and `root` directly."""

    def __init__(self, store: NodeStore, root_offset: Offset, capacity: int, mirror: bool) -> None:
        self.store = store
        self.root_offset = root_offset
        self.capacity = capacity
        self.mirror = mirror
        self.root: Node | None = None
        self.nodes: dict[Offset, Node] = {}
        self.dirty: dict[Offset, Node] = {}
        self._glimpsed: set[Offset] = set()
        self.fresh = 0
        self.limit = capacity
        """`evict` is due when there are more nodes than this."""
        self.root_moved = False
        self.reads = self.writes = self.evictions = self.splits = self.removals = 0
        self.descents = self.visits = self.compared = 0

    def load_root(self) -> Node:
        """The root, read when it is not in memory."""
        if self.root is None:
            self.root = self.nodes.get(self.root_offset)
        if self.root is None:
            raw = self.store.read_node(self.root_offset)
            self.root = self.nodes[self.root_offset] = decode(raw, self.root_offset, self.store.version, ROOT_BOUNDS)
            self.reads += 1
        return self.root

    def child(self, parent: Node, index: int) -> Node:
        """Child `index` of an internal node, read and verified when it is not in memory."""
        offset = parent.children[index]
        node = self.nodes.get(offset)
        if node is None:
            node = decode(self.store.read_node(offset), offset, self.store.version, parent.bounds_of(index))
            self.nodes[offset] = node
            self.reads += 1
        elif node.parent != parent.offset:
            raise CorruptionError(
                f"B-tree node {parent.offset:016x} refers to a child of node {node.parent:016x}", offset=offset
            )
        return node

    def glimpse(self, parent: Node, index: int, key: Key) -> bytes | None:
        """The element at `key` or next below it in child `index`, a leaf that is not in memory and does not come there.

        None where there is no such element, and for a leaf that was asked for before: it is worth its memory.  To get
        that costs as much again as taking a leaf apart (docs/performance.md: History).
        """
        offset = parent.children[index]
        if offset in self._glimpsed:
            self._glimpsed.remove(offset)
            return None
        if len(self._glimpsed) >= _GLIMPSED_MAX:
            self._glimpsed.clear()
        self._glimpsed.add(offset)
        self.reads += 1
        return glimpse(self.store.read_node(offset), offset, self.store.version, parent.bounds_of(index), key)

    def path_to(self, key: Key) -> Path:
        """The way from the root to the leaf whose range holds `key`."""
        node = self.load_root()
        path = []
        self.descents += 1
        for level in LEVELS:
            if not node.children:
                path.append((node, 0))
                self.visits += level + 1
                return path
            self.compared += len(node.keys).bit_length()
            index = bisect_right(node.keys, key, 1) - 1
            path.append((node, index))
            node = self.child(node, index)
        raise too_deep(node)

    def approach(self, key: Key) -> tuple[Node | None, int]:
        """The node above the leaf whose range holds `key`, and which of its children that is; None above a root.

        A leaf that is not in memory is not read.
        """
        nodes = self.nodes
        node = self.root or self.load_root()
        parent = None
        index = compared = 0
        visits = 1
        while node.children:
            if visits > MAX_DEPTH:
                raise too_deep(node)
            visits += 1
            parent = node
            # Whatever is left of the first boundary belongs to the first child's range, hence the 1.
            keys = node.keys
            compared += len(keys).bit_length()
            index = bisect_right(keys, key, 1) - 1
            child = nodes.get(node.children[index])
            if child is None and node.refers_to_leaf(index):
                break
            if child is None or child.parent != node.offset:
                child = self.child(node, index)
            node = child
            node.touched = True
        self.descents += 1
        self.visits += visits
        self.compared += compared
        return parent, index

    def seek(self, key: Key, *, before: bool = False) -> tuple[Node, Key | None, Key | None]:
        """The leaf whose range holds `key` (or whatever lies just before it), and that range.

        None stands for the ends of the tree.  Only separators between two children count as bounds: an internal node's
        own boundaries may be narrower than its range, and then nobody else covers the difference.
        """
        find = bisect_left if before else bisect_right
        low = high = None
        node = self.load_root()
        self.descents += 1
        for level in LEVELS:
            if not node.children:
                self.visits += level + 1
                return node, low, high
            keys = node.keys
            self.compared += len(keys).bit_length()
            index = find(keys, key, 1) - 1
            if index:
                low = keys[index]
            if index + 1 < len(keys):
                high = keys[index + 1]
            node = self.child(node, index)
            node.touched = True
        raise too_deep(node)

    # --- changes --------------------------------------------------------------------------------

    def pin(self, node: Node) -> None:
        """Keep a node until the next sync, which may have to write it."""
        if node.offset not in self.dirty:
            self.dirty[node.offset] = self.nodes[node.offset] = node

    def change(self, node: Node) -> list[bytes]:
        """Announce that a node changes now; its element list."""
        self.pin(node)
        node.changed = True
        return node.unpacked()

    def change_leaf(self, key: Key) -> Path:
        """Announce that the leaf whose range holds `key` changes now; with `mirror` this pins its ancestors."""
        path = self.path_to(key)
        if self.mirror:
            for node, _ in path:
                self.pin(node)
        self.change(path[-1][0])
        return path

    def new_node(self, parent: Offset, group: int, home: Offset) -> Node:
        """An empty node that is not on disk yet, for a group of nodes and near where one of these lies."""
        node = Node(self.store.alloc_node(group, home), parent, 0)
        node.fresh = True
        self.fresh += 1
        self.change(node)
        return node

    def discard(self, node: Node) -> None:
        """Forget a node that is no longer part of the tree and free its space."""
        del self.nodes[node.offset]
        if self.dirty.pop(node.offset, None) is not None and node.fresh:
            self.fresh -= 1
        self.removals += 1
        self.store.free_node(node.offset)

    def replace(self, node: Node, place: Offset) -> None:
        """Move a node that is on disk to a place that was allocated for it, and free the old one."""
        old = node.offset
        del self.nodes[old]
        self.dirty.pop(old, None)
        node.offset = place
        node.fresh = True
        self.fresh += 1
        self.change(node)
        if old == self.root_offset:
            self.set_root(node)
        self.store.free_node(old)

    def set_root(self, node: Node) -> None:
        """Make `node` the root, on disk with the next sync."""
        self.root = node
        self.root_offset = node.offset
        self.root_moved = True

    def write_back(self) -> Iterator[None]:
        """Hand every dirty node to the store, pausing now and then; at the end nothing is dirty.

        Readers may go on during the pauses; the tree must not change.
        """
        for count, (offset, node) in enumerate(list(self.dirty.items()), 1):
            if node.changed:
                self.store.write_node(offset, node.encode(self.store.version), node.fresh)
                self.writes += 1
                node.changed = False
            if node.fresh:
                node.fresh = False
                self.fresh -= 1
            del self.dirty[offset]
            if count % SYNC_BATCH == 0:
                yield
        if self.root_moved:
            self.store.set_root(self.root_offset)
            self.root_moved = False
        self.limit = self.capacity

    # --- memory ---------------------------------------------------------------------------------

    def evict(self) -> None:
        """Bring the cache down by an eighth of its capacity, as far as nodes are clean."""
        spare = self.capacity // 8 + 1
        surplus = len(self.nodes) - self.capacity + spare
        for _ in range(2):
            for offset, node in list(self.nodes.items()):
                if offset in self.dirty or node is self.root:
                    continue
                if node.touched:
                    node.touched = False
                elif surplus > 0:
                    del self.nodes[offset]
                    self.evictions += 1
                    surplus -= 1
            if surplus <= 0:
                break
        # When nearly all are dirty, the next attempt waits until there is something to gain by it.
        self.limit = max(self.capacity, len(self.nodes) + spare)

    def drop_clean(self) -> None:
        """Forget every node that is not dirty."""
        self.nodes.clear()
        self.nodes.update(self.dirty)
        self.root = self.nodes.get(self.root_offset)
        self.limit = max(self.capacity, len(self.nodes))

    def invalidate(self, bigblock: Offset) -> None:
        """Forget what lies in a big-block, given by any offset in it, whatever its zone."""
        bigblock = bigblock_of(bigblock)
        for offset in [offset for offset in self.nodes if bigblock_of(offset) == bigblock]:
            assert offset not in self.dirty, "a big-block that was given up held dirty nodes"
            node = self.nodes.pop(offset)
            if node is self.root:
                self.root = None


def too_deep(node: Node) -> CorruptionError:
    """The error for a tree with more levels than any sound one has."""
    return CorruptionError(f"B-tree node more than {MAX_DEPTH} levels below the root", offset=node.offset)
