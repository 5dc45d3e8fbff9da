"""Where a barrier runs: in a thread, unless it is certain to be short.

A barrier may take seconds when much was written, and the event loop has requests to answer meanwhile: then it belongs
in a thread.  But handing it there and back costs the CPU more than 100 us, and a small fsync needs three barriers of
150 to 350 us each.  So a barrier behind little data runs at once, as long as such barriers have proved short on these
devices. Measured on an append with fsync of 4 KiB, barriers replaced by nothing: 1180 us with threads, 680 us
without.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from hammerfs.store.volumes import VolumeSet

SMALL_BYTES = 256 * 1024
"""Written since the last barrier: beyond this one goes into a thread."""
MUCH_BYTES = 4 << 20
"""The same: beyond this a writer's data goes to disk in the background (`writebehind.py`)."""
SHORT_SECONDS = 0.003
"""Mean duration of small barriers beyond which they go into a thread, too."""
_WEIGHT = 0.2
_SLOWEST_SECONDS = 2 * SHORT_SECONDS
"""What a slower one counts as: one that had to wait for others' writes tells nothing about the next, some in a row do.
"""


class BarrierRunner:
    """Runs the barriers of one mount and learns how long small ones take.

    inline, threaded -- how many ran at once, how many were handed to a thread; in_threads -- those that run there now
    """

    def __init__(self, volumes: VolumeSet) -> None:
        self._volumes = volumes
        self._mean_seconds = 0.0
        self._begun_seconds = 0.0
        self.in_threads = 0
        self.inline = 0
        self.threaded = 0

    def is_short(self, pending_bytes: int = 0) -> bool:
        """Whether a barrier may run at once, after `pending_bytes` more were written; beside another it would wait."""
        if self.in_threads:
            return False
        return self._mean_seconds < SHORT_SECONDS and self._volumes.unsettled_bytes + pending_bytes <= SMALL_BYTES

    def begin(self, write: Callable[[], object]) -> None:
        """Run what writes and has the device begin with that; its time counts as part of the next barrier.

        A device whose queue is full may let wait right here, and then its barrier finds nothing left to do.
        """
        began = time.perf_counter()
        write()
        self._begun_seconds += time.perf_counter() - began

    async def run(self) -> None:
        """Make everything written before the call durable; raises DeviceError."""
        if self.is_short():
            self.run_now()
            return
        await self.run_in_thread()

    async def run_in_thread(self) -> None:
        """The same, giving way to others in any case."""
        small = self._volumes.unsettled_bytes <= SMALL_BYTES
        began = time.perf_counter()
        self.threaded += 1
        self.in_threads += 1
        try:
            await trio.to_thread.run_sync(self._volumes.barrier)
        finally:
            self.in_threads -= 1
        if small:
            self._learn(time.perf_counter() - began)

    def run_now(self) -> None:
        """The same without giving way to anyone."""
        began = time.perf_counter()
        self.inline += 1
        self._volumes.barrier()
        self._learn(time.perf_counter() - began)

    def _learn(self, seconds: float) -> None:
        seconds += self._begun_seconds
        self._begun_seconds = 0.0
        self._mean_seconds += _WEIGHT * (min(seconds, _SLOWEST_SECONDS) - self._mean_seconds)
