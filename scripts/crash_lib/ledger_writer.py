"""A program that writes to a mount and keeps a ledger, elsewhere, of what fsync acknowledged; and reads both.

The writer is run as `python ledger_writer.py FOLDER LEDGER SEED` and goes on until the file system fails under it. A
line goes into the ledger after fsync has returned and never before, so whatever the ledger says must be there after
any crash. What is there beyond it is allowed, if it is something that was being written; nothing else is.

Contents are computed from seed, name and position, so a reader needs nothing but the ledger.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path

PAGE_BYTES = 4096
PAGES = 64

Ledger = dict[tuple[str, str], int]
"""What was acknowledged: from (kind, name) to the highest number that the ledger holds for it."""


class Writer:
    """One of the writer's processes: a folder, a ledger, a source of chance."""

    def __init__(self, folder: Path, ledger: int, seed: str) -> None:
        self.folder = folder
        self.seed = seed
        self.choose = random.Random(seed)
        self._ledger = ledger

    def acknowledge(self, kind: str, name: str, number: int) -> None:
        """One line, written at once and in one piece."""
        os.write(self._ledger, json.dumps([kind, name, number]).encode() + b"\n")


def sync_folder(folder: Path) -> None:
    """fsync a directory."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def page_of(name: str, page: int, version: int = 0) -> bytes:
    """The contents of one page of a file in one version, which begin with that version."""
    digest = hashlib.blake2b(f"{name} {page} {version}".encode()).digest()
    return version.to_bytes(8, "little") + (digest * (PAGE_BYTES // len(digest)))[8:]


def content_of(name: str, size: int, version: int = 0) -> bytes:
    """The first `size` bytes of a file."""
    pages = -(-size // PAGE_BYTES)
    return b"".join(page_of(name, page, version) for page in range(pages))[:size]


# ------------------------------------------------------------------------------------------------
# what is written; each function runs in a process of its own until the mount dies


def append(writer: Writer) -> None:
    """Files that grow at their ends."""
    sizes = dict.fromkeys(("append-0", "append-1"), 0)
    files = {name: os.open(writer.folder / name, os.O_RDWR | os.O_CREAT, 0o644) for name in sizes}
    while True:
        name = writer.choose.choice(list(sizes))
        before, after = sizes[name], sizes[name] + writer.choose.randrange(1, 20_000)
        first_page = before // PAGE_BYTES
        data = b"".join(page_of(name, page) for page in range(first_page, after // PAGE_BYTES + 1))
        start = before - first_page * PAGE_BYTES
        os.pwrite(files[name], data[start : start + after - before], before)
        writer.choose.choice((os.fsync, os.fdatasync))(files[name])
        sizes[name] = after
        writer.acknowledge("size", name, after)


def create(writer: Writer) -> None:
    """New files, small and large, fsynced each."""
    for number in itertools.count():
        name = f"new-{number}"
        size = int(writer.choose.expovariate(1 / 20_000))
        fd = os.open(writer.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, content_of(name, size))
        os.fsync(fd)
        os.close(fd)
        writer.acknowledge("size", name, size)


def overwrite(writer: Writer) -> None:
    """Pages of one file written over and over, by write and through a mapping."""
    fd = os.open(writer.folder / "pages", os.O_RDWR | os.O_CREAT, 0o644)
    os.ftruncate(fd, PAGES * PAGE_BYTES)
    with mmap.mmap(fd, PAGES * PAGE_BYTES) as mapping:
        for version in itertools.count(1):
            pages = writer.choose.sample(range(PAGES), writer.choose.randrange(1, 4))
            mapped = version % 4 == 0
            for page in pages:
                start, content = page * PAGE_BYTES, page_of("pages", page, version)
                if mapped:
                    mapping[start : start + PAGE_BYTES] = content
                else:
                    os.pwrite(fd, content, start)
            if mapped:
                mapping.flush()
            else:
                os.fsync(fd)
            for page in pages:
                writer.acknowledge("page", str(page), version)


def replace(writer: Writer) -> None:
    """The way editors save: a new file, fsynced, renamed over the old one."""
    for version in itertools.count(1):
        unfinished = writer.folder / "replaced.unfinished"
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(fd, content_of("replaced", 3 * PAGE_BYTES, version))
        os.fsync(fd)
        os.close(fd)
        os.rename(unfinished, writer.folder / "replaced")
        sync_folder(writer.folder)
        writer.acknowledge("version", "replaced", version)


def remove(writer: Writer) -> None:
    """Files that were durable and are durably gone."""
    for number in itertools.count():
        name = f"gone-{number}"
        fd = os.open(writer.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(fd, content_of(name, PAGE_BYTES))
        os.fsync(fd)
        os.close(fd)
        os.unlink(writer.folder / name)
        sync_folder(writer.folder)
        writer.acknowledge("gone", name, 1)


def resize(writer: Writer) -> None:
    """A file that is cut off and written further, in turns."""
    fd = os.open(writer.folder / "resized", os.O_RDWR | os.O_CREAT, 0o644)
    size = 0
    for version in itertools.count(1):
        size, before = resized_to(version), size
        if size < before:
            os.ftruncate(fd, size)
        else:
            os.pwrite(fd, content_of("resized", size)[before:], before)
        os.fsync(fd)
        writer.acknowledge("resize", "resized", version)


def resized_to(version: int) -> int:
    """The size of the resized file in one version."""
    return random.Random(version).randrange(200_000)


def move(writer: Writer) -> None:
    """A file that goes back and forth between two directories; its name counts the moves."""
    folders = [writer.folder / "here", writer.folder / "there"]
    for folder in folders:
        folder.mkdir()
    (folders[0] / "0").write_bytes(content_of("moved", PAGE_BYTES))
    for number in itertools.count(1):
        os.rename(folders[(number - 1) % 2] / str(number - 1), folders[number % 2] / str(number))
        for folder in folders:
            sync_folder(folder)
        writer.acknowledge("moves", "moved", number)


def disturb(writer: Writer) -> None:
    """Load of which nothing is promised: trees made, moved about and deleted, large files, no fsync anywhere."""
    for number in itertools.count():
        top = writer.folder / f"unsynced-{number}"
        top.mkdir()
        for file in range(writer.choose.randrange(200)):
            (top / f"file-{file}").write_bytes(b"u" * writer.choose.randrange(30_000))
        with open(top / "large", "wb") as large:
            large.write(bytes(2_000_000))
        os.rename(top, writer.folder / f"moved-{number}")
        if number >= 2:
            old = writer.folder / f"moved-{number - 2}"
            for name in os.listdir(old):
                os.unlink(old / name)
            old.rmdir()


WORK: tuple[Callable[[Writer], None], ...] = (append, create, overwrite, replace, remove, resize, move, disturb)


LIVE_MOUNT = b"one failed on a live mount"
"""What is said when the mount still answers."""


def run_until_failure(work: Callable[[Writer], None], writer: Writer) -> None:
    """One process of the writer; the end of the mount is its proper end, told on stderr by error number."""
    try:
        work(writer)
    except OSError as error:
        os.write(2, f"{error.errno} {work.__name__}: {error}\n".encode())


def main() -> None:
    """Write until the file system fails."""
    folder, ledger, seed = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND), sys.argv[3]
    context = multiprocessing.get_context("fork")
    processes = []
    for work in WORK:
        writer = Writer(folder / work.__name__, ledger, f"{seed} {work.__name__}")
        writer.folder.mkdir(parents=True)
        processes.append(context.Process(target=run_until_failure, args=(work, writer), daemon=True))
    for process in processes:
        process.start()
    wait([process.sentinel for process in processes])
    with suppress(OSError):
        os.statvfs(folder)
        os.write(2, LIVE_MOUNT + b"\n")  # at once, or the line of another process could come in between
        sys.exit(1)
    for process in processes:
        process.join()


# ------------------------------------------------------------------------------------------------
# reading what is left


def read_ledger(path: Path) -> Ledger:
    """The highest number for everything that was acknowledged."""
    ledger: Ledger = {}
    for line in path.read_text().splitlines():
        kind, name, number = json.loads(line)
        ledger[kind, name] = max(number, ledger.get((kind, name), 0))
    return ledger


def complaints(folder: Path, ledger: Ledger) -> Iterator[str]:
    """One line for everything that was acknowledged and is not there, or is there and was never written."""
    for (kind, name), number in ledger.items():
        match kind:
            case "size":
                owner = "append" if name.startswith("append") else "create"
                yield from _complain_of_file(folder / owner / name, name, number)
            case "page":
                yield from _complain_of_page(folder / "overwrite" / "pages", int(name), number)
            case "version":
                yield from _complain_of_version(folder / "replace" / name, number)
            case "resize":
                yield from _complain_of_resized(folder / "resize" / name, number)
            case "moves":
                yield from _complain_of_moved(folder / "move", number)
            case "gone":
                if (folder / "remove" / name).exists():
                    yield f"{name}: was durably removed and is there"


def _complain_of_file(path: Path, name: str, size: int) -> Iterator[str]:
    try:
        found = path.read_bytes()
    except OSError as error:
        yield f"{name}: {size} bytes were fsynced: {error}"
        return
    if len(found) < size:
        yield f"{name}: {size} bytes were fsynced, {len(found)} are there"
    elif found[:size] != content_of(name, size):
        wrong = next(at for at in range(size) if found[at] != content_of(name, size)[at])
        yield f"{name}: wrong from byte {wrong} on, {size} were fsynced"
    wanted = content_of(name, len(found))
    for start in range(size, len(found)):
        if found[start] not in (wanted[start], 0):
            yield f"{name}: byte {start}, never fsynced, was never written either"
            return


def _complain_of_page(path: Path, page: int, version: int) -> Iterator[str]:
    with path.open("rb") as file:
        found = os.pread(file.fileno(), PAGE_BYTES, page * PAGE_BYTES)
    there = int.from_bytes(found[:8], "little")
    if there < version:
        yield f"page {page}: version {version} was fsynced, {there} is there"
    elif found != page_of("pages", page, there):
        yield f"page {page}: version {version} was fsynced, {there} is there, but torn"


def _complain_of_version(path: Path, version: int) -> Iterator[str]:
    try:
        found = path.read_bytes()
    except OSError as error:
        yield f"{path.name}: version {version} was durable: {error}"
        return
    there = int.from_bytes(found[:8], "little")
    if there < version:
        yield f"{path.name}: version {version} was durable, {there} is there"
    elif found != content_of(path.name, 3 * PAGE_BYTES, there):
        yield f"{path.name}: version {there} is not whole"


def _complain_of_resized(path: Path, version: int) -> Iterator[str]:
    """The crash may have come before, after or in the middle of the next change."""
    found = path.read_bytes()
    smaller, larger = sorted((resized_to(version), resized_to(version + 1)))
    if not smaller <= len(found) <= larger:
        yield f"{path.name}: version {version} was fsynced, {smaller} to {larger} bytes; {len(found)} are there"
    elif found[:smaller] != content_of(path.name, smaller):
        yield f"{path.name}: version {version} was fsynced, what is there is not what was written"


def _complain_of_moved(folder: Path, number: int) -> Iterator[str]:
    """One name at any time: that of the last move, or of the one that was under way."""
    names = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*"))
    allowed = [[f"{('here', 'there')[count % 2]}/{count}"] for count in (number, number + 1)]
    if names not in allowed:
        yield f"moved: {number} moves were durable, it is called {names}"
    elif (folder / names[0]).read_bytes() != content_of("moved", PAGE_BYTES):
        yield "moved: not what was written"


if __name__ == "__main__":
    main()
