"""Processors that are kept awake while requests come one after the other.

A processor without work sleeps, and each request wakes two: the server's when it comes, the client's when it is
answered.  On a virtual machine that takes some 25 us each time, as the hypervisor has to wake it; a request in memory
takes no longer than that itself.  Linux lets a program that cannot wait say so (PM QoS): what it writes to
`/dev/cpu_dma_latency` is how many microseconds a processor may take to wake up, for as long as the file stays open.

The price is power, and on a virtual machine the host's time: a processor without work runs in a circle meanwhile.  So
the need is stated only while it is there, from a burst of requests on until KEEP_SECONDS or twice that after the last
one, and never where it would keep many processors busy for the sake of two.  It outlasts that only while the event loop
stands still: behind a device that hangs, or stopped by SIGSTOP.  The mount option `powersave` does without.

Source: the kernel's `power/pm_qos_interface.rst` and `cpuidle/governors/haltpoll.c`.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

KEEP_SECONDS: Final = 0.02
"""After so long without a burst, or twice as long, the processors may sleep again."""
BURST_REQUESTS: Final = 4
"""Requests that the dispatch answers in one go, so within some two milliseconds: a client that waits for each."""
POLLING_PROCESSORS_MAX: Final = 8
"""Where the only choice is between running in a circle and sleeping, of no more than so many it is made."""

_DEVICE: Final = Path("/dev/cpu_dma_latency")
_CPUIDLE: Final = Path("/sys/devices/system/cpu")
_LATENCY: Final = struct.Struct("=i")
_ANY_LATENCY: Final = 2_000_000_000
"""What the kernel takes for "does not matter", in microseconds."""
_GUEST_DRIVER: Final = "haltpoll"
_NO_SLEEPS: Final = ("POLL", "snooze")
"""Idle states in which a processor runs in a circle."""


def needed_latency(cpuidle: Path = _CPUIDLE, processors: int | None = None) -> int | None:
    """In how many microseconds a processor has to wake up, or None where nothing is to be gained by asking.

    On a virtual machine whose kernel knows that it is one, 0: nothing but not sleeping is quick.  Elsewhere the
    lightest sleep is quick enough, and where it is the only one there is nothing to ask for.
    """
    try:
        driver = (cpuidle / "cpuidle" / "current_driver").read_text(encoding="ascii").strip()
        states = list((cpuidle / "cpu0" / "cpuidle").glob("state*"))
        latencies = [int((state / "latency").read_text(encoding="ascii")) for state in states]
        names = [(state / "name").read_text(encoding="ascii").strip() for state in states]
    except (OSError, ValueError):
        return None
    if driver == _GUEST_DRIVER:
        count = processors if processors is not None else os.cpu_count()
        return 0 if count is not None and count <= POLLING_PROCESSORS_MAX else None
    sleeps = sorted(latency for latency, name in zip(latencies, names, strict=True) if name not in _NO_SLEEPS)
    # Firmware may say that the lightest takes no time; to ask for 0 would forbid that one, too.
    return max(sleeps[0], 1) if len(sleeps) > 1 else None


class Wakefulness:
    """States the need for one mount.  Without the right to, it does nothing.

    latency -- how long a processor may take to wake up while requests come, microseconds; None: as long as it likes
    """

    def __init__(self, latency: int | None, device: Path = _DEVICE) -> None:
        self._latency = _ANY_LATENCY if latency is None else latency
        self._bursts = 0
        self._awake = False
        self._burst_came = trio.Event()
        self._file = -1
        if latency is not None:
            with suppress(OSError):
                self._file = os.open(device, os.O_WRONLY | os.O_CLOEXEC)

    def burst(self) -> None:
        """Requests come quickly; called again and again while they do, by the thread that answers them."""
        self._bursts += 1
        if not self._awake and self._file >= 0:
            self._awake = True
            self._state(self._latency)
            self._burst_came.set()

    async def run(self) -> None:
        """Let the processors sleep again when no burst comes any more; until cancelled, and then for good."""
        try:
            while True:
                await self._burst_came.wait()
                await self._bursts_end()
                self._burst_came = trio.Event()
                self._awake = False
                self._state(_ANY_LATENCY)
        finally:
            self.close()

    async def _bursts_end(self) -> None:
        seen = 0
        while seen != self._bursts:
            seen = self._bursts
            await trio.sleep(KEEP_SECONDS)

    def close(self) -> None:
        """The kernel forgets what was stated."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _state(self, microseconds: int) -> None:
        try:
            os.write(self._file, _LATENCY.pack(microseconds))
        except OSError:
            self.close()
