"""Copy-on-write in memory: a read-only mount of a crashed file system recovers here without writing a byte.

Writes land in memory at a granularity of 16 KiB and are lost at close; the device below is only read.
"""

from __future__ import annotations

from hammerfs.device.base import Device
from hammerfs.device.pages import PagedDevice
from hammerfs.ondisk.constants import BUFSIZE


class OverlayDevice(PagedDevice):
    """A writable view of `lower` that keeps what is written to itself."""

    def __init__(self, lower: Device) -> None:
        super().__init__(lower.name, lower.size, writable=True)
        self._lower = lower

    def read(self, offset: int, size: int) -> bytes:
        pages = self._pages
        first, last = offset // BUFSIZE, (offset + size - 1) // BUFSIZE
        if first == last:
            if first not in pages:
                return self._lower.read(offset, size)
        elif not pages or not any(index in pages for index in range(first, last + 1)):
            return self._lower.read(offset, size)
        return super().read(offset, size)

    def prefetch(self, offset: int, size: int) -> None:
        self._lower.prefetch(offset, size)

    def close(self) -> None:
        self._pages.clear()
        self._lower.close()

    def _page(self, index: int) -> bytes:
        page = self._pages.get(index)
        if page is None:
            start = index * BUFSIZE
            page = self._lower.read(start, min(BUFSIZE, self._size - start)).ljust(BUFSIZE, b"\0")
        return page
