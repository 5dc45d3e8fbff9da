"""What it takes until data is on stable storage: fsync, and databases that live by it."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from contextlib import ExitStack, closing
from pathlib import Path

from bench_lib.measure import KIB, MIB, Bench, clock, opened
from bench_lib.peers import BenchError

FSYNCS = 1000
CROWD_THREADS = 16
CROWD_FSYNCS = 200
"""Of each thread."""
TRANSACTIONS = 1000
PAGE_BYTES = 4 * KIB
BARE_BYTES = 16 * MIB


def fsync(bench: Bench) -> None:
    """Write 4 KiB and fsync: at the end of a file, inside it, and at the ends of many by as many threads."""
    bare = _bare(bench)
    count = bench.count(FSYNCS)
    choose = random.Random(4)
    with opened(bench.folder / "file", os.O_RDWR | os.O_CREAT) as fd:

        def write_durably(page: int) -> None:
            os.pwrite(fd, bench.block(PAGE_BYTES), page * PAGE_BYTES)
            os.fsync(fd)

        appends = bench.loop("fsync append", range(count), write_durably)
        _latencies_beyond(bench, "fsync append", appends, bare)
        pages = [choose.randrange(len(appends)) for _ in range(count)]
        overwrites = bench.loop("fsync overwrite", pages, write_durably)
        _latencies_beyond(bench, "fsync overwrite", overwrites, bare)
    _crowd(bench, len(appends) / sum(appends))


def _bare(bench: Bench) -> float:
    """What the disk itself takes for a write into written blocks of a file beside the images; the median in seconds."""
    place = bench.scratch / "bare"
    if not place.exists():
        with opened(place, os.O_WRONLY | os.O_CREAT) as fd:
            for offset in range(0, BARE_BYTES, MIB):
                os.pwrite(fd, bench.block(MIB), offset)
            os.fsync(fd)
    choose = random.Random(4)
    pages = [choose.randrange(BARE_BYTES // PAGE_BYTES) for _ in range(bench.count(FSYNCS))]
    with opened(place, os.O_RDWR) as fd:

        def write_durably(page: int) -> None:
            os.pwrite(fd, bench.block(PAGE_BYTES), page * PAGE_BYTES)
            os.fdatasync(fd)

        seconds = bench.loop("bare fdatasync", pages, write_durably)
        bench.latencies("bare fdatasync", seconds)
    return seconds[len(seconds) // 2]


def _latencies_beyond(bench: Bench, name: str, seconds: list[float], bare: float) -> None:
    """The latencies, and by how much their median exceeds the bare disk's of a moment ago."""
    bench.latencies(name, seconds)
    bench.put(f"{name}, p50 beyond bare", (seconds[len(seconds) // 2] - bare) * 1e6, "us", len(seconds))


def _crowd(bench: Bench, rate_of_one: float) -> None:
    """Threads that append to files of their own and fsync, together; also in units of what one alone reached."""
    count = bench.count(CROWD_FSYNCS)
    block = bytes(bench.block(PAGE_BYTES))
    start = threading.Barrier(CROWD_THREADS + 1)
    failed: list[OSError] = []

    def append_durably(path: Path) -> None:
        with opened(path, os.O_RDWR | os.O_CREAT) as fd:
            start.wait()
            try:
                for page in range(count):
                    os.pwrite(fd, block, page * PAGE_BYTES)
                    os.fsync(fd)
            except OSError as error:
                failed.append(error)

    with ExitStack() as stack:
        for number in range(CROWD_THREADS):
            thread = threading.Thread(target=append_durably, args=(bench.folder / f"crowd{number}",))
            thread.start()
            stack.callback(thread.join)
        start.wait()
        cpu = bench.server.cpu_us()
        began = clock()
    seconds = clock() - began
    if failed:
        raise failed[0]
    total = count * CROWD_THREADS
    name = f"fsync append, {CROWD_THREADS} threads"
    bench.put(name, total / seconds, "/s", total, (bench.server.cpu_us() - cpu) / total)
    bench.put(f"{name} to one", total / seconds / rate_of_one, "times", total)


def sqlite(bench: Bench) -> None:
    """SQLite, one insert per transaction, synchronous=full."""
    for mode, name in (("delete", "rollback"), ("wal", "WAL")):
        with closing(sqlite3.connect(bench.folder / name, isolation_level=None)) as database:
            (granted,) = database.execute(f"pragma journal_mode={mode}").fetchone()
            if granted != mode:
                raise BenchError(f"SQLite could not use journal mode {mode}, only {granted}")
            database.execute("pragma synchronous=full")
            database.execute("create table t(id integer primary key, text text, data blob)")

            def insert(index: int, database: sqlite3.Connection = database) -> None:
                database.execute("begin")
                database.execute("insert into t(text, data) values(?, ?)", (f"row {index}", bytes(100)))
                database.execute("commit")

            bench.loop(f"SQLite {name}", range(bench.count(TRANSACTIONS)), insert, unit="tx/s")
