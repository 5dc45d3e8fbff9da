"""A B-tree node in memory: packed keys beside 64-byte elements, and the way there from 4096 raw bytes and back.

Idea: searching wants keys that compare as `bytes`, writing wants elements as they are on disk.  So a node keeps both,
side by side in two lists.  The keys of a page are cut out of it all at once: byte k of all 63 keys lies 64 bytes apart
on the page, so thirty strided slices give the keys as columns and 63 strided slices of these give the keys; that is
three times faster than unpacking element by element, and cheap enough (some ten microseconds) to verify the order of
every node that is read, even of one that is looked at only once.  Elements stay in the raw page until the node changes.

A node is believed only after `decode` has verified it against what its parent says of it.  HAMMER allows a child's
own boundaries to be narrower than its parent's idea of them, since removing an empty node lets a neighbour inherit its
range without telling that neighbour's descendants (`hammer_btree.c: btree_remove, btree_search`); never wider.

Follows `hammer_btree.h` and `hammer_btree.c` (hammer_btree_cmp, hammer_make_separator).
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from operator import lt
from struct import Struct
from typing import NamedTuple, NoReturn

from hammerfs.errors import CorruptionError
from hammerfs.ondisk.address import Offset, Tid, zone_of
from hammerfs.ondisk.constants import (
    BTREE_INTERNAL,
    BTREE_LEAF,
    BTREE_NONE,
    BTREE_RECORD,
    ELEMENT_SIZE,
    INTERNAL_ELEMENTS,
    LEAF_ELEMENTS,
    LOCALIZE_INODE,
    NODE_HEADER_SIZE,
    NODE_SIZE,
    ZONE_BTREE,
)
from hammerfs.ondisk.element import (
    BASE,
    BASE_KEY_SIZE,
    KEY,
    ROOT_LEFT_BOUNDARY,
    ROOT_RIGHT_BOUNDARY,
    element_key,
    unpack_key,
)
from hammerfs.ondisk.node import NodeHeader, crc_ok, element_at, pack_node, unpack_header

Key = bytes
"""A packed key of 30 bytes (see `hammerfs.ondisk.element`)."""

_BASE_SIZE = BASE.size
_BTYPE = 35
_SUBTREE = 48
_LINK = Struct("<QQ8x")
"""What follows the base in an internal element: mirror_tid and subtree_offset."""
_SPLIT = [Struct("64s" * count) for count in range(LEAF_ELEMENTS + 1)]
_CHILDREN = [Struct("<" + "48xQ8x" * count) for count in range(LEAF_ELEMENTS + 1)]
_COLUMNS = (
    *range(39, 35, -1),  # localization
    *range(7, -1, -1),  # obj_id
    *range(33, 31, -1),  # rec_type
    *range(15, 7, -1),  # key
    *range(23, 15, -1),  # create_tid
)
"""Which byte of an element stands at each place of its packed key: the fields, big-endian."""
_SIGNED = (4, 14)
"""Places of the packed key whose top bit is flipped: obj_id and key are signed."""
_FLIP_SIGN = bytes(value ^ 0x80 for value in range(256))
_LOCALIZATION_TYPE = 3
_CREATE = 22
_PLACES = (
    (_SUBTREE, b"\0"),
    (_SUBTREE + 1, bytes(range(0, 256, NODE_SIZE >> 8))),
    (_SUBTREE + 7, bytes(range(ZONE_BTREE << 4, (ZONE_BTREE + 1) << 4))),
)
"""Bytes of an internal element and what each may be when it names a place for a node: 4 KiB aligned, in zone 8."""
_ELEMENT_WORDS = ELEMENT_SIZE // 8
_SHARED_WORDS = (0, 1, 4)
"""Of an element as eight numbers: obj_id, key, and rec_type with obj_type, btype and localization."""
_CREATE_WORD = 2
_IS_LITTLE = sys.byteorder == "little"
_NEVER = bytes(8)
_INFINITY = b"\xff" * 8

assert _BASE_SIZE + _LINK.size == ELEMENT_SIZE
assert len(_COLUMNS) == KEY.size

ROOT_LEFT: Key = element_key(ROOT_LEFT_BOUNDARY)
ROOT_RIGHT: Key = element_key(ROOT_RIGHT_BOUNDARY)


class Bounds(NamedTuple):
    """What the referring element and its right neighbour say of a node; `kind` 0 stands for either (the root)."""

    parent: Offset
    kind: int
    low: Key
    high: Key


ROOT_BOUNDS = Bounds(0, 0, ROOT_LEFT, ROOT_RIGHT)


class Node:
    """One node.  `elements[i]` has key `keys[i]`; an internal node also has `children[i]`, a leaf has none.

    The right boundary of an internal node is no element here but `right_key` and `right_element`.  `elements` is None
    while the node equals `raw`, and `raw` is empty while it does not.  `changed` and `fresh` say what `sync()` has to
    do, `touched` is the cache's reference bit, `last_insert` where the last insertion went.
    """

    __slots__ = (
        "changed",
        "children",
        "elements",
        "fresh",
        "keys",
        "last_insert",
        "mirror_tid",
        "offset",
        "parent",
        "raw",
        "right_element",
        "right_key",
        "touched",
    )

    def __init__(self, offset: Offset, parent: Offset, mirror_tid: Tid) -> None:
        self.offset = offset
        self.parent = parent
        self.mirror_tid = mirror_tid
        self.keys: list[Key] = []
        self.elements: list[bytes] | None = []
        self.children: list[Offset] = []
        self.right_key: Key = b""
        self.right_element = b""
        self.raw = b""
        self.changed = False
        self.fresh = False
        self.touched = True
        self.last_insert = -1

    @property
    def kind(self) -> int:
        """BTREE_INTERNAL or BTREE_LEAF; an internal node is never empty."""
        return BTREE_INTERNAL if self.children else BTREE_LEAF

    @property
    def full(self) -> bool:
        """Whether one more element does not fit."""
        return len(self.keys) >= (INTERNAL_ELEMENTS if self.children else LEAF_ELEMENTS)

    def element(self, index: int) -> bytes:
        """The 64 bytes of element `index`."""
        if self.elements is not None:
            return self.elements[index]
        start = NODE_HEADER_SIZE + index * ELEMENT_SIZE
        return self.raw[start : start + ELEMENT_SIZE]

    def element_range(self, start: int, stop: int) -> list[bytes]:
        """Copies of the references to elements `start` to `stop - 1`."""
        if self.elements is not None:
            return self.elements[start:stop]
        return list(_SPLIT[stop - start].unpack_from(self.raw, NODE_HEADER_SIZE + start * ELEMENT_SIZE))

    def unpacked(self) -> list[bytes]:
        """The element list, made for a node that is going to change."""
        if self.elements is None:
            self.elements = self.element_range(0, len(self.keys))
            self.raw = b""
        return self.elements

    def bounds_of(self, index: int) -> Bounds:
        """What this internal node says of child `index`."""
        keys = self.keys
        high = keys[index + 1] if index + 1 < len(keys) else self.right_key
        return Bounds(self.offset, self.element(index)[_BTYPE], keys[index], high)

    def refers_to_leaf(self, index: int) -> bool:
        """Whether child `index` is a leaf."""
        return self.element(index)[_BTYPE] == BTREE_LEAF

    def become_leaf(self) -> None:
        """Turn the root of a tree that lost its last record into an empty leaf."""
        self.keys, self.elements, self.children = [], [], []
        self.right_key = self.right_element = self.raw = b""

    def encode(self, version: int) -> bytes:
        """The node's 4096 bytes; the node holds on to them instead of its element list."""
        elements = self.unpacked()
        kind = self.kind
        body = b"".join(elements) + self.right_element if kind == BTREE_INTERNAL else b"".join(elements)
        self.raw = pack_node(version, self.parent, len(elements), kind, self.mirror_tid, body)
        self.elements = None
        return self.raw


def packed_keys(raw: bytes, count: int) -> list[Key]:
    """The packed keys of the first `count` elements of a raw node."""
    end = NODE_HEADER_SIZE + count * ELEMENT_SIZE
    columns = [raw[NODE_HEADER_SIZE + column : end : ELEMENT_SIZE] for column in _COLUMNS]
    for place in _SIGNED:
        columns[place] = columns[place].translate(_FLIP_SIGN)
    joined = b"".join(columns)
    keys = [joined[index::count] for index in range(count)]
    # A create_tid of 0 orders as infinity.  It hardly ever occurs, and only where its middle bytes are 0 as well.
    if 0 in columns[_CREATE + 3]:
        keys = [key[:_CREATE] + _INFINITY if key.endswith(_NEVER) else key for key in keys]
    return keys


def decode(raw: bytes, offset: Offset, version: int, bounds: Bounds) -> Node:
    """The node in `raw`, verified against `bounds`; CorruptionError names `offset` and what is wrong."""
    return _taken_apart(raw, offset, _verified_header(raw, offset, version, bounds), bounds)


def _taken_apart(raw: bytes, offset: Offset, header: NodeHeader, bounds: Bounds) -> Node:
    node = Node(offset, header.parent, header.mirror_tid)
    node.raw, node.elements = raw, None
    if header.kind == BTREE_LEAF:
        node.keys = packed_keys(raw, header.element_count)
        if raw[NODE_HEADER_SIZE + _BTYPE : _end(header.element_count) : ELEMENT_SIZE].strip(bytes((BTREE_RECORD,))):
            _refuse(offset, "an element that is no record")
    else:
        _decode_links(node, raw, header.element_count)
    _verify_keys(node, bounds)
    return node


def glimpse(raw: bytes, offset: Offset, version: int, bounds: Bounds, key: Key) -> bytes | None:
    """The element with the greatest key that is not above `key`, out of a leaf that nobody is going to keep.

    Verified as by `decode`, in half the time where all elements are versions of one record: it is enough that what they
    share is the same on all of them, and their create_tids ascend.
    """
    header = _verified_header(raw, offset, version, bounds)
    count = header.element_count
    tids = _tids_of_one_record(raw, count)
    if tids is None:
        at = bisect_right(_taken_apart(raw, offset, header, bounds).keys, key)
    else:
        base = element_key(element_at(raw, 0))[:BASE_KEY_SIZE]
        if base + tids[0].to_bytes(8, "big") < bounds.low or base + tids[-1].to_bytes(8, "big") >= bounds.high:
            _refuse(offset, "keys outside the range that its parent gives it,")
        if key.startswith(base):
            at = bisect_right(tids, int.from_bytes(key[BASE_KEY_SIZE:], "big"))
        else:
            at = count if base < key else 0
    return element_at(raw, at - 1) if at else None


def _tids_of_one_record(raw: bytes, count: int) -> list[Tid] | None:
    """The create_tids of a leaf with versions of one record, ascending; None for any other leaf, sound or not."""
    if not count or not _IS_LITTLE:
        return None
    words = memoryview(raw)[NODE_HEADER_SIZE : _end(count)].cast("Q")
    for place in _SHARED_WORDS:
        column = words[place::_ELEMENT_WORDS].tobytes()
        if column != column[:8] * count:
            return None
    tids: list[Tid] = words[_CREATE_WORD::_ELEMENT_WORDS].tolist()
    # A create_tid of 0 orders as infinity.
    if raw[NODE_HEADER_SIZE + _BTYPE] != BTREE_RECORD or not tids[0] or not all(map(lt, tids, tids[1:])):
        return None
    return tids


def _verified_header(raw: bytes, offset: Offset, version: int, bounds: Bounds) -> NodeHeader:
    if len(raw) != NODE_SIZE:
        _refuse(offset, f"only {len(raw)} bytes")
    if not crc_ok(version, raw):
        _refuse(offset, "a wrong CRC")
    header = unpack_header(raw)
    _verify_header(header, offset, bounds)
    return header


def _verify_header(header: NodeHeader, offset: Offset, bounds: Bounds) -> None:
    if header.kind not in (BTREE_INTERNAL, BTREE_LEAF):
        _refuse(offset, f"unknown type {header.kind:#x}")
    if bounds.kind and header.kind != bounds.kind:
        _refuse(offset, f"type {chr(header.kind)} where its parent says {chr(bounds.kind)}")
    least, most = (0, LEAF_ELEMENTS) if header.kind == BTREE_LEAF else (1, INTERNAL_ELEMENTS)
    if not least <= header.element_count <= most:
        _refuse(offset, f"an element count of {header.element_count}")
    if header.parent != bounds.parent:
        _refuse(offset, f"parent {header.parent:016x} instead of {bounds.parent:016x}")


def _decode_links(node: Node, raw: bytes, count: int) -> None:
    node.keys = packed_keys(raw, count + 1)
    node.right_key = node.keys.pop()
    node.right_element = raw[_end(count) : _end(count + 1)]
    node.children = list(_CHILDREN[count].unpack_from(raw, NODE_HEADER_SIZE))
    kinds = raw[NODE_HEADER_SIZE + _BTYPE : _end(count) : ELEMENT_SIZE]
    if kinds.strip(bytes((BTREE_INTERNAL, BTREE_LEAF))):
        _refuse(node.offset, "an element that is no child")
    if node.right_element[_BTYPE] != BTREE_NONE or any(node.right_element[_SUBTREE : _SUBTREE + 8]):
        _refuse(node.offset, "a right boundary that refers to a child")
    # Distinct children that each name this node as their parent make loops impossible below it.
    if len(set(node.children)) != count:
        _refuse(node.offset, "two elements for one child")
    for at, allowed in _PLACES:
        if raw[NODE_HEADER_SIZE + at : _end(count) : ELEMENT_SIZE].strip(allowed):
            child = next(child for child in node.children if zone_of(child) != ZONE_BTREE or child % NODE_SIZE)
            _refuse(node.offset, f"a child at {child:016x}, which is no place for a node,")


def _verify_keys(node: Node, bounds: Bounds) -> None:
    keys = node.keys
    if not all(map(lt, keys, keys[1:])):
        _refuse(node.offset, "keys out of order")
    if node.children:
        inside = bounds.low <= keys[0] and keys[-1] < node.right_key <= bounds.high
    else:
        inside = not keys or (bounds.low <= keys[0] and keys[-1] < bounds.high)
    if not inside:
        _refuse(node.offset, "keys outside the range that its parent gives it,")


def _refuse(offset: Offset, what: str) -> NoReturn:
    raise CorruptionError(f"B-tree node with {what}", offset=offset)


def _end(count: int) -> int:
    return NODE_HEADER_SIZE + count * ELEMENT_SIZE


def group_of(key: Key, *, internal: bool) -> int:
    """Which nodes those on the way to `key` should lie beside: 0 leaves of names and contents, 1 leaves of inodes.

    2 and 3 are the nodes that lead there.  Who looks at many files reads all of a group, and little of another one.
    """
    return 2 * internal + (key[_LOCALIZATION_TYPE] == LOCALIZE_INODE)


def child_element(base: bytes, kind: int, mirror_tid: Tid, child: Offset) -> bytes:
    """An internal element with the boundary in `base` (the first 40 bytes of any element) that refers to `child`."""
    return base[:_BTYPE] + bytes((kind,)) + base[_BTYPE + 1 : _BASE_SIZE] + _LINK.pack(mirror_tid, child)


def right_boundary(base: bytes) -> bytes:
    """The element after an internal node's last child: a boundary that refers to nothing."""
    return child_element(base, BTREE_NONE, 0, 0)


def mirror_of(element: bytes) -> Tid:
    """The mirror_tid of an internal element."""
    return int.from_bytes(element[_BASE_SIZE:_SUBTREE], "little")


def with_mirror(element: bytes, mirror_tid: Tid) -> bytes:
    """An internal element with another mirror_tid."""
    return element[:_BASE_SIZE] + mirror_tid.to_bytes(8, "little") + element[_SUBTREE:]


def with_child(element: bytes, child: Offset) -> bytes:
    """An internal element that refers to another place."""
    return element[:_SUBTREE] + child.to_bytes(8, "little") + element[_SUBTREE + 8 :]


def with_base(element: bytes, base: bytes) -> bytes:
    """An internal element moved to another boundary; child, kind and mirror_tid stay."""
    return base[:_BTYPE] + element[_BTYPE : _BTYPE + 1] + base[_BTYPE + 1 : _BASE_SIZE] + element[_BASE_SIZE:]


def boundary_base(key: Key) -> bytes:
    """The 40 bytes of a boundary at `key`."""
    parts = unpack_key(key)
    return BASE.pack(parts.obj_id, parts.key, parts.create_tid, 0, parts.rec_type, 0, BTREE_NONE, parts.localization)


def separator(left: Key, right: Key) -> Key:
    """A boundary with left < boundary <= right.

    The first field that differs is halved, upwards, and what follows it is the right key's.  Two versions of one record
    are parted by the right one's create_tid itself: an as-of search that fails on the right of a boundary which equals
    its key in all but the create_tid goes on to the left of it (`hammer_btree_lookup`), here as in the original.
    """
    assert left < right
    lower, middle = KEY.unpack(left), list(KEY.unpack(right))
    for place in range(4):
        difference = middle[place] - lower[place]
        if difference:
            middle[place] = lower[place] + ((difference + 1) >> 1)
            break
    return KEY.pack(*middle)
