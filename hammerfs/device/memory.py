"""A device in memory: sparse and quick to copy, for tests and rehearsals.

A page that was never written, or that holds only zeros, is absent, so a 4 TiB device costs what was written to it.
"""

from __future__ import annotations

from hammerfs.device.pages import PagedDevice
from hammerfs.ondisk.constants import BUFSIZE
from hammerfs.ondisk.crc import Buffer

_ZEROS = bytes(BUFSIZE)


class MemoryDevice(PagedDevice):
    """`size` bytes of zeros, or a copy of `content`, followed by zeros when that is shorter."""

    def __init__(self, size: int = 0, content: Buffer = b"", *, name: str = "memory", writable: bool = True) -> None:
        super().__init__(name, max(size, len(content)), writable=True)
        self.write(0, content)
        self._writable = writable

    def copy(self, *, name: str | None = None) -> MemoryDevice:
        """An independent, writable device with the same contents; costs one dict copy."""
        other = MemoryDevice(self._size, name=name or self._name)
        other._pages = dict(self._pages)
        return other

    def same_bytes(self, other: MemoryDevice) -> bool:
        """Whether both hold the same bytes."""
        return self._size == other._size and self._pages == other._pages

    def close(self) -> None:
        """Nothing to give back."""

    def _page(self, index: int) -> bytes:
        return self._pages.get(index, _ZEROS)

    def _keep(self, index: int, page: bytes) -> None:
        if page == _ZEROS:
            self._pages.pop(index, None)
        else:
            self._pages[index] = page
