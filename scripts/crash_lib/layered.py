"""A memory device whose copies share everything but what was written since: thousands of images of one file system."""

from __future__ import annotations

from hammerfs.device.memory import MemoryDevice
from hammerfs.ondisk.constants import BUFSIZE

_ZEROS = bytes(BUFSIZE)


class LayeredDevice(MemoryDevice):
    """The contents of a memory device that nobody writes any more, and changes of its own."""

    def __init__(self, below: MemoryDevice) -> None:
        super().__init__(below.size, name=below.name)
        self._below = below._pages

    def copy(self, *, name: str | None = None) -> LayeredDevice:
        other = LayeredDevice.__new__(LayeredDevice)
        other.__dict__.update(self.__dict__)
        other._pages = self._pages.copy()
        return other

    def _page(self, index: int) -> bytes:
        page = self._pages.get(index)
        return self._below.get(index, _ZEROS) if page is None else page

    def _keep(self, index: int, page: bytes) -> None:
        self._pages[index] = page
