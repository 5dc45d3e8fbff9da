"""A tree that grows: whether the last files cost what the first ones did, and what a large image costs as a whole."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from bench_lib.measure import KIB, MIB, Bench, clock, opened
from bench_lib.metadata import write_new

FILES = 1_000_000
FILES_PER_DIRECTORY = 100
SAMPLE = 10_000
"""Files in the first and in the last stretch, whose rates are compared."""
LOOKUPS = 2000
BACKLOG_MIB = 64
"""Written and overwritten with fsync, again and again, before the server is killed: what a recovery finds."""


def growth(bench: Bench) -> None:
    """Many files of 1 KiB in directories of a hundred; then mounts, lookups, a recovery and a check of that image."""
    sample = bench.count(SAMPLE)
    paths = _paths(bench.folder, bench.count(FILES))
    first = _create(bench, f"create, first {sample}", paths[:sample])
    _create(bench, "create, those between", paths[sample:-sample])
    last = _create(bench, f"create, last {sample}", paths[-sample:])
    bench.put("create, last to first", last / first, "times", sample)
    bench.cold()
    _mount(bench, "mount of the grown image", bench.cold)
    seen = random.Random(6).sample(paths, bench.count(LOOKUPS))
    bench.loop("stat cold in the grown image", seen, os.stat)
    if bench.recovers:
        _write_backlog(bench)
        _mount(bench, "mount after a crash", bench.crash)
    bench.check("check of the grown image")


def _paths(top: Path, count: int) -> list[str]:
    paths = []
    for start in range(0, count, FILES_PER_DIRECTORY):
        folder = top / f"{start // FILES_PER_DIRECTORY:05}"
        paths += [f"{folder}/{number:02}" for number in range(min(FILES_PER_DIRECTORY, count - start))]
    return paths


def _create(bench: Bench, name: str, paths: list[str]) -> float:
    """Files per second, with the directories that they need; the last directory is durable at the end."""

    def make(path: str) -> None:
        if path.endswith("/00"):
            os.mkdir(path[:-3])
        write_new(path, bench.block(KIB))

    def finish() -> None:
        with opened(os.path.dirname(paths[-1]), os.O_RDONLY) as fd:
            os.fsync(fd)

    bench.loop(name, paths, make, finish=finish, bounded=False)
    return bench.rows[-1].value


def _mount(bench: Bench, name: str, way: Callable[[], None]) -> None:
    """Seconds from the mount command to the answer of the first stat."""
    way()
    began = bench.mount_began
    os.stat(bench.folder)
    bench.put(name, clock() - began, "s", 1)


def _write_backlog(bench: Bench) -> None:
    """Fill the log that a recovery goes through, as far as a busy file system does between two flushes."""
    path = bench.folder / "backlog"
    choose = random.Random(7)
    with opened(path, os.O_RDWR | os.O_CREAT) as fd:
        for _ in range(bench.count(BACKLOG_MIB * MIB // (16 * KIB))):
            os.pwrite(fd, bench.block(16 * KIB), choose.randrange(BACKLOG_MIB) * MIB)
            os.fsync(fd)
