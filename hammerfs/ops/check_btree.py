"""Phase 4a: the B-tree's nodes, walked from the root over raw bytes, leaves in key order.

An independent reader on purpose: it shares nothing with `hammerfs.btree`, so a mistake there cannot hide itself here.
Every node: CRC, type, count, parent, bounds, order, mirror TID, and that no two parents share it.  What is below a node
that fails is not believed and not visited; `complete` then turns false and the comparisons that need the whole tree are
left out.  Source: `hammer_btree.h`, `hammer_btree.c`, hammer(8) show's `get_elm_flags`.

A mirror TID that a parent does not know yet is what a nomirror mount leaves behind, in the original too
(`hammer_btree_do_propagation`); nothing on disk tells such a mount from a mistake.  So it is counted and noted, and a
problem only for a caller who knows that the file system was always mirrored, or when the TID was never given out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hammerfs.errors import HammerError
from hammerfs.ondisk import node as ondisk_node
from hammerfs.ondisk.address import Offset, Tid, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_BITS,
    BIGBLOCK_MASK,
    BTREE_INTERNAL,
    BTREE_LEAF,
    BTREE_NONE,
    BTREE_RECORD,
    ELEMENT_SIZE,
    INTERNAL_ELEMENTS,
    LEAF_ELEMENTS,
    MAX_MASTERS,
    MAX_TID,
    NODE_HEADER_SIZE,
    NODE_SIZE,
    ZONE_BTREE,
)
from hammerfs.ondisk.element import (
    ROOT_LEFT_BOUNDARY,
    ROOT_RIGHT_BOUNDARY,
    LeafElement,
    element_key,
    unpack_internal,
    unpack_leaf,
)
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.check_report import Report
from hammerfs.ops.check_usage import Usage
from hammerfs.ops.progress import Progress

NODE = "B-tree node"
ELEMENT = "B-tree element"
DEPTH_MAX = 40
"""Far deeper than 2^60 bytes of nodes can make a tree; a deeper one is a loop."""


class _Visit(NamedTuple):
    """A node still to be read, and what its parent says about it."""

    offset: Offset
    parent: Offset
    left: bytes
    right: bytes
    mirror_tid: Tid
    kind: int | None
    siblings: int
    depth: int


class Leaf(NamedTuple):
    """A verified leaf: where it is and its record elements; elements that are no records are left out."""

    offset: Offset
    elements: list[LeafElement]


class TreeWalk:
    """One walk over the tree; `mirrored` says that no nomirror mount has written to it.

    complete -- afterwards: whether every node could be visited
    """

    def __init__(
        self, reader: ImageReader, usage: Usage, report: Report, progress: Progress, *, mirrored: bool = False
    ) -> None:
        self._reader = reader
        self._usage = usage
        self._report = report
        self._progress = progress
        self._seen: dict[int, int] = {}
        self._mirrored = mirrored
        self._unknown_above = 0
        self._first_unknown = ""
        self._last_tid = reader.volumes.root.header.vol0_next_tid | (MAX_MASTERS - 1)
        self.complete = True

    def leaves(self) -> Iterator[Leaf]:
        """All leaves, left to right; findings about nodes go to the report on the way."""
        root = self._reader.volumes.root.header.vol0_btree_root
        stack = [
            _Visit(root, 0, element_key(ROOT_LEFT_BOUNDARY), element_key(ROOT_RIGHT_BOUNDARY), MAX_TID, None, 1, 0)
        ]
        while stack:
            visit = stack.pop()
            raw = self._read(visit)
            if raw is None:
                self.complete = False
                continue
            header = ondisk_node.unpack_header(raw)
            self._check_header(visit, header)
            self._usage.add(visit.offset, NODE_SIZE)
            self._report.count("B-tree nodes")
            self._progress.advance(1)
            if header.kind == BTREE_LEAF:
                yield Leaf(visit.offset, self._leaf_elements(visit, header, raw))
            else:
                stack.extend(reversed(self._children(visit, header, raw)))
        if self._unknown_above:
            self._report.note(
                NODE,
                self._first_unknown,
                f"{self._unknown_above} mirror TIDs, here the first, are unknown to the parent, as after a nomirror "
                "mount: mirroring would miss what changed",
            )

    def _read(self, visit: _Visit) -> bytes | None:
        """The node's bytes, verified as far as they can be alone; None when it must not be believed."""
        offset = visit.offset
        if zone_of(offset) != ZONE_BTREE or offset % NODE_SIZE:
            self._report.problem(NODE, offset, f"no place for a node (named by {visit.parent:016x})")
            return None
        if self._visited(offset):
            self._report.problem(NODE, offset, f"two parents share it, the second is {visit.parent:016x}")
            return None
        if visit.depth > DEPTH_MAX:
            self._report.problem(NODE, offset, f"the tree is deeper than {DEPTH_MAX} levels")
            return None
        try:
            raw = self._reader.read(offset, NODE_SIZE)
        except HammerError as error:
            self._report.problem(NODE, offset, str(error))
            return None
        if not ondisk_node.crc_ok(self._reader.version, raw):
            self._report.problem(NODE, offset, "CRC mismatch")
            return None
        header = ondisk_node.unpack_header(raw)
        limit = {BTREE_LEAF: LEAF_ELEMENTS, BTREE_INTERNAL: INTERNAL_ELEMENTS}.get(header.kind)
        if limit is None:
            self._report.problem(NODE, offset, f"type {header.kind:#04x} is neither internal nor leaf")
            return None
        if not 0 <= header.element_count <= limit:
            self._report.problem(NODE, offset, f"{header.element_count} elements, at most {limit} are possible")
            return None
        return raw

    def _visited(self, offset: Offset) -> bool:
        """Mark a node as seen, in a bit map per big-block; True when it was before."""
        key, bit = offset >> BIGBLOCK_BITS, 1 << ((offset & BIGBLOCK_MASK) // NODE_SIZE)
        seen = self._seen.get(key, 0)
        self._seen[key] = seen | bit
        return bool(seen & bit)

    def _check_header(self, visit: _Visit, header: ondisk_node.NodeHeader) -> None:
        problem = self._report.problem
        if header.parent != visit.parent:
            problem(NODE, visit.offset, f"parent is {header.parent:016x}, but {visit.parent:016x} refers to it")
        if visit.kind is not None and visit.kind != header.kind:
            problem(NODE, visit.offset, f"type is {chr(header.kind)}, its parent's element says {visit.kind:#04x}")
        if header.mirror_tid > visit.mirror_tid:
            place = f"{visit.offset:016x}"
            self._unknown(NODE, place, header.mirror_tid, f"above its parent element's {visit.mirror_tid:016x}")
        if header.element_count == 0 and visit.siblings != 1:
            problem(NODE, visit.offset, "it is empty and not its parent's only child")

    def _unknown(self, kind: str, place: str, mirror_tid: Tid, text: str) -> None:
        """A mirror TID that the level above does not know."""
        if self._mirrored or mirror_tid > self._last_tid:
            self._report.problem(kind, place, f"mirror TID {mirror_tid:016x} is {text}")
            return
        self._unknown_above += 1
        self._first_unknown = self._first_unknown or place

    def _children(self, visit: _Visit, header: ondisk_node.NodeHeader, raw: bytes) -> list[_Visit]:
        """Check an internal node's elements; returns the children that can be visited."""
        count = header.element_count
        starts = [NODE_HEADER_SIZE + index * ELEMENT_SIZE for index in range(count + 1)]
        keys = [element_key(raw, start) for start in starts]
        self._check_order(visit, keys[:-1], keys[-1])
        children = []
        for index, start in enumerate(starts):
            element = unpack_internal(raw, start)
            place = f"{visit.offset:016x}[{index}]"
            if element.mirror_tid > header.mirror_tid:
                self._unknown(ELEMENT, place, element.mirror_tid, f"above its node's {header.mirror_tid:016x}")
            if index == count:
                if element.btype != BTREE_NONE or element.subtree_offset:
                    self._report.problem(ELEMENT, place, "the right boundary refers to a child")
                continue
            left, right = keys[index], keys[index + 1]
            if not visit.left <= left < right <= visit.right:
                left, right = visit.left, visit.right
            children.append(
                _Visit(
                    element.subtree_offset,
                    visit.offset,
                    left,
                    right,
                    element.mirror_tid,
                    element.btype,
                    count,
                    visit.depth + 1,
                )
            )
        return children

    def _check_order(self, visit: _Visit, keys: list[bytes], boundary: bytes | None) -> None:
        """Elements ascend strictly within the bounds; the right boundary may equal the parent's."""
        previous = b""
        for index, key in enumerate(keys):
            if key <= previous:
                self._report.problem(ELEMENT, f"{visit.offset:016x}[{index}]", "key is not above the one before it")
            if not visit.left <= key < visit.right:
                self._report.problem(ELEMENT, f"{visit.offset:016x}[{index}]", "key is outside of its node's bounds")
            previous = key
        if boundary is not None and (boundary <= previous or not visit.left <= boundary <= visit.right):
            self._report.problem(
                ELEMENT, f"{visit.offset:016x}[{len(keys)}]", "the right boundary is outside of its node's bounds"
            )

    def _leaf_elements(self, visit: _Visit, header: ondisk_node.NodeHeader, raw: bytes) -> list[LeafElement]:
        """Check a leaf's keys, types and TIDs; returns its records."""
        starts = range(NODE_HEADER_SIZE, NODE_HEADER_SIZE + header.element_count * ELEMENT_SIZE, ELEMENT_SIZE)
        elements = [unpack_leaf(raw, start) for start in starts]
        self._check_order(visit, [element.packed_key() for element in elements], None)
        fresh = visit.parent == 0 and header.element_count == 2
        if header.mirror_tid == 0 and not fresh:
            self._report.problem(NODE, visit.offset, "a leaf that was written to has no mirror TID")
        records = []
        for index, element in enumerate(elements):
            if element.btype != BTREE_RECORD:
                self._report.problem(
                    ELEMENT, f"{visit.offset:016x}[{index}]", f"type {element.btype:#04x} in a leaf is no record"
                )
                continue
            if header.mirror_tid and max(element.create_tid, element.delete_tid) > header.mirror_tid:
                self._report.problem(
                    ELEMENT,
                    f"{visit.offset:016x}[{index}]",
                    f"changed by a TID above its node's mirror TID {header.mirror_tid:016x}",
                )
            records.append(element)
        return records
