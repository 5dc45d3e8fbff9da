"""A mirroring stream on stdin and stdout."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from time import monotonic, sleep

from hammerfs.cli.hearing import ending_at_once
from hammerfs.ondisk.mirror import StreamParser, StreamRecord, packed

_CHUNK = 256 * 1024


class Throttle:
    """Lets through at most `limit` bytes a second, 0 for any number (-b)."""

    def __init__(
        self, limit: int, clock: Callable[[], float] = monotonic, pause: Callable[[float], None] = sleep
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._pause = pause
        self._since = clock()
        self._passed = 0

    def portion(self, wanted: int) -> int:
        """How many of `wanted` bytes may go now; waits until that is at least one."""
        if not self._limit:
            return wanted
        if self._passed >= self._limit:
            self._pause(max(0.0, self._since + 1 - self._clock()))
            self._since = self._clock()
            self._passed = 0
        allowed = min(wanted, self._limit - self._passed)
        self._passed += allowed
        return allowed


class MirrorPipe:
    """One end of a stream: records come from one file descriptor and go to another.

    throttle -- slows down what goes out; sent -- bytes that went
    """

    def __init__(self, source: int = 0, target: int = 1, bandwidth: int = 0) -> None:
        self._source = source
        self._target = target
        self._parser = StreamParser()
        self._next: StreamRecord | None = None
        self._ended = False
        self._throttle = Throttle(bandwidth)
        self.sent = 0

    def read(self) -> StreamRecord | None:
        """The next record, None at the end of the stream; StreamError when that is no end."""
        record, self._next = self.peek(), None
        return record

    def peek(self) -> StreamRecord | None:
        """The record that `read` will return."""
        while self._next is None and not self._ended:
            self._next = self._parser.next_record()
            if self._next is None:
                piece = os.read(self._source, _CHUNK)
                if not piece:
                    self._parser.finish()
                    self._ended = True
                self._parser.feed(piece)
        return self._next

    def wait_beside(self, descriptor: int) -> None:
        """Until something can be read from a descriptor; BrokenPipeError when nobody is left at the other end."""
        poll = select.poll()
        poll.register(self._target, 0)
        poll.register(descriptor, select.POLLIN)
        with ending_at_once():
            ready = dict(poll.poll())
        if self._target in ready:
            raise BrokenPipeError

    def write(self, record: StreamRecord) -> None:
        """Send a record at once; what answers are waited for never waits itself."""
        self._put(packed(record))

    def pour(self, content: bytes) -> None:
        """Send a piece of a batch, as fast as -b allows."""
        view = memoryview(content)
        while view:
            portion = self._throttle.portion(len(view))
            self._put(view[:portion])
            view = view[portion:]

    def _put(self, content: bytes | memoryview) -> None:
        view = memoryview(content)
        while view:
            count = os.write(self._target, view)
            self.sent += count
            view = view[count:]
