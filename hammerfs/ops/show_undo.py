"""`show-undo`: every record of the UNDO/REDO FIFO in the lines of hammer(8) show-undo.

`>` and `<` mark the header's first_offset and next_offset.  Nothing is verified here, that is `check`'s business.
Source: `cmd_show.c: hammer_cmd_show_undo`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hammerfs.ondisk.address import encode
from hammerfs.ondisk.constants import (
    BUFMASK,
    BUFSIZE,
    FIFO_HEAD_ALIGN,
    HEAD_TYPE_DUMMY,
    HEAD_TYPE_PAD,
    HEAD_TYPE_REDO,
    HEAD_TYPE_UNDO,
    UNDO_ALIGN,
    ZONE_UNDO,
)
from hammerfs.ondisk.fifo import HEAD, REDO, REDO_HEAD_SIZE, UNDO
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.show_header import header_lines
from hammerfs.ops.zone_statistics import ZoneStatistics
from hammerfs.store.volumes import VolumeSet

_BASE = encode(ZONE_UNDO, 0, 0)


def show_undo_lines(volumes: VolumeSet, counts: bool = False) -> Iterator[str]:
    """The whole report, line by line; with `counts` also how much of the log was met."""
    root = volumes.root.header
    yield from header_lines(root)
    entry = root.blockmap(ZONE_UNDO)
    reader = ImageReader(volumes)
    offset = _BASE
    zones = ZoneStatistics()
    while offset < entry.alloc_offset:
        raw = reader.buffer(root.undo_to_zone2(offset & ~BUFMASK)) + bytes(REDO_HEAD_SIZE)
        text, size = _describe(raw, offset & BUFMASK)
        marks = (" >" if offset == entry.first_offset else "") + (" <" if offset == entry.next_offset else "")
        yield f"{offset:016x} {text}{marks}"
        zones.add(offset, _signed(size))
        room = UNDO_ALIGN - (offset & (UNDO_ALIGN - 1))
        if size == 0 or size % FIFO_HEAD_ALIGN or size > room:
            yield "Illegal size field, skipping to next boundary"
            size = room
        offset += size
    if counts:
        yield from zones.lines()


def _describe(raw: bytes, start: int) -> tuple[str, int]:
    """One record in words, and its size as it says itself.

    hammer(8) reads a head at every record, also where an 8-byte PAD leaves no room for one: `raw` is padded for that.
    """
    assert len(raw) >= BUFSIZE + REDO_HEAD_SIZE
    _, kind, size, seq, _ = HEAD.unpack_from(raw, start)
    if kind == HEAD_TYPE_PAD:
        return f"PAD({_signed(size)})", size
    if kind == HEAD_TYPE_DUMMY:
        return f"DUMMY({_signed(size)})\tseq={seq:08x}", size
    if kind == HEAD_TYPE_UNDO:
        _, _, _, _, _, offset, count, _ = UNDO.unpack_from(raw, start)
        return f"UNDO({size})\tseq={seq:08x} offset={offset:016x} bytes={count}", size
    if kind == HEAD_TYPE_REDO:
        _, _, _, _, _, obj_id, offset, count, flags, localization, _, _ = REDO.unpack_from(raw, start)
        mask = (1 << 64) - 1
        return (
            f"REDO({size})\tseq={seq:08x} offset={offset & mask:016x} bytes={count} objid={obj_id & mask:016x} "
            f"flags={flags:08x} lo={localization:08x}",
            size,
        )
    return f"{kind:04x}({_signed(size)})\tseq={seq:08x}", size


def _signed(size: int) -> int:
    value: int = struct.unpack("<i", size.to_bytes(4, "little"))[0]
    return value
