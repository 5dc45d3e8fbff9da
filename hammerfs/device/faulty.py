"""A device that fails on demand, so that tests see what a dying disk does to the file system."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, TypeAlias

from hammerfs.device.base import Device, FailureLatch
from hammerfs.errors import DeviceError
from hammerfs.ondisk.crc import Buffer

Action: TypeAlias = Literal["read", "write", "barrier"]


class FaultyDevice:
    """Passes everything on to `lower`, except that the `nth` read, write or barrier (from 1) fails with `errno`.

    A failed write wrote nothing, or with `short` its first half, rounded down to a sector.  `lasting` makes every later
    one of its kind fail, too; writes and barriers stay refused in any case.  `counts` says how many of each were asked.
    """

    def __init__(
        self, lower: Device, action: Action, nth: int, errno: int, *, short: bool = False, lasting: bool = False
    ) -> None:
        self._lower = lower
        self._action = action
        self._nth = nth
        self._errno = errno
        self._short = short
        self._lasting = lasting
        self._latch = FailureLatch(lower.name)
        self.counts: dict[Action, int] = {"read": 0, "write": 0, "barrier": 0}

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
        if self._is_due("read"):
            raise DeviceError("read", self.name, offset, size, self._cause())
        return self._lower.read(offset, size)

    def write(self, offset: int, data: Buffer) -> None:
        self.write_vector(offset, (data,))

    def write_vector(self, offset: int, chunks: Sequence[Buffer]) -> None:
        size = sum(map(len, chunks))
        self._latch.check("write", offset, size)
        if not self._is_due("write"):
            self._lower.write_vector(offset, chunks)
            return
        if self._short:
            self._lower.write(offset, b"".join(chunks)[: size // 2 & ~511])
        raise self._latch.fail("write", offset, size, self._cause())

    def barrier(self) -> None:
        self._latch.check("barrier", 0, self.size)
        if self._is_due("barrier"):
            raise self._latch.fail("barrier", 0, self.size, self._cause())
        self._lower.barrier()

    def prefetch(self, offset: int, size: int) -> None:
        self._lower.prefetch(offset, size)

    def close(self) -> None:
        self._lower.close()

    def _is_due(self, action: Action) -> bool:
        self.counts[action] += 1
        count = self.counts[action]
        return action == self._action and (count == self._nth or (self._lasting and count > self._nth))

    def _cause(self) -> OSError:
        return OSError(self._errno, os.strerror(self._errno))
