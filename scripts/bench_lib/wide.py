"""A large directory beside a small one, and a file of many extents beside one of few: whether both behave alike."""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path

from bench_lib.measure import KIB, Bench, clock, opened
from bench_lib.metadata import NEW

ENTRIES = 1_000_000
EXTENTS = 100_000
FEW = 1000
"""Entries of the small directory, extents of the small file, and how many of either are looked at."""
EXTENT_STRIDE = 128 * KIB
"""From one extent to the next: twice the largest block of HAMMER, so that each lies between holes."""
PAGE = 4 * KIB


def wide(bench: Bench) -> None:
    """Names made, looked up, listed and removed; pages written into holes, written again durably, read and cut off."""
    few = min(FEW, bench.count(ENTRIES))
    for count in (few, bench.count(ENTRIES)):
        _directory(bench, bench.folder / f"of{count}", count, few)
    for count in (few, bench.count(EXTENTS)):
        _file(bench, bench.folder / f"extents{count}", count, few)


def _directory(bench: Bench, folder: Path, count: int, few: int) -> None:
    names = [f"{folder}/entry-{number:07}" for number in range(count)]
    folder.mkdir()

    def make(name: str) -> None:
        os.close(os.open(name, NEW, 0o644))

    if count > few:
        bench.loop(f"{count} entries, the first", names[:-few], make, bounded=False)
    bench.loop(f"{count} entries, create", names[-few:], make)
    some = random.Random(8).sample(names, few)
    bench.cold()
    bench.loop(f"{count} entries, stat cold", some, os.stat)
    bench.cold()
    bench.loop(f"{count} entries, readdir cold", [0], lambda _: os.listdir(folder), unit="entries/s", weight=count)
    bench.loop(f"{count} entries, unlink", some, os.unlink)


def _file(bench: Bench, path: Path, count: int, few: int) -> None:
    """In order of chance, as a download does that gets its pieces from many."""
    choose = random.Random(9)
    places = choose.sample([number * EXTENT_STRIDE for number in range(count)], count)
    with opened(path, os.O_RDWR | os.O_CREAT) as fd:

        def write(place: int) -> None:
            os.pwrite(fd, bench.block(PAGE), place)

        def write_durably(place: int) -> None:
            write(place)
            os.fsync(fd)

        bench.loop(f"{count} extents, write", places, write, finish=partial(os.fsync, fd), bounded=False)
        bench.loop(f"{count} extents, overwrite with fsync", choose.sample(places, few), write_durably)
    bench.cold()
    with opened(path, os.O_RDWR) as fd:
        bench.loop(f"{count} extents, read cold", choose.sample(places, few), partial(os.pread, fd, PAGE))
        began = clock()
        os.ftruncate(fd, 0)
        os.fsync(fd)
        bench.put(f"{count} extents, cut off", clock() - began, "s", 1)
