"""The B-tree: records by packed key, as of any TID, read by everybody and changed by the flusher alone.

A descent costs one bisection and one dictionary lookup per level.  The tree remembers the leaf that it touched last
and which keys belong there (the finger), so that neighbouring operations skip the descent.  The finger's bounds are
those of the element that refers to the leaf, hence inside the boundaries of every node above it: a key within them may
be inserted without a look at the ancestors.

Scans give way to changes: a scan reads one leaf at a time and, when the tree has changed since, finds its place again
by the key that it delivered last.  So elements may come and go between two `next()` calls; each element that is there
all the time is delivered once.

Nodes change in memory only.  `sync()` encodes what is dirty and hands it to the store.

Follows `hammer_btree.c` (hammer_btree_lookup, btree_search, hammer_btree_iterate, hammer_btree_insert,
hammer_btree_delete).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator

from hammerfs.btree.cache import NodeCache
from hammerfs.btree.changed import ChangedScan, Unchanged
from hammerfs.btree.node import ROOT_LEFT, ROOT_RIGHT, Key, Node, boundary_base
from hammerfs.btree.nodestore import NodeStore
from hammerfs.btree.reshape import Fill, Moves, fill_step, move_nodes
from hammerfs.btree.shape import make_room, propagate_mirror_tids, remove_empty_leaf, widen
from hammerfs.btree.statistics import TreeStatistics
from hammerfs.errors import DuplicateKey, MissingKey
from hammerfs.ondisk.address import Offset, Tid
from hammerfs.ondisk.constants import ELEMENT_SIZE, LEAF_ELEMENTS, MAX_TID, NODE_HEADER_SIZE, NODE_SIZE, UNDO_ALIGN
from hammerfs.ondisk.element import BASE_KEY_SIZE, DELETE_TID_OFFSET, element_key, unpack_key
from hammerfs.ondisk.fifo import UNDO_OVERHEAD

__all__ = ["BTree", "NodeStore", "TreeStatistics"]

_NEWEST = b"\xff" * 8
_ALIVE = bytes(8)
_DELETE_END = DELETE_TID_OFFSET + 8
_NOWHERE = b"\xff" * 31
"""Above every key: a finger that points to nothing."""
UNDO_PER_NODE = (NODE_SIZE // (UNDO_ALIGN - UNDO_OVERHEAD) + 2) * UNDO_ALIGN
"""FIFO bytes for the old content of one node, at most: pieces end with FIFO sectors, the first begins anywhere."""


class BTree:
    """The tree under `root_offset`.  `cache_nodes` bounds the clean nodes kept in memory (about 9 KB each).

    Every method may raise CorruptionError when it meets a damaged node, and what the store raises.  Without `mirror`
    mirror TIDs stop at the leaf (nomirror mounts).
    """

    __slots__ = (
        "_cache",
        "_changes",
        "_compared",
        "_deletes",
        "_high",
        "_inserts",
        "_leaf",
        "_lookups",
        "_low",
        "_nodes",
        "_scanned",
        "_searches",
    )

    def __init__(self, store: NodeStore, root_offset: Offset, *, cache_nodes: int, mirror: bool = True) -> None:
        self._cache = NodeCache(store, root_offset, cache_nodes, mirror)
        self._nodes = self._cache.nodes
        self._changes = 0
        self._lookups = self._searches = self._inserts = self._deletes = self._scanned = self._compared = 0
        self._forget_finger()

    # --- reading --------------------------------------------------------------------------------

    def lookup(self, key: Key) -> bytes | None:
        """The 64-byte element with exactly this key."""
        self._lookups += 1
        leaf = self._leaf if self._low <= key < self._high else self._descend(key)
        keys = leaf.keys
        self._compared += len(keys).bit_length()
        index = bisect_left(keys, key)
        if index == len(keys) or keys[index] != key:
            return None
        elements = leaf.elements
        if elements is not None:
            return elements[index]
        start = NODE_HEADER_SIZE + index * ELEMENT_SIZE
        return leaf.raw[start : start + ELEMENT_SIZE]

    def find_as_of(self, base: bytes, as_of: Tid) -> bytes | None:
        """The version visible at `as_of` (MAX_TID: now) of the record whose key begins with the 22 bytes `base`."""
        self._lookups += 1
        key = base + as_of.to_bytes(8, "big")
        if self._low <= key < self._high:
            leaf = self._leaf
        else:
            self._relieve()
            parent, index = self._cache.approach(key)
            if parent is not None and parent.children[index] not in self._nodes:
                found = self._cache.glimpse(parent, index, key)
                if found is not None and element_key(found).startswith(base) and _outlives(found, as_of):
                    return found
            leaf = self._enter(parent, index)
        keys = leaf.keys
        self._compared += len(keys).bit_length()
        index = bisect_right(keys, key) - 1
        while index >= 0:
            if not keys[index].startswith(base):
                return None
            element = leaf.element(index)
            if _outlives(element, as_of):
                return element
            index -= 1
        if self._low <= base:
            return None
        # Older versions may be in leaves to the left.
        for element in self.scan_reverse(base, key):
            if _outlives(element, as_of):
                return element
        return None

    @property
    def newest_tid(self) -> Tid:
        """The root node's mirror TID: no change below it is younger, but for those that a nomirror mount made."""
        return (self._cache.root or self._cache.load_root()).mirror_tid

    def last_before(self, key: Key) -> bytes | None:
        """The element with the greatest key below `key`."""
        batch, below = self._batch_before(ROOT_LEFT, key)
        while not batch and below is not None:
            batch, below = self._batch_before(ROOT_LEFT, below)
        return batch[0] if batch else None

    def scan(self, low: Key, high: Key) -> Iterator[bytes]:
        """Elements with low <= key <= high in key order; the tree may change between two of them."""
        return self._scan(low, high, None)

    def scan_as_of(self, low: Key, high: Key, as_of: Tid) -> Iterator[bytes]:
        """Like `scan`, but only what is visible at `as_of` (MAX_TID: now)."""
        return self._scan(low, high, as_of)

    def list_as_of(self, low: Key, high: Key, as_of: Tid) -> list[bytes]:
        """All that `scan_as_of` would deliver, at once: for ranges that hold little."""
        elements, start = self._batch(low, high, as_of)
        while start is not None:
            more, start = self._batch(start, high, as_of)
            elements += more
        return elements

    def scan_reverse(self, low: Key, high: Key) -> Iterator[bytes]:
        """Like `scan`, in descending order."""
        below: Key | None = _after(high)
        while below is not None:
            changes = self._changes
            batch, below = self._batch_before(low, below)
            for element in batch:
                yield element
                if self._changes != changes:
                    below = element_key(element)
                    break

    def scan_changed(self, low: bytes, high: bytes, tid: Tid, first: bool = True) -> Iterator[bytes | Unchanged]:
        """All elements but those in subtrees where nothing happened at or after `tid`, whose ranges come instead.

        `low` and `high` are 40 bytes as elements begin with.  What was not synced may be missing.  With `first` that
        leaf comes in any case.
        """
        return ChangedScan(self._cache, lambda: self._changes, self._relieve, low, high, tid).run(first)

    def scan_younger(self, low: Key, high: Key, since: Tid) -> Iterator[bytes]:
        """Elements with low <= key <= high that were created or deleted after `since`, in key order.

        Reads the leaves that changed since then, the first one, and no other: it costs what changed, not what there
        is.  It sees what was synced, but not what a nomirror mount changed, for that leaves no trace on the way.
        """
        stamp = since.to_bytes(8, "big")
        for found in self.scan_changed(boundary_base(low), boundary_base(high), since + 1):
            if isinstance(found, bytes) and (
                element_key(found)[BASE_KEY_SIZE:] > stamp
                or int.from_bytes(found[DELETE_TID_OFFSET:_DELETE_END], "little") > since
            ):
                yield found

    def _scan(self, low: Key, high: Key, as_of: Tid | None) -> Iterator[bytes]:
        start: Key | None = low
        while start is not None:
            changes = self._changes
            batch, start = self._batch(start, high, as_of)
            for element in batch:
                yield element
                if self._changes != changes:
                    start = _after(element_key(element))
                    break

    def _batch(self, low: Key, high: Key, as_of: Tid | None) -> tuple[list[bytes], Key | None]:
        """What one leaf contributes to a scan, and the key to go on from (None: nothing more)."""
        self._searches += 1
        leaf = self._leaf if self._low <= low < self._high else self._descend(low)
        bound: Key | None = self._high
        if low >= self._high:
            # Beyond the parent's own boundary: only its ancestors know where this leaf's range ends.
            leaf, _, bound = self._seek(low)
        keys = leaf.keys
        self._compared += len(keys).bit_length()
        first = bisect_left(keys, low)
        end = bisect_right(keys, high, first)
        elements = leaf.element_range(first, end)
        self._scanned += end - first
        if end < len(keys) or (bound is not None and bound > high):
            bound = None
        if as_of is None:
            return elements, bound
        stamp = as_of.to_bytes(8, "big")
        if bound is not None and keys and bound.startswith(keys[-1][:BASE_KEY_SIZE]):
            bound = self._skip_versions(bound, stamp)
            if bound > high:
                bound = None
        if as_of == MAX_TID:
            return [element for element in elements if element[DELETE_TID_OFFSET:_DELETE_END] == _ALIVE], bound
        visible = [
            element
            for key, element in zip(keys[first:end], elements, strict=True)
            if key[BASE_KEY_SIZE:] <= stamp and _outlives(element, as_of)
        ]
        return visible, bound

    def _skip_versions(self, start: Key, stamp: bytes) -> Key:
        """Where a scan as of a TID, told as a key has it, goes on among the versions of the record that `start` names.

        That is in the leaf with the newest version that is not younger, as only that one can be visible, and behind
        all versions once it was passed: a file that is written again and again has thousands of them.
        """
        base = start[:BASE_KEY_SIZE]
        newest = base + stamp
        if start > newest:
            return _after(base + _NEWEST)
        keys = self._descend(newest).keys
        index = bisect_left(keys, base)
        is_there = index < len(keys) and keys[index] <= newest
        return max(start, self._low) if is_there else start

    def _batch_before(self, low: Key, below: Key) -> tuple[list[bytes], Key | None]:
        """What one leaf contributes to a reverse scan of low <= key < below, and the bound to go on from."""
        self._searches += 1
        leaf, bound, _ = self._seek(below, before=True)
        keys = leaf.keys
        self._compared += len(keys).bit_length()
        first = bisect_left(keys, low)
        elements = leaf.element_range(first, max(first, bisect_left(keys, below)))
        elements.reverse()
        self._scanned += len(elements)
        if first or (bound is not None and bound <= low):
            bound = None
        return elements, bound

    def _seek(self, key: Key, *, before: bool = False) -> tuple[Node, Key | None, Key | None]:
        if len(self._nodes) > self._cache.limit:
            self._evict()
        return self._cache.seek(key, before=before)

    def _descend(self, key: Key) -> Node:
        """The leaf whose range holds `key`; the finger moves there."""
        self._relieve()
        parent, index = self._cache.approach(key)
        return self._enter(parent, index)

    def _enter(self, parent: Node | None, index: int) -> Node:
        """A leaf that `NodeCache.approach` led to, read when it is not in memory; the finger moves there."""
        if parent is None:
            leaf = self._cache.load_root()
            self._low, self._high = ROOT_LEFT, ROOT_RIGHT
        else:
            leaf = self._nodes.get(parent.children[index]) or self._cache.child(parent, index)
            leaf.touched = True
            keys = parent.keys
            self._low = keys[index]
            self._high = keys[index + 1] if index + 1 < len(keys) else parent.right_key
        self._leaf = leaf
        return leaf

    # --- changing -------------------------------------------------------------------------------

    def insert(self, key: Key, element: bytes, tid: Tid) -> None:
        """Add an element whose packed key is `key`; `tid` is the transaction that does it.

        DuplicateKey when the key is there already, NoSpaceError when a new node is needed and there is no space;
        in both cases nothing has changed.
        """
        leaf = self._leaf if self._low <= key < self._high else self._descend_widening(key)
        keys = leaf.keys
        index = bisect_left(keys, key)
        count = len(keys)
        self._compared += count.bit_length()
        if index < count and keys[index] == key:
            raise DuplicateKey(f"the B-tree already holds {_name(key)}")
        if count >= LEAF_ELEMENTS:
            leaf, index = self._split(key)
        if not leaf.changed:
            self._announce(leaf, key)
        leaf.keys.insert(index, key)
        leaf.unpacked().insert(index, element)
        leaf.last_insert = index
        if tid > leaf.mirror_tid:
            leaf.mirror_tid = tid
        self._changes += 1
        self._inserts += 1

    def replace(self, key: Key, element: bytes, tid: Tid) -> None:
        """Put another element in the place of the one with this very key; MissingKey when there is none."""
        leaf, index = self._locate(key)
        if not leaf.changed:
            self._announce(leaf, key)
        leaf.unpacked()[index] = element
        if tid > leaf.mirror_tid:
            leaf.mirror_tid = tid
        self._changes += 1

    def remove(self, key: Key, tid: Tid) -> None:
        """Remove an element for good, with nodes that it leaves empty; MissingKey when there is none.

        A `tid` of 0 leaves mirror TIDs alone, as pruning does.
        """
        leaf, index = self._locate(key)
        if not leaf.changed:
            self._announce(leaf, key)
        del leaf.keys[index], leaf.unpacked()[index]
        self._deletes += 1
        if tid > leaf.mirror_tid:
            leaf.mirror_tid = tid
        self._changes += 1
        if not leaf.keys:
            self._forget_finger()
            remove_empty_leaf(self._cache, key)

    def _locate(self, key: Key) -> tuple[Node, int]:
        self._searches += 1
        leaf = self._leaf if self._low <= key < self._high else self._descend(key)
        keys = leaf.keys
        self._compared += len(keys).bit_length()
        index = bisect_left(keys, key)
        if index == len(keys) or keys[index] != key:
            raise MissingKey(f"the B-tree does not hold {_name(key)}")
        return leaf, index

    def _descend_widening(self, key: Key) -> Node:
        """Like `_descend`, for an insertion: afterwards `key` is inside the boundaries of all nodes on the way."""
        leaf = self._descend(key)
        if not self._low <= key < self._high:
            widen(self._cache, key)
            leaf = self._descend(key)
            assert self._low <= key < self._high
        return leaf

    def _announce(self, leaf: Node, key: Key) -> None:
        path = self._cache.change_leaf(key)
        assert path[-1][0] is leaf, "the finger outlived its leaf"

    def _split(self, key: Key) -> tuple[Node, int]:
        self._forget_finger()
        self._changes += 1
        make_room(self._cache, key)
        leaf = self._descend(key)
        return leaf, bisect_left(leaf.keys, key)

    # --- places and fill ------------------------------------------------------------------------

    def move_nodes(self, key: Key, wanted: Callable[[Offset], bool]) -> Moves:
        """Give new places to nodes on the way to `key` (`reshape.move_nodes`); NoSpaceError when there are none."""
        self._about_to_reshape()
        return move_nodes(self._cache, key, wanted)

    def fill_step(self, key: Key, row: int, saturation: int) -> Fill:
        """Fill one node of a row (0: leaves) from its neighbour (`reshape.fill_step`)."""
        self._about_to_reshape()
        return fill_step(self._cache, key, row, saturation)

    @property
    def height(self) -> int:
        """Levels above the leaves."""
        return len(self._cache.path_to(ROOT_LEFT)) - 1

    def _about_to_reshape(self) -> None:
        self._forget_finger()
        self._changes += 1
        if len(self._nodes) > self._cache.limit:
            self._cache.evict()

    # --- to disk, and memory --------------------------------------------------------------------

    def sync(self) -> None:
        """Write every dirty node to the store; afterwards nothing is dirty."""
        for _ in self.sync_in_steps():
            pass

    def sync_in_steps(self) -> Iterator[None]:
        """`sync()` with pauses, in which the tree may be read but must not be changed."""
        if self._cache.mirror:
            propagate_mirror_tids(self._cache)
        yield from self._cache.write_back()

    @property
    def dirty_nodes(self) -> int:
        """Nodes that are on disk and that `sync()` may rewrite."""
        return len(self._cache.dirty) - self._cache.fresh

    @property
    def fresh_nodes(self) -> int:
        """Nodes that are not on disk yet."""
        return self._cache.fresh

    def undo_estimate(self) -> int:
        """Bytes of UNDO FIFO that `sync()` would need now, at most."""
        return self.dirty_nodes * UNDO_PER_NODE

    @property
    def root_offset(self) -> Offset:
        """Where the root is, or will be after `sync()`."""
        return self._cache.root_offset

    def invalidate(self, bigblock: Offset) -> None:
        """Forget the nodes of a big-block, named by any offset in it; none of them may be dirty."""
        self._forget_finger()
        self._cache.invalidate(bigblock)

    def drop_clean(self) -> None:
        """Forget every node that is not dirty."""
        self._forget_finger()
        self._cache.drop_clean()

    def statistics(self) -> TreeStatistics:
        """Counts of the moment."""
        cache = self._cache
        return TreeStatistics(
            cached_nodes=len(cache.nodes),
            dirty_nodes=self.dirty_nodes,
            fresh_nodes=cache.fresh,
            reads=cache.reads,
            writes=cache.writes,
            evictions=cache.evictions,
            splits=cache.splits,
            removals=cache.removals,
            lookups=self._lookups,
            searches=self._searches + self._lookups + self._inserts,
            descents=cache.descents,
            visits=cache.visits,
            inserts=self._inserts,
            deletes=self._deletes,
            scanned=self._scanned,
            compared=self._compared + cache.compared,
        )

    def _relieve(self) -> None:
        if len(self._nodes) > self._cache.limit:
            self._evict()

    def _evict(self) -> None:
        self._forget_finger()
        self._cache.evict()

    def _forget_finger(self) -> None:
        # The finger holds on to a node object; it must never outlive that object's place in the cache.
        self._low = self._high = _NOWHERE
        self._leaf = Node(0, 0, 0)


def _outlives(element: bytes, as_of: Tid) -> bool:
    """Whether an element that was created by `as_of` had not been deleted by then."""
    deleted = element[DELETE_TID_OFFSET:_DELETE_END]
    return deleted == _ALIVE or as_of < int.from_bytes(deleted, "little")


def _after(key: Key) -> Key:
    """A bound above `key` and below every other key that is greater."""
    return key + b"\0"


def _name(key: Key) -> str:
    parts = unpack_key(key)
    return (
        f"record type {parts.rec_type:#04x} of object {parts.obj_id & MAX_TID:016x}, key {parts.key & MAX_TID:016x}, "
        f"created {parts.create_tid:016x}, localization {parts.localization:08x}"
    )
