"""HAMMER offsets: 64 bits that name a zone, a volume and a place in it.

    63   60 59      52 51                                   0
    | zone | volume   | offset in the volume's buffer area   |

Zones 8 to 11 are labels only: their addresses are zone-2 addresses with another top nibble.  Zone 3 has no volume, it
counts through the UNDO FIFO's big-blocks; zone 1 counts from the start of a volume.  Source: `hammer_disk.h`.
"""

from __future__ import annotations

from typing import TypeAlias

from hammerfs.ondisk.constants import (
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    LAYER1_ENTRY_SIZE,
    LAYER2_ENTRY_SIZE,
    LAYER2_SPAN,
)

Offset: TypeAlias = int
"""A zone-encoded HAMMER offset, never an offset in a file or on a device."""
Tid: TypeAlias = int
"""A transaction id."""
ObjId: TypeAlias = int
"""A signed 64-bit object id."""
Localization: TypeAlias = int
"""PFS id in the upper 16 bits, localization type in the lower."""

ZONE_SHIFT = 60
VOLUME_SHIFT = 52
SHORT_MASK = (1 << 52) - 1
LONG_MASK = (1 << 60) - 1


def encode(zone: int, volume: int, offset: int) -> Offset:
    """The HAMMER offset of `offset` bytes into `volume`, labelled with `zone`."""
    return (zone << ZONE_SHIFT) | ((volume & 0xFF) << VOLUME_SHIFT) | (offset & SHORT_MASK)


def zone_of(offset: Offset) -> int:
    """The zone an offset is labelled with (0 to 15)."""
    return offset >> ZONE_SHIFT


def volume_of(offset: Offset) -> int:
    """The volume number an offset lies in (0 to 255)."""
    return (offset >> VOLUME_SHIFT) & 0xFF


def short_of(offset: Offset) -> int:
    """Bytes from the start of the volume's buffer area (zone 2 and up) or of the volume (zone 1)."""
    return offset & SHORT_MASK


def to_zone(zone: int, offset: Offset) -> Offset:
    """The same place under another zone's label."""
    return (zone << ZONE_SHIFT) | (offset & LONG_MASK)


def to_zone2(offset: Offset) -> Offset:
    """The raw-buffer address of a direct-translated offset."""
    return (2 << ZONE_SHIFT) | (offset & LONG_MASK)


def bigblock_of(offset: Offset) -> Offset:
    """Zone-2 address of the big-block that an offset lies in."""
    return (2 << ZONE_SHIFT) | (offset & LONG_MASK & ~BIGBLOCK_MASK)


def layer1_offset(offset: Offset) -> int:
    """Byte offset, within the layer-1 big-block, of the entry that covers `offset`."""
    return (offset & LONG_MASK) // LAYER2_SPAN * LAYER1_ENTRY_SIZE


def layer2_offset(offset: Offset) -> int:
    """Byte offset, within its layer-2 big-block, of the entry that covers `offset`."""
    return (offset & LONG_MASK) % LAYER2_SPAN // BIGBLOCK_SIZE * LAYER2_ENTRY_SIZE


def pfs_of(localization: Localization) -> int:
    """The PFS id in a localization."""
    return localization >> 16


def pfs_localization(pfs_id: int) -> Localization:
    """The localization bits of a PFS id."""
    return pfs_id << 16
