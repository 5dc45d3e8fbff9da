"""Copying something of the past to where it can be used: contents, links among it, owners, modes, times, attributes.

A copy never replaces anything: whoever wants that removes it first, or copies beside it and renames.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hammerfs.cli.past import READ_SIZE, Status, Tree
from hammerfs.ops.progress import Progress, SilentProgress

_HOLE = 64 * 1024
_LARGE = 64 * 1024 * 1024
"""Bytes from which on it is worth a question where a file has holes."""


def copy_tree(past: Tree, source: str, target: Path, progress: Progress | None = None) -> None:
    """Make `target` what `source` is, with everything below it; OSError names what could not be made.

    Owners are kept where this user may give files away.  `progress` is told of each name.
    """
    _Copy(past, progress or SilentProgress()).copy(source, target)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Say which file is meant where the system does not: it names what cannot be opened, not what cannot be written."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def content_of(past: Tree, source: str) -> Iterator[bytes]:
    """A file's bytes; what keeps them from being read names it."""
    with naming(source):
        yield from past.content(source)


def pieces_of(past: Tree, source: str, size: int) -> Iterator[tuple[int, bytes]]:
    """What a file holds, and at which offset: of a large one without the holes, of which there may be terabytes."""
    ranges = past.ranges(source) if size >= _LARGE else None
    if ranges is not None:
        ranges = _joined(ranges)
    with naming(source):
        for start, end in [(0, None)] if ranges is None else ranges:
            for piece in past.content(source, start):
                yield start, piece if end is None else piece[: end - start]
                start += len(piece)
                if end is not None and start >= end:
                    break


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those together that are read at once: a hole shorter than that costs less than a read of its own."""
    joined: list[tuple[int, int]] = []
    for start, end in ranges:
        if joined and start - joined[-1][1] < READ_SIZE:
            start = joined.pop()[0]
        joined.append((start, end))
    return joined


class _Copy:
    def __init__(self, past: Tree, progress: Progress) -> None:
        self._past = past
        self._progress = progress
        self._copies: dict[tuple[int, int], Path] = {}

    def copy(self, source: str, target: Path) -> None:
        """What waits is a stack, since trees may be deeper than Python calls; a directory waits below its names."""
        waiting: list[tuple[str, Path, Status | None]] = [(source, target, None)]
        while waiting:
            source, target, filled = waiting.pop()
            if filled is not None:
                self._dress(source, filled, target)
                continue
            status = self._past.status(source)
            self._progress.advance(1)
            if status.is_directory:
                target.mkdir(mode=0o700)
                waiting.append((source, target, status))
                below = [(f"{source.rstrip('/')}/{name}", target / name, None) for name in self._past.names(source)]
                waiting += reversed(below)
            elif status.nlink > 1 and status.identity in self._copies:
                os.link(self._copies[status.identity], target, follow_symlinks=False)
            else:
                self._create(source, status, target)
                if status.nlink > 1:
                    self._copies[status.identity] = target
                self._dress(source, status, target)

    def _create(self, source: str, status: Status, target: Path) -> None:
        if stat.S_ISREG(status.mode):
            self._fill(source, status, target)
        elif stat.S_ISLNK(status.mode):
            os.symlink(self._past.target(source), target)
        else:
            os.mknod(target, stat.S_IFMT(status.mode) | 0o600, status.rdev)

    def _fill(self, source: str, status: Status, target: Path) -> None:
        """A file's contents, with holes where it is zero."""
        with naming(str(target)), target.open("xb") as file:
            for offset, piece in pieces_of(self._past, source, status.size):
                file.seek(offset)
                for start in range(0, len(piece), _HOLE):
                    part = piece[start : start + _HOLE]
                    if part.strip(b"\0"):
                        file.write(part)
                    else:
                        file.seek(len(part), os.SEEK_CUR)
            file.truncate(status.size)

    def _dress(self, source: str, status: Status, target: Path) -> None:
        """Owner first, since changing it takes bits of the mode away; times last, since everything changes them."""
        with suppress(PermissionError):
            os.chown(target, status.uid, status.gid, follow_symlinks=False)
        for name, value in self._past.xattrs(source).items():
            try:
                os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise
        if not stat.S_ISLNK(status.mode):
            target.chmod(stat.S_IMODE(status.mode))
        os.utime(target, ns=(status.atime_ns, status.mtime_ns), follow_symlinks=False)
