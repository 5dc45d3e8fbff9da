"""Regular files and block devices.

Only here, and in `locking`, does hammerfs touch the file descriptors of its volumes.  `barrier` is fdatasync(2): an
image file keeps its length, and what fdatasync leaves out (its own times) nobody relies on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Sequence
from functools import cache

from hammerfs.device.base import FailureLatch
from hammerfs.device.locking import lock
from hammerfs.errors import BusyError, DeviceError, UsageError
from hammerfs.ondisk.crc import Buffer

_BLKGETSIZE64 = 0x80081272
_SYNC_FILE_RANGE_WRITE = 2
"""From fcntl.h.  Python's `os` has no sync_file_range(2)."""
_WILLNEED_BYTES = 128 * 1024
"""What the kernel is told at once that it will be asked for; of more, some devices read the beginning only."""
_IOV_MAX = os.sysconf("SC_IOV_MAX") if os.sysconf("SC_IOV_MAX") > 0 else 16


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """What starts the writing of a range, where the C library has it: descriptor, offset, size, flags."""
    with contextlib.suppress(ImportError, OSError, TypeError, AttributeError):
        import ctypes

        function = ctypes.CDLL(None).sync_file_range
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        return function
    return None


class FileDevice:
    """The bytes of the file or block device at `path`, from `offset` to its end.

    Opening takes a lock: exclusive when writable or `exclusive`, shared otherwise.  BusyError names the holder,
    UsageError says why the path cannot be opened.
    """

    def __init__(self, path: str, *, writable: bool, offset: int = 0, exclusive: bool = False) -> None:
        self._name = os.fspath(path)
        self._writable = writable
        self._base = offset
        self._latch = FailureLatch(self._name)
        self._fd = _open(self._name, writable=writable)
        try:
            lock(self._fd, self._name, exclusive=writable or exclusive)
            self._size = _length(self._fd, self._name) - offset
            if offset < 0 or self._size < 0:
                raise UsageError(f"{self._name}: offset {offset} lies outside its {self._size + offset} bytes")
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        return self._name

    @property
    def writable(self) -> bool:
        return self._writable

    @property
    def size(self) -> int:
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        if offset < 0 or size < 0:
            raise DeviceError("read", self._name, offset, size, "not a range of the device")
        try:
            data = os.pread(self._fd, size, self._base + offset)
        except OSError as error:
            raise DeviceError("read", self._name, offset, size, error) from error
        if len(data) != size:
            return self._read_rest(offset, size, data)
        return data

    def write(self, offset: int, data: Buffer) -> None:
        self.write_vector(offset, (data,))

    def write_vector(self, offset: int, chunks: Sequence[Buffer]) -> None:
        total = sum(map(len, chunks))
        self._check_write(offset, total)
        place = self._base + offset
        pending = list(chunks)
        try:
            while pending:
                batch = pending[:_IOV_MAX]
                written = os.pwritev(self._fd, batch, place)
                place += written
                if written == sum(map(len, batch)):
                    del pending[: len(batch)]
                    continue
                if written == 0:
                    raise self._latch.fail("write", offset, total, "nothing was written")
                pending = _unwritten(pending, written)
        except OSError as error:
            raise self._latch.fail("write", offset, total, error) from error

    def barrier(self) -> None:
        self._latch.check("barrier", 0, self._size)
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise self._latch.fail("barrier", 0, self._size, error) from error

    def prefetch(self, offset: int, size: int) -> None:
        begin, end = self._base + offset, self._base + offset + size
        with contextlib.suppress(OSError):
            for start in range(begin, end, _WILLNEED_BYTES):
                os.posix_fadvise(self._fd, start, min(_WILLNEED_BYTES, end - start), os.POSIX_FADV_WILLNEED)

    def begin_writing(self, offset: int, size: int) -> None:
        begin = _sync_file_range()
        if begin is not None:
            begin(self._fd, self._base + offset, size, _SYNC_FILE_RANGE_WRITE)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _check_write(self, offset: int, size: int) -> None:
        self._latch.check("write", offset, size)
        if not self._writable:
            raise DeviceError("write", self._name, offset, size, "the device is read-only")
        if offset < 0 or offset + size > self._size:
            # A regular file would silently grow.
            raise DeviceError("write", self._name, offset, size, f"the device has {self._size} bytes")

    def _read_rest(self, offset: int, size: int, start: bytes) -> bytes:
        """Finish a read that came back short: the kernel caps large ones, a cut file has no more."""
        parts = [start]
        done = len(start)
        while done < size:
            try:
                part = os.pread(self._fd, size - done, self._base + offset + done)
            except OSError as error:
                raise DeviceError("read", self._name, offset, size, error) from error
            if not part:
                raise DeviceError("read", self._name, offset, size, f"the device ends after {done} of them")
            parts.append(part)
            done += len(part)
        return b"".join(parts)


def _unwritten(chunks: Sequence[Buffer], written: int) -> list[Buffer]:
    """What is left of `chunks` after their first `written` bytes."""
    rest: list[Buffer] = []
    for chunk in chunks:
        if written >= len(chunk):
            written -= len(chunk)
            continue
        rest.append(memoryview(chunk)[written:] if written else chunk)
        written = 0
    return rest


def _open(path: str, *, writable: bool) -> int:
    flags = os.O_RDWR if writable else os.O_RDONLY
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise UsageError(f"{path} is neither a regular file nor a block device")
        if writable and stat.S_ISBLK(mode):
            flags |= os.O_EXCL  # for a block device: refuse what the kernel has mounted or uses otherwise
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(f"{path} is in use by the kernel (mounted, swap, or part of another device)") from error
        raise UsageError(f"cannot open {path}: {error.strerror}") from error


def _length(fd: int, name: str) -> int:
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    answer = bytearray(8)
    try:
        fcntl.ioctl(fd, _BLKGETSIZE64, answer)
    except OSError as error:
        raise DeviceError("size", name, 0, 0, error) from error
    return int(struct.unpack("=Q", answer)[0])
