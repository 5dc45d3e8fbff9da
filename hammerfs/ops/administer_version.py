"""The format version: told, and raised (`hammer_ioctl.c: hammer_ioc_get_version, hammer_ioc_set_version`)."""

from __future__ import annotations

from hammerfs.errors import BusyError
from hammerfs.fs import formatversion
from hammerfs.fs.work import Aside, Done, Phase, Want, Work
from hammerfs.ondisk.constants import VOLUME_VERSION_MAX, VOLUME_VERSION_MIN
from hammerfs.ops.operation import Call, Operation, Result

_BUFFERS_PER_STRETCH = 64
"""A megabyte of the UNDO FIFO."""
_BUFFERS_AT_ONCE = 256
_QUIET_TRIES = 1000
DESCRIPTIONS = {
    1: "First HAMMER release (DragonFly 2.0+)",
    2: "New directory entry layout (DragonFly 2.3+)",
    3: "New snapshot management (DragonFly 2.5+)",
    4: "New undo/flush, faster flush/sync (DragonFly 2.5+)",
    5: "Adjustments for dedup support (DragonFly 2.9+)",
    6: "Directory Hash ALG1 (tmp/rename resistance)",
    7: "Use ISCSI CRC (faster than original crc32)",
}
"""What each version brought, in hammer(8)'s words."""


def _get(call: Call) -> Work[Result]:
    yield from ()
    return {
        "current": call.fs.ctx.version,
        "min": VOLUME_VERSION_MIN,
        "max": VOLUME_VERSION_MAX,
        "descriptions": [{"version": version, "text": text} for version, text in DESCRIPTIONS.items()],
    }


def _upgrade(call: Call) -> Work[Result]:
    ctx = call.fs.ctx
    before, version = ctx.version, call.number("version")
    formatversion.check_version(ctx, version)
    if version != before:
        yield Want.DURABLE
        if formatversion.needs_new_fifo(ctx, version):
            if not (yield from _with_new_fifo(call, version)):
                return {"before": before, "version": before}
        else:
            formatversion.raise_version(ctx, version)
    return {"before": before, "version": version}


def _with_new_fifo(call: Call, version: int) -> Work[bool]:
    """Lay out what nobody uses of the ring, then, in a moment in which nobody uses any of it, the rest.

    False when it was interrupted before that.
    """
    ctx, flusher = call.fs.ctx, call.fs.flusher
    assert ctx.undo is not None
    assert flusher is not None
    layout = formatversion.FifoLayout(ctx.undo, version)
    yield Phase("laying out the UNDO FIFO", len(layout.pending))
    for _ in range(_QUIET_TRIES):
        while laid := layout.lay_out(_BUFFERS_PER_STRETCH):
            yield Done(laid)
            if call.interrupted():
                return False
            yield Want.PAUSE
        yield Aside(ctx.volumes.barrier)
        yield Want.DURABLE
        layout.notice_use()
        if len(layout.pending) <= _BUFFERS_AT_ONCE and flusher.settle_now():
            formatversion.raise_version(ctx, version, layout)
            return True
    raise BusyError("the file system is too busy for this; try again later, or unmount it and use hammer -f")


OPERATIONS = (Operation("version-get", _get), Operation("version-upgrade", _upgrade, changes=True))
