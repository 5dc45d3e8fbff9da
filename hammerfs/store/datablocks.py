"""File data on its way to disk: laid down in reserved space at any time, written in large neighbouring pieces.

Data never overwrites anything a crash could bring back, so it needs neither UNDO nor order; it only has to be durable
before the records that refer to it are (the barrier of the flush that inserts them).

Writing it may be left to a thread: copying a megabyte into the kernel's cache takes milliseconds, for which nobody else
should have to wait.  What must hold:

1. One thread at a time, and only what was handed over to it; `flush` waits for it.  So nothing is written out of turn.
   Whoever would wait for a thread that has not begun writes in its stead: it may need him to begin.
2. A place is not given up while a thread may write there, or it would write into what belongs to somebody else by then.
   Who gives it up does not wait for that: a writer that comes back to what it just wrote would stop everybody.
3. A block can be read here until its write has returned without an error.
4. After `stop` the thread begins no other write, and what it has not written stays readable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from hammerfs.ondisk.address import Offset, to_zone2, zone_of
from hammerfs.ondisk.constants import ZONE_SMALL_DATA
from hammerfs.store.regions import Regions
from hammerfs.store.volumes import VolumeSet

_RUN_BYTES = 1024 * 1024
"""Written in one call: the kernel lets nobody else write to a file meanwhile."""
SPILL_BYTES = 4 * 1024 * 1024
"""Queued, from which on it is written, whether a flush wants it or not; less where the limit is low."""
OVERFULL_BYTES = 4 * SPILL_BYTES
"""The highest limit."""


class DataBlocks:
    """Queue of laid-down blocks; what is not written yet is readable.

    limit -- bytes not written yet from which on whoever makes more of them should wait for the thread
    queued_bytes -- of blocks that nobody writes yet
    behind -- asks for a thread that writes the queue, None where there is none to be had
    """

    def __init__(self, volumes: VolumeSet, limit: int = OVERFULL_BYTES) -> None:
        self._volumes = volumes
        self._limit = min(limit, OVERFULL_BYTES)
        self._regions = Regions(volumes)
        self._queued: dict[int, bytes] = {}
        self.queued_bytes = 0
        self.behind: Callable[[], None] | None = None
        self._handed: dict[int, bytes] = {}
        self._handed_bytes = 0
        self._given_up: list[Callable[[], None]] = []
        self._written = threading.Event()
        self._claim = threading.Lock()
        self._error: Exception | None = None
        self._stopped = False

    def stop(self) -> None:
        """Nothing more is to be written (INV-11)."""
        self._stopped = True

    @property
    def pending(self) -> bool:
        """Whether any block is not known to be written."""
        return bool(self._queued or self._handed)

    @property
    def overfull(self) -> bool:
        """Whether the thread does not keep up."""
        return self.queued_bytes + self._handed_bytes >= self._limit

    @property
    def handed_over(self) -> bool:
        """Whether a thread writes, or has written and was not asked yet how that went."""
        return bool(self._handed)

    def put(self, offset: Offset, data: bytes) -> None:
        """Queue a block for its reserved place."""
        self._queued[to_zone2(offset)] = data
        self.queued_bytes += len(data)

    def give_up(self, offset: Offset, release: Callable[[], None]) -> None:
        """Do not write a block any more, and `release` its space: now, or once no thread may write there."""
        place = to_zone2(offset)
        data = self._queued.pop(place, None)
        if data is not None:
            self.queued_bytes -= len(data)
        elif place in self._handed:
            self._given_up.append(release)
            return
        release()

    def forget(self, offset: Offset) -> None:
        """Do not write a block whose space is to be given up next: the place may get another owner before that."""
        place = to_zone2(offset)
        data = self._queued.pop(place, None)
        if data is not None:
            self.queued_bytes -= len(data)
        elif place in self._handed:
            self._join()
            if self._error is None:  # else the mount is about to become read-only, by whoever handed it over
                self.take_back()

    def holds(self, offset: Offset) -> bool:
        """Whether a block is not known to be written."""
        place = to_zone2(offset)
        return place in self._queued or place in self._handed

    def read(self, offset: Offset, size: int) -> bytes:
        """`size` bytes of a block, from memory or from disk."""
        if self._queued or self._handed:
            place = to_zone2(offset)
            data = self._queued.get(place) or self._handed.get(place)
            if data is not None:
                return data[:size]
        if zone_of(offset) == ZONE_SMALL_DATA:
            self._regions.note(to_zone2(offset))
        return self._volumes.read(offset, size)

    def spill(self) -> None:
        """Write the queue if it has become long: in a thread, or at once where there is none or it cannot keep up."""
        if self.behind is not None and self.queued_bytes < 2 * self._limit:
            if self.queued_bytes >= min(SPILL_BYTES, self._limit // 4):
                self.behind()
        elif self.queued_bytes >= SPILL_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the devices, neighbours in one call.  No barrier."""
        self.take_back()
        for start, run in _runs(self._queued):
            self._volumes.write_vector(start, run)
        self._queued.clear()
        self.queued_bytes = 0

    def hand_over(self) -> Callable[[], None]:
        """What another thread has to call to write all that is queued now; `take_back` comes behind it."""
        self.take_back()
        handed, self._handed, self._queued = self._queued, self._queued, {}
        self._volumes.count(self.queued_bytes)
        self._handed_bytes, self.queued_bytes = self.queued_bytes, 0
        self._written.clear()
        claim = self._claim = threading.Lock()

        def write() -> None:
            if claim.acquire(blocking=False):
                self._write(handed)

        return write

    def _write(self, handed: dict[int, bytes]) -> None:
        try:
            for start, run in _runs(handed):
                if self._stopped:
                    return
                self._volumes.write_vector(start, run, counted=False)
        except Exception as error:
            self._error = error
        finally:
            self._written.set()

    def take_back(self) -> None:
        """Have what was handed over written, and wait for that; raises what kept it from being written."""
        if not self._handed:
            return
        self._join()
        if self._error is not None:
            raise self._error
        if self._stopped:
            return
        # They count as unsettled again: a barrier that began meanwhile may have missed them.
        self._volumes.unsettled_bytes += self._handed_bytes
        self._handed, self._handed_bytes = {}, 0
        given_up, self._given_up = self._given_up, []
        for release in given_up:
            release()

    def _join(self) -> None:
        if self._claim.acquire(blocking=False):
            self._write(self._handed)
        self._written.wait()


def _runs(blocks: dict[int, bytes]) -> list[tuple[int, list[bytes]]]:
    """Neighbours together: where each run begins, and what is in it."""
    runs: list[tuple[int, list[bytes]]] = []
    end = -1
    for place in sorted(blocks):
        data = blocks[place]
        if place != end or end - runs[-1][0] >= _RUN_BYTES:
            runs.append((place, []))
        runs[-1][1].append(data)
        end = place + len(data)
    return runs
