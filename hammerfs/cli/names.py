"""The names that directives look at and make: softlinks to snapshots and PFSs, on a mounted file system or offline."""

from __future__ import annotations

import errno
import os
import stat
from typing import Protocol

from hammerfs.errors import UsageError
from hammerfs.vfs.controlclient import mount_of_device

KIND_DIRECTORY = "directory"
KIND_SYMLINK = "symlink"
KIND_OTHER = "other"


class Names(Protocol):
    """What a directive needs to know of paths; OSError or HammerError when something fails."""

    def kind(self, path: str, *, follow: bool) -> str | None:
        """One of the KIND_ words, None when there is nothing."""

    def readlink(self, path: str) -> str:
        """A symlink's target."""

    def symlink(self, target: str, path: str) -> None:
        """Make a symlink."""

    def remove(self, path: str) -> None:
        """Remove a name that is no directory."""

    def way_to_root(self, folder: str, start: str) -> str:
        """The target of a symlink in `start` that leads to the root of the file system that `folder` lies on."""

    def way_to(self, path: str, start: str) -> str:
        """The target of a symlink in `start` that leads to `path`."""

    def is_root(self, path: str) -> bool:
        """Whether a directory is the root of what is mounted."""

    def demand_folder(self, path: str) -> None:
        """OSError or UsageError, naming it, where this user can make no names in a directory, or there is none."""


class MountedNames:
    """Names as the kernel knows them."""

    def kind(self, path: str, *, follow: bool) -> str | None:
        try:
            mode = os.stat(path, follow_symlinks=follow).st_mode
        except OSError:
            return None
        if stat.S_ISDIR(mode):
            return KIND_DIRECTORY
        return KIND_SYMLINK if stat.S_ISLNK(mode) else KIND_OTHER

    def readlink(self, path: str) -> str:
        return os.readlink(path)

    def symlink(self, target: str, path: str) -> None:
        os.symlink(target, path)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def way_to_root(self, folder: str, start: str) -> str:
        mount = mount_of_device(os.stat(folder).st_dev, os.path.realpath(folder))
        if mount is None:
            raise UsageError(f"{folder} does not lie on a mounted HAMMER file system")
        return mount.path.rstrip("/")

    def way_to(self, path: str, start: str) -> str:
        return os.path.abspath(path)

    def is_root(self, path: str) -> bool:
        return os.path.ismount(path)

    def demand_folder(self, path: str) -> None:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def directory_part(path: str) -> str:
    """What stands before a path's last name, `.` when nothing does."""
    head, slash, _ = path.rpartition("/")
    head = head.rstrip("/")
    return head or ("/" if slash else ".")
