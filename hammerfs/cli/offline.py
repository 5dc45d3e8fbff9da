"""A file system whose volumes this process opens, because `-f` names them: the way of operations without a mount."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from time import monotonic
from typing import Any

from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.hearing import Hearing, interrupts
from hammerfs.cli.names import KIND_DIRECTORY, KIND_OTHER, KIND_SYMLINK, Names, directory_part
from hammerfs.device.file import FileDevice
from hammerfs.errors import FileOperationError, UsageError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MIB, MountOptions
from hammerfs.fs.work import Data, Done, Emit, Phase, run_work
from hammerfs.ondisk.constants import OBJTYPE_DIRECTORY, OBJTYPE_SOFTLINK
from hammerfs.ops.operation import Call, never
from hammerfs.ops.paths import resolve, walk
from hammerfs.ops.registry import begin, find

_CACHE_BYTES = 128 * MIB


class _Listening:
    """A hearing as work in this process talks to it."""

    def __init__(self, hearing: Hearing) -> None:
        self._hearing = hearing

    def tell(self, step: Phase | Done | Emit | Data) -> None:
        """Take what the work has to say."""
        if isinstance(step, Phase):
            self._hearing.phase(step.name, step.total)
        elif isinstance(step, Done):
            self._hearing.advance(step.amount)
        elif isinstance(step, Emit):
            self._hearing.item(step.item)
        else:
            self._hearing.data(step.content)

    def receive(self, limit: int) -> bytes:
        """Up to `limit` bytes; empty at the end."""
        return self._hearing.supply(limit)


class OfflineReach:
    """A place in a file system whose volumes this process has opened."""

    def __init__(self, fs: FileSystem, path: str) -> None:
        self.fs = fs
        self.path = path

    def call(
        self, operation: str, arguments: Mapping[str, Any], hearing: Hearing | None = None, seconds: int = 0
    ) -> dict[str, Any]:
        stop = False
        deadline = monotonic() + seconds

        def ask_to_stop() -> None:
            nonlocal stop
            stop = True

        def interrupted() -> bool:
            return stop or (seconds > 0 and monotonic() >= deadline)

        with interrupts(ask_to_stop):
            return self.ask(operation, arguments, hearing or Hearing(), interrupted)

    def ask(
        self, operation: str, arguments: Mapping[str, Any], hearing: Hearing, interrupted: Callable[[], bool] = never
    ) -> dict[str, Any]:
        """The same without a word about ^C, which ends it at once."""
        place = _walked(self.fs, self.path)[-1]
        work = begin(find(operation), Call(self.fs, place, arguments, interrupted, exclusive=True))
        return run_work(self.fs, work, _Listening(hearing))


def _walked(fs: FileSystem, path: str) -> list[Inode]:
    """The directories that a path leads through, and what it leads to; UsageError, naming it, when that is nothing."""
    try:
        return walk(fs, os.fsencode(path))
    except FileOperationError as error:
        raise UsageError(f"{path}: {error}") from None


class OfflineNames:
    """Names inside of an unmounted file system; paths begin at its root."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs

    def kind(self, path: str, *, follow: bool) -> str | None:
        """One of the KIND_ words, None when there is nothing."""
        try:
            obj_type = resolve(self._fs, os.fsencode(path), follow=follow).data.obj_type
        except FileOperationError:
            return None
        return {OBJTYPE_DIRECTORY: KIND_DIRECTORY, OBJTYPE_SOFTLINK: KIND_SYMLINK}.get(obj_type, KIND_OTHER)

    def readlink(self, path: str) -> str:
        """A symlink's target."""
        return os.fsdecode(self._fs.readlink(resolve(self._fs, os.fsencode(path), follow=False)))

    def symlink(self, target: str, path: str) -> None:
        """Make a symlink, owned by this user."""
        parent, name = self._parent(path)
        self._fs.symlink(parent, name, os.fsencode(target), os.geteuid(), os.getegid())

    def remove(self, path: str) -> None:
        """Remove a name that is no directory."""
        parent, name = self._parent(path)
        self._fs.unlink(parent, name)

    def way_to_root(self, folder: str, start: str) -> str:
        """Nobody knows where the file system will be mounted, so the way goes up."""
        depth = len(_walked(self._fs, start)) - 1
        return "/".join([".."] * depth) or "."

    def way_to(self, path: str, start: str) -> str:
        """Up to the root and down again."""
        return f"{self.way_to_root(path, start)}/{path.lstrip('/')}"

    def is_root(self, path: str) -> bool:
        return len(_walked(self._fs, path)) == 1

    def demand_folder(self, path: str) -> None:
        if _walked(self._fs, path)[-1].data.obj_type != OBJTYPE_DIRECTORY:
            raise UsageError(f"{path}: {os.strerror(errno.ENOTDIR)}")

    def _parent(self, path: str) -> tuple[Inode, bytes]:
        parent = _walked(self._fs, directory_part(path))[-1]
        return parent, os.fsencode(os.path.basename(path))


class OfflineDesk:
    """A file system whose volumes this process has opened, for the time of a directive."""

    here = "/"

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self.names: Names = OfflineNames(fs)

    @contextmanager
    def reach(self, path: str) -> Iterator[OfflineReach]:
        """A place in it."""
        yield OfflineReach(self._fs, path)


@contextmanager
def opened(options: HammerOptions, *, writable: bool) -> Iterator[FileSystem]:
    """The file system on the volumes of `-f`; unmounted, with everything on disk, at the end of the block."""
    if not options.specials:
        raise UsageError("a -f blkdevs specification is required for this command")
    mount = MountOptions(read_only=not writable, cache_bytes=max(options.cache_bytes, _CACHE_BYTES))
    with ExitStack() as stack:
        devices = []
        for path in options.specials:
            device = FileDevice(path, writable=writable, exclusive=writable)
            stack.callback(device.close)
            devices.append(device)
        fs = FileSystem.open(devices, mount)
        stack.callback(fs.close_now)
        fs.open_device = partial(FileDevice, writable=True, exclusive=True)
        yield fs
