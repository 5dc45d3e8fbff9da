"""A tree that grows: whether the last files cost what the first ones did, and what a large image costs as a whole."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable
from pathlib import Path

from bench_lib.measure import KIB, MIB, Bench, clock, opened
from bench_lib.metadata import write_new

FILES = 1_000_000
FILES_PER_DIRECTORY = 100
SAMPLE = 10_000
"""Files in the first and in the last stretch."""
TURNS = 10
"""Parts of the last stretch, each beside as many files in a new file system: the machine's own speed changes from one
minute to the next more than what is asked of the two rates."""
LOOKUPS = 2000
BACKLOG_MIB = 64
"""Written and overwritten with fsync, again and again, before the server is killed: what a recovery finds."""


def growth(bench: Bench) -> None:
    """Many files of 1 KiB in directories of a hundred; then mounts, lookups, a recovery and a check of that image."""
    sample = bench.count(SAMPLE)
    paths = _paths(bench.folder, bench.count(FILES))
    _create(bench, f"create, first {sample}", paths[:sample])
    _create(bench, "create, those between", paths[sample:-sample])
    _compare_with_new(bench, paths[-sample:])
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


def _create(bench: Bench, name: str, paths: list[str]) -> None:
    """Files per second, with the directories that they need; the last directory is durable at the end."""
    bench.loop(name, paths, lambda path: _make(bench, path), finish=lambda: _make_durable(paths[-1]), bounded=False)


def _make(bench: Bench, path: str) -> None:
    folder, _, number = path.rpartition("/")
    if not int(number):
        os.mkdir(folder)
    write_new(path, bench.block(KIB))


def _make_durable(path: str) -> None:
    with opened(os.path.dirname(path), os.O_RDONLY) as fd:
        os.fsync(fd)


def _compare_with_new(bench: Bench, paths: list[str]) -> None:
    """Rates of the last files and of the first ones in a new file system, in turns, and the median of their ratios."""

    def seconds(part: list[str]) -> float:
        start = clock()
        for path in part:
            _make(bench, path)
        _make_durable(part[-1])
        return clock() - start

    grown, new = [], []
    cpu_us = 0.0
    each = max(len(paths) // TURNS, 1)
    with bench.new_beside() as folder:
        beside = _paths(folder, len(paths))
        for start in range(0, len(paths), each):
            before = bench.server.cpu_us()
            grown.append(seconds(paths[start : start + each]))
            cpu_us += bench.server.cpu_us() - before
            new.append(seconds(beside[start : start + each]))
    count = len(paths)
    bench.put(f"create, last {count}", count / sum(grown), "/s", count, cpu_us / count)
    bench.put(f"create, first {count} of a new one meanwhile", count / sum(new), "/s", count)
    ratio = statistics.median(short / long for long, short in zip(grown, new, strict=True))
    bench.put("create, last to first", ratio, "times", count)


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
