"""File contents: long sequential and short random reads and writes."""

from __future__ import annotations

import multiprocessing
import os
import random
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

from bench_lib.measure import KIB, MIB, Bench, clock

SEQUENTIAL_MIB = 256
RANDOM_MIB = 128
RANDOM_READS = 2000
RANDOM_WRITES = 4000
PAUSE_SECONDS = 0.002


def write_file(bench: Bench, path: Path, block_bytes: int, size: int, row: str | None = None) -> None:
    """Write a file from start to end and fsync it, as a row if it has a name."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    blocks = range(size // block_bytes)
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
    os.close(fd)


def read_file(path: Path) -> None:
    """Read a file from start to end."""
    fd = os.open(path, os.O_RDONLY)
    while os.read(fd, MIB):
        pass
    os.close(fd)


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
        fd = os.open(path, os.O_RDONLY)
        read = partial(os.pread, fd, block_bytes)
        bench.loop(f"random read {block_bytes // KIB} KiB cold", offsets, read)
        os.close(fd)
    offsets = [choose.randrange(size // (4 * KIB)) * 4 * KIB for _ in range(bench.count(RANDOM_WRITES))]
    fd = os.open(path, os.O_RDWR)
    bench.loop(
        "random write 4 KiB",
        offsets,
        lambda offset: os.pwrite(fd, bench.block(4 * KIB), offset),
        finish=lambda: os.fsync(fd),
    )
    os.close(fd)


def write_until(path: Path, data: bytes, size: int, stop: Event) -> None:
    """Write a file over and over in blocks of `data`."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    offset = 0
    while not stop.is_set():
        os.pwrite(fd, data, offset)
        offset = (offset + len(data)) % size
    os.close(fd)


def latency_while_writing(bench: Bench) -> None:
    """4 KiB written into one file every few milliseconds, fsynced or not, while another is written at full speed."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    size = bench.count(SEQUENTIAL_MIB) * MIB
    other = context.Process(target=write_until, args=(bench.folder / "long", bytes(bench.block(MIB)), size, stop))
    fd = os.open(bench.folder / "short", os.O_RDWR | os.O_CREAT, 0o644)
    seconds = []
    other.start()
    until = clock() + bench.count(100) / 10
    offset = 0
    while (start := clock()) < until:
        os.pwrite(fd, bench.block(4 * KIB), offset)
        seconds.append(clock() - start)
        offset += 4 * KIB
        stop.wait(PAUSE_SECONDS)
    stop.set()
    other.join()
    os.close(fd)
    seconds.sort()
    bench.latencies("pwrite while another writes", seconds)
    bench.put("pwrite while another writes, longest", seconds[-1] * 1e6, "us", len(seconds))
