"""Small files and directories: creating, looking, renaming, removing."""

from __future__ import annotations

import multiprocessing
import os
import random
from multiprocessing.synchronize import Barrier
from pathlib import Path

from bench_lib.measure import KIB, Bench, clock
from bench_lib.peers import BenchError

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
SMALL_FILES = 2000
SMALL_FILE_BYTES = 4 * KIB
DIRECTORIES = 20
CREATORS = 4


def write_new(path: Path | str, data: bytes | memoryview) -> None:
    """Create a file with these contents."""
    fd = os.open(path, NEW, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def read_whole(path: str) -> bytes:
    """Open, read, close a small file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 2 * SMALL_FILE_BYTES)
    finally:
        os.close(fd)


def small_files(bench: Bench) -> None:
    """4 KiB files, spread over some directories."""
    for index in range(DIRECTORIES):
        os.mkdir(bench.folder / f"d{index:02}")
    names = [
        str(bench.folder / f"d{index % DIRECTORIES:02}" / f"file{index:05}")
        for index in range(bench.count(SMALL_FILES))
    ]
    created = bench.loop(
        "create 4 KiB", names, lambda name: write_new(name, bench.block(SMALL_FILE_BYTES)), settle=True
    )
    names = names[: len(created)]
    in_disorder = random.Random(2).sample(names, len(names))
    bench.cold()
    bench.loop("stat cold", in_disorder, os.stat)
    bench.loop("stat warm", in_disorder, os.stat)
    bench.cold()
    bench.loop("read small cold", names, read_whole)
    bench.loop("read small warm", names, read_whole)
    renamed = bench.loop("rename", names, lambda name: os.rename(name, f"{name}.renamed"), settle=True)
    names = names[: len(renamed)]
    for name in names:
        os.stat(f"{name}.renamed")
    bench.loop("unlink", names, lambda name: os.unlink(f"{name}.renamed"), settle=True)


def one_directory(bench: Bench) -> None:
    """Many entries in one directory."""
    names = [str(bench.folder / f"entry-{index:05}") for index in range(bench.count(SMALL_FILES))]
    created = bench.loop("create empty", names, lambda name: os.close(os.open(name, NEW, 0o644)), settle=True)
    entries = len(created)

    def list_names() -> None:
        assert len(os.listdir(bench.folder)) == entries

    def list_with_stat() -> None:
        with os.scandir(bench.folder) as listing:
            assert sum(entry.stat(follow_symlinks=False).st_nlink for entry in listing) == entries

    for state, prepare in (("cold", bench.cold), ("warm", lambda: None)):
        prepare()
        bench.loop(f"readdir {state}", [0], lambda _: list_names(), unit="entries/s", weight=entries)
    for state, prepare in (("cold", bench.cold), ("warm", lambda: None)):
        prepare()
        bench.loop(f"ls -l {state}", [0], lambda _: list_with_stat(), unit="entries/s", weight=entries)


def directories(bench: Bench) -> None:
    """Making and removing directories."""
    names = [str(bench.folder / f"dir-{index:05}") for index in range(bench.count(SMALL_FILES // 2))]
    made = bench.loop("mkdir", names, os.mkdir, settle=True)
    for name in names[: len(made)]:
        os.stat(name)
    bench.loop("rmdir", names[: len(made)], os.rmdir, settle=True)


def create_many(folder: Path, count: int, data: bytes, start: Barrier) -> None:
    """One of the parallel creators."""
    start.wait()
    for index in range(count):
        write_new(folder / f"f{index:05}", data)


def parallel_creators(bench: Bench) -> None:
    """Several processes, each creating 4 KiB files in a directory of its own."""
    context = multiprocessing.get_context("fork")
    count = bench.count(SMALL_FILES // 4)
    start = context.Barrier(CREATORS + 1)
    creators = []
    for index in range(CREATORS):
        folder = bench.folder / str(index)
        folder.mkdir()
        data = bytes(bench.block(SMALL_FILE_BYTES))
        creators.append(context.Process(target=create_many, args=(folder, count, data, start)))
    for creator in creators:
        creator.start()
    cpu = bench.server.cpu_us()
    start.wait()
    began = clock()
    for creator in creators:
        creator.join()
    seconds = clock() - began
    cpu = (bench.server.cpu_us() - cpu) / (CREATORS * count)
    if any(creator.exitcode for creator in creators):
        raise BenchError("a parallel creator failed")
    files = CREATORS * count
    bench.put(f"create 4 KiB by {CREATORS} processes", files / seconds, "/s", files, cpu)
