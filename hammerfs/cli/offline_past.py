"""The past of a file system whose volumes this process has opened."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hammerfs.cli.hearing import Hearing
from hammerfs.cli.offline import OfflineReach
from hammerfs.cli.past import READ_SIZE, Status, exists, local_name, ranges_of
from hammerfs.cli.treecopy import copy_tree
from hammerfs.cli.treeremove import remove_tree
from hammerfs.errors import FileOperationError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.inode import uuid_to_id
from hammerfs.ops.paths import LINKS_MAX, resolve
from hammerfs.vfs.attributes import MODE_OF_TYPE, device_number


class OfflinePast:
    """Paths from the root of `fs`."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs

    def ask(
        self, place: str, operation: str, *, on_item: Callable[[dict[str, Any]], None] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        hearing = Hearing() if on_item is None else Hearing(on_item=on_item)
        return OfflineReach(self._fs, place).ask(operation, arguments, hearing)

    def is_top(self, path: str) -> bool:
        return not path.strip("/.")

    def absolute(self, path: str, *, follow: bool = True) -> str:
        if not follow:
            return os.path.normpath(f"/{path.lstrip('/')}")
        done, links = "/", 0
        waiting = path.split("/")[::-1]
        while waiting:
            name = waiting.pop()
            if name in ("", ".", ".."):
                done = os.path.dirname(done) if name == ".." else done
                continue
            target = self._link_at(os.path.join(done, name)) if links < LINKS_MAX else None
            if target is None:
                done = os.path.join(done, name)
                continue
            links += 1
            done = "/" if target.startswith("/") else done
            waiting += target.split("/")[::-1]
        return done

    def _link_at(self, path: str) -> str | None:
        try:
            return self.target(path) if stat.S_ISLNK(self.status(path).mode) else None
        except OSError:
            return None

    def status(self, path: str) -> Status:
        inode = self._find(path)
        data = inode.data
        return Status(
            MODE_OF_TYPE.get(data.obj_type, 0) | data.mode,
            uuid_to_id(data.uid),
            uuid_to_id(data.gid),
            data.size,
            data.atime * 1000,
            data.mtime * 1000,
            device_number(data.rmajor, data.rminor),
            data.nlinks,
            (inode.localization, inode.obj_id),
        )

    def names(self, path: str) -> list[str]:
        return sorted(os.fsdecode(entry.name) for entry in self._fs.readdir(self._find(path), 0))

    def content(self, path: str, offset: int = 0) -> Iterator[bytes]:
        inode = self._find(path, follow=True)
        while piece := self._fs.read(inode, offset, READ_SIZE):
            yield piece
            offset += len(piece)

    def ranges(self, path: str) -> list[tuple[int, int]] | None:
        return ranges_of(self, path)

    def target(self, path: str) -> str:
        return os.fsdecode(self._fs.readlink(self._find(path)))

    def xattrs(self, path: str) -> dict[str, bytes]:
        inode = self._find(path)
        return {os.fsdecode(name): self._fs.getxattr(inode, name) for name in self._fs.listxattr(inode)}

    @contextmanager
    def local(self, paths: Sequence[str]) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(prefix="hammerfs-"))
        try:
            for path in paths:
                copy = folder / local_name(path)
                if exists(self, path) and not os.path.lexists(copy):
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy_tree(self, path, copy)
            yield folder
        finally:
            remove_tree(folder)

    def _find(self, path: str, *, follow: bool = False) -> Inode:
        try:
            return resolve(self._fs, os.fsencode(path), follow=follow)
        except FileOperationError as error:
            raise OSError(error.errno, os.strerror(error.errno), path) from None
