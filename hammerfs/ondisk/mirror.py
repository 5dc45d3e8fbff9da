"""Mirroring streams (`hammer_ioctl.h`, struct hammer_ioc_mrecord_*): records packed, parsed and verified.

A stream is a row of records, each with a head of 16 bytes (signature, CRC, size, type) and padded to 8.  The CRC is
always CRC-32, whatever the volume's version, and covers everything behind itself but the padding.  A batch begins with
two PFSD records - the first one tells whose stream it is, the second one which TIDs it covers - and ends with SYNC, or
IDLE when there was nothing to send; TERM ends the stream.  Between them come the B-tree's elements in key order:

- REC, an element with its data: the target shall have it;
- PASS, an element that the target has from an earlier batch, if anything of it changed it is its deletion;
- SKIP, a range of keys in which nothing changed.

What lies between two of these and is none of them is gone at the source.  UPDATE is the target's answer: it is in sync
with this TID.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TypeAlias

from hammerfs.errors import StreamError
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import (
    BTREE_RECORD,
    ELEMENT_SIZE,
    MREC_ALIGN,
    MREC_IDLE,
    MREC_PASS,
    MREC_PFSD,
    MREC_REC,
    MREC_SIGNATURE,
    MREC_SIGNATURE_REVERSED,
    MREC_SKIP,
    MREC_SYNC,
    MREC_TERM,
    MREC_UPDATE,
    MRECF_CRC_ERROR,
    MRECF_DATA_CRC_BAD,
    MRECF_NODATA,
    MRECF_TYPE_MASK,
    PFSD_VERSION,
    XBUFSIZE,
)
from hammerfs.ondisk.element import BASE, LeafElement, unpack_leaf
from hammerfs.ondisk.pfs import PFS_DATA_SIZE, PfsData

_HEAD = struct.Struct("<IIII")
_PFSD = struct.Struct(f"<II{PFS_DATA_SIZE}s")
_TID = struct.Struct("<Q")
HEAD_SIZE = _HEAD.size
_CRC_END = 8
"""Signature and CRC itself are not covered by the CRC."""
_REC_MIN = HEAD_SIZE + ELEMENT_SIZE
RECORD_SIZE_MAX = _REC_MIN + XBUFSIZE
_MARK_BODY = _TID.pack(PFSD_VERSION)
"""What the original leaves behind the head of SYNC, IDLE and TERM: the beginning of the PFSD record it sent last."""


@dataclass(frozen=True, slots=True)
class Header:
    """PFSD: the PFS record of the source."""

    pfs: bytes

    @property
    def data(self) -> PfsData:
        """The record, to be read by field."""
        return PfsData(self.pfs)


@dataclass(frozen=True, slots=True)
class Record:
    """REC: an element with its data, which is not what the source wrote when `damaged`."""

    element: bytes
    data: bytes
    damaged: bool = False

    @property
    def leaf(self) -> LeafElement:
        """The element's fields."""
        return unpack_leaf(self.element)


@dataclass(frozen=True, slots=True)
class Pass:
    """PASS: an element without its data."""

    element: bytes

    @property
    def leaf(self) -> LeafElement:
        """The element's fields."""
        return unpack_leaf(self.element)


@dataclass(frozen=True, slots=True)
class Skip:
    """SKIP: nothing changed from `low` up to but without `high`, both the 40 bytes that an element begins with."""

    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True)
class Update:
    """UPDATE: the target has everything up to this TID."""

    tid: Tid


@dataclass(frozen=True, slots=True)
class Sync:
    """SYNC: the batch is complete."""


@dataclass(frozen=True, slots=True)
class Idle:
    """IDLE: the batch was empty, and nothing is different from before."""


@dataclass(frozen=True, slots=True)
class Term:
    """TERM: the stream is over."""


StreamRecord: TypeAlias = Header | Record | Pass | Skip | Update | Sync | Idle | Term

_MARKS: dict[type[Sync | Idle | Term], int] = {Sync: MREC_SYNC, Idle: MREC_IDLE, Term: MREC_TERM}
_MARK_OF: dict[int, Sync | Idle | Term] = {MREC_SYNC: Sync(), MREC_IDLE: Idle(), MREC_TERM: Term()}
_SIZES = {
    MREC_PFSD: HEAD_SIZE + _PFSD.size,
    MREC_UPDATE: HEAD_SIZE + _TID.size,
    MREC_SYNC: HEAD_SIZE + len(_MARK_BODY),
    MREC_IDLE: HEAD_SIZE + len(_MARK_BODY),
    MREC_TERM: HEAD_SIZE + len(_MARK_BODY),
    MREC_SKIP: HEAD_SIZE + 2 * BASE.size,
    MREC_PASS: _REC_MIN,
}
"""Exact sizes; a REC is as long as its data."""


def padded(size: int) -> int:
    """Bytes that a record of `size` takes in a stream."""
    return (size + MREC_ALIGN - 1) & -MREC_ALIGN


def packed(record: StreamRecord) -> bytes:
    """A record as it travels, padding included."""
    if isinstance(record, Record):
        kind = MREC_REC | (MRECF_CRC_ERROR | MRECF_DATA_CRC_BAD if record.damaged else 0)
        return _sealed(kind, record.element + record.data)
    if isinstance(record, Pass):
        return _sealed(MREC_PASS, record.element)
    if isinstance(record, Skip):
        return _sealed(MREC_SKIP, record.low + record.high)
    if isinstance(record, Header):
        return _sealed(MREC_PFSD, _PFSD.pack(PFSD_VERSION, 0, record.pfs))
    if isinstance(record, Update):
        return _sealed(MREC_UPDATE, _TID.pack(record.tid))
    return _sealed(_MARKS[type(record)], _MARK_BODY)


def _sealed(kind: int, body: bytes) -> bytes:
    size = HEAD_SIZE + len(body)
    tail = struct.pack("<II", size, kind) + body
    return struct.pack("<II", MREC_SIGNATURE, zlib.crc32(tail)) + tail + bytes(padded(size) - size)


class StreamParser:
    """Takes a stream in pieces of any size and gives its records out.

    Whatever does not hold is refused with StreamError: nobody guesses where the next record might begin.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += piece

    def next_record(self) -> StreamRecord | None:
        """The next record, None when more bytes are needed for it."""
        have = len(self._buffer) - self._start
        if have < HEAD_SIZE:
            return None
        signature, checksum, size, kind = _HEAD.unpack_from(self._buffer, self._start)
        _verify_head(signature, size, kind)
        if have < padded(size):
            return None
        raw = bytes(self._buffer[self._start : self._start + size])
        self._start += padded(size)
        if zlib.crc32(memoryview(raw)[_CRC_END:]) != checksum:
            raise StreamError("the mirroring stream holds a record with a bad CRC")
        return _unpacked(kind, raw[HEAD_SIZE:])

    def finish(self) -> None:
        """The stream has ended; StreamError when that was in the middle of a record."""
        if len(self._buffer) > self._start:
            raise StreamError("the mirroring stream ends in the middle of a record")


def _verify_head(signature: int, size: int, kind: int) -> None:
    if signature == MREC_SIGNATURE_REVERSED:
        raise StreamError("the mirroring stream comes from a machine with the other byte order")
    if signature != MREC_SIGNATURE:
        raise StreamError("this is no mirroring stream, or it is damaged")
    kind &= MRECF_TYPE_MASK
    if kind == MREC_REC:
        sound = _REC_MIN <= size <= RECORD_SIZE_MAX
    elif kind in _SIZES:
        sound = size == _SIZES[kind]
    else:
        raise StreamError(f"the mirroring stream holds a record of the unknown type {kind}")
    if not sound:
        raise StreamError(f"the mirroring stream holds a record of type {kind} with an impossible size of {size} bytes")


def _unpacked(kind: int, body: bytes) -> StreamRecord:
    base = kind & MRECF_TYPE_MASK
    if base == MREC_REC:
        return _record(kind, body)
    if base == MREC_PASS:
        _verify_element(body)
        return Pass(body)
    if base == MREC_SKIP:
        return Skip(body[: BASE.size], body[BASE.size :])
    if base == MREC_PFSD:
        version, _, pfs = _PFSD.unpack(body)
        if version != PFSD_VERSION:
            raise StreamError(f"the mirroring stream is of the unknown version {version}")
        return Header(pfs)
    if base == MREC_UPDATE:
        return Update(_TID.unpack(body)[0])
    return _MARK_OF[base]


def _record(kind: int, body: bytes) -> Record:
    element, data = body[:ELEMENT_SIZE], body[ELEMENT_SIZE:]
    _verify_element(element)
    leaf = unpack_leaf(element)
    if kind & MRECF_NODATA or leaf.data_len != len(data):
        raise StreamError(
            f"the mirroring stream holds a record of object {leaf.obj_id:#x} with {len(data)} "
            f"bytes of data instead of {leaf.data_len}"
        )
    return Record(element, data, bool(kind & MRECF_CRC_ERROR))


def _verify_element(element: bytes) -> None:
    leaf = unpack_leaf(element)
    if leaf.btype != BTREE_RECORD:
        raise StreamError(f"the mirroring stream holds an element of type {leaf.btype:#x}, which is no record")
    if not leaf.create_tid or 0 < leaf.delete_tid <= leaf.create_tid:
        raise StreamError(
            f"the mirroring stream holds a record of object {leaf.obj_id:#x} that lives "
            f"from TID {leaf.create_tid:016x} to {leaf.delete_tid:016x}"
        )
