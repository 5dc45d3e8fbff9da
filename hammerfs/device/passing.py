"""A device in front of another one: the part of recording, faulty and suchlike devices that they have in common."""

from __future__ import annotations

from collections.abc import Sequence

from hammerfs.device.base import Device
from hammerfs.ondisk.crc import Buffer


class PassingDevice:
    """Passes everything on to `lower`, and subclasses what they do not treat themselves."""

    def __init__(self, lower: Device) -> None:
        self._lower = lower

    @property
    def name(self) -> str:
        return self._lower.name

    @property
    def writable(self) -> bool:
        return self._lower.writable

    @property
    def size(self) -> int:
        return self._lower.size

    def read(self, offset: int, size: int) -> bytes:
        return self._lower.read(offset, size)

    def write(self, offset: int, data: Buffer) -> None:
        self._lower.write(offset, data)

    def write_vector(self, offset: int, chunks: Sequence[Buffer]) -> None:
        """As one write, so that a subclass has only `write` to treat."""
        self.write(offset, b"".join(chunks))

    def barrier(self) -> None:
        self._lower.barrier()

    def prefetch(self, offset: int, size: int) -> None:
        self._lower.prefetch(offset, size)

    def begin_writing(self, offset: int, size: int) -> None:
        self._lower.begin_writing(offset, size)

    def close(self) -> None:
        self._lower.close()
