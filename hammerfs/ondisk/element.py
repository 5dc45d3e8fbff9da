"""B-tree elements (64 bytes) and the packed keys that order them.

HAMMER compares localization, obj_id, rec_type, key and create_tid, in that order, the second and fourth signed
(`hammer_btree_cmp`).  A packed key writes these big-endian with the sign bits flipped, so that comparing two keys is
one comparison of `bytes`; that, with C `bisect`, is the fastest search plain Python has.  A create_tid of 0 on disk
means "never visible" and orders as infinity.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hammerfs.ondisk.address import Localization, ObjId, Offset, Tid
from hammerfs.ondisk.constants import (
    BTREE_NONE,
    BTREE_RECORD,
    ELEMENT_SIZE,
    LOCALIZE_MASK,
    MAX_KEY,
    MAX_LOCALIZATION,
    MAX_OBJID,
    MAX_RECTYPE,
    MAX_TID,
    MIN_KEY,
    MIN_OBJID,
)

LEAF = struct.Struct("<qqQQHBBIIIQiI")
INTERNAL = struct.Struct("<qqQQHBBIQQii")
BASE = struct.Struct("<qqQQHBBI")
KEY = struct.Struct(">IQHQQ")
KEY_SIZE = KEY.size
BASE_KEY_SIZE = KEY_SIZE - 8
"""Length of a packed key without its create_tid: what all versions of one record share."""
SIGN = 1 << 63
_MASK64 = (1 << 64) - 1
DELETE_TID_OFFSET = 24
DATA_OFFSET_OFFSET = 48
DATA_CRC_OFFSET = 60

assert LEAF.size == INTERNAL.size == ELEMENT_SIZE


class LeafElement(NamedTuple):
    """A record: its key, its lifetime in TIDs and seconds, and where its data lies (0 when it has none)."""

    obj_id: ObjId
    key: int
    create_tid: Tid
    delete_tid: Tid
    rec_type: int
    obj_type: int
    btype: int
    localization: Localization
    create_ts: int
    delete_ts: int
    data_offset: Offset
    data_len: int
    data_crc: int

    def pack(self) -> bytes:
        """The element's 64 bytes."""
        return LEAF.pack(*self)

    def packed_key(self) -> bytes:
        """The element's position in the B-tree."""
        return pack_key(self.localization, self.obj_id, self.rec_type, self.key, self.create_tid)


class InternalElement(NamedTuple):
    """A child node: its left boundary key, the highest TID below it and its zone-8 offset."""

    obj_id: ObjId
    key: int
    create_tid: Tid
    delete_tid: Tid
    rec_type: int
    obj_type: int
    btype: int
    localization: Localization
    mirror_tid: Tid
    subtree_offset: Offset
    reserved01: int = 0
    reserved02: int = 0

    def pack(self) -> bytes:
        """The element's 64 bytes."""
        return INTERNAL.pack(*self)

    def packed_key(self) -> bytes:
        """The boundary as a packed key."""
        return pack_key(self.localization, self.obj_id, self.rec_type, self.key, self.create_tid)


def pack_key(localization: Localization, obj_id: ObjId, rec_type: int, key: int, create_tid: Tid) -> bytes:
    """The ordering key of an element; a create_tid of 0 orders last, as on disk."""
    return KEY.pack(
        localization,
        (obj_id + SIGN) & _MASK64,
        rec_type,
        (key + SIGN) & _MASK64,
        create_tid or MAX_TID,
    )


def base_key(localization: Localization, obj_id: ObjId, rec_type: int, key: int) -> bytes:
    """The first 22 bytes of a packed key: the record, whatever its version."""
    return KEY.pack(localization, (obj_id + SIGN) & _MASK64, rec_type, (key + SIGN) & _MASK64, 0)[:BASE_KEY_SIZE]


def at_tid(base: bytes, tid: Tid) -> bytes:
    """A base key completed with a TID: the last position a version visible at `tid` can have."""
    return base + tid.to_bytes(8, "big")


class UnpackedKey(NamedTuple):
    """A packed key's parts."""

    localization: Localization
    obj_id: ObjId
    rec_type: int
    key: int
    create_tid: Tid


def unpack_key(packed: bytes) -> UnpackedKey:
    """The parts of a packed key."""
    localization, obj_id, rec_type, key, create_tid = KEY.unpack(packed)
    return UnpackedKey(localization, obj_id - SIGN, rec_type, key - SIGN, create_tid)


def unpack_leaf(raw: bytes | bytearray | memoryview, base: int = 0) -> LeafElement:
    """The leaf element at `base`."""
    return LeafElement._make(LEAF.unpack_from(raw, base))


def unpack_internal(raw: bytes | bytearray | memoryview, base: int = 0) -> InternalElement:
    """The internal element (or right boundary) at `base`."""
    return InternalElement._make(INTERNAL.unpack_from(raw, base))


def element_key(raw: bytes | bytearray | memoryview, base: int = 0) -> bytes:
    """The packed key of the 64-byte element at `base`, leaf or internal."""
    obj_id, key, create_tid, _, rec_type, _, _, localization = BASE.unpack_from(raw, base)
    return pack_key(localization, obj_id, rec_type, key, create_tid)


def visible_at(create_tid: Tid, delete_tid: Tid, as_of: Tid) -> bool:
    """Whether a record with that lifetime exists at `as_of` (MAX_TID: now)."""
    return create_tid <= as_of and (delete_tid == 0 or as_of < delete_tid)


def with_delete(raw: bytes, delete_tid: Tid, delete_ts: int) -> bytes:
    """A leaf element's bytes with its deletion set."""
    return (
        raw[:DELETE_TID_OFFSET]
        + delete_tid.to_bytes(8, "little")
        + raw[32:44]
        + delete_ts.to_bytes(4, "little")
        + raw[48:]
    )


def with_data(raw: bytes, data_offset: Offset, data_crc: int) -> bytes:
    """A leaf element's bytes with its data at another place, under a CRC that may be of another kind."""
    return (
        raw[:DATA_OFFSET_OFFSET]
        + data_offset.to_bytes(8, "little")
        + raw[DATA_OFFSET_OFFSET + 8 : DATA_CRC_OFFSET]
        + data_crc.to_bytes(4, "little")
    )


def record_element(
    localization: Localization,
    obj_id: ObjId,
    rec_type: int,
    key: int,
    create_tid: Tid,
    create_ts: int,
    obj_type: int,
    data_offset: Offset,
    data_len: int,
    data_crc: int,
) -> bytes:
    """A live leaf element's 64 bytes."""
    return LEAF.pack(
        obj_id,
        key,
        create_tid,
        0,
        rec_type,
        obj_type,
        BTREE_RECORD,
        localization,
        create_ts,
        0,
        data_offset,
        data_len,
        data_crc,
    )


ROOT_LEFT_BOUNDARY = BASE.pack(MIN_OBJID, MIN_KEY, 1, 1, 0, 0, BTREE_NONE, 0)
"""Base of the leftmost boundary of the whole tree (`hammer_vfs_mount: root_btree_beg`)."""
ROOT_RIGHT_BOUNDARY = BASE.pack(MAX_OBJID, MAX_KEY, MAX_TID, 0, MAX_RECTYPE, 0, BTREE_NONE, MAX_LOCALIZATION)
"""Base of the rightmost boundary of the whole tree."""


def first_key(localization: Localization) -> bytes:
    """The 40 bytes of the lowest key of a PFS, as the original forms it."""
    return BASE.pack(MIN_OBJID, MIN_KEY, 1, 0, 0, 0, 0, localization)


def last_key(localization: Localization) -> bytes:
    """The 40 bytes of its highest key."""
    return BASE.pack(MAX_OBJID, MAX_KEY, MAX_TID, 0, MAX_RECTYPE, 0, 0, localization | LOCALIZE_MASK)
