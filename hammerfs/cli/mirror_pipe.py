"""A mirroring stream on stdin and stdout, and where the PFS is that it is about."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable
from time import monotonic, sleep

from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.errors import UsageError
from hammerfs.ondisk.mirror import StreamParser, StreamRecord, packed

_CHUNK = 256 * 1024
_PFS_TARGET = re.compile(r"@@(?:PFS|(?:-1|0[xX][0-9a-fA-F]{16}):)\d{5}\Z")


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

    def demand_reader(self) -> None:
        """BrokenPipeError when nobody is left at the other end."""
        poll = select.poll()
        poll.register(self._target, 0)
        if poll.poll(0):
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


def place_of(options: HammerOptions, path: str) -> tuple[str, dict[str, str]]:
    """The path to reach a file system by, and the arguments that name the PFS there.

    The symlink that stands for a PFS is not followed: a slave that nothing was mirrored to has nothing behind it.
    UsageError for what -T does not allow.
    """
    check_target(options, path)
    trimmed = path.rstrip("/") or path
    folder, name = os.path.split(trimmed)
    if name and (options.specials or _leads_to_pfs(trimmed)):
        return folder or ("/" if options.specials else "."), {"name": name}
    return path, {}


def _leads_to_pfs(path: str) -> bool:
    try:
        return _PFS_TARGET.match(os.readlink(path)) is not None
    except OSError:
        return False


def check_target(options: HammerOptions, path: str) -> None:
    """-T names the tree that somebody from outside may mirror to and from; UsageError for what lies elsewhere."""
    allowed = options.restrict_target
    if allowed is None:
        return
    tree = allowed.rstrip("/")
    if path != allowed and path != tree and not path.startswith(tree + "/"):
        raise UsageError("hammer-remote: restricted target")
    if ".." in path[len(tree) :].split("/"):
        raise UsageError("hammer-remote: '..' not allowed")
