"""B-tree nodes on disk: a 64-byte header and 63 elements of 64 bytes, 4096 bytes in zone 8 (`hammer_node_ondisk`).

An internal node of `count` children uses `count + 1` elements, the last being its right boundary.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Offset, Tid
from hammerfs.ondisk.constants import ELEMENT_SIZE, NODE_HEADER_SIZE, NODE_SIZE

HEADER = struct.Struct("<IIQiBBHQQQQQ")
assert HEADER.size == NODE_HEADER_SIZE
_EMPTY = b"\0" * NODE_SIZE


class NodeHeader(NamedTuple):
    """A node's header.

    `kind` is BTREE_INTERNAL, BTREE_LEAF or BTREE_DELETED; `element_count` leaves out an internal node's right boundary;
    `parent` is 0 at the root.
    """

    crc: int
    parent: Offset
    element_count: int
    kind: int
    mirror_tid: Tid


def unpack_header(raw: bytes | bytearray | memoryview, base: int = 0) -> NodeHeader:
    """The header of the node at `base`."""
    stored, _, parent, count, kind, _, _, _, _, _, _, mirror_tid = HEADER.unpack_from(raw, base)
    return NodeHeader(stored, parent, count, kind, mirror_tid)


def pack_node(version: int, parent: Offset, count: int, kind: int, mirror_tid: Tid, elements: bytes) -> bytes:
    """A whole node of 4096 bytes with its CRC; `elements` is the joined element array."""
    body = (HEADER.pack(0, 0, parent, count, kind, 0, 0, 0, 0, 0, 0, mirror_tid) + elements).ljust(NODE_SIZE, b"\0")
    assert len(body) == NODE_SIZE
    checksum = crc.function_for(version)(memoryview(body)[4:])
    return checksum.to_bytes(4, "little") + body[4:]


def crc_ok(version: int, raw: bytes | bytearray | memoryview) -> bool:
    """Whether a 4096-byte node carries an acceptable CRC."""
    view = memoryview(raw)
    return crc.matches(version, int.from_bytes(view[:4], "little"), view[4:NODE_SIZE])


def element_at(raw: bytes, index: int) -> bytes:
    """The 64 bytes of element `index`."""
    start = NODE_HEADER_SIZE + index * ELEMENT_SIZE
    return raw[start : start + ELEMENT_SIZE]
