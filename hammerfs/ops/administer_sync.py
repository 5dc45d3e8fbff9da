"""Synchronization points: `synctid` (`hammer_ioctl.c: hammer_ioc_synctid`).

The TID that is given out names a state that no crash takes back: everything that was accepted before the request has a
TID up to it, everything that is accepted later a greater one.  So `@@0x<tid>` shows that state for ever, or until it is
pruned.
"""

from __future__ import annotations

from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Want, Work
from hammerfs.ondisk.address import Tid
from hammerfs.ops.operation import Call, Operation, Result


def synchronized(fs: FileSystem) -> Work[Tid]:
    """Flush everything that was accepted, durably; the TID of that state."""
    yield Want.DURABLE
    return durable_tid(fs)


def durable_tid(fs: FileSystem) -> Tid:
    """The highest TID of what no crash takes back."""
    return fs.ctx.root.next_tid if fs.flusher is None else fs.flusher.cycle.flush_tid1


def _synctid(call: Call) -> Work[Result]:
    tid = yield from synchronized(call.fs)
    return {"tid": tid}


OPERATIONS = (Operation("synctid", _synctid),)
