"""What it takes until data is on stable storage: fsync, and databases that live by it."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing

from bench_lib.measure import KIB, Bench, opened
from bench_lib.peers import BenchError

FSYNCS = 500
TRANSACTIONS = 1000
PAGE_BYTES = 4 * KIB


def fsync(bench: Bench) -> None:
    """Write 4 KiB and fsync, at the end of a file and inside it."""
    count = bench.count(FSYNCS)
    choose = random.Random(4)
    with opened(bench.folder / "file", os.O_RDWR | os.O_CREAT) as fd:

        def write_durably(page: int) -> None:
            os.pwrite(fd, bench.block(PAGE_BYTES), page * PAGE_BYTES)
            os.fsync(fd)

        appends = bench.loop("fsync append", range(count), write_durably)
        bench.latencies("fsync append", appends)
        pages = [choose.randrange(len(appends)) for _ in range(count)]
        bench.latencies("fsync overwrite", bench.loop("fsync overwrite", pages, write_durably))


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
