"""Reading an image for a check: 16 KiB buffers, a bounded number of them kept.

The checker must not share code with what it judges, so B-tree nodes and records are read here by offset from the
volumes alone, past the mounted system's caches.  Errors come out as HammerError with the offset in them.
"""

from __future__ import annotations

from collections import OrderedDict

from hammerfs.errors import CorruptionError
from hammerfs.ondisk.address import Offset, to_zone2
from hammerfs.ondisk.constants import BUFMASK, BUFSIZE
from hammerfs.store.volumes import VolumeSet

BUFFERS_KEPT = 4096
"""64 MiB: what keeps records that were written together from being read one by one."""


class ImageReader:
    """Bytes of the image by offset of any direct-translated zone."""

    def __init__(self, volumes: VolumeSet, buffers_kept: int = BUFFERS_KEPT) -> None:
        self.volumes = volumes
        self.version = volumes.version
        self._kept = buffers_kept
        self._buffers: OrderedDict[Offset, bytes] = OrderedDict()

    def read(self, offset: Offset, size: int) -> bytes:
        """`size` bytes; raises HammerError, also when they cross a 16 KiB buffer, which nothing that is read so may."""
        start = offset & BUFMASK
        if start + size > BUFSIZE:
            raise CorruptionError(f"{size} bytes that cross a buffer", offset=offset)
        buffer = self.buffer(to_zone2(offset) - start)
        return buffer[start : start + size]

    def buffer(self, base: Offset) -> bytes:
        """The 16 KiB buffer at the zone-2 address `base`."""
        found = self._buffers.get(base)
        if found is not None:
            self._buffers.move_to_end(base)
            return found
        data = bytes(self.volumes.read(base, BUFSIZE))
        self._buffers[base] = data
        if len(self._buffers) > self._kept:
            self._buffers.popitem(last=False)
        return data

    def read_uncached(self, offset: Offset, size: int) -> bytes:
        """Bulk data, read past the buffers."""
        return bytes(self.volumes.read(to_zone2(offset), size))
