"""A recording device for real mounts: what it would keep in a log goes into a file at once.

An entry is in the file before the call that made it returns.  So whoever sees an acknowledgement and then looks how
long the file is knows that everything that the acknowledgement rests on is in that part of it.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from hammerfs.device.base import Device
from hammerfs.device.passing import PassingDevice
from hammerfs.device.recording import BarrierBegin, BarrierEnd, Entry, Write
from hammerfs.ondisk.crc import Buffer

_HEAD = struct.Struct("<cxxxIQ")
_WRITE, _BEGIN, _END = b"W", b"B", b"E"


class SpoolingDevice(PassingDevice):
    """Passes everything on to `lower` and appends writes and barriers to a file; barriers may come from a thread."""

    def __init__(self, lower: Device, spool: Path) -> None:
        super().__init__(lower)
        self._fd = os.open(spool, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._lock = threading.Lock()
        self._count = 0

    def write(self, offset: int, data: Buffer) -> None:
        self._lower.write(offset, data)
        self._note(_WRITE, len(data), offset, bytes(data))

    def barrier(self) -> None:
        begin = self._note(_BEGIN, 0, 0)
        self._lower.barrier()
        self._note(_END, 0, begin)

    def _note(self, kind: bytes, size: int, number: int, data: bytes = b"") -> int:
        with self._lock:
            os.write(self._fd, _HEAD.pack(kind, size, number) + data)
            self._count += 1
            return self._count - 1


def entries_of(spool: Path) -> Iterator[tuple[int, Entry]]:
    """The entries in a file, each with where it ends; a last one that was cut off is left out."""
    raw = spool.read_bytes()
    at = 0
    while at + _HEAD.size <= len(raw):
        kind, size, number = _HEAD.unpack_from(raw, at)
        end = at + _HEAD.size + size
        if end > len(raw):
            return
        if kind == _WRITE:
            yield end, Write(0, number, raw[at + _HEAD.size : end])
        else:
            yield end, BarrierBegin(0) if kind == _BEGIN else BarrierEnd(0, number)
        at = end
