"""Bytes kept in memory as 16 KiB pages: what memory devices and overlays share.

Pages are immutable `bytes` in a dict, so a copy of a device costs one dict copy and shares every page.  What an absent
page holds is for the subclass to say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from hammerfs.device.base import FailureLatch, check_range
from hammerfs.errors import DeviceError
from hammerfs.ondisk.constants import BUFSIZE
from hammerfs.ondisk.crc import Buffer


class PagedDevice(ABC):
    """A device whose changed pages live in memory."""

    def __init__(self, name: str, size: int, *, writable: bool) -> None:
        self._name = name
        self._size = size
        self._writable = writable
        self._pages: dict[int, bytes] = {}
        self._latch = FailureLatch(name)

    @property
    def name(self) -> str:
        return self._name

    @property
    def writable(self) -> bool:
        return self._writable

    @property
    def size(self) -> int:
        return self._size

    @property
    def page_bytes(self) -> int:
        """Bytes of memory that pages occupy."""
        return len(self._pages) * BUFSIZE

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
            if len(piece) == BUFSIZE:
                self._keep(index, bytes(piece))
            else:
                old = self._page(index)
                self._keep(index, b"".join((old[:start], piece, old[start + len(piece) :])))
            done += len(piece)

    def write_vector(self, offset: int, chunks: Sequence[Buffer]) -> None:
        for chunk in chunks:
            self.write(offset, chunk)
            offset += len(chunk)

    def barrier(self) -> None:
        """Memory is as stable as it gets."""
        self._latch.check("barrier", 0, self._size)

    def prefetch(self, offset: int, size: int) -> None:  # noqa: B027 -- memory has nothing to fetch
        pass

    def begin_writing(self, offset: int, size: int) -> None:  # noqa: B027 -- memory has nowhere to write to
        pass

    @abstractmethod
    def close(self) -> None:
        """Give back what the device holds."""

    @abstractmethod
    def _page(self, index: int) -> bytes:
        """The whole 16 KiB page, zero-filled where it reaches past the end of the device."""

    def _keep(self, index: int, page: bytes) -> None:
        self._pages[index] = page
