"""Many files, large files, many writers, and fio's own verification."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hammer_mount import FULL, HammerMount, run

pytestmark = [pytest.mark.real, pytest.mark.mount, pytest.mark.slow]

ENTRIES = 100_000 if FULL else 20_000
FIO_MIB = 256 if FULL else 16
WRITERS = 4
WRITER_FILES = 1500 if FULL else 250
LOG_LINES = 3000 if FULL else 500
SPARSE_BYTES = 20 << 30


@pytest.mark.programs("fio")
@pytest.mark.parametrize(("engine", "block_bytes_min"), [("psync", 512), ("mmap", 4096)])
def test_fio_verifies(hammer: HammerMount, engine: str, block_bytes_min: int) -> None:
    run(
        "fio", "--name=mixed", f"--directory={hammer.path}", "--numjobs=4", f"--size={FIO_MIB}M",
        "--rw=randrw", "--rwmixread=40", f"--bsrange={block_bytes_min}-64k", f"--ioengine={engine}",
        "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--do_verify=1", "--fsync=200",
    )  # fmt: skip
    before = digests(hammer.path)
    assert len(before) == 4
    hammer.remount()
    assert digests(hammer.path) == before


def digests(top: Path) -> dict[str, str]:
    """A digest of every file in a folder."""
    found = {}
    for path in top.iterdir():
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "blake2b").hexdigest()
    return found


# ------------------------------------------------------------------------------------------------
# several writers


def file_content(writer: int, number: int) -> bytes:
    """What a writer's file holds in the end."""
    choose = random.Random(f"{writer} {number}")
    return choose.randbytes(int(choose.expovariate(1 / 12_000)))


def write_files(top: Path, writer: int) -> None:
    """One writer: files of its own in a shared directory, and lines in a shared log."""
    log = os.open(top / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    choose = random.Random(writer)
    for number in range(WRITER_FILES):
        content = file_content(writer, number)
        unfinished = top / f"unfinished-{writer}-{number}"
        with open(unfinished, "wb") as file:
            cut = choose.randrange(len(content) + 1)
            file.write(content[:cut] + b"to be cut off")
            file.truncate(cut)
            file.seek(cut)
            file.write(content[cut:])
            if number % 20 == 0:
                os.fsync(file.fileno())
        unfinished.rename(top / f"file-{writer}-{number}")
        if number % 4 == 3:
            os.unlink(top / f"file-{writer}-{number}")
    for number in range(LOG_LINES):
        os.write(log, f"{writer} {number} {'x' * choose.randrange(200)}\n".encode())
    os.close(log)


def assert_all_written(top: Path) -> None:
    expected = {"log"} | {
        f"file-{writer}-{number}" for writer in range(WRITERS) for number in range(WRITER_FILES) if number % 4 != 3
    }
    assert set(os.listdir(top)) == expected
    for name in sorted(expected - {"log"}):
        _, writer, number = name.split("-")
        assert (top / name).read_bytes() == file_content(int(writer), int(number)), name
    numbers: dict[str, list[int]] = {str(writer): [] for writer in range(WRITERS)}
    for line in (top / "log").read_text().splitlines():
        numbers[line.split()[0]].append(int(line.split()[1]))
    assert all(found == list(range(LOG_LINES)) for found in numbers.values())


def test_four_processes_write_at_once(hammer: HammerMount) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_files, args=(hammer.path, writer)) for writer in range(WRITERS)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0] * WRITERS
    assert_all_written(hammer.path)
    hammer.remount()
    assert_all_written(hammer.path)


# ------------------------------------------------------------------------------------------------
# large ones


def test_one_large_directory(hammer: HammerMount) -> None:
    top = hammer.path / "large"
    top.mkdir()
    choose = random.Random(3)
    names = [f"{choose.randbytes(choose.randrange(4, 40)).hex()}-{number}" for number in range(ENTRIES)]
    for number, name in enumerate(names):
        with open(top / name, "wb", buffering=0) as file:
            file.write(b"%d" % number)
    assert sorted(os.listdir(top)) == sorted(names)
    hammer.remount()
    assert sorted(os.listdir(top)) == sorted(names)
    for number in choose.sample(range(ENTRIES), 500):
        assert (top / names[number]).read_bytes() == b"%d" % number
    for number, name in enumerate(names):
        if number % 2:
            os.unlink(top / name)
        elif number % 10 == 0:
            os.rename(top / name, top / f"renamed-{number}")
    left = {f"renamed-{n}" if n % 10 == 0 else names[n] for n in range(0, ENTRIES, 2)}
    with os.scandir(top) as listing:
        sizes = {entry.name: entry.stat().st_size for entry in listing}
    assert sizes == {name: len(str(n)) for name, n in sizes_of(names).items() if name in left}
    hammer.remount()
    assert set(os.listdir(top)) == left


def sizes_of(names: list[str]) -> dict[str, int]:
    """The number of every file after the renames, which is what it holds."""
    return {f"renamed-{n}" if n % 10 == 0 else name: n for n, name in enumerate(names) if n % 2 == 0}


def test_a_sparse_file_of_20_gib(hammer: HammerMount) -> None:
    path = hammer.path / "sparse"
    choose = random.Random(4)
    starts = [0, SPARSE_BYTES - 5000, *(choose.randrange(SPARSE_BYTES - 100_000) & ~0xFFF for _ in range(50))]
    pieces = {start: choose.randbytes(5000) for start in sorted(starts)}
    with open(path, "wb") as file:
        file.truncate(SPARSE_BYTES)
        for start, piece in pieces.items():
            file.seek(start)
            file.write(piece)
    assert_sparse(path, pieces, samples=200)
    hammer.remount()
    assert_sparse(path, pieces, samples=SPARSE_BYTES >> 20 if FULL else 1000)
    os.truncate(path, SPARSE_BYTES // 2)
    os.truncate(path, SPARSE_BYTES)
    half = {start: piece for start, piece in pieces.items() if start + len(piece) <= SPARSE_BYTES // 2}
    hammer.remount()
    assert_sparse(path, half, samples=200)


def assert_sparse(path: Path, pieces: dict[int, bytes], samples: int) -> None:
    """Each piece is where it was written, and samples of a megabyte, spread evenly, hold nothing else."""
    assert path.stat().st_size == SPARSE_BYTES
    with open(path, "rb", buffering=0) as file:
        for start, piece in pieces.items():
            assert os.pread(file.fileno(), len(piece), start) == piece
        for sample in range(samples):
            offset = sample * (SPARSE_BYTES // samples) & ~0xFFF
            expected = bytearray(1 << 20)
            for start, piece in pieces.items():
                if offset < start + len(piece) and start < offset + len(expected):
                    within = piece[max(offset - start, 0) : max(offset + len(expected) - start, 0)]
                    at = max(start - offset, 0)
                    expected[at : at + len(within)] = within
            expected = expected[: SPARSE_BYTES - offset]
            assert os.pread(file.fileno(), 1 << 20, offset) == expected, f"at {offset}"


def test_a_sparse_image_of_4_tib(hammer_mount: Callable[..., HammerMount]) -> None:
    hammer = hammer_mount(size="4T", mkfs=())
    hammer.mount()
    data = random.Random(5).randbytes(1 << 20)
    for number in range(64):
        (hammer.path / f"file-{number}").write_bytes(data)
    space = os.statvfs(hammer.path)
    assert space.f_blocks * space.f_frsize > 3.99 * (1 << 40)
    assert space.f_bavail * space.f_frsize > 3.98 * (1 << 40)
    assert hammer.image.stat().st_blocks * 512 < 2 << 30
    hammer.remount()
    assert all((hammer.path / f"file-{number}").read_bytes() == data for number in range(64))
