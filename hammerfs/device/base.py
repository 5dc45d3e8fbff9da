"""What hammerfs asks of a place that keeps bytes, and how a device that failed once stays failed.

The store writes in an order that its crash safety depends on, and a barrier separates what must be on stable storage
from what comes next.  A write or barrier that failed leaves it unknown what the medium holds (Linux may even have
dropped the pages and forgotten the error), so no later success can be trusted: `FailureLatch` refuses everything that
would change the medium until the file system is mounted again.  Reading goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hammerfs.errors import DeviceError
from hammerfs.ondisk.crc import Buffer


class Device(Protocol):
    """Bytes at offsets.  All offsets and sizes are bytes from the start of the device; every error is a DeviceError."""

    @property
    def name(self) -> str:
        """What messages call the device, normally its path."""

    @property
    def writable(self) -> bool:
        """Whether `write` and `write_vector` are allowed."""

    @property
    def size(self) -> int:
        """Length in bytes; constant while the device is open."""

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; holes read as zeros."""

    def write(self, offset: int, data: Buffer) -> None:
        """Write all of `data` at `offset`; durable only after a barrier."""

    def write_vector(self, offset: int, chunks: Sequence[Buffer]) -> None:
        """Write the chunks one behind the other from `offset` on, in as few system calls as possible."""

    def barrier(self) -> None:
        """Return when everything written before the call is on stable storage."""

    def prefetch(self, offset: int, size: int) -> None:
        """Hint that a range will be read soon; may do nothing and never fails."""

    def begin_writing(self, offset: int, size: int) -> None:
        """Hint that a range was written for which a barrier will soon be waited; may do nothing and never fails."""

    def close(self) -> None:
        """Give the device back; closing twice is allowed.  Closing is no barrier."""


class FailureLatch:
    """Remembers the first failed write or barrier of a device, and refuses every later one in its name."""

    __slots__ = ("failure", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.failure: DeviceError | None = None

    def check(self, action: str, offset: int, size: int) -> None:
        """Raise DeviceError when a write or barrier failed before."""
        if self.failure is not None:
            raise DeviceError(action, self.name, offset, size, f"an earlier {self.failure.action} failed")

    def fail(self, action: str, offset: int, size: int, cause: OSError | str) -> DeviceError:
        """Record a failure and return the error to raise for it."""
        error = DeviceError(action, self.name, offset, size, cause)
        if self.failure is None:
            self.failure = error
        return error


def check_range(action: str, device: Device, offset: int, size: int) -> None:
    """Raise DeviceError unless `size` bytes at `offset` lie within the device."""
    if offset < 0 or size < 0 or offset + size > device.size:
        raise DeviceError(action, device.name, offset, size, f"the device has {device.size} bytes")
