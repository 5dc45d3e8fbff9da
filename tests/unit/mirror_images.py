"""Image files for the mirroring programs: a master with a sample in it, and an empty slave."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, closing, redirect_stderr, redirect_stdout
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple, TypeVar

from mirror_pair import make_slave, slave_root, tree
from small_filesystem import FSID, VOLUME_SIZE, assert_clean, formatted, make, mount

from hammerfs.cli.hammer import main
from hammerfs.device.file import FileDevice
from hammerfs.fs.mount import FileSystem

T = TypeVar("T")

SHARED = FSID
PIECE = 256 * 1024


@lru_cache
def _pieces() -> list[tuple[int, bytes]]:
    """What is not zero on a fresh volume."""
    (device,) = formatted()
    pieces = ((offset, device.read(offset, PIECE)) for offset in range(0, device.size, PIECE))
    return [(offset, piece) for offset, piece in pieces if piece.strip(b"\0")]


def new_image(path: Path) -> Path:
    """A small, sparse file with an empty file system."""
    with path.open("wb") as image:
        image.truncate(VOLUME_SIZE)
        for offset, piece in _pieces():
            image.seek(offset)
            image.write(piece)
    return path


def change(image: Path, action: Callable[[FileSystem], object]) -> None:
    """Mount an image, do something, unmount and check it."""
    fs = mount([FileDevice(str(image), writable=True)])
    try:
        action(fs)
    finally:
        fs.close_now()
    check(image)


def check(image: Path) -> None:
    """The checker finds nothing to complain about."""
    with closing(FileDevice(str(image), writable=False)) as device:
        assert_clean([device])


def sample(fs: FileSystem) -> None:
    """Some files."""
    folder = make(fs, fs.root, b"folder")
    for number in range(40):
        make(fs, folder, b"file%d" % number, bytes([number]) * number * 3000)
    fs.symlink(fs.root, b"link", b"folder/file7", 0, 0)


def master(path: Path) -> Path:
    """An image with a sample in its root PFS."""
    change(new_image(path), sample)
    return path


def slave(path: Path) -> Path:
    """An image with an empty slave, and a link to it."""

    def prepare(fs: FileSystem) -> None:
        make_slave(fs, shared=SHARED)
        fs.symlink(fs.root, b"slave", b"@@PFS00001", 0, 0)

    change(new_image(path), prepare)
    return path


def root_tree(image: Path) -> dict[bytes, object]:
    """What an image's root shows."""
    return looked_at(image, lambda fs: tree(fs, fs.root))


def slave_tree(image: Path) -> dict[bytes, object]:
    """What an image's slave shows."""
    return looked_at(image, lambda fs: tree(fs, slave_root(fs)))


def looked_at(image: Path, look: Callable[[FileSystem], T]) -> T:
    """What somebody sees who mounts an image read-only."""
    fs = mount([FileDevice(str(image), writable=False)], read_only=True)
    try:
        return look(fs)
    finally:
        fs.close_now()


class Done(NamedTuple):
    """How a command line ended."""

    returncode: int
    stdout: bytes
    stderr: bytes


def run(*words: str | Path, stdin: bytes = b"") -> Done:
    """A command line of hammer, in this process: a stream needs file descriptors, so these are lent to it."""
    with ExitStack() as stack:
        given, out, err = (stack.enter_context(TemporaryFile()) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        for number, file in ((0, given), (1, out)):
            kept = os.dup(number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(file.fileno(), number)
        with TextIOWrapper(out, write_through=True) as text, TextIOWrapper(err, write_through=True) as complaints:
            with redirect_stdout(text), redirect_stderr(complaints):
                code = main([str(word) for word in words])
            return Done(code, _all(out), _all(err))


def _all(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def hammer(*words: str | Path, stdin: bytes = b"") -> bytes:
    """What a command line prints; it has to succeed."""
    done = run(*words, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
