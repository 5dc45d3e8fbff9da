"""fsync: by REDO, durable with one barrier instead of a flush cycle's three, or by a flush (`hammer_vop_fsync`).

The fast way lays the file's operations into the FIFO (`redolog.py`), writes the FIFO, and puts a barrier behind it.
Fsyncs that arrive while a barrier runs share the next one.  For a directory that lacks nothing on disk but the names of
files which were fsynced so there is nothing left to do.

A barrier in a thread costs more CPU than all the rest, so a short one runs here and now.  Before it does, requests that
are waiting get their turn, for they may be fsyncs as well: several clients share one barrier.  For the same reason a
flush that nobody could share is carried out at once, without the flusher's tasks.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from hammerfs.errors import HammerError
from hammerfs.fs import births, filedata
from hammerfs.fs.flushgroup import TRUNCATED_BYTES_MAX
from hammerfs.fs.inode import Dirty, Inode
from hammerfs.fs.options import FSYNC_BACKGROUND, FSYNC_DURABLE, FSYNC_FULL, FSYNC_IGNORED, FSYNC_RELAXED
from hammerfs.fs.redolog import UNLAID_BYTES_MAX, RedoJournal, RedoLog
from hammerfs.ondisk.constants import OBJTYPE_REGFILE

if TYPE_CHECKING:
    from hammerfs.fs.context import Context
    from hammerfs.fs.flusher import Flusher

_GATHER_SECONDS = 0.002
"""How long the first of several fsyncs waits for the others at most."""


class Fsync:
    """What fsync does on one mount."""

    def __init__(self, ctx: Context, flusher: Flusher) -> None:
        self._ctx = ctx
        self._flusher = flusher
        self._fast: FastFsync | None = None

    @property
    def fast(self) -> FastFsync | None:
        """The way by REDO; None before version 4, to which a mounted file system may be raised."""
        if self._fast is None and self._ctx.redo is not None:
            self._fast = FastFsync(self._ctx, self._ctx.redo, self._flusher)
        return self._fast

    @property
    def quiet(self) -> bool:
        """Whether no fast fsync waits for its barrier."""
        return self._fast is None or not self._fast.leading

    async def run(self, inode: Inode, mode: int) -> None:
        """Do what fsync mode `mode` promises; raises what stopped the flusher."""
        flusher = self._flusher
        if mode == FSYNC_IGNORED:
            return
        flusher.raise_failure()
        if inode.redo is not None:
            inode.redo.fsynced()
        if mode == FSYNC_BACKGROUND:
            flusher.want_durable(flusher.seq_for(inode))
        elif mode == FSYNC_RELAXED:
            self._relaxed(inode)
        elif mode == FSYNC_FULL or not await self._by_redo(inode):
            await self._by_flush(inode)

    async def _by_flush(self, inode: Inode) -> None:
        """Return when everything acknowledged about an inode is durable, even if that takes several groups (INV-6)."""
        flusher = self._flusher
        if flusher.flush_alone(inode):
            self._begin_log(inode, flusher.done)
        else:
            await flusher.wait_durable(self._seq_logged(inode))
        while inode in self._ctx.dirty.cut_short:
            await flusher.wait_durable(flusher.seq_for(inode))

    async def _by_redo(self, inode: Inode) -> bool:
        """The same, if REDO can tell all that the disk lacks; False, with nothing done, if not."""
        fast, flusher = self.fast, self._flusher
        while fast is not None and fast.describes(inode):
            if flusher.cycle.undo_dirty:
                # Written but not closed: what is laid now could be lost with the cycle, or run on top of it.
                await flusher.wait_durable(flusher.done)
            elif fast.take_up(inode):
                await fast.commit(inode)
                return True
            else:
                break
        return False

    def anticipate(self, inode: Inode, mode: int) -> None:
        """Lay down what was just written, and let the disk begin with it, where an fsync is likely to come next.

        Its barrier then has less to wait for: an append with fsync took 0.85 of the time, an overwrite 0.87.  Where
        other requests wait, or barriers are long, a barrier is shared by many and should find all in one piece.
        Raises what stopped the flusher.
        """
        fast, flusher, log = self.fast, self._flusher, inode.redo
        if fast is None or log is None or not log.is_fsync_next() or mode != FSYNC_DURABLE or not fast.undisturbed():
            return
        if flusher.failure is not None or flusher.cycle.undo_dirty or not fast.describes(inode):
            return
        if fast.take_up(inode):
            self._lay(fast, inode, begin=True)

    def _relaxed(self, inode: Inode) -> None:
        """Send what would have to be durable on its way to the disk."""
        fast, flusher = self.fast, self._flusher
        if fast is None or not fast.describes(inode) or flusher.cycle.undo_dirty or not fast.take_up(inode):
            flusher.want_durable(self._seq_logged(inode))
            return
        self._lay(fast, inode)

    def _lay(self, fast: FastFsync, inode: Inode, *, begin: bool = False) -> None:
        try:
            fast.lay(inode, begin=begin)
        except HammerError as error:
            self._flusher.critical_error(error)
        self._flusher.raise_failure()

    def _seq_logged(self, inode: Inode) -> int:
        """`Flusher.seq_for`, and from then on operations are noted, so that the next fsync can be fast."""
        seq = self._flusher.seq_for(inode)
        self._begin_log(inode, seq)
        return seq

    def _begin_log(self, inode: Inode, seq: int) -> None:
        if (fast := self.fast) is not None:
            fast.begin(inode, seq)


class FastFsync:
    """Knows which fsyncs can be fast, and does them.

    count -- fast fsyncs done; barriers -- barriers that they took
    leading -- one of them is about to run a barrier, or waits for it
    """

    def __init__(self, ctx: Context, journal: RedoJournal, flusher: Flusher) -> None:
        assert ctx.undo is not None
        self._ctx = ctx
        self._undo = ctx.undo
        self._journal = journal
        self._flusher = flusher
        self._settled = 0
        self.leading = False
        self._led = trio.lowlevel.ParkingLot()
        self.count = 0
        self.barriers = 0

    def begin(self, inode: Inode, seq: int) -> None:
        """From now on note a file's operations; what came before is in flush group `seq`."""
        if inode.redo is None and inode.data.obj_type == OBJTYPE_REGFILE and inode.data.nlinks:
            inode.redo = RedoLog(seq)

    def describes(self, inode: Inode) -> bool:
        """Whether REDO operations are all that the disk lacks of an inode."""
        log = inode.redo
        if log is None or inode.is_directory:
            return self._describes_new(inode)
        if log.overflowed or log.base_seq > self._flusher.durable or inode.dirty & Dirty.BEYOND_REDO:
            return False
        capture = inode.capture
        if inode.general or (capture is not None and capture.truncate_at is not None):
            return False
        if inode.links and (log.birth is None or inode.links.keys() != {log.birth}):
            return False
        return inode.trunc_off is None or inode.disk_end - inode.trunc_off <= TRUNCATED_BYTES_MAX

    def _describes_new(self, inode: Inode) -> bool:
        """The same of a file that has never been fsynced, or of a directory with such files in it."""
        if self._flusher.running():
            return False
        if inode.is_directory:
            return births.newest_laying(inode) is not None
        return inode.data.size <= UNLAID_BYTES_MAX and births.can_tell(inode)

    def take_up(self, inode: Inode) -> bool:
        """Whether the FIFO may take those operations; those of a new file are noted from here on."""
        if inode.is_directory:
            return True
        log = inode.redo
        if log is None:
            content = filedata.read(self._ctx, inode, 0, inode.data.size)
            log = RedoLog.of_new(inode, self._flusher.durable, content)
        if not self._journal.has_room(log, inode) or self._flusher.cycle.undo_exhausted(3):
            return False
        inode.redo = log
        return True

    def _lay(self, inode: Inode) -> int:
        """Lay down what the FIFO lacks; returns the laying by which it has all."""
        if inode.is_directory:
            newest = births.newest_laying(inode)
            assert newest is not None, "nothing has changed since this was asked"
            return newest
        log = inode.redo
        assert log is not None, "what is laid was taken up"
        was_born = log.birth
        self._journal.lay(inode, log)
        if log.birth is not None and was_born is None:
            births.forget_predecessors(self._ctx, log.birth)
        return log.serial

    def lay(self, inode: Inode, *, begin: bool = False) -> None:
        """Write operations to the FIFO, without a barrier; `begin`: the disk need not wait for one to begin."""
        self._lay(inode)
        if begin:
            self._flusher.barriers.begin(partial(self._undo.flush, begin=True))
        else:
            self._undo.flush()

    async def commit(self, inode: Inode) -> None:
        """Make operations durable; raises what stopped the flusher."""
        try:
            wanted = self._lay(inode)
            while self._settled < wanted:
                self._flusher.raise_failure()
                if self.leading:
                    await self._led.park()
                else:
                    await self._lead()
        except (HammerError, OSError) as error:
            self._flusher.critical_error(error)
        self._flusher.raise_failure()
        self.count += 1

    async def _lead(self) -> None:
        """Write the FIFO and run the barrier for everybody who has laid something."""
        self.leading = True
        try:
            await self._gather()
            covered = self._journal.serial
            self._undo.flush()
            self.barriers += 1
            await self._flusher.barriers.run()
            self._settled = max(self._settled, covered)
        finally:
            self.leading = False
            self._led.unpark_all()

    async def _gather(self) -> None:
        """Let requests that wait already be answered first: what they lay shares the barrier."""
        if not self._others_wait():
            return
        deadline = time.perf_counter() + _GATHER_SECONDS
        while self._others_wait() and time.perf_counter() < deadline:
            await trio.lowlevel.checkpoint()

    def undisturbed(self) -> bool:
        """Whether a barrier would run at once, for whoever asks for it alone."""
        return not self.leading and self._flusher.barriers.is_short() and not self._others_wait()

    def _others_wait(self) -> bool:
        others_wait = self._flusher.others_wait
        return others_wait is not None and others_wait()
