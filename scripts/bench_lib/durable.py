"""What it takes until data is on stable storage: fsync, and databases that live by it."""

from __future__ import annotations

import os
import random
import sqlite3

from bench_lib.measure import KIB, Bench
from bench_lib.peers import BenchError

FSYNCS = 500
TRANSACTIONS = 1000
PAGE_BYTES = 4 * KIB


def fsync(bench: Bench) -> None:
    """Write 4 KiB and fsync, at the end of a file and inside it."""
    count = bench.count(FSYNCS)
    fd = os.open(bench.folder / "file", os.O_RDWR | os.O_CREAT, 0o644)

    def write_durably(page: int) -> None:
        os.pwrite(fd, bench.block(PAGE_BYTES), page * PAGE_BYTES)
        os.fsync(fd)

    appends = bench.loop("fsync append", range(count), write_durably)
    bench.latencies("fsync append", appends)
    choose = random.Random(4)
    pages = [choose.randrange(len(appends)) for _ in range(count)]
    bench.latencies("fsync overwrite", bench.loop("fsync overwrite", pages, write_durably))
    os.close(fd)


def sqlite(bench: Bench) -> None:
    """SQLite, one insert per transaction, synchronous=full."""
    for mode, name in (("delete", "rollback"), ("wal", "WAL")):
        database = sqlite3.connect(bench.folder / name, isolation_level=None)
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
        database.close()
