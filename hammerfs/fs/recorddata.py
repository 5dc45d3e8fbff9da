"""A record's data, from whatever zone: for those who move records, compare them, send them elsewhere or remove them.

They take whatever the B-tree holds, so where the data lies and how long it is may be anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hammerfs.errors import CorruptionError
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import zone_of
from hammerfs.ondisk.constants import BUFMASK, BUFSIZE, XBUFSIZE, ZONE_LARGE_DATA, ZONE_META, ZONE_SMALL_DATA
from hammerfs.ondisk.element import LeafElement
from hammerfs.ondisk.recordplace import fault_of

if TYPE_CHECKING:
    from hammerfs.fs.context import Context


def read_data(ctx: Context, leaf: LeafElement) -> bytes:
    """A record's data, not verified; b"" when it has none, CorruptionError when none can be where it says."""
    size, offset = leaf.data_len, leaf.data_offset
    if not size:
        return b""
    zone = zone_of(offset)
    if zone == ZONE_META and 0 < size <= BUFSIZE - (offset & BUFMASK):
        return ctx.buffers.read(offset, size)
    if zone in (ZONE_LARGE_DATA, ZONE_SMALL_DATA) and 0 < size <= XBUFSIZE:
        return ctx.blocks.read(offset, size)
    raise CorruptionError(f"record of object {leaf.obj_id:#x} with impossible data of {size} bytes", offset=offset)


def verified_data(ctx: Context, leaf: LeafElement) -> bytes:
    """The data of a record that has some; CorruptionError also when it is not what the record's CRC says."""
    data = read_data(ctx, leaf)
    if not data:
        raise CorruptionError(
            f"record of object {leaf.obj_id:#x} that says where its 0 bytes are", offset=leaf.data_offset
        )
    if not crc.record_matches(ctx.version, leaf.data_crc, leaf.rec_type, data):
        raise CorruptionError("record data with a bad CRC", offset=leaf.data_offset)
    return data


def verify_owner(ctx: Context, leaf: LeafElement) -> None:
    """Raise CorruptionError, with nothing changed, unless the bytes that a record names are its own to give back.

    A record that no sound writer made may be the damaged copy of another one, which needs those bytes on.
    """
    fault = fault_of(leaf)
    if fault is not None:
        raise CorruptionError(f"damaged record of object {leaf.obj_id:#x}, its space is left alone: {fault}")
    ctx.blockmap.verify_allocated(leaf.data_offset, leaf.data_len)
