"""Putting something new in its place: made whole out of everybody's sight first, then renamed.

It is made in a folder beside its place that only this user may enter, and reached through a descriptor of that: so who
owns the place, and may rename what is in it, can neither look into what is being made nor lead it elsewhere, and
nothing is made of what somebody else laid there.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hammerfs.cli.errors import described
from hammerfs.cli.treeremove import remove_tree
from hammerfs.ops.escaping import on_one_line

_NAME_MAX = 255
"""Bytes in a name, on HAMMER as elsewhere."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
"""What renaming and linking say where something stands."""


class Making:
    """One thing that is being made.

    path -- where to make it, for as long as the block of `making` lasts
    """

    def __init__(self, target: Path, place: int, folder: str, inside: int) -> None:
        self.path = Path(f"/proc/self/fd/{inside}") / "made"
        self._target = target
        self._place = place
        self._folder = folder
        self._inside = inside

    def put(self, name: str) -> bool:
        """Give it a name in its place; False where something has that name, which stays as it is."""
        try:
            if stat.S_ISDIR(os.stat("made", dir_fd=self._inside, follow_symlinks=False).st_mode):
                # Of what stands there, renaming a directory replaces an empty one only.
                _rename("made", self._inside, name, self._place)
            else:
                self._link(name)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            return False
        return True

    def replace(self, name: str) -> None:
        """Put it in the place of what has the name, which is removed behind it."""
        try:
            with suppress(FileNotFoundError):
                _rename(name, self._place, "replaced", self._inside)
            _rename("made", self._inside, name, self._place)
        except BaseException:
            with suppress(OSError):
                _rename("replaced", self._inside, name, self._place)
            raise

    def real(self, path: str) -> str:
        """A path of what is being made as people may look for it."""
        return path.replace(str(self.path.parent), str(self._target.with_name(self._folder)), 1)

    def _link(self, name: str) -> None:
        try:
            os.link("made", name, src_dir_fd=self._inside, dst_dir_fd=self._place, follow_symlinks=False)
        except OSError as error:
            if error.errno in _TAKEN:
                raise
            # A file system without links; it has no users either who could do something meanwhile.
            if os.path.lexists(self._target.with_name(name)):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
            _rename("made", self._inside, name, self._place)


def _rename(old: str, old_folder: int, new: str, new_folder: int) -> None:
    """A directory gets another one above it, for which it has to be writable; its mode is as it was afterwards."""
    status = os.stat(old, dir_fd=old_folder, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IWUSR:
        os.rename(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)
        return
    directory = os.open(old, os.O_PATH | _FOLDER | os.O_NOFOLLOW, dir_fd=old_folder)
    mode = stat.S_IMODE(status.st_mode)
    try:
        with suppress(PermissionError):  # who does not own it is told so by what he tries next
            os.chmod(f"/proc/self/fd/{directory}", mode | stat.S_IWUSR)
        os.rename(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)
    finally:
        with suppress(PermissionError):
            os.chmod(f"/proc/self/fd/{directory}", mode)
        os.close(directory)


@contextmanager
def making(target: Path) -> Iterator[Making]:
    """What shall be at `target` or beside it; what is left in the folder at the end is removed.  Raises OSError."""
    place = os.open(target.parent, _FOLDER)
    try:
        folder = fitting(".", target.name, f".restoring-{secrets.token_hex(4)}")
        os.mkdir(folder, 0o700, dir_fd=place)
        inside = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=place)
        made = Making(target, place, folder, inside)
        try:
            _check_own(inside, target.with_name(folder))
            yield made
        except OSError as error:
            if isinstance(error.filename, str):
                error.filename = made.real(error.filename)
            raise
        finally:
            os.close(inside)
            _clear(target.with_name(folder))
    finally:
        os.close(place)


def fitting(front: str, name: str, end: str) -> str:
    """A name made of another one, of which as many characters stay as a name has room for."""
    room = _NAME_MAX - len(os.fsencode(front + end))
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return f"{front}{name}{end}"


def _check_own(folder: int, path: Path) -> None:
    status = os.fstat(folder)
    if status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "a folder made there belongs to somebody else", str(path))


def _clear(folder: Path) -> None:
    """What is left is told, and no reason to fail: what shall be in the place is, or never will be."""
    left: list[OSError] = []
    try:
        left = remove_tree(folder)
    except KeyboardInterrupt:
        left = [OSError(errno.EINTR, "interrupted", str(folder))]
    if left:
        more = f" ({len(left)} names in all)" if len(left) > 1 else ""
        sentence = f"{folder} could not be removed as a whole: {described(left[0])}{more}"
        with suppress(OSError):
            print(f"hammerfs: {on_one_line(sentence)}", file=sys.stderr)
