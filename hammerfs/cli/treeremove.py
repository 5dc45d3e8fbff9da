"""Removing a tree that this command made or replaced, whatever its modes are and however deep it is.

No path is looked up twice: each directory is opened from the one above, so that nobody who renames things meanwhile
leads the removal elsewhere.  One directory is open at a time, and the way back up is checked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_USABLE = os.R_OK | os.W_OK | os.X_OK

_Identity = tuple[int, int]


@dataclass(slots=True)
class _Level:
    """A directory on the way down: which one it is, and the names in it that are still to be removed."""

    name: str
    identity: _Identity
    names: list[str]


def remove_tree(path: Path) -> list[OSError]:
    """Remove what is at `path`, if anything is, with all below; returns why something was left, with its name.

    It goes on after what cannot be removed, and leaves other file systems that are mounted below alone.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return [error]
    removal = _Removal(path.parent, folder)
    try:
        removal.run(path.name)
    except OSError as error:  # it lost its way: somebody moves directories meanwhile
        removal.left.append(error)
    finally:
        os.close(removal.folder)
    return removal.left


class _Removal:
    """`folder` is the one that is open: the last level's, or the one in which the tree is."""

    def __init__(self, place: Path, folder: int) -> None:
        self.folder = folder
        self.left: list[OSError] = []
        self._place = place
        self._start = _identity(folder)
        self._levels: list[_Level] = []

    def run(self, name: str) -> None:
        """Remove one name of the folder."""
        self._remove(name)
        while self._levels:
            names = self._levels[-1].names
            if names:
                self._remove(names.pop())
                continue
            done = self._levels.pop()
            self._enter(os.open("..", os.O_RDONLY | _FOLDER, dir_fd=self.folder))
            expected = self._levels[-1].identity if self._levels else self._start
            if _identity(self.folder) != expected:
                raise OSError(errno.ESTALE, "it was moved while it was being removed", str(self._path(done.name)))
            with self._noting(done.name):
                os.rmdir(done.name, dir_fd=self.folder)

    def _remove(self, name: str) -> None:
        """Unlink it, or descend if it is a directory."""
        with self._noting(name):
            try:
                status = os.lstat(name, dir_fd=self.folder)
            except FileNotFoundError:
                return
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=self.folder)
                return
            if status.st_dev != self._start[0]:
                raise OSError(errno.EBUSY, "another file system is mounted there")
            self._descend(name)

    def _descend(self, name: str) -> None:
        inner = os.open(name, os.O_PATH | _FOLDER, dir_fd=self.folder)
        try:
            _make_usable(inner)
            opened = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=inner)
        finally:
            os.close(inner)
        try:
            level = _Level(name, _identity(opened), os.listdir(opened))
        except OSError:
            os.close(opened)
            raise
        self._levels.append(level)
        self._enter(opened)

    def _enter(self, folder: int) -> None:
        os.close(self.folder)
        self.folder = folder

    def _path(self, name: str) -> Path:
        return self._place.joinpath(*(level.name for level in self._levels), name)

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        """Note what fails, and go on; that a directory is not empty is known from what is left in it."""
        try:
            yield
        except OSError as error:
            if not (error.errno == errno.ENOTEMPTY and self.left):
                error.filename = str(self._path(name))
                self.left.append(error)


def _identity(folder: int) -> _Identity:
    status = os.fstat(folder)
    return status.st_dev, status.st_ino


def _make_usable(folder: int) -> None:
    """Only the owner of a directory can let himself in; others are told so by what they try next.

    The mode of one that can be used stays, since it is what history keeps of it.
    """
    if os.access(".", _USABLE, dir_fd=folder, effective_ids=True):
        return
    with suppress(OSError):
        os.chmod(f"/proc/self/fd/{folder}", stat.S_IMODE(os.fstat(folder).st_mode) | stat.S_IRWXU)
