"""A record's data whatever it is, verified, for those who move and compare it."""

from __future__ import annotations

from hammerfs.errors import CorruptionError
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import zone_of
from hammerfs.ondisk.constants import ZONE_META
from hammerfs.ondisk.element import LeafElement


def verified_data(fs: FileSystem, element: LeafElement) -> bytes:
    """The bytes; CorruptionError when they are not what the record's CRC says."""
    ctx = fs.ctx
    read = ctx.buffers.read if zone_of(element.data_offset) == ZONE_META else ctx.blocks.read
    data = read(element.data_offset, element.data_len)
    if not crc.record_matches(ctx.version, element.data_crc, element.rec_type, data):
        raise CorruptionError("record data with a bad CRC", offset=element.data_offset)
    return data
