"""From a path inside a file system to its object, symlinks followed, as the kernel does on a mounted one."""

from __future__ import annotations

import errno

from hammerfs.errors import FileOperationError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.constants import OBJTYPE_SOFTLINK

LINKS_MAX = 40
"""As many symlinks as the kernel follows on one path."""


def resolve(fs: FileSystem, path: bytes, *, follow: bool = True) -> Inode:
    """The object at a path, which begins at the root with or without a slash; FileOperationError when there is none.

    Without `follow` a symlink at the path's end is the answer itself.  Symlinks with an absolute target begin at the
    root again: there is nothing above it.
    """
    return walk(fs, path, follow=follow)[-1]


def walk(fs: FileSystem, path: bytes, *, follow: bool = True) -> list[Inode]:
    """The directories that a path really leads through, from the root on, and last the object itself."""
    passed = [fs.root]
    waiting = [part for part in reversed(path.split(b"/")) if part]
    links = 0
    while waiting:
        name = waiting.pop()
        if name == b".":
            continue
        if name == b"..":
            passed = passed[:-1] or passed
            continue
        inode = fs.lookup(passed[-1], name)
        if inode.data.obj_type == OBJTYPE_SOFTLINK and (follow or waiting):
            links += 1
            if links > LINKS_MAX:
                raise FileOperationError(errno.ELOOP)
            target = fs.readlink(inode)
            if target.startswith(b"/"):
                passed = [fs.root]
            waiting += [part for part in reversed(target.split(b"/")) if part]
        else:
            passed.append(inode)
    return passed
