"""What fast fsyncs wrote to the FIFO and no flush has committed yet (`hammer_redo.c`).

From its first fsync on, the writes and truncations of a file are noted as REDO operations.  A later fsync lays those
that the FIFO does not hold yet into it, behind one barrier; recovery runs them again on what UNDO left.  So at any time
the FIFO's active range must hold exactly the operations that the state recovered by UNDO lacks.  Four rules see to it:

- Every group captures all files with operations in the FIFO, so a cycle commits whatever was laid before its capture.
- While a cycle is written but not closed nothing is laid: fsync waits for its end.
- All operations of one fsync are laid in one step, and each of their records but the last says that more follow.  Those
  at the end of the range after which nothing follows are the beginning of an fsync that was not acknowledged.
- The header that closes a cycle moves first_offset past all that was laid.  What was laid after the capture is lacked
  by the new state too, so it is laid once more behind the new first_offset, and is durable before that header is
  written.  The state before must not see it twice: the copy hides behind a jump of the sequence numbers, which ends the
  range for a recovery that starts at the old first_offset.

So no REDO_SYNC ever points in front of the range it stands in.  TERM records are of use only there, to tell what in
the extension was committed; none is written, and none could confuse a reader that matches them as the original does
(docs/recovery.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hammerfs.fs.inode import Dirty, Inode
from hammerfs.ondisk.constants import REDO_TRUNC
from hammerfs.ondisk.fifo import REDO_PAYLOAD_MAX, RedoBody
from hammerfs.store.undo import UndoFifo, redo_write_size

UNLAID_BYTES_MAX = 64 * 1024
"""Bytes written to one file between two fsyncs beyond which a flush is cheaper than so many records."""
UNLAID_OPERATIONS_MAX = 256
LAID_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of all files that are kept in memory to be laid again; also at most a sixteenth of the FIFO."""
INODES_MAX = 64
"""Files with operations in the FIFO: each of them joins the next group."""


class Operation(NamedTuple):
    """A write of `data` at a file offset, or with `data` None a truncation to it."""

    offset: int
    data: bytes | None

    @property
    def cost(self) -> int:
        """Bytes of FIFO that it takes, at most."""
        return redo_write_size(0 if self.data is None else len(self.data))


class RedoLog:
    """The operations of one file that its inode record and data on disk lack.

    base_seq -- once this flush group is durable, the disk lacks nothing but operations noted here
    recent -- operations since the last capture, oldest first; laid -- how many of them the FIFO holds
    captured -- those of the running group that it does not hold: if the group is rolled back, they are lacked
    overflowed -- there were too many to note; only a flush makes the file durable now
    serial -- of the journal's laying that included the newest operation
    """

    __slots__ = ("base_seq", "captured", "laid", "overflowed", "recent", "serial", "unlaid_bytes")

    def __init__(self, base_seq: int) -> None:
        self.base_seq = base_seq
        self.recent: list[Operation] = []
        self.laid = 0
        self.captured: list[Operation] = []
        self.overflowed = False
        self.unlaid_bytes = 0
        self.serial = 0

    def note_write(self, offset: int, data: bytes, replaced: bytes | None) -> None:
        """A write of the front end, and what stood in its place, if that is known.

        A database writes pages of which little has changed: pieces that were the same are left out.
        """
        if replaced is None or len(replaced) != len(data) or len(data) <= REDO_PAYLOAD_MAX:
            self.note(offset, data)
            return
        for start, end in _changed_pieces(replaced, data):
            self.note(offset + start, data[start:end])

    def note(self, offset: int, data: bytes | None) -> None:
        """An operation of the front end."""
        if self.overflowed:
            return
        self.recent.append(Operation(offset, data))
        if data is not None:
            self.unlaid_bytes += len(data)
        if self.unlaid_bytes > UNLAID_BYTES_MAX or len(self.recent) - self.laid > UNLAID_OPERATIONS_MAX:
            self.overflowed = True
            del self.recent[self.laid :]
            self.captured.clear()
            self.unlaid_bytes = 0

    def unlaid(self) -> list[Operation]:
        """What the FIFO lacks, oldest first."""
        return self.captured + self.recent[self.laid :]

    def capture(self, seq: int, *, beyond_redo: bool) -> None:
        """Flush group `seq` takes everything noted; `beyond_redo`: and changes that no operation describes."""
        if beyond_redo or self.overflowed:
            self.base_seq = seq
            self.overflowed = False
            self.captured.clear()
        else:
            self.captured = self.recent[self.laid :]
        self.recent = []
        self.laid = 0
        if not self.captured:
            self.unlaid_bytes = 0


def _changed_pieces(old: bytes, new: bytes) -> Iterator[tuple[int, int]]:
    """Runs of pieces, of one record's payload each, that differ; the last piece where none does."""
    size = len(new)
    start = -1
    for at in range(0, size, REDO_PAYLOAD_MAX):
        if old[at : at + REDO_PAYLOAD_MAX] != new[at : at + REDO_PAYLOAD_MAX]:
            if start < 0:
                start = at
        elif start >= 0:
            yield start, at
            start = -1
    if start >= 0:
        yield start, size
    elif old == new:
        yield (size - 1) // REDO_PAYLOAD_MAX * REDO_PAYLOAD_MAX, size


class RedoJournal:
    """All operations in the FIFO's active range; one per mount, from version 4 on.

    holders -- inodes with laid operations that no group has captured
    used -- whether the range holds REDO at all
    serial -- counts layings
    """

    def __init__(self, undo: UndoFifo) -> None:
        self._undo = undo
        self._limit = min(LAID_BYTES_MAX, undo.capacity // 16)
        self.holders: dict[Inode, None] = {}
        self.used = False
        self.serial = 0
        self._in_group: list[RedoLog] = []
        self._laid_bytes = 0

    def has_room(self, log: RedoLog, inode: Inode) -> bool:
        """Whether a file's operations may be laid."""
        cost = sum(operation.cost for operation in log.unlaid())
        crowded = len(self.holders) >= INODES_MAX and inode not in self.holders
        return not crowded and self._laid_bytes + cost <= self._limit

    def lay(self, inode: Inode, log: RedoLog) -> None:
        """Lay what the FIFO lacks of a file into it, in memory."""
        operations = log.unlaid()
        if not operations:
            return
        self._append(inode, operations)
        log.captured.clear()
        log.laid = len(log.recent)
        log.unlaid_bytes = 0
        if log.recent:
            self.holders[inode] = None
        self.serial += 1
        log.serial = self.serial

    def capture(self, inode: Inode, seq: int) -> None:
        """Flush group `seq` has taken an inode."""
        log = inode.redo
        if log is None:
            return
        assert inode.capture is not None
        log.capture(seq, beyond_redo=bool(inode.capture.dirty & Dirty.BEYOND_REDO))
        self.holders.pop(inode, None)
        if log.captured:
            self._in_group.append(log)

    def carry_over(self) -> None:
        """Begin the FIFO's next range, at the end of a written cycle, with what that cycle does not hold.

        The caller makes the FIFO durable before it writes a header with the new first_offset.
        """
        for log in self._in_group:
            log.captured.clear()
        self._in_group.clear()
        self.used = False
        self._laid_bytes = 0
        self._undo.begin_range(hidden=bool(self.holders))
        for inode in self.holders:
            assert inode.redo is not None
            self._append(inode, inode.redo.recent[: inode.redo.laid])

    def _append(self, inode: Inode, operations: list[Operation]) -> None:
        """Lay down operations of a file in one step, so that recovery finds all of them or redoes none."""
        undo = self._undo
        if not self.used:
            self.used = True
            undo.append_redo_sync()
        for number, operation in enumerate(operations, 1):
            offset, data = operation
            more = number < len(operations)
            if data is None:
                undo.append_redo(RedoBody(inode.obj_id, offset, 0, REDO_TRUNC, inode.localization, b"", more))
            else:
                undo.append_redo_write(inode.obj_id, inode.localization, offset, data, more=more)
            self._laid_bytes += operation.cost
