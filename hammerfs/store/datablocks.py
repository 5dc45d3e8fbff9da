"""File data on its way to disk: laid down in reserved space at any time, written in large neighbouring pieces.

Data never overwrites anything a crash could bring back, so it needs neither UNDO nor order; it only has to be durable
before the records that refer to it are (the barrier of the flush that inserts them).
"""

from __future__ import annotations

from hammerfs.ondisk.address import Offset, to_zone2
from hammerfs.store.volumes import VolumeSet

_MAX_VECTOR = 256


class DataBlocks:
    """Queue of laid-down blocks; what is still queued is readable."""

    def __init__(self, volumes: VolumeSet) -> None:
        self._volumes = volumes
        self._queued: dict[int, bytes] = {}
        self.queued_bytes = 0

    def put(self, offset: Offset, data: bytes) -> None:
        """Queue a block for its reserved place."""
        self._queued[to_zone2(offset)] = data
        self.queued_bytes += len(data)

    def forget(self, offset: Offset) -> None:
        """Do not write a block whose space was given up: the place may get another owner before the queue is."""
        data = self._queued.pop(to_zone2(offset), None)
        if data is not None:
            self.queued_bytes -= len(data)

    def holds(self, offset: Offset) -> bool:
        """Whether a block is still queued."""
        return to_zone2(offset) in self._queued

    def read(self, offset: Offset, size: int) -> bytes:
        """`size` bytes of a block, from the queue or from disk."""
        if self._queued:
            data = self._queued.get(to_zone2(offset))
            if data is not None:
                return data[:size]
        return self._volumes.read(offset, size)

    def flush(self) -> None:
        """Hand everything queued to the devices, neighbours in one call.  No barrier.

        A block stays readable here until its write returned without an error.
        """
        run: list[bytes] = []
        run_start = run_end = 0
        for place in sorted(self._queued):
            data = self._queued[place]
            if run and (place != run_end or len(run) == _MAX_VECTOR):
                self._volumes.write_vector(run_start, run)
                run = []
            if not run:
                run_start = place
            run.append(data)
            run_end = place + len(data)
        if run:
            self._volumes.write_vector(run_start, run)
        self._queued.clear()
        self.queued_bytes = 0
