"""Every error hammerfs raises on purpose, and the errno each one means to a caller of the mounted file system.

One root class.  Damage, exhaustion, misuse and I/O failure are kept apart because their consequences differ:
damage is contained to one object (EIO), exhaustion is refused before anything is lost (ENOSPC), misuse is a
sentence to the user, an I/O failure on the path to durability turns the mount read-only.
"""

from __future__ import annotations

import errno
import os


class HammerError(Exception):
    """Root of all hammerfs errors.  `errno` is what a VFS operation answers, `exit_code` what a command returns."""

    errno: int = errno.EIO
    exit_code: int = 2


class UsageError(HammerError):
    """The caller asked for something that cannot be: options, arguments, a mount point, a missing permission."""

    errno = errno.EINVAL


class NotHammerError(HammerError):
    """What was given is no HAMMER volume, or the volumes given do not make up one file system."""

    errno = errno.EINVAL


class BusyError(HammerError):
    """A volume is locked by another process."""

    errno = errno.EBUSY


class CorruptionError(HammerError):
    """A structure on disk failed verification.

    `where` names the structure and its offset, so that the sentence can be acted on without a debugger.
    """

    def __init__(self, what: str, *, offset: int | None = None, path: str | None = None) -> None:
        self.what = what
        self.offset = offset
        self.path = path
        place = "" if offset is None else f" at {offset:016x}"
        name = "" if path is None else f" of {path}"
        super().__init__(f"{what}{place}{name}")


class DeviceError(HammerError):
    """Reading, writing or flushing a backing device failed."""

    def __init__(self, action: str, name: str, offset: int, size: int, cause: OSError | str) -> None:
        self.action = action
        self.name = name
        self.offset = offset
        self.size = size
        if isinstance(cause, OSError):
            reason = os.strerror(cause.errno) if cause.errno else str(cause)
            self.cause_errno = cause.errno or errno.EIO
        else:
            reason = cause
            self.cause_errno = errno.EIO
        super().__init__(f"{name}: cannot {action} {size} bytes at offset {offset}: {reason}")


class NoSpaceError(HammerError):
    """The file system has no room for what was asked; nothing was changed."""

    errno = errno.ENOSPC


class UndoExhaustedError(HammerError):
    """The UNDO FIFO has no room for another record.  The flusher makes room in time; if it did not, that is our bug."""


class DuplicateKey(HammerError):
    """A record with that key is in the B-tree already."""

    errno = errno.EEXIST


class MissingKey(HammerError):
    """The B-tree holds no record with that key."""

    errno = errno.ENOENT


class ReadOnlyError(HammerError):
    """A change was asked of a read-only mount, a slave PFS or a moment in the past."""

    errno = errno.EROFS


class PrunedError(HammerError):
    """What an open file showed of the past was taken out of history meanwhile."""

    errno = errno.ESTALE


class StreamError(HammerError):
    """A mirroring stream is damaged or cut off, or is not meant for its target."""

    errno = errno.EINVAL


class FlushFailedError(ReadOnlyError):
    """What was to be made durable cannot be: the flusher has stopped."""

    errno = errno.EIO


class FileOperationError(HammerError):
    """An ordinary refusal of a VFS operation (ENOENT, EEXIST, ENOTEMPTY ...), carried by its errno."""

    def __init__(self, number: int, detail: str = "") -> None:
        self.errno = number
        super().__init__(detail or os.strerror(number))
