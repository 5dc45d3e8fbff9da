"""`dedup`, `dedup-simulate`: let records with the same file data refer to it at one place.

Data of equal length whose CRCs agree is read, verified and compared byte by byte.  What is shared is accounted once for
each reference, so that a big-block's count of free bytes may be negative, as since version 5 it may.

The index of what was seen is bounded.  When it is full it gives up the upper half of the CRCs, and another pass over
the records takes those; the CRC at which a pass began is where an interrupted run goes on.

Sources: `cmd_dedup.c`, `hammer_dedup.c`, `hammer_blockmap.c: hammer_blockmap_dedup`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from hammerfs.errors import CorruptionError, UsageError
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.recorddata import verified_data, verify_owner
from hammerfs.fs.work import Done, Phase, Want, Work
from hammerfs.ondisk.address import Offset, bigblock_of, zone_of
from hammerfs.ondisk.constants import RECTYPE_DATA, VERSION_DEDUP, ZONE_LARGE_DATA, ZONE_SMALL_DATA
from hammerfs.ondisk.element import LeafElement, element_key, unpack_leaf, with_data
from hammerfs.ops.record_range import RecordRange, key_after
from hammerfs.store.blockmap import aligned
from hammerfs.store.freemap import BYTES_FREE_MIN

_BATCH = 128
_STRETCH_BYTES = 512 * 1024
"""Bytes read for comparison between two yields."""
_ENTRY_BYTES = 400
"""Memory of an entry of the index."""
_ENTRIES_MIN = 1000
_PLACES_MAX = 8
"""Places where one content is looked for: others with its CRC, or in big-blocks that are referred to too often."""
_CRC_END = 1 << 32
_DATA_ZONES = {ZONE_LARGE_DATA, ZONE_SMALL_DATA}


class _Place(NamedTuple):
    """A record that stands for its data, and where that lies."""

    key: bytes
    offset: Offset


@dataclass
class DedupOutcome:
    """What a run did; sizes in bytes.

    crc_begin -- where the next run goes on if this one was interrupted
    referenced -- data that records refer to; allocated -- the same, data that is shared counted once
    skipped -- data that could not be read, or whose record is damaged
    collisions -- pairs of different data with the same CRC; underflows -- big-blocks too often referred to
    records, size -- those that were made to share (or could be)
    """

    crc_begin: int = 0
    interrupted: bool = False
    referenced: int = 0
    allocated: int = 0
    skipped: int = 0
    collisions: int = 0
    underflows: int = 0
    records: int = 0
    size: int = 0

    @property
    def ratio(self) -> float:
        """Referenced to allocated, 0 when there is nothing."""
        return self.referenced / self.allocated if self.allocated else 0.0


def dedup(
    fs: FileSystem,
    pfs: int,
    memory_bytes: int,
    interrupted: Callable[[], bool],
    *,
    simulate: bool = False,
    crc_begin: int = 0,
) -> Work[DedupOutcome]:
    """Deduplicate one PFS, its history included; with `simulate` only count, believing CRCs."""
    if fs.ctx.version < VERSION_DEDUP and not simulate:
        raise UsageError("Filesystem must be upgraded to v5 before you can run dedup")
    outcome = DedupOutcome(crc_begin)
    reach = RecordRange(pfs)
    while outcome.crc_begin < _CRC_END:
        run = _Pass(fs, outcome, max(_ENTRIES_MIN, memory_bytes // _ENTRY_BYTES), simulate)
        yield Phase("deduplicating")
        key = reach.low
        while batch := list(islice(fs.ctx.tree.scan(key, reach.high), _BATCH)):
            done = run.take(batch)
            yield Done(done)
            yield Want.PAUSE
            if interrupted():
                outcome.interrupted = True
                return outcome
            key = key_after(element_key(batch[done - 1]))
        run.count()
        outcome.crc_begin = run.crc_end
    return outcome


class _Pass:
    """One pass over the records, for the CRCs from `crc_begin` up to, and not with, `crc_end`."""

    def __init__(self, fs: FileSystem, outcome: DedupOutcome, entries_max: int, simulate: bool) -> None:
        self._ctx = fs.ctx
        self._outcome = outcome
        self._entries_max = entries_max
        self._simulate = simulate
        self.crc_end = _CRC_END
        self._index: dict[tuple[int, int, int], list[_Place]] = {}
        self._referenced: dict[tuple[int, int, int], int] = {}
        self._read_bytes = 0

    def take(self, batch: list[bytes]) -> int:
        """Look at records in turn until it is enough for a stretch; how many that were."""
        self._read_bytes = 0
        for count, raw in enumerate(batch, 1):
            element = unpack_leaf(raw)
            if element.rec_type != RECTYPE_DATA or zone_of(element.data_offset) not in (
                ZONE_LARGE_DATA,
                ZONE_SMALL_DATA,
            ):
                continue
            if not self._outcome.crc_begin <= element.data_crc < self.crc_end:
                continue
            self._take_one(raw, element)
            if self._read_bytes >= _STRETCH_BYTES:
                return count
        return len(batch)

    def count(self) -> None:
        """At the end of a pass: what its contents took and would take."""
        for content, places in self._index.items():
            self._outcome.referenced += self._referenced[content]
            self._outcome.allocated += content[1] * len(places)

    def _take_one(self, raw: bytes, element: LeafElement) -> None:
        content = element.data_crc, element.data_len, zone_of(element.data_offset)
        places = self._index.setdefault(content, [])
        self._referenced[content] = self._referenced.get(content, 0) + element.data_len
        here = _Place(element_key(raw), element.data_offset)
        if any(place.offset == here.offset for place in places):
            return
        if not any(self._brought_together(place, raw, element) for place in places) and len(places) < _PLACES_MAX:
            places.append(here)
            if len(self._index) > self._entries_max:
                self._give_up_half()

    def _give_up_half(self) -> None:
        crcs = sorted({content[0] for content in self._index})
        self.crc_end = crcs[len(crcs) // 2] if len(crcs) > 1 else self.crc_end
        for content in [content for content in self._index if content[0] >= self.crc_end]:
            del self._index[content], self._referenced[content]

    def _brought_together(self, place: _Place, raw: bytes, element: LeafElement) -> bool:
        """Let a record refer to the data at `place`; False when that is not, or cannot be, the same."""
        ctx, outcome = self._ctx, self._outcome
        if self._simulate:
            outcome.records += 1
            outcome.size += element.data_len
            return True
        other_raw = ctx.tree.lookup(place.key)
        if other_raw is None:
            return False  # deleted and pruned since
        other = unpack_leaf(other_raw)
        if (other.data_crc, other.data_len) != (element.data_crc, element.data_len):
            return False
        if not self._is_same(other, element):
            return False
        size = aligned(element.data_len)
        if ctx.freemap.layer2(bigblock_of(other.data_offset)).bytes_free - size < BYTES_FREE_MIN:
            outcome.underflows += 1
            return False
        ctx.blockmap.share(other.data_offset, element.data_len)
        ctx.tree.replace(element_key(raw), with_data(raw, other.data_offset, other.data_crc), 0)
        ctx.blockmap.free(element.data_offset, element.data_len)
        outcome.records += 1
        outcome.size += element.data_len
        return True

    def _is_same(self, one: LeafElement, other: LeafElement) -> bool:
        self._read_bytes += 2 * one.data_len
        try:
            for leaf in (one, other):
                verify_owner(self._ctx, leaf)
            same = verified_data(self._ctx, one) == verified_data(self._ctx, other)
        except CorruptionError:
            self._outcome.skipped += one.data_len
            return False
        self._outcome.collisions += not same
        return same
