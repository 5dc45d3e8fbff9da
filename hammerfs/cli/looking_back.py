"""Opening the past for a command: where `-f` leads, or what is mounted."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.past import READ_SIZE, Past, Status, ranges_of
from hammerfs.cli.reach import LiveReach, watching
from hammerfs.cli.verb import split_specials
from hammerfs.errors import UsageError
from hammerfs.vfs.controlclient import connected


class MountedPast:
    """Ordinary paths on mounted file systems."""

    def ask(
        self, place: str, operation: str, *, on_item: Callable[[dict[str, Any]], None] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        with connected(place) as connection, watching(HammerOptions()) as hearing:
            if on_item is not None:
                hearing.on_item = on_item
            return LiveReach(connection, place).ask(operation, arguments, hearing)

    def is_top(self, path: str) -> bool:
        return os.path.ismount(path)

    def absolute(self, path: str, *, follow: bool = True) -> str:
        try:
            return os.path.realpath(path) if follow else os.path.abspath(path)
        except FileNotFoundError:
            raise UsageError(f"{path}: the working directory is gone; give paths that begin with a slash") from None

    def status(self, path: str) -> Status:
        found = os.lstat(path)
        return Status(
            found.st_mode,
            found.st_uid,
            found.st_gid,
            found.st_size,
            found.st_atime_ns,
            found.st_mtime_ns,
            found.st_rdev,
            found.st_nlink,
            (found.st_dev, found.st_ino),
        )

    def names(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def content(self, path: str, offset: int = 0) -> Iterator[bytes]:
        with open(path, "rb") as file:
            file.seek(offset)
            while piece := file.read(READ_SIZE):
                yield piece

    def ranges(self, path: str) -> list[tuple[int, int]] | None:
        return ranges_of(self, path)

    def target(self, path: str) -> str:
        return os.readlink(path)

    def xattrs(self, path: str) -> dict[str, bytes]:
        try:
            return {name: os.getxattr(path, name, follow_symlinks=False) for name in _listed(path)}
        except OSError:
            return {}

    def local(self, paths: Sequence[str]) -> AbstractContextManager[Path]:
        return nullcontext(Path())


def _listed(path: str) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


@contextmanager
def looking_back(args: argparse.Namespace) -> Iterator[Past]:
    """The past that a command's `-f` asks for, for the time of the block."""
    if not args.specials:
        yield MountedPast()
        return
    with volumes(HammerOptions(specials=split_specials(args.specials))) as past:
        yield past


@contextmanager
def volumes(options: HammerOptions) -> Iterator[Past]:
    """The past of the file system on the volumes of `-f`, read-only: a crash before is recovered from in memory."""
    from hammerfs.cli.offline import opened  # brings the whole core along
    from hammerfs.cli.offline_past import OfflinePast

    with opened(options, writable=False) as fs:
        yield OfflinePast(fs)
