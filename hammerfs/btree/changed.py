"""The scan that mirroring reads by: what may have changed since a TID, and the ranges in which nothing did.

Every internal element knows the highest TID below it, so whole subtrees are passed over.  What is passed over is told,
as far as one node's neighbouring children go: the other side deletes what it has and is not told of, and must not
delete there.  A leaf that is entered is delivered whole, for the same reason.  The first leaf is always entered.

Such a range begins where its first child's does as the parent sees it, for an internal node's own boundaries may be
narrower than its range, and nobody else speaks for the difference.

The scan gives way to changes like those of `tree.py`: after one it finds its place again by the key where it stands.
Source: `hammer_btree.c: hammer_btree_iterate, hammer_cursor_mirror_filter`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from hammerfs.btree.cache import MAX_DEPTH, NodeCache, too_deep
from hammerfs.btree.node import Key, Node, mirror_of
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.element import BASE, ROOT_LEFT_BOUNDARY, ROOT_RIGHT_BOUNDARY, element_key


class Unchanged(NamedTuple):
    """Nothing changed from `low` up to but without `high`; both as the 40 bytes that elements begin with."""

    low: bytes
    high: bytes


class _Level:
    """A node on the way down, the child or element to be looked at next, and what its parent says of its range."""

    __slots__ = ("index", "left", "node", "right")

    def __init__(self, node: Node, index: int, left: bytes, right: bytes) -> None:
        self.node = node
        self.index = index
        self.left = left
        self.right = right

    def base(self, index: int) -> bytes:
        """Where child `index` begins, or the one before it ends."""
        if index == 0:
            return self.left
        if index == len(self.node.keys):
            return self.right
        return self.node.element(index)[: BASE.size]


class ChangedScan:
    """One scan from `low` to `high`, both inclusive and given as 40 bytes, for changes at or after `tid`.

    changes -- counts the tree's changes; evict -- called where the cache may shed nodes
    """

    def __init__(
        self, cache: NodeCache, changes: Callable[[], int], evict: Callable[[], None], low: bytes, high: bytes, tid: Tid
    ) -> None:
        self._cache = cache
        self._changes = changes
        self._evict = evict
        self._low = low
        self._at: Key = element_key(low)
        self._high = high
        self._end: Key = element_key(high)
        self._tid = tid

    def run(self, first: bool) -> Iterator[bytes | Unchanged]:
        """Elements of 64 bytes and unchanged ranges, in key order; the tree may change between two of them.

        Without `first` the first leaf is passed over, too, when it is older.
        """
        while self._at <= self._end:
            seen = self._changes()
            for found in self._descend(enter=first):
                first = False
                yield found
                if isinstance(found, Unchanged):
                    self._low, self._at = found.high, element_key(found.high)
                else:
                    self._low, self._at = found[: BASE.size], element_key(found) + b"\0"
                if self._changes() != seen:
                    break
            else:
                return

    def _descend(self, *, enter: bool) -> Iterator[bytes | Unchanged]:
        """What comes from the present place on, as long as the tree does not change.

        With `enter` the leaf of that place is delivered whatever its mirror TID is.
        """
        seek: Key | None = self._at
        root = self._cache.load_root()
        stack = [_Level(root, _place(root, self._at), ROOT_LEFT_BOUNDARY, ROOT_RIGHT_BOUNDARY)]
        while stack:
            level = stack[-1]
            node, index = level.node, level.index
            if index == len(node.keys):
                stack.pop()
                if stack:
                    stack[-1].index += 1
            elif node.keys[index] > self._end:
                return
            elif not node.children:
                yield node.element(index)
                level.index += 1
            elif not enter and mirror_of(node.element(index)) < self._tid:
                seek = None
                yield self._unchanged(level)
            else:
                self._evict()
                child = self._cache.child(node, index)
                place = 0 if seek is None else _place(child, seek)
                stack.append(_Level(child, place, level.base(index), level.base(index + 1)))
                if len(stack) > MAX_DEPTH:
                    raise too_deep(child)
                if not child.children:
                    seek, enter = None, False

    def _unchanged(self, level: _Level) -> Unchanged:
        """The range of the children from `level.index` on that are older, which is left behind."""
        node, first = level.node, level.index
        while level.index < len(node.keys) and mirror_of(node.element(level.index)) < self._tid:
            level.index += 1
        low, high = level.base(first), level.base(level.index)
        if element_key(low) < element_key(self._low):
            low = self._low
        if element_key(high) > self._end:
            high = self._high
        return Unchanged(low, high)


def _place(node: Node, key: Key) -> int:
    """The child whose range holds `key`, or the first element not below it."""
    return bisect_right(node.keys, key, 1) - 1 if node.children else bisect_left(node.keys, key)
