"""What was computed from an image once holds for every image that gives the same answers to the same reads.

Recovery and verification are deterministic: what they read first does not depend on the image, what they read next
depends on what they have read so far.  So their runs form a tree: a node is a read, a branch is what came back, a leaf
is the result.  Walking the tree with an image either ends at a leaf, whose result is exactly what a run would give, or
shows that a run is needed, which then adds its own branch.  Nothing is assumed about which bytes matter.

Reads of pages that no write has ever reached are the same in all images and are left out of the tree.  When a page is
written for the first time, trees that left it out are void.  A tree that has grown large is begun anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import Entry, RecordingDevice, RecordingLog, Write
from hammerfs.ondisk.constants import BUFSIZE

TREE_BYTES_MAX = 64 * 1024 * 1024
"""What was read, in one tree; that of most workloads ends at a third of it."""
T = TypeVar("T")
Read = tuple[int, int, int, int]
"""Device, page, and from where to where in the page."""


@dataclass(slots=True)
class _Node(Generic[T]):
    """A read and its branches, or a leaf with a result in a list of one."""

    read: Read | None = None
    branches: dict[bytes, _Node[T]] = field(default_factory=dict)
    result: list[T] = field(default_factory=list)


class ReadingDevice(RecordingDevice):
    """A recording device that notes its reads, too, as far as they reach pages that differ between images.

    What counts is the image before the run: its own writes follow from what it read.
    """

    def __init__(
        self, image: MemoryDevice, log: RecordingLog, written: set[tuple[int, int]], reads: list[tuple[Read, bytes]]
    ) -> None:
        self._now = image.copy()
        super().__init__(self._now, log)
        self._image = image
        self._written = written
        self._reads = reads

    def read(self, offset: int, size: int) -> bytes:
        page, start = divmod(offset, BUFSIZE)
        stop = start + size
        if stop > BUFSIZE or offset + size > self.size:
            end = (offset + size + BUFSIZE - 1) // BUFSIZE
            for number in range(page, end):
                self._note(number, max(offset - number * BUFSIZE, 0), min(offset + size - number * BUFSIZE, BUFSIZE))
            return super().read(offset, size)
        self._note(page, start, stop)
        return self._now._page(page)[start:stop]

    def _note(self, page: int, start: int, stop: int) -> None:
        if (self._index, page) in self._written:
            self._reads.append(((self._index, page, start, stop), self._image._page(page)[start:stop]))


class Memo(Generic[T]):
    """Results of `function` by what it read.

    `function` gets devices to read and write; what it writes stays in copies and shows in their log only.
    `has_learned` tells whether the run before read otherwise than all later ones will.
    runs, hits -- how often it had to be run, and how often its result was known
    """

    def __init__(
        self,
        function: Callable[[Sequence[ReadingDevice]], T],
        written: set[tuple[int, int]],
        has_learned: Callable[[], bool] = lambda: False,
    ) -> None:
        self._function = function
        self._has_learned = has_learned
        self._written = written
        self._root: _Node[T] | None = None
        self._kept_bytes = 0
        self.runs = 0
        self.hits = 0

    def forget(self) -> None:
        """Void the tree: a page was written that it left out, or it is too large."""
        self._root = None
        self._kept_bytes = 0

    def result(self, images: Sequence[MemoryDevice]) -> T:
        """What `function` gives for these images, which it leaves alone."""
        node = self._root
        while node is not None:
            read = node.read
            if read is None:
                self.hits += 1
                return node.result[0]
            device, page, start, stop = read
            node = node.branches.get(images[device]._page(page)[start:stop])
        self.runs += 1
        log = RecordingLog()
        reads: list[tuple[Read, bytes]] = []
        result = self._function([ReadingDevice(image, log, self._written, reads) for image in images])
        if self._has_learned():
            self.forget()
        else:
            self._keep(reads, result)
        return result

    def _keep(self, reads: Sequence[tuple[Read, bytes]], result: T) -> None:
        if self._root is None or self._kept_bytes > TREE_BYTES_MAX:
            self.forget()
            self._root = _Node()
        node = self._root
        known: set[Read] = set()
        for read, data in reads:
            if read in known:
                continue
            known.add(read)
            if node.read is None:
                assert not node.result, "a run read more than one before it that had the same answers"
                node.read = read
            assert node.read == read, "a run is not determined by what it reads"
            branch = node.branches.get(data)
            if branch is None:
                branch = node.branches[data] = _Node()
                self._kept_bytes += len(data)
            node = branch
        assert node.read is None, "a run read less than one before it that had the same answers"
        node.result = [result]


def pages_of(entries: Sequence[Entry]) -> set[tuple[int, int]]:
    """The pages that a log's writes reach, as (device, page)."""
    return {
        (entry.device, page)
        for entry in entries
        if isinstance(entry, Write)
        for page in range(entry.offset // BUFSIZE, (entry.offset + len(entry.data) + BUFSIZE - 1) // BUFSIZE)
    }
