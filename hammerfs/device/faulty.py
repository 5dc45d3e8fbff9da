"""A device that fails on demand, so that tests see what a dying disk does to the file system."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from hammerfs.device.base import Device, FailureLatch
from hammerfs.device.passing import PassingDevice
from hammerfs.errors import DeviceError
from hammerfs.ondisk.crc import Buffer

Action: TypeAlias = Literal["read", "write", "barrier"]


class FaultyDevice(PassingDevice):
    """Passes everything on to `lower`, except that the `nth` read, write or barrier (from 1) fails with `errno`.

    With the action "any" all three are counted together.  A failed write wrote nothing, or with `short` its first half,
    rounded down to a sector.  `lasting` makes every later one of its kind fail, too.  Writes and barriers stay refused
    in any case, as those of real devices do; without `latched` they do not, which shows who would try again.

    nth -- which one fails; may be changed, and 0 is none
    counts -- how many of each were asked
    faults -- how many of them failed
    is_healed -- nothing fails any more, except what is latched
    on_fault -- called just before each failure is raised
    """

    def __init__(
        self,
        lower: Device,
        action: Action | Literal["any"],
        nth: int,
        errno: int,
        *,
        short: bool = False,
        lasting: bool = False,
        latched: bool = True,
    ) -> None:
        super().__init__(lower)
        self._action = action
        self.nth = nth
        self._errno = errno
        self._short = short
        self._lasting = lasting
        self._latched = latched
        self._latch = FailureLatch(lower.name)
        self.counts: dict[Action, int] = {"read": 0, "write": 0, "barrier": 0}
        self.faults = 0
        self.is_healed = False
        self.on_fault: Callable[[], None] = lambda: None

    def read(self, offset: int, size: int) -> bytes:
        if self._is_due("read"):
            raise self._failure("read", offset, size)
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
        raise self._failure("write", offset, size)

    def barrier(self) -> None:
        self._latch.check("barrier", 0, self.size)
        if self._is_due("barrier"):
            raise self._failure("barrier", 0, self.size)
        self._lower.barrier()

    def _is_due(self, action: Action) -> bool:
        self.counts[action] += 1
        if self.is_healed or self._action not in (action, "any"):
            return False
        count = sum(self.counts.values()) if self._action == "any" else self.counts[action]
        return count == self.nth or (self._lasting and count > self.nth)

    def _failure(self, action: Action, offset: int, size: int) -> DeviceError:
        self.faults += 1
        self.on_fault()
        if self._latched and action != "read":
            return self._latch.fail(action, offset, size, self._cause())
        return DeviceError(action, self.name, offset, size, self._cause())

    def _cause(self) -> OSError:
        return OSError(self._errno, os.strerror(self._errno))
