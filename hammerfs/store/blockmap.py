"""Space: append-only allocation per zone, reservations for the front end, delayed reuse of what was freed.

Each zone fills one big-block after the other from its append point.  The front end reserves data space without touching
any meta-data; when the flusher inserts the record it finalizes the reservation in the freemap.  A reservation that is
never finalized leaves a gap; when nothing behind it was finalized either, the zone fills the place when it comes round.

The volume header knows one append point for each zone.  While there is room, groups of B-tree nodes get others, in
memory only: the nodes that lead to leaves would lie one here and one there among those, and the leaves that tell of
inodes among those that tell of contents; whoever looks for files in random order would wait for the disk twice, or read
twice as much of it.  With internal nodes side by side, and regions read as a whole, 1000 files with 1000 versions each
were looked up cold in 142 us instead of 234 (five remounts in turns); with the nodes of inodes side by side, too, in 85
instead of 98 (seven), since 8 MiB are read for it and not 12.

A big-block that became entirely free may still be needed: a crash can bring back the state before the cycle that freed
it, until the header written in the cycle after that has become durable.  So it waits for DELAY_CYCLES more cycles,
or until a cycle was closed (INV-1).  Source: `hammer_blockmap.c: hammer_blockmap_reserve, _finalize, _free,
hammer_reserve_setdelay`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from hammerfs.errors import CorruptionError, NoSpaceError
from hammerfs.ondisk.address import Offset, bigblock_of, encode, to_zone, volume_of, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    BUFMASK,
    BUFSIZE,
    DATA_ALIGN,
    RECORD_ZONES,
    XBUFSIZE,
    ZONE_LARGE_DATA,
    ZONE_SMALL_DATA,
)
from hammerfs.store.freemap import BYTES_FREE_MIN, FreeMap
from hammerfs.store.rootvolume import RootVolume

log = logging.getLogger(__name__)

APART_BIGBLOCKS_MIN = 64
"""Free big-blocks without which nothing is allocated apart: each zone with a second append point may withhold one."""
_GROUP_STEP = 16
"""Between the append points of a zone, more than there are zones."""
DELAY_CYCLES = 2
"""Cycles after the one that freed a big-block before it may be written again."""


@dataclass(slots=True)
class _Claim:
    """What keeps a big-block from being handed out: outstanding reservations, a delay, or being a zone's append point.

    point -- the append point that is, or was, in it: the zone, plus _GROUP_STEP for each group that is kept apart
    append_off -- first byte not yet reserved; BIGBLOCK_SIZE when nothing may be appended
    pending -- bytes reserved and neither finalized nor released
    release_cycle -- cycle at whose end a freed big-block may be reused; 0 when it is not waiting
    """

    point: int
    append_off: int
    pending: int = 0
    release_cycle: int = 0


def aligned(size: int) -> int:
    """`size` rounded up to the allocation unit."""
    return (size + DATA_ALIGN - 1) & -DATA_ALIGN


def data_zone(size: int) -> int:
    """The zone of file data of `size` bytes."""
    return ZONE_LARGE_DATA if size >= BUFSIZE else ZONE_SMALL_DATA


class Blockmap:
    """Allocation state of a mounted file system.

    on_reuse -- called with a big-block that leaves its delay, so that caches forget its old content
    """

    def __init__(self, freemap: FreeMap, root: RootVolume, on_reuse: Callable[[Offset], None]) -> None:
        self._freemap = freemap
        self._root = root
        self._on_reuse = on_reuse
        self._claims: dict[Offset, _Claim] = {}
        self._current: dict[int, Offset] = {}
        self._delayed: dict[Offset, int] = {}
        self._unowned = 0
        self._withheld_bigblocks = 0
        self._offer_from: int | None = None
        self.cycle = 1
        self.reserved_bytes = 0

    # --- front end ------------------------------------------------------------------------------
    def reserve(self, zone: int, size: int) -> Offset:
        """Set `size` bytes of `zone` aside; raises NoSpaceError when no big-block can hold them."""
        size = (size + DATA_ALIGN - 1) & -DATA_ALIGN
        assert zone in RECORD_ZONES
        assert 0 < size <= XBUFSIZE
        bigblock = self._current.get(zone)
        if bigblock is None:
            bigblock = self._enter_first(zone)
        offset = self._append(zone, bigblock, size)
        self._root.next_offset[zone] = offset + size
        return offset

    def release(self, offset: Offset, size: int) -> None:
        """Give a reservation up; its bytes stay unused until the big-block is free as a whole."""
        self._settle(bigblock_of(offset), aligned(size))

    def can_hold(self, offset: Offset, size: int) -> bool:
        """Whether one more record may refer to bytes that were written there once, and not since."""
        bigblock = bigblock_of(offset)
        if volume_of(bigblock) == self._freemap.withheld:
            return False
        entry = self._freemap.layer2(bigblock)
        ends_within = (offset & BIGBLOCK_MASK) + size <= entry.append_off
        return entry.zone == zone_of(offset) and ends_within and entry.bytes_free - aligned(size) >= BYTES_FREE_MIN // 2

    def hold(self, offset: Offset, size: int) -> None:
        """Treat bytes that were written, and that `can_hold` admits, as if they had just been reserved.

        Until `finalize` or `release` the big-block is not handed out again, even if everything in it is freed.
        """
        size = aligned(size)
        bigblock = bigblock_of(offset)
        claim = self._claims.get(bigblock)
        if claim is None:
            claim = self._claims[bigblock] = _Claim(zone_of(offset), BIGBLOCK_SIZE)
        claim.pending += size
        self.reserved_bytes += size

    # --- back end -------------------------------------------------------------------------------
    def finalize(self, offset: Offset, size: int) -> None:
        """Turn a reservation into an allocation."""
        size = (size + DATA_ALIGN - 1) & -DATA_ALIGN
        bigblock = bigblock_of(offset)
        if self._freemap.take(bigblock, zone_of(offset), (offset & BIGBLOCK_MASK) + size, size):
            self._root.free_bigblocks -= 1
            self._unowned -= 1
        self._settle(bigblock, size)

    def alloc(self, zone: int, size: int) -> Offset:
        """Allocate at once; for the back end, which holds no reservations."""
        offset = self.reserve(zone, size)
        self.finalize(offset, size)
        return offset

    def alloc_apart(self, zone: int, size: int, group: int, home: Offset) -> Offset:
        """Like `alloc`, but side by side with all others of a group of 1 or more, as long as there is room enough.

        home -- where one of these lies; the first one after mounting goes there, or behind it
        """
        if self.allocatable_bigblocks < APART_BIGBLOCKS_MIN:
            self._end_apart(zone)
            return self.alloc(zone, size)
        point = zone + group * _GROUP_STEP
        bigblock = self._current.get(point)
        if bigblock is None:
            try:
                bigblock = self._enter_apart(point, home)
            except (CorruptionError, NoSpaceError):  # what the zone's own append point need not meet
                return self.alloc(zone, size)
        offset = self._append(point, bigblock, aligned(size))
        self.finalize(offset, size)
        return offset

    def free(self, offset: Offset, size: int) -> None:
        """Give allocated bytes back; a big-block that becomes free waits before it is reused."""
        bigblock = bigblock_of(offset)
        zone = zone_of(offset)
        if not self._freemap.give(bigblock, zone, aligned(size)):
            return
        self._root.free_bigblocks += 1
        claim = self._claims.get(bigblock)
        if claim is None:
            claim = self._claims[bigblock] = _Claim(zone, BIGBLOCK_SIZE)
        claim.release_cycle = self.cycle + DELAY_CYCLES
        self._delayed[bigblock] = claim.release_cycle
        self._unowned += 1

    def verify_allocated(self, offset: Offset, size: int) -> None:
        """Raise CorruptionError, with nothing changed, unless `free` could give these bytes back."""
        self._freemap.verify_owned(bigblock_of(offset), zone_of(offset), aligned(size))

    def is_append_point(self, offset: Offset) -> bool:
        """Whether the zone of `offset` is going to append to the big-block that `offset` is in."""
        zone = zone_of(offset)
        bigblock = bigblock_of(offset)
        if zone not in self._current and bigblock == bigblock_of(self._root.next_offset[zone]):
            return True
        claim = self._claims.get(bigblock)
        return claim is not None and _zone(claim.point) == zone and self._current.get(claim.point) == bigblock

    def share(self, offset: Offset, size: int) -> None:
        """Account for one more record that refers to allocated bytes; CorruptionError when there are too many."""
        taken = self._freemap.take(bigblock_of(offset), zone_of(offset), (offset & BIGBLOCK_MASK) + size, aligned(size))
        assert not taken, "shared bytes in a free big-block"

    def end_cycle(self) -> None:
        """A cycle's header and meta-data were written: count it, and let go of big-blocks that waited long enough."""
        self._release(self.cycle)
        self.cycle += 1

    def settle(self) -> None:
        """No crash can bring a state back that is older than the last cycle: what was freed by its end may be reused.

        What was freed since waits on.  It is free in memory alone, and the state on disk may still refer to it.
        """
        self._release(self.cycle + DELAY_CYCLES - 1)
        if self._offer_from is not None and self.cycle >= self._offer_from:
            self.offer()

    def _release(self, upto: int) -> None:
        """Let go of big-blocks that wait for a cycle up to that one."""
        due = [bigblock for bigblock, release in self._delayed.items() if release <= upto]
        for bigblock in due:
            del self._delayed[bigblock]
            claim = self._claims[bigblock]
            claim.release_cycle = 0
            if self._current.get(claim.point) == bigblock:
                continue
            self._drop_if_idle(bigblock, claim)

    @property
    def waiting(self) -> bool:
        """Whether freed big-blocks still wait for cycles to pass."""
        return bool(self._delayed)

    @property
    def allocatable_bigblocks(self) -> int:
        """Free big-blocks that neither wait nor are spoken for by a reservation, nor lie on a withheld volume."""
        return self._root.free_bigblocks - self._unowned - self._withheld_bigblocks

    # --- volumes that come and go ---------------------------------------------------------------
    def withhold(self, volume: int) -> None:
        """Allocate nothing on a volume any more, until `offer`; what is free there is not allocatable meanwhile."""
        assert self._freemap.withheld is None, "two volumes withheld"
        self._freemap.withheld = volume
        for zone in RECORD_ZONES:
            bigblock = self._current.get(zone)
            if volume_of(self._root.next_offset[zone] if bigblock is None else bigblock) == volume:
                self._root.next_offset[zone] = encode(zone, 0, 0)
        for point, bigblock in list(self._current.items()):
            if volume_of(bigblock) == volume:
                self._leave(point, bigblock)
        claimed = [bigblock for bigblock in self._claims if volume_of(bigblock) == volume]
        spoken_for = sum(self._freemap.layer2(bigblock).zone == 0 for bigblock in claimed)
        self._withheld_bigblocks = self._freemap.free_bigblocks(volume) - spoken_for

    def offer(self) -> None:
        """Allocate on all volumes again."""
        self._freemap.withheld = None
        self._withheld_bigblocks = 0
        self._offer_from = None

    def offer_later(self) -> None:
        """The same once all is durable that has been done until now, the cycle that is being written included."""
        self._offer_from = self.cycle + 2

    @property
    def offers_later(self) -> bool:
        """Whether a volume is still withheld because of that."""
        return self._offer_from is not None

    def holds(self, volume: int) -> bool:
        """Whether something on a volume is reserved, or waits for its delay."""
        return any(volume_of(bigblock) == volume for bigblock in self._claims)

    # --- placement ------------------------------------------------------------------------------
    @staticmethod
    def _fit(start: int, size: int) -> int:
        """Where `size` bytes may begin at or after `start`: small ones do not cross a 16 KiB buffer."""
        if size <= BUFSIZE:
            if (start ^ (start + size - 1)) & ~BUFMASK:
                return (start + BUFMASK) & ~BUFMASK
            return start
        return (start + BUFMASK) & ~BUFMASK

    def _append(self, point: int, bigblock: Offset, size: int) -> Offset:
        """Reserve the next `size` bytes, a multiple of the allocation unit, at an append point."""
        claim = self._claims[bigblock]
        start = self._fit(claim.append_off, size)
        if start + size > BIGBLOCK_SIZE:
            bigblock, claim, start = self._advance(point, bigblock, size)
        claim.append_off = start + size
        claim.pending += size
        self.reserved_bytes += size
        return to_zone(_zone(point), bigblock + start)

    def _enter_first(self, zone: int) -> Offset:
        """Take up a zone where the volume header says that it stopped."""
        start = self._root.next_offset[zone]
        if not self._freemap.can_append_at(start, zone):
            log.warning("volume header: zone %d cannot go on at %016x; it begins where there is room", zone, start)
            start = encode(zone, 0, 0)
        bigblock = bigblock_of(start)
        wanted = start & BIGBLOCK_MASK
        for candidate in self._freemap.candidates(bigblock, zone):
            if candidate in self._claims:
                continue
            floor = wanted if candidate == bigblock else 0
            return self._adopt(zone, candidate, floor)
        if self._end_apart(zone):
            return self._enter_first(zone)
        raise NoSpaceError(f"no big-block left for zone {zone}")

    def _enter_apart(self, point: int, home: Offset) -> Offset:
        """Take up the big-block of `home`, if there is room, or the next one behind the zone's own append point."""
        zone = _zone(point)
        if zone not in self._current:
            self._enter_first(zone)  # otherwise this one might go where that stopped
        here = bigblock_of(home)
        entry = self._freemap.layer2(here)
        may_go_on = here not in self._claims and volume_of(here) != self._freemap.withheld
        if may_go_on and entry.zone == zone and entry.append_off < BIGBLOCK_SIZE:
            return self._adopt(point, here, 0)
        for candidate in self._freemap.candidates(self._current[zone], zone):
            if candidate not in self._claims:
                return self._adopt(point, candidate, 0)
        raise NoSpaceError(f"no big-block left for zone {zone}")

    def _adopt(self, point: int, bigblock: Offset, floor: int) -> Offset:
        entry = self._freemap.layer2(bigblock)
        append_off = entry.append_off
        if entry.zone == _zone(point):
            append_off = max(append_off, floor)
        else:
            self._unowned += 1
        self._claims[bigblock] = _Claim(point, append_off)
        self._current[point] = bigblock
        return bigblock

    def _end_apart(self, zone: int) -> bool:
        """Give up a zone's other append points, whose big-blocks the first one needs; whether there were any."""
        others = [point for point in self._current if _zone(point) == zone != point]
        for point in others:
            self._leave(point, self._current[point])
        return bool(others)

    def _leave(self, point: int, bigblock: Offset) -> None:
        """Append nothing more there; the big-block may be taken up again."""
        del self._current[point]
        claim = self._claims[bigblock]
        claim.append_off = BIGBLOCK_SIZE
        self._drop_if_idle(bigblock, claim)

    def _advance(self, point: int, full: Offset, size: int) -> tuple[Offset, _Claim, int]:
        """Move an append point to the next big-block with room for `size` bytes."""
        zone = _zone(point)
        for candidate in self._freemap.candidates(full + BIGBLOCK_SIZE, zone):
            if candidate in self._claims:
                continue
            start = self._fit(self._freemap.layer2(candidate).append_off, size)
            if start + size > BIGBLOCK_SIZE:
                continue
            self._leave(point, full)
            self._adopt(point, candidate, 0)
            return candidate, self._claims[candidate], start
        if point == zone and self._end_apart(zone):
            return self._advance(point, full, size)
        raise NoSpaceError(f"no big-block left for zone {zone}")

    # --- claims ---------------------------------------------------------------------------------
    def _settle(self, bigblock: Offset, size: int) -> None:
        claim = self._claims[bigblock]
        claim.pending -= size
        self.reserved_bytes -= size
        assert claim.pending >= 0
        if not claim.pending and self._current.get(claim.point) != bigblock:
            self._drop_if_idle(bigblock, claim)

    def _drop_if_idle(self, bigblock: Offset, claim: _Claim) -> None:
        if claim.pending or claim.release_cycle:
            return
        del self._claims[bigblock]
        if self._freemap.layer2(bigblock).zone == 0:
            self._unowned -= 1
            self._withheld_bigblocks += volume_of(bigblock) == self._freemap.withheld
            self._on_reuse(bigblock)


def _zone(point: int) -> int:
    """The zone that an append point appends to."""
    return point % _GROUP_STEP
