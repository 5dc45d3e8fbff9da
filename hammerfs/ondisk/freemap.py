"""Freemap entries: layer 1 (32 bytes, one per 4 TiB) and layer 2 (16 bytes, one per 8 MiB big-block).

`bytes_free` is signed: dedup drives it below zero (version 5 and up); it never exceeds BIGBLOCK_SIZE.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hammerfs.ondisk import crc
from hammerfs.ondisk.constants import BLOCKMAP_UNAVAIL

_LAYER1 = struct.Struct("<QQQII")
_LAYER1_COVERED = _LAYER1.size - 4
_LAYER2 = struct.Struct("<BBHIiI")
_LAYER2_COVERED = _LAYER2.size - 4


@dataclass(slots=True)
class Layer1:
    """One layer-1 entry: free big-blocks below it and where its layer-2 big-block is (zone 2, or UNAVAIL)."""

    blocks_free: int
    phys_offset: int

    @property
    def available(self) -> bool:
        """False beyond the end of a volume."""
        return self.phys_offset != BLOCKMAP_UNAVAIL

    def pack(self, version: int) -> bytes:
        """The entry's 32 bytes with its CRC."""
        body = _LAYER1.pack(self.blocks_free, self.phys_offset, 0, 0, 0)[:_LAYER1_COVERED]
        return body + crc.function_for(version)(body).to_bytes(4, "little")

    @classmethod
    def unpack(cls, raw: bytes | bytearray | memoryview, base: int = 0) -> Layer1:
        """Read an entry without verifying it."""
        blocks_free, phys_offset, _, _, _ = _LAYER1.unpack_from(raw, base)
        return cls(blocks_free, phys_offset)


@dataclass(slots=True)
class Layer2:
    """One layer-2 entry: owning zone (0 free, 15 unavailable), append offset and free bytes of a big-block."""

    zone: int
    append_off: int
    bytes_free: int

    def pack(self, version: int) -> bytes:
        """The entry's 16 bytes with its CRC."""
        body = _LAYER2.pack(self.zone, 0, 0, self.append_off, self.bytes_free, 0)[:_LAYER2_COVERED]
        return body + crc.function_for(version)(body).to_bytes(4, "little")

    @classmethod
    def unpack(cls, raw: bytes | bytearray | memoryview, base: int = 0) -> Layer2:
        """Read an entry without verifying it."""
        zone, _, _, append_off, bytes_free, _ = _LAYER2.unpack_from(raw, base)
        return cls(zone, append_off, bytes_free)


def layer1_crc_ok(version: int, raw: bytes | bytearray | memoryview) -> bool:
    """Whether a 32-byte layer-1 entry carries an acceptable CRC."""
    stored = int.from_bytes(raw[_LAYER1_COVERED : _LAYER1.size], "little")
    return crc.matches(version, stored, raw[:_LAYER1_COVERED])


def layer2_crc_ok(version: int, raw: bytes | bytearray | memoryview) -> bool:
    """Whether a 16-byte layer-2 entry carries an acceptable CRC."""
    stored = int.from_bytes(raw[_LAYER2_COVERED : _LAYER2.size], "little")
    return crc.matches(version, stored, raw[:_LAYER2_COVERED])
