"""A file system that was full for long: whether it keeps the speed that it had when it was new.

It is filled to 99 %, and then each day a part of its files goes, space is tidied up as a nightly job does it, and new
files come until it is as full as before.
"""

from __future__ import annotations

import errno
import os
import random
import statistics
from collections.abc import Callable

from bench_lib.measure import KIB, MIB, Bench, opened
from bench_lib.metadata import read_whole, write_new

FULL = 0.99
YOUNG_FILES = 3000
DAYS = 8
REPLACED_EACH_DAY = 0.05
PROBES = 5
PROBED_FILES = 400
FILES_PER_DIRECTORY = 100
SIZES = (500, 2000, 4096, 4096, 9000, 20_000, 60_000, 500_000, MIB, MIB)
"""Bytes of the files, of which each is as likely as any other."""


class Tree:
    """The files that fill the file system."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._choose = random.Random(8)
        self._made = 0
        self.paths: list[str] = []

    @property
    def is_full(self) -> bool:
        told = os.statvfs(self._bench.folder)
        return told.f_bavail < told.f_blocks * (1 - FULL)

    def grow(self) -> bool:
        """One more file; False when it finds no space."""
        folder = self._bench.folder / f"{self._made // FILES_PER_DIRECTORY:05}"
        path = folder / f"{self._made % FILES_PER_DIRECTORY:02}"
        self._made += 1
        try:
            folder.mkdir(exist_ok=True)
            write_new(path, self._bench.block(self._choose.choice(SIZES)))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            path.unlink(missing_ok=True)
            return False
        self.paths.append(str(path))
        return True

    def fill(self) -> None:
        """Until it is full."""
        while not self.is_full and self.grow():
            pass
        os.sync()

    def thin_out(self, share: float) -> None:
        """Remove files of all ages."""
        for _ in range(int(len(self.paths) * share)):
            index = self._choose.randrange(len(self.paths))
            self.paths[index], self.paths[-1] = self.paths[-1], self.paths[index]
            os.unlink(self.paths.pop())
        os.sync()

    def sample(self, count: int) -> list[str]:
        """Some files, in no order."""
        return self._choose.sample(self.paths, min(count, len(self.paths)))


def aged(bench: Bench) -> None:
    """The same short work on a new file system and on an old, full one; medians of several times each.

    Nothing where it would fill the disk, which other programs need.
    """
    if not bench.has_size:
        return
    tree = Tree(bench)
    for _ in range(bench.count(YOUNG_FILES)):
        tree.grow()
    young = [_probe(bench, tree, "new") for _ in range(PROBES)]
    tree.fill()
    for _ in range(DAYS):
        tree.thin_out(REPLACED_EACH_DAY)
        bench.tidy()
        tree.fill()
    old = [_probe(bench, tree, "old") for _ in range(PROBES)]
    for name in young[0]:
        ratio = statistics.median(each[name] for each in old) / statistics.median(each[name] for each in young)
        bench.put(f"{name}, old to new", ratio, "times", PROBES)
    bench.check("check of the old image")


def _probe(bench: Bench, tree: Tree, age: str) -> dict[str, float]:
    """Rates of creating, overwriting and removing small files, and of reading some of the others cold."""
    folder = bench.folder / "probe"
    folder.mkdir()
    count = bench.count(PROBED_FILES)
    names = [f"{folder}/{number:04}" for number in range(count)]
    rates = {}

    def measured(
        what: str, items: list[str], action: Callable[[str], object], finish: Callable[[], object] | None = os.sync
    ) -> None:
        bench.loop(f"{what}, {age}", items, action, finish=finish, bounded=False)
        rates[what] = bench.rows[-1].value

    measured("create 4 KiB", names, lambda name: write_new(name, bench.block(4 * KIB)))
    measured("overwrite 4 KiB", names, lambda name: _overwrite(name, bench.block(4 * KIB)))
    measured("unlink", names, os.unlink)
    folder.rmdir()
    some = tree.sample(count)
    bench.cold()
    measured("read cold", some, read_whole, finish=None)
    return rates


def _overwrite(path: str, data: memoryview) -> None:
    with opened(path, os.O_WRONLY) as fd:
        os.pwrite(fd, data, 0)
