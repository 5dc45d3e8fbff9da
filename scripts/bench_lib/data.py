"""File contents: long sequential and short random reads and writes."""

from __future__ import annotations

import multiprocessing
import os
import random
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

from bench_lib.measure import KIB, MIB, Bench, clock, opened

SEQUENTIAL_MIB = 256
RANDOM_MIB = 128
RANDOM_READS = 2000
RANDOM_WRITES = 4000
LATENCY_SECONDS = 10
PAUSE_SECONDS = 0.002


def write_file(bench: Bench, path: Path, block_bytes: int, size: int, row: str | None = None) -> None:
    """Write a file from start to end and fsync it, as a row if it has a name."""
    blocks = range(size // block_bytes)
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
        if row is None:
            for _ in blocks:
                os.write(fd, bench.block(block_bytes))
            os.fsync(fd)
        else:
            bench.loop(
                row,
                blocks,
                lambda _: os.write(fd, bench.block(block_bytes)),
                finish=lambda: os.fsync(fd),
                unit="MB/s",
                weight=block_bytes / 1e6,
            )


def read_file(path: Path) -> None:
    """Read a file from start to end."""
    with opened(path, os.O_RDONLY) as fd:
        while os.read(fd, MIB):
            pass


def sequential(bench: Bench) -> None:
    """A large file written, then read."""
    size = bench.count(SEQUENTIAL_MIB) * MIB
    for block_bytes, unit in ((128 * KIB, "128 KiB"), (MIB, "1 MiB")):
        write_file(bench, bench.folder / unit, block_bytes, size, f"sequential write {unit}")
    path = bench.folder / "1 MiB"
    megabytes = path.stat().st_size / 1e6
    bench.cold()
    bench.loop("sequential read cold", [0], lambda _: read_file(path), unit="MB/s", weight=megabytes)
    bench.loop("sequential read warm", range(3), lambda _: read_file(path), unit="MB/s", weight=megabytes)


def random_access(bench: Bench) -> None:
    """Blocks of a file in random order."""
    path = bench.folder / "random"
    size = bench.count(RANDOM_MIB) * MIB
    write_file(bench, path, MIB, size)
    choose = random.Random(3)
    for block_bytes in (4 * KIB, 16 * KIB):
        offsets = [choose.randrange(size // block_bytes) * block_bytes for _ in range(bench.count(RANDOM_READS))]
        bench.cold()
        with opened(path, os.O_RDONLY) as fd:
            bench.loop(f"random read {block_bytes // KIB} KiB cold", offsets, partial(os.pread, fd, block_bytes))
    offsets = [choose.randrange(size // (4 * KIB)) * 4 * KIB for _ in range(bench.count(RANDOM_WRITES))]
    with opened(path, os.O_RDWR) as fd:
        bench.loop(
            "random write 4 KiB",
            offsets,
            lambda offset: os.pwrite(fd, bench.block(4 * KIB), offset),
            finish=lambda: os.fsync(fd),
        )


def write_until(path: Path, data: bytes, size: int, stop: Event) -> None:
    """Write a file over and over in blocks of `data`."""
    offset = 0
    with opened(path, os.O_WRONLY | os.O_CREAT) as fd:
        while not stop.is_set():
            os.pwrite(fd, data, offset)
            offset = (offset + len(data)) % size


def latency_while_writing(bench: Bench) -> None:
    """4 KiB appended to a file every few milliseconds while another one is written at full speed."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    size = bench.count(SEQUENTIAL_MIB) * MIB
    other = context.Process(target=write_until, args=(bench.folder / "long", bytes(bench.block(MIB)), size, stop))
    seconds = []
    other.start()
    try:
        until = clock() + bench.count(LATENCY_SECONDS * 10) / 10
        with opened(bench.folder / "short", os.O_WRONLY | os.O_CREAT | os.O_APPEND) as fd:
            while (start := clock()) < until:
                os.write(fd, bench.block(4 * KIB))
                seconds.append(clock() - start)
                stop.wait(PAUSE_SECONDS)
    finally:
        stop.set()
        other.join()
    seconds.sort()
    bench.latencies("write while another writes", seconds)
    bench.put("write while another writes, longest", seconds[-1] * 1e6, "us", len(seconds))
