"""File contents: long sequential and short random reads and writes."""

from __future__ import annotations

import itertools
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
FILES_LOOKED_AT = 6000
LOOK_DIRECTORIES = 8
LOOK_KNOWN = 16


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
    """While a file is written at full speed: 4 KiB appended to another one, and files looked at and opened.

    Half of those were looked at before, so that the kernel may know them; the others nobody has seen since the mount.
    """
    unseen, known = _files_to_look_at(bench)
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    size = bench.count(SEQUENTIAL_MIB) * MIB
    other = context.Process(target=write_until, args=(bench.folder / "long", bytes(bench.block(MIB)), size, stop))
    taken: dict[str, list[float]] = {what: [] for what in ("write", "stat known", "stat", "open known", "open")}
    other.start()
    try:
        until = clock() + bench.count(LATENCY_SECONDS * 10) / 10
        with opened(bench.folder / "short", os.O_WRONLY | os.O_CREAT | os.O_APPEND) as fd:
            # Two halves: to close a file makes the kernel ask for its blocks at the next stat(2).
            known_turns = map(itertools.cycle, (known[::2], known[1::2]))
            turns = zip(unseen[::2], unseen[1::2], *known_turns, strict=False)
            while clock() < until and (turn := next(turns, None)) is not None:
                to_stat, to_open, known_to_stat, known_to_open = turn
                for what, action in (
                    ("write", lambda: os.write(fd, bench.block(4 * KIB))),
                    ("stat known", partial(os.stat, known_to_stat)),
                    ("stat", partial(os.stat, to_stat)),
                    ("open known", partial(_open_and_close, known_to_open)),
                    ("open", partial(_open_and_close, to_open)),
                ):
                    start = clock()
                    action()
                    taken[what].append(clock() - start)
                stop.wait(PAUSE_SECONDS)
    finally:
        stop.set()
        other.join()
    for what, seconds in taken.items():
        seconds.sort()
        bench.latencies(f"{what} while another writes", seconds)
        bench.put(f"{what} while another writes, longest", seconds[-1] * 1e6, "us", len(seconds))


def _files_to_look_at(bench: Bench) -> tuple[list[Path], list[Path]]:
    """Small files, nobody's since the mount but for the second list's, over some directories."""
    paths = []
    for index in range(bench.count(FILES_LOOKED_AT)):
        folder = bench.folder / f"d{index % LOOK_DIRECTORIES}"
        if index < LOOK_DIRECTORIES:
            folder.mkdir()
        paths.append(folder / f"{index}")
        paths[-1].write_bytes(bench.block(KIB))
    bench.cold()
    unseen, known = paths[LOOK_KNOWN:], paths[:LOOK_KNOWN]
    for path in known:
        os.stat(path)
    return unseen, known


def _open_and_close(path: Path) -> None:
    os.close(os.open(path, os.O_RDONLY))
