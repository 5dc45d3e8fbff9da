"""Records of the UNDO/REDO FIFO: building and parsing, bytes in and bytes out.

Every record is `head (16) | body | tail (8)`, a multiple of 8 bytes, and from version 4 on never crosses a 512-byte
sector.  A PAD fills what is left of a sector; it has no sequence number and no CRC and may be 8 bytes with head and
tail in one.  A DUMMY is a numbered record without a body (`hammer_undo.c`, `hammer_disk.h`).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Offset
from hammerfs.ondisk.constants import (
    BUFSIZE,
    FIFO_HEAD_ALIGN,
    HEAD_SIGNATURE,
    HEAD_TYPE_DUMMY,
    HEAD_TYPE_PAD,
    HEAD_TYPE_REDO,
    HEAD_TYPE_UNDO,
    TAIL_SIGNATURE,
    UNDO_ALIGN,
)

HEAD = struct.Struct("<HHIII")
TAIL = struct.Struct("<HHI")
UNDO = struct.Struct("<HHIIIQiI")
REDO = struct.Struct("<HHIIIqQiIIIQ")
FRONT = struct.Struct("<HHII")
"""What of a head its checksum covers; the checksum itself stands between that and the rest."""
UNDO_TARGET = struct.Struct("<QiI")
REDO_BODY = struct.Struct("<qQiIIIQ")
"""What of an UNDO and of a REDO follows the head, up to the data."""
HEAD_SIZE = HEAD.size
TAIL_SIZE = TAIL.size
UNDO_HEAD_SIZE = UNDO.size
REDO_HEAD_SIZE = REDO.size
UNDO_OVERHEAD = UNDO_HEAD_SIZE + TAIL_SIZE
REDO_OVERHEAD = REDO_HEAD_SIZE + TAIL_SIZE
REDO_PAYLOAD_MAX = UNDO_ALIGN - REDO_OVERHEAD
DUMMY_SIZE_MIN = HEAD_SIZE + TAIL_SIZE
CRC_OFFSET = 12
REDO_SECTOR_BODY = struct.Struct(f"{REDO_BODY.format}{REDO_PAYLOAD_MAX}s{TAIL.size}s")
REDO_SECTOR = struct.Struct(f"<{FRONT.size}sI{REDO_SECTOR_BODY.size}s")
"""A REDO record that fills a sector: what its checksum covers behind the head, and the front, the checksum and that."""
MORE_FOLLOWS = 0x65726F4D6F646552
"""Ours, in `redo_reserved02`, exclusive or the record's number: see `RedoBody.more`.

The original neither reads nor sets that field, and leaves in it what stood there before, in the worst case a mark of
ours.  That has another record's number.
"""


class FifoRecord(NamedTuple):
    """One parsed record.  `size` counts head, body, tail and padding; `body` is everything between head and tail."""

    kind: int
    size: int
    seq: int
    body: bytes


class UndoBody(NamedTuple):
    """Old contents of `len(data)` bytes at `offset` (zone 1: volume header, zone 2: buffers)."""

    offset: Offset
    data: bytes


class RedoBody(NamedTuple):
    """A logical file operation; `flags` is one of the REDO_ constants.

    more -- the REDO record that follows belongs to the same fsync: without that one this one says nothing
    """

    obj_id: int
    offset: int
    size: int
    flags: int
    localization: int
    data: bytes
    more: bool = False


def _finish(version: int, kind: int, head: bytes, payload: bytes, size: int) -> bytes:
    covered = head[HEAD_SIZE:] + payload
    covered = covered.ljust(size - HEAD_SIZE - TAIL_SIZE, b"\0") + TAIL.pack(TAIL_SIGNATURE, kind, size)
    function = crc.function_for(version)
    checksum = function(head[:CRC_OFFSET]) ^ function(covered)
    return head[:CRC_OFFSET] + checksum.to_bytes(4, "little") + covered


def _aligned(size: int) -> int:
    return (size + FIFO_HEAD_ALIGN - 1) & ~(FIFO_HEAD_ALIGN - 1)


def undo_record(version: int, seq: int, offset: Offset, data: bytes) -> bytes:
    """An UNDO record that restores `data` at `offset`."""
    size = UNDO_OVERHEAD + _aligned(len(data))
    head = UNDO.pack(HEAD_SIGNATURE, HEAD_TYPE_UNDO, size, seq, 0, offset, len(data), 0)
    return _finish(version, HEAD_TYPE_UNDO, head, data, size)


def redo_record(version: int, seq: int, body: RedoBody) -> bytes:
    """A REDO record; `body.size` may exceed the payload for TRUNC and TERM records."""
    size = REDO_HEAD_SIZE + TAIL_SIZE + _aligned(len(body.data))
    head = REDO.pack(
        HEAD_SIGNATURE,
        HEAD_TYPE_REDO,
        size,
        seq,
        0,
        body.obj_id,
        body.offset,
        body.size,
        body.flags,
        body.localization,
        0,
        MORE_FOLLOWS ^ seq if body.more else 0,
    )
    return _finish(version, HEAD_TYPE_REDO, head, body.data, size)


def dummy_record(version: int, seq: int, size: int = UNDO_ALIGN) -> bytes:
    """A numbered record of `size` bytes that says nothing."""
    head = HEAD.pack(HEAD_SIGNATURE, HEAD_TYPE_DUMMY, size, seq, 0)
    return _finish(version, HEAD_TYPE_DUMMY, head, b"", size)


def pad_record(size: int) -> bytes:
    """Filler of `size` bytes (8 or more, a multiple of 8) up to the end of a sector."""
    if size == TAIL_SIZE:
        return struct.pack("<HHI", HEAD_SIGNATURE, HEAD_TYPE_PAD, size)
    head = HEAD.pack(HEAD_SIGNATURE, HEAD_TYPE_PAD, size, 0, 0)
    if size < HEAD_SIZE + TAIL_SIZE:
        head = head[: size - TAIL_SIZE]
    return head.ljust(size - TAIL_SIZE, b"\0") + TAIL.pack(TAIL_SIGNATURE, HEAD_TYPE_PAD, size)


def format_buffer(version: int, seq: int) -> bytes:
    """A fresh 16 KiB FIFO buffer: one DUMMY per sector, numbered from `seq` (`hammer_format_undo`)."""
    function = crc.function_for(version)
    rest = dummy_record(version, 0)[HEAD_SIZE:]
    # The checksum is that of the head's front, which alone differs, and that of the rest, combined.
    of_rest = function(rest)
    pieces: list[bytes] = []
    for number in range(seq, seq + BUFSIZE // UNDO_ALIGN):
        front = FRONT.pack(HEAD_SIGNATURE, HEAD_TYPE_DUMMY, UNDO_ALIGN, number & 0xFFFFFFFF)
        pieces += (front, (function(front) ^ of_rest).to_bytes(4, "little"), rest)
    return b"".join(pieces)


def parse(version: int, data: bytes | bytearray | memoryview, start: int, limit: int) -> FifoRecord | None:
    """The record that begins at `start`, which must end at or before `limit`; None when there is no valid one."""
    if limit - start < TAIL_SIZE:
        return None
    signature, kind, size = TAIL.unpack_from(data, start)
    if signature != HEAD_SIGNATURE or size < TAIL_SIZE or size % FIFO_HEAD_ALIGN:
        return None
    if start + size > limit:
        return None
    if kind == HEAD_TYPE_PAD:
        return _parse_pad(data, start, size)
    if size < HEAD_SIZE + TAIL_SIZE:
        return None
    tail_signature, tail_kind, tail_size = TAIL.unpack_from(data, start + size - TAIL_SIZE)
    if tail_signature != TAIL_SIGNATURE or tail_kind != kind or tail_size != size:
        return None
    _, _, _, seq, stored = HEAD.unpack_from(data, start)
    raw = bytes(data[start : start + size])
    covered = raw[:CRC_OFFSET], raw[HEAD_SIZE:]
    if not _fifo_crc_ok(version, stored, *covered):
        return None
    return FifoRecord(kind, size, seq, raw[HEAD_SIZE : size - TAIL_SIZE])


def _parse_pad(data: bytes | bytearray | memoryview, start: int, size: int) -> FifoRecord | None:
    if size > TAIL_SIZE:
        tail_signature, tail_kind, tail_size = TAIL.unpack_from(data, start + size - TAIL_SIZE)
        if tail_signature != TAIL_SIGNATURE or tail_kind != HEAD_TYPE_PAD or tail_size != size:
            return None
    return FifoRecord(HEAD_TYPE_PAD, size, 0, b"")


def _fifo_crc_ok(version: int, stored: int, head: bytes, rest: bytes) -> bool:
    if version >= 7 and crc.crc32c(head) ^ crc.crc32c(rest) == stored:
        return True
    return crc.crc32(head) ^ crc.crc32(rest) == stored


def tail_size_before(data: bytes | bytearray | memoryview, end: int) -> int | None:
    """Size of the record that ends at `end`, from its tail; None when no tail stands there.

    An 8-byte PAD has its head where the tail would be.
    """
    if end < TAIL_SIZE:
        return None
    signature, kind, size = TAIL.unpack_from(data, end - TAIL_SIZE)
    if signature == TAIL_SIGNATURE:
        return int(size)
    if signature == HEAD_SIGNATURE and kind == HEAD_TYPE_PAD and size == TAIL_SIZE:
        return TAIL_SIZE
    return None


def undo_body(record: FifoRecord) -> UndoBody | None:
    """What an UNDO record restores; None when its length field does not fit the record."""
    offset, size, _ = struct.unpack_from("<QiI", record.body, 0)
    start = UNDO_HEAD_SIZE - HEAD_SIZE
    if size < 0 or start + size > len(record.body):
        return None
    return UndoBody(offset, record.body[start : start + size])


def redo_body(record: FifoRecord) -> RedoBody | None:
    """What a REDO record says; None when it is too short to be one."""
    start = REDO_HEAD_SIZE - HEAD_SIZE
    if len(record.body) < start:
        return None
    obj_id, offset, size, flags, localization, _, mark = REDO_BODY.unpack_from(record.body)
    return RedoBody(obj_id, offset, size, flags, localization, record.body[start:], mark == MORE_FOLLOWS ^ record.seq)
