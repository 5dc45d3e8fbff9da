"""A file system of a few lines, mounted for real: what the tests of dispatch and daemon life talk to.

As a program, `python tests/fuse/toy_server.py`, it measures the round trip of a getattr with pyfuse3's own dispatch
and with ours, interleaved in one run, server and client sharing one CPU, and prints the medians.
"""

from __future__ import annotations

import errno
import os
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyfuse3
import trio

from hammerfs.vfs import dispatch

_Result = TypeVar("_Result")

FIRST_FAST_INODE = 1000
FIRST_SLOW_INODE = 2000


class Toy(pyfuse3.Operations):
    """`fast-N` and `slow-N` exist, nothing else does; the attributes of `slow-N` come when `may_answer` is set.

    With all timeouts zero each os.stat comes here: one GETATTR for the root, LOOKUP and GETATTR for a name.  It is
    not LOOKUP that is slow, because the kernel sends the lookups of one directory one after the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = trio.Event()
        self.blocked_count = 0

    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if inode >= FIRST_SLOW_INODE:
            self.blocked_count += 1
            await self.may_answer.wait()
            self.blocked_count -= 1
        return self._attributes(inode)

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name.startswith(b"slow-"):
            return self._attributes(FIRST_SLOW_INODE + int(name[5:]))
        if name.startswith(b"fast-"):
            return self._attributes(FIRST_FAST_INODE + int(name[5:]))
        raise pyfuse3.FUSEError(errno.ENOENT)

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        return pyfuse3.StatvfsData()

    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        return pyfuse3.FileHandleT(inode)

    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Names that exist because somebody asks for them are not listed."""

    def _attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        directory = inode == pyfuse3.ROOT_INODE
        entry.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o644)
        entry.st_size = inode
        entry.attr_timeout = entry.entry_timeout = 0
        return entry

    async def wait_until_blocked(self, count: int) -> None:
        """Return when `count` requests wait inside their handlers."""
        while self.blocked_count < count:
            await trio.sleep(0.001)


async def in_thread(function: Callable[[], _Result]) -> _Result:
    """A client of the mount: never in the thread of the server, and left behind if the test gives up."""
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True)


def unmount(mountpoint: Path, check: bool = True) -> None:
    subprocess.run(["fusermount3", "-u", mountpoint], check=check, capture_output=True)


@asynccontextmanager
async def mounted(operations: Toy, mountpoint: Path, min_tasks: int = 4) -> AsyncIterator[None]:
    """Serve during the block.  If the block did not end the session, unmount as a user would; wait for the server."""
    pyfuse3.init(operations, str(mountpoint), {"fsname=toy", "subtype=toy"})
    try:
        async with trio.open_nursery() as nursery:
            ended = trio.Event()

            async def serve() -> None:
                await pyfuse3.main(min_tasks=min_tasks)
                ended.set()

            nursery.start_soon(serve)
            yield
            if not ended.is_set():
                # Another task or the test itself may be faster, so a failure here is none.
                await in_thread(partial(unmount, mountpoint, check=False))
    finally:
        pyfuse3.close(unmount=True)


def _serve_until_unmounted(mountpoint: str) -> None:
    pyfuse3.init(Toy(), mountpoint, {"fsname=toy", "subtype=toy"})
    print("ready", flush=True)
    trio.run(pyfuse3.main)
    pyfuse3.close(unmount=False)


def _microseconds_per_getattr(mountpoint: str, way: str, count: int) -> tuple[float, float]:
    """Median round trip seen by the client, and the server's CPU time, of one os.stat of the root."""
    command = [sys.executable, __file__, way, mountpoint]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    server.stdout.readline()
    times = []
    cpu_before = time.clock_gettime_ns(_cpu_clock(server.pid))
    for _ in range(count):
        start = time.perf_counter_ns()
        os.stat(mountpoint)
        times.append(time.perf_counter_ns() - start)
    cpu = time.clock_gettime_ns(_cpu_clock(server.pid)) - cpu_before
    unmount(Path(mountpoint))
    server.communicate()
    return statistics.median(times) / 1000, cpu / count / 1000


def _cpu_clock(pid: int) -> int:
    """The clock id that clock_getcpuclockid(3) gives for a process."""
    return (~pid << 3) | 2


def _measure() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results: dict[str, list[tuple[float, float]]] = {"stock": [], "fast": []}
    with tempfile.TemporaryDirectory() as mountpoint:
        for _ in range(5):
            for way, found in results.items():
                found.append(_microseconds_per_getattr(mountpoint, way, 10_000))
    for way, found in results.items():
        trip, cpu = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{way}: {trip:.1f} us per getattr, {cpu:.1f} us of it the server's CPU")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        _measure()
    else:
        if sys.argv[1] == "fast" and not dispatch.install():
            sys.exit("the fast dispatch cannot be used with this pyfuse3")
        _serve_until_unmounted(sys.argv[2])
