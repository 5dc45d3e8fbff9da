"""What counts as a failure, and the devices and limits that notice it.

A hostile image may be refused, and every operation on it may fail, with a HammerError whose text is one sentence.
Nothing else may happen: no other exception, no access outside of a volume, no write to what was opened read-only, no
endless loop, no memory without bound.
"""

from __future__ import annotations

import contextlib
import re
import resource
import signal
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType

from hammerfs.device.base import check_range
from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import HammerError
from hammerfs.ondisk.constants import BUFSIZE
from hammerfs.ondisk.crc import Buffer

CPU_SECONDS_MAX = 10.0
"""For all that is done with one image; an ordinary one needs some milliseconds."""
READS_MAX = 50_000
READ_BYTES_MAX = 1 << 30
MEMORY_MAX = 2 << 30
SENTENCE_MAX = 600
_NUMBER = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,16}\b|-?\d+")
_QUOTED = re.compile(r"b?'.*'|b?\".*\"")


class Failure(BaseException):
    """Something happened that must not; a BaseException, so that no handler under test mistakes it for an error."""


class GuardedDevice(MemoryDevice):
    """A copy-on-write view of a device in memory that notices what no code may do.

    reads, read_bytes -- how much was asked of it
    """

    def __init__(self, lower: MemoryDevice, *, writable: bool) -> None:
        super().__init__(lower.size, name=lower.name)
        self._pages = dict(lower._pages)
        self._writable = writable
        self.reads = 0
        self.read_bytes = 0

    def read(self, offset: int, size: int) -> bytes:
        """Count, and see that the range is within the device."""
        self.reads += 1
        self.read_bytes += size
        if offset < 0 or size < 0 or offset + size > self._size:
            raise Failure(f"a read of {size} bytes at {offset}, outside of {self._size}")
        if self.reads > READS_MAX or self.read_bytes > READ_BYTES_MAX:
            raise Failure("reads without an end")
        index, start = divmod(offset, BUFSIZE)
        if start + size <= BUFSIZE:
            return self._page(index)[start : start + size]
        return super().read(offset, size)

    def write(self, offset: int, data: Buffer) -> None:
        """See that writing was allowed, and where."""
        if not self._writable:
            raise Failure(f"a write at {offset} to what was opened read-only")
        if offset < 0 or offset + len(data) > self._size:
            raise Failure(f"a write of {len(data)} bytes at {offset}, outside of {self._size}")
        super().write(offset, data)


class CutDevice(GuardedDevice):
    """One that may end before its volume does, for who looks at such volumes all the same."""

    def read(self, offset: int, size: int) -> bytes:
        """Fail as a device does."""
        check_range("read", self, offset, size)
        return super().read(offset, size)


def guarded(devices: Sequence[MemoryDevice], *, writable: bool) -> list[GuardedDevice]:
    """All of them."""
    return [GuardedDevice(device, writable=writable) for device in devices]


def _ran_away(signal_number: int, frame: FrameType | None) -> None:
    raise Failure(f"more than {CPU_SECONDS_MAX:.0f} s of CPU time")


def limit_memory() -> None:
    """Bound what this process may take."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, resource.RLIM_INFINITY))


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Bound the CPU time, not the time: the machine may be busy with others."""
    before = signal.signal(signal.SIGPROF, _ran_away)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS_MAX)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def check_sentence(error: HammerError) -> None:
    """An error has to say what is wrong, in a sentence that fits a line."""
    text = str(error)
    if not text.strip() or len(text) > SENTENCE_MAX or not text.isprintable():
        raise Failure(f"{type(error).__name__} says {text[:SENTENCE_MAX]!r}") from error


def kind_of(error: HammerError) -> str:
    """An error's sentence without its numbers and names."""
    return f"{type(error).__name__}: {plain(str(error))}"


def plain(text: str) -> str:
    """A sentence without numbers and quotations."""
    return _NUMBER.sub("#", _QUOTED.sub("''", text))


def signature(error: BaseException) -> str:
    """What tells one failure from another: its kind and the innermost place in hammerfs."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = [frame for frame in frames if "/hammerfs/" in frame.filename]
    where = f"{inner[-1].filename.rpartition('/hammerfs/')[2]}: {inner[-1].name}" if inner else ""
    return f"{type(error).__name__}: {plain(str(error))[:120]} [{where}]"
