"""An image file with a short, well-known past, for tests of the commands that look into it.

All times are those of a clock that ticks by a millisecond at each look, so that TIDs and times are the same in every
run.  `PastImage.states` has the TIDs of its flushes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from small_filesystem import DIRECTORY, FIFO_SIZE, FILE, FSID, START_US, VOLUME_SIZE, ticking

from hammerfs.device.file import FileDevice
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.ondisk.constants import MAX_TID
from hammerfs.ops.mkfs import FormatRequest, plan_format, write_file_system

SECOND = 1_000_000
TICKS_PER_SECOND = 1000


@dataclass
class PastImage:
    """The image, and the TID of each state of it.

    states -- by the names of the functions below that made them: first, second, third, last
    """

    path: Path
    states: dict[str, int] = field(default_factory=dict)


Step = Callable[[FileSystem], None]


def make(path: Path, fsid: uuid.UUID = FSID, steps: Sequence[tuple[Step, int]] | None = None) -> PastImage:
    """Write the image: a file that changes twice, one that is deleted, one that is replaced, a folder that moves.

    Or what is given in `steps`, each one flush, and how many seconds after the one before.
    """
    path.touch()
    with path.open("r+b") as file:
        file.truncate(VOLUME_SIZE)
    device = FileDevice(str(path), writable=True)
    request = FormatRequest("past", version=7, undo_size=FIFO_SIZE, fsid=fsid, time_ns=START_US * 1000, force=True)
    write_file_system(plan_format(request, [VOLUME_SIZE]).layout, [device])
    clock = ticking()
    fs = FileSystem.open([device], MountOptions(flush_seconds=1e6, xattr=True), clock)
    image = PastImage(path)
    for step, seconds in steps or [(step, 10) for step in (_first, _second, _third, _last)]:
        for _ in range(seconds * TICKS_PER_SECOND):
            clock()
        step(fs)
        assert fs.flusher is not None
        fs.flusher.flush_now()
        image.states[step.__name__.lstrip("_")] = fs.flusher.cycle.flush_tid1
    fs.close_now()
    return image


def made(fs: FileSystem, parent: Inode, name: bytes, content: bytes | None = None) -> Inode:
    inode = fs.create(parent, name, DIRECTORY if content is None else FILE, 0o755, 1000, 1000)
    if content:
        fs.write(inode, 0, content)
    return inode


def _first(fs: FileSystem) -> None:
    folder = made(fs, fs.root, b"folder")
    made(fs, folder, b"kept", b"one\n")
    made(fs, folder, b"gone", b"to be deleted\n")
    made(fs, folder, b"swapped", b"the old one\n")
    fs.symlink(folder, b"link", b"kept", 1000, 1000)
    inner = made(fs, folder, b"inner")
    made(fs, inner, b"deep", b"deep\n")


def found(fs: FileSystem, *names: bytes) -> Inode:
    inode = fs.inode(0, 1, MAX_TID)
    for name in names:
        inode = fs.lookup(inode, name)
    return inode


def _second(fs: FileSystem) -> None:
    kept = found(fs, b"folder", b"kept")
    fs.write(kept, 0, b"one\ntwo\n")
    fs.setattr(kept, mode=0o600)
    fs.unlink(found(fs, b"folder"), b"gone")


def _third(fs: FileSystem) -> None:
    folder = found(fs, b"folder")
    fs.write(found(fs, b"folder", b"kept"), 0, b"ONE\ntwo\n")
    fs.unlink(folder, b"swapped")
    made(fs, folder, b"swapped", b"the new one\n")
    fs.rename(folder, b"inner", fs.root, b"outer")


def _last(fs: FileSystem) -> None:
    made(fs, found(fs, b"folder"), b"young", b"young\n")
