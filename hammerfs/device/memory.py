"""A device in memory: sparse, quick to copy, for tests, rehearsals and as the upper half of an overlay.

Contents are kept as immutable 16 KiB pages in a dict.  A page that was never written, or that holds only zeros, is
absent, so a 4 TiB device costs what was written to it; a copy shares all pages with its original.
"""

from __future__ import annotations

from collections.abc import Sequence

from hammerfs.device.base import FailureLatch, check_range
from hammerfs.errors import DeviceError
from hammerfs.ondisk.constants import BUFSIZE
from hammerfs.ondisk.crc import Buffer

_ZEROS = bytes(BUFSIZE)


class MemoryDevice:
    """`size` bytes of zeros, or a copy of `content`."""

    def __init__(self, size: int = 0, content: Buffer = b"", *, name: str = "memory", writable: bool = True) -> None:
        self._name = name
        self._size = max(size, len(content))
        self._pages: dict[int, bytes] = {}
        self._latch = FailureLatch(name)
        self._writable = True
        self.write(0, content)
        self._writable = writable

    @property
    def name(self) -> str:
        return self._name

    @property
    def writable(self) -> bool:
        return self._writable

    @property
    def size(self) -> int:
        return self._size

    def copy(self, *, name: str | None = None) -> MemoryDevice:
        """An independent writable device with the same contents; costs one dict copy."""
        other = MemoryDevice(self._size, name=name or self._name)
        other._pages = dict(self._pages)
        return other

    def read(self, offset: int, size: int) -> bytes:
        check_range("read", self, offset, size)
        index, start = divmod(offset, BUFSIZE)
        if start + size <= BUFSIZE:
            return self._page(index)[start : start + size]
        last = (offset + size - 1) // BUFSIZE
        run = b"".join([self._page(i) for i in range(index, last + 1)])
        return run[start : start + size]

    def write(self, offset: int, data: Buffer) -> None:
        check_range("write", self, offset, len(data))
        self._latch.check("write", offset, len(data))
        if not self._writable:
            raise DeviceError("write", self._name, offset, len(data), "the device is read-only")
        view = memoryview(data)
        done = 0
        while done < len(view):
            index, start = divmod(offset + done, BUFSIZE)
            piece = view[done : done + BUFSIZE - start]
            self._store(index, start, piece)
            done += len(piece)

    def write_vector(self, offset: int, chunks: Sequence[Buffer]) -> None:
        for chunk in chunks:
            self.write(offset, chunk)
            offset += len(chunk)

    def barrier(self) -> None:
        self._latch.check("barrier", 0, self._size)

    def prefetch(self, offset: int, size: int) -> None:
        pass

    def close(self) -> None:
        pass

    def _page(self, index: int) -> bytes:
        return self._pages.get(index, _ZEROS)

    def _store(self, index: int, start: int, piece: memoryview) -> None:
        if len(piece) == BUFSIZE:
            page = bytes(piece)
        else:
            old = self._page(index)
            page = b"".join((old[:start], piece, old[start + len(piece) :]))
        if page == _ZEROS:
            self._pages.pop(index, None)
        else:
            self._pages[index] = page
