"""How handlers become answers: `request` and `change` make the coroutines that pyfuse3 wants, `Refusals` the errnos.

A handler is a plain function that raises errors of this project; what it raises besides is a bug, answered with EIO.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from pyfuse3 import FUSEError

from hammerfs.errors import (
    CorruptionError,
    DeviceError,
    FileOperationError,
    HammerError,
    NoSpaceError,
    PrunedError,
)
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.direntry import path_text
from hammerfs.vfs.complaints import Complaints, shown
from hammerfs.vfs.nodeids import OBJ_ID_MIN, NodeIds
from hammerfs.vfs.refusedwriters import RefusedWriters
from hammerfs.vfs.strangers import is_guarded, refuse_strangers

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Handler = Callable[Concatenate[Any, _P], _R]
_AsyncHandler = Callable[Concatenate[Any, _P], Coroutine[Any, Any, _R]]

_ROOM_TRIES: Final = 2
"""One flush for what was removed, another for what the kernel let go of (FORGET) only during the first."""
_REQUESTS_BY_NAME: Final = {"lookup", "create", "mknod", "mkdir", "symlink", "unlink", "rmdir", "rename", "readdir"}
"""Requests about a name in a directory, not about the directory itself."""


class Refusals:
    """What requests that fail are answered with, and what the log says of them.

    refused_writers -- is told whose write found no space
    """

    def __init__(self, fs: FileSystem, node_ids: NodeIds, refused_writers: RefusedWriters) -> None:
        self._fs = fs
        self._node_ids = node_ids
        self._refused_writers = refused_writers
        self._complaints = Complaints(logging.getLogger(__name__))

    def answer(self, request: str, args: Sequence[object], error: Exception) -> FUSEError:
        """The errno to answer; damage and failing devices are logged, and so are bugs, with traceback."""
        if isinstance(error, FUSEError):
            return error
        if isinstance(error, NoSpaceError) and request == "write" and isinstance(args[0], int):
            self._refused_writers.add(args[0])
        if not isinstance(error, HammerError):
            self._complaints.log(f"{request}{shown(args)}: unexpected {type(error).__name__}: {error}", error)
            return FUSEError(errno.EIO)
        if isinstance(error, CorruptionError | DeviceError | PrunedError):
            self._complaints.log(lambda: f"{request}{shown(args)}{self._named(request, args)}: {error}")
        return FUSEError(error.errno)

    def _named(self, request: str, args: Sequence[object]) -> str:
        """Which file a request is about: its path from the mounted root, or its number where that cannot be told."""
        if not args or not isinstance(args[0], int):
            return ""
        root = self._fs.root
        identity = root.localization, args[0], root.as_of
        if args[0] < OBJ_ID_MIN:
            try:
                identity = self._node_ids.identity(args[0])
            except FileOperationError:
                return ""
        names = self._fs.path_of(*identity)
        if names is None:
            return f" of object {identity[1]:#x}"
        if request in _REQUESTS_BY_NAME and len(args) > 1 and isinstance(args[1], bytes):
            names = *names, args[1]
        return f" of {path_text(names)!r}"


class Answering(Protocol):
    """What handlers are methods of.

    private -- whether the kernel lets root in and nobody else, and checks no permissions
    """

    fs: FileSystem
    private: bool
    refusals: Refusals


def request(handler: _Handler[_P, _R]) -> _AsyncHandler[_P, _R]:
    """A handler that changes nothing, or something that costs no space."""
    guarded = is_guarded(handler)

    @functools.wraps(handler)
    async def answer(self: Answering, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            if guarded and self.private:
                refuse_strangers(args)
            return handler(self, *args, **kwargs)
        except Exception as error:
            raise self.refusals.answer(handler.__name__, args, error) from None

    return answer


def change(handler: _Handler[_P, _R]) -> _AsyncHandler[_P, _R]:
    """A handler that gives the flusher work, and waits first if that has too much already.

    What finds no space is tried again after a flush: whoever deletes on a full file system wants to go on at once.
    """
    guarded = is_guarded(handler)

    @functools.wraps(handler)
    async def answer(self: Answering, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            if guarded and self.private:
                refuse_strangers(args)
            if self.fs.congested:
                await self.fs.throttle()
            for _ in range(_ROOM_TRIES):
                try:
                    return handler(self, *args, **kwargs)
                except NoSpaceError:
                    if not await self.fs.make_room():
                        raise
            return handler(self, *args, **kwargs)
        except Exception as error:
            raise self.refusals.answer(handler.__name__, args, error) from None

    return answer
