"""Phase 5: what B-tree nodes and records occupy, per big-block, against what the freemap says.

For every big-block of zones 8 to 11, `bytes_free` is 8 MiB less what is in use, each reference counted: records that
share data by dedup count as often as they refer to it, which may take `bytes_free` below zero.  `append_off` lies
beyond everything in use.  Source: `hammer_blockmap.c` (`hammer_blockmap_free`, `hammer_blockmap_dedup`), hammer(8)
checkmap.
"""

from __future__ import annotations

from hammerfs.ondisk.address import Offset, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_BITS,
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    DATA_ALIGN,
    RECORD_ZONES,
    VERSION_DEDUP,
    ZONE_RAW_BUFFER,
)
from hammerfs.ops.check_freemap import FreemapState, bigblock_number
from hammerfs.ops.check_report import Report

KIND = "accounting"
_ALIGN_MASK = DATA_ALIGN - 1


class Usage:
    """Bytes in use and the highest end of use, keyed by an offset's zone, volume and big-block."""

    def __init__(self) -> None:
        self.used: dict[int, int] = {}
        self.end: dict[int, int] = {}

    def add(self, offset: Offset, size: int) -> None:
        """Count `size` bytes at `offset`, rounded up to the allocation unit."""
        size = (size + _ALIGN_MASK) & ~_ALIGN_MASK
        key = offset >> BIGBLOCK_BITS
        self.used[key] = self.used.get(key, 0) + size
        end = (offset & BIGBLOCK_MASK) + size
        if end > self.end.get(key, 0):
            self.end[key] = end


def compare(usage: Usage, freemap: FreemapState, version: int, report: Report) -> None:
    """Report every big-block whose freemap entry and use differ."""
    seen: set[int] = set()
    for key, used in sorted(usage.used.items()):
        offset = key << BIGBLOCK_BITS
        number = bigblock_number(offset)
        zone = zone_of(offset)
        entry = freemap.owned.get(number)
        seen.add(number)
        if entry is None or entry.zone != zone:
            owner = "free" if entry is None else f"owned by zone {entry.zone}"
            report.problem(KIND, offset, f"zone {zone} has {used} bytes in use in a big-block that is {owner}")
            continue
        if entry.bytes_free != BIGBLOCK_SIZE - used:
            report.problem(
                KIND, offset, f"layer 2 says {entry.bytes_free} bytes free, use leaves {BIGBLOCK_SIZE - used}"
            )
        if entry.bytes_free < 0 and version < VERSION_DEDUP:
            report.problem(KIND, offset, f"{entry.bytes_free} bytes free in a version without dedup")
        if usage.end[key] > entry.append_off:
            report.problem(
                KIND, offset, f"append_off {entry.append_off} lies before the end of what is in use, {usage.end[key]}"
            )
        report.count(f"bytes in zone {zone}", used)
    for number, entry in sorted(freemap.owned.items()):
        if entry.zone in RECORD_ZONES and number not in seen and entry.bytes_free != BIGBLOCK_SIZE:
            address = (ZONE_RAW_BUFFER << 60) | (number << BIGBLOCK_BITS)
            report.problem(
                KIND,
                address,
                f"layer 2 says {entry.bytes_free} bytes free in zone {entry.zone}, but nothing uses the big-block",
            )
