"""One repetition of the workloads on one mount: what is timed, and what it costs the server.

A rate is taken with one clock around the whole loop. Time and CPU are told apart: a server may answer at once and
work later. Rows that write therefore come with the server's CPU time up to the moment when it has unmounted and
ended, all writing behind done, and with a second row whose time runs to that moment as well.

Cold rows begin with a remount and with emptied kernel caches.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from bench_lib.peers import BenchError, Peer

KIB = 1024
MIB = 1024 * KIB

T = TypeVar("T")
clock = time.perf_counter


@contextmanager
def opened(path: str | Path, flags: int) -> Iterator[int]:
    """A file descriptor; files that do not exist are made if the flags say so."""
    fd = os.open(path, flags, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Row:
    """One measured number.

    unit -- ending in "/s", or "times": more is better; else a time, and less is better
    count -- operations behind the number
    cpu_us -- CPU time of the server in microseconds per operation, entry or megabyte, for a program per run; None for
        a file system without a server
    requests -- FUSE requests per the same, up to the end of the row itself; None where the server does not tell
    """

    name: str
    value: float
    unit: str
    count: int
    cpu_us: float | None = None
    requests: float | None = None

    @property
    def more_is_better(self) -> bool:
        """Whether a larger number is a faster one."""
        return self.unit == "times" or self.unit.endswith("/s")

    def as_json(self) -> dict[str, object]:
        """For the file given to --json."""
        return asdict(self)


class Server:
    """CPU time and peak memory of a peer's server process, across remounts.

    Only what it uses between a mount and the end of the unmount counts; starting up does not.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._past_ns = 0
        self._start_ns = self._now_ns = 0
        self.peak_kib = 0
        self.begin()

    def begin(self) -> None:
        """A server has just been started."""
        self._start_ns = self._now_ns = 0
        self.sample()
        self._start_ns = self._now_ns

    def sample(self) -> None:
        """Look at the clocks of the server; the last look before its end is the one that counts."""
        pid = self._peer.server
        if pid is None:
            return
        try:
            # The clock of another process, as clock_getcpuclockid(3) makes it: nanoseconds, ended threads included.
            self._now_ns = time.clock_gettime_ns(~pid << 3 | 2)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.peak_kib = max(self.peak_kib, int(line.split()[1]))
        except OSError:
            return

    def end(self) -> None:
        """The server has ended."""
        self._past_ns += self._now_ns - self._start_ns
        self._start_ns = self._now_ns = 0

    def cpu_us(self) -> float:
        """Microseconds used so far."""
        self.sample()
        return (self._past_ns + self._now_ns - self._start_ns) / 1000


class Bench:
    """What a workload measures with.

    folder -- an empty directory on the mount, the workload's own
    scratch -- a directory off the mount, kept over all repetitions
    rows -- what was measured so far
    cold_is_cold -- whether the kernel's caches could be emptied, which takes root
    mount_began -- when the last mount command was started
    """

    def __init__(self, peer: Peer, scratch: Path, scale: float, seconds_max: float) -> None:
        self._peer = peer
        self._scale = scale
        self._seconds_max = seconds_max
        self._incompressible = bytearray(random.Random(1).randbytes(5 * MIB))
        self._blocks = 0
        self._unmounted_at = self.mount_began = 0.0
        self.server = Server(peer)
        self.scratch = scratch
        self.folder = peer.mountpoint
        self.rows: list[Row] = []
        self.cold_is_cold = True

    @property
    def keeps_history(self) -> bool:
        """Whether there are moments to look back at."""
        return self._peer.kind.keeps_history

    @property
    def has_size(self) -> bool:
        """Whether it is full when its image is, and not when the disk is."""
        return not self._peer.kind.folders

    # --- means ----------------------------------------------------------------------------------
    def count(self, full: int) -> int:
        """A number of operations, scaled for this run."""
        return max(8, int(full * self._scale))

    def block(self, size: int) -> memoryview:
        """Incompressible data, up to 1 MiB, that no earlier call gave."""
        self._blocks += 1
        start = self._blocks * 8191 % (4 * MIB)
        self._incompressible[start : start + 8] = self._blocks.to_bytes(8, "little")
        return memoryview(self._incompressible)[start : start + size]

    def moment(self) -> str:
        """Bring everything to disk; what stands behind `@@` in a path that shows it as it is now."""
        return self._peer.moment()

    def settle(self) -> None:
        """Unmount, which ends all writing behind, and mount again."""
        os.sync()
        self._peer.umount(self.server.sample)
        self._unmounted_at = clock()
        self.server.end()
        self._mount()

    def _mount(self) -> None:
        self.mount_began = clock()
        self._peer.mount()
        self.server.begin()

    def crash(self) -> None:
        """Kill the server, and mount again."""
        self.server.sample()
        self._peer.kill()
        self.server.end()
        self._mount()

    def check(self, name: str) -> None:
        """Rows for time and memory of the program that verifies the unmounted image, where there is one."""
        if not self._peer.kind.check:
            return
        self._peer.umount(self.server.sample)
        self.server.end()
        seconds, mib = self._peer.check()
        self.put(name, seconds, "s", 1)
        self.put(f"{name}, memory", mib, "MiB", 1)
        self._mount()

    @contextmanager
    def new_beside(self) -> Iterator[Path]:
        """Where a new file system of the same kind is mounted meanwhile."""
        other = self._peer.beside()
        other.make()
        other.mount()
        yield other.mountpoint
        other.umount()

    def tidy(self) -> None:
        """Give back the space of what was removed, as a nightly job does."""
        self._peer.tidy()

    @property
    def recovers(self) -> bool:
        """Whether the server may be killed."""
        return self._peer.kind.recovers

    def cold(self) -> None:
        """Empty the caches of the server and of the kernel."""
        self.settle()
        os.sync()
        try:
            Path("/proc/sys/vm/drop_caches").write_text("3")
        except OSError:
            self.cold_is_cold = False

    # --- measuring ------------------------------------------------------------------------------
    def put(
        self, name: str, value: float, unit: str, count: int, cpu_us: float | None = None, requests: float | None = None
    ) -> None:
        """Record a number."""
        self.rows.append(Row(name, value, unit, count, cpu_us if self._peer.kind.has_server else None, requests))

    def loop(
        self,
        name: str,
        items: Iterable[T],
        action: Callable[[T], object],
        *,
        finish: Callable[[], object] | None = None,
        settle: bool = False,
        unit: str = "/s",
        weight: float = 1.0,
        bounded: bool = True,
    ) -> list[float]:
        """Rate of `action`, once per item until the time is up, if it is `bounded`; returns the sorted latencies.

        `finish` is timed too. An operation counts as `weight` units. With `settle`, the server's CPU time is counted
        until it has unmounted, and a second row gives the rate up to then; caches are cold afterwards.
        """
        latencies = []
        requests = self._peer.requests()
        cpu = self.server.cpu_us()
        start = last = clock()
        for item in items:
            action(item)
            now = clock()
            latencies.append(now - last)
            last = now
            if bounded and now - start > self._seconds_max:
                break
        if finish is not None:
            finish()
        seconds = clock() - start
        amount = len(latencies) * weight
        requests_each = None if requests is None else ((self._peer.requests() or 0) - requests) / amount
        if settle:
            self.settle()
            until_unmounted = self._unmounted_at - start
        self.put(name, amount / seconds, unit, len(latencies), (self.server.cpu_us() - cpu) / amount, requests_each)
        if settle:
            self.put(f"{name}, until unmounted", amount / until_unmounted, unit, len(latencies))
        return sorted(latencies)

    def latencies(self, name: str, sorted_seconds: Sequence[float]) -> None:
        """Rows for the median and the 99th percentile."""
        count = len(sorted_seconds)
        for percent in (50, 99):
            at = min(count - 1, count * percent // 100)
            self.put(f"{name}, p{percent}", sorted_seconds[at] * 1e6, "us", count)

    def command(self, name: str, arguments: Sequence[str | Path], **options: object) -> None:
        """Seconds that a program takes; BenchError when it fails."""
        cpu = self.server.cpu_us()
        start = clock()
        done = subprocess.run(  # type: ignore[call-overload]
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options
        )
        seconds = clock() - start
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-300:]
            raise BenchError(f"{name}: {arguments[0]} failed: {said}")
        self.put(name, seconds, "s", 1, self.server.cpu_us() - cpu)
