"""How much of each zone a report has met: the table that hammer(8) prints behind its reports with -v.

Source: `misc.c: hammer_add_zone_stat, hammer_add_zone_stat_layer2, hammer_print_zone_stat`.
"""

from __future__ import annotations

from collections.abc import Iterator

from hammerfs.ondisk.address import LONG_MASK, Offset, zone_of
from hammerfs.ondisk.constants import BIGBLOCK_BITS, BIGBLOCK_SIZE, MAX_ZONES
from hammerfs.ondisk.freemap import Layer2
from hammerfs.ops.show_header import ZONE_LABELS

_RULE = "-" * 80


class ZoneStatistics:
    """Big-blocks, things in them and bytes that they take, by zone."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._blocks = [0] * MAX_ZONES
        self._items = [0] * MAX_ZONES
        self._used = [0] * MAX_ZONES

    def add(self, offset: Offset, size: int) -> None:
        """Something of `size` bytes lies at a zone-encoded offset."""
        zone, bigblock = zone_of(offset), (offset & LONG_MASK) >> BIGBLOCK_BITS
        if bigblock not in self._seen:
            self._seen.add(bigblock)
            self._blocks[zone] += 1
        self._items[zone] += 1
        self._used[zone] += size

    def add_bigblock(self, entry: Layer2) -> None:
        """A big-block is as full as its entry in layer 2 says; each one once."""
        zone = entry.zone % MAX_ZONES
        self._blocks[zone] += 1
        self._used[zone] += BIGBLOCK_SIZE - entry.bytes_free

    def lines(self) -> Iterator[str]:
        """The table."""
        yield "HAMMER zone statistics"
        yield "zone #             blocks       items              used[B]             used[%]"
        for zone, counts in enumerate(zip(self._blocks, self._items, self._used, strict=True)):
            yield f"zone {zone:<2} {ZONE_LABELS.get(zone, ''):<10} {_columns(*counts)}"
        yield _RULE
        yield f"total              {_columns(sum(self._blocks), sum(self._items), sum(self._used))}"


def _columns(blocks: int, items: int, used: int) -> str:
    share = used * 100 / (blocks << BIGBLOCK_BITS) if blocks else 0
    return f"{blocks:<12} {items:<18} {used:<19} {share:g}"
