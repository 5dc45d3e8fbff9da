"""Raising the format version of a file system in place (`hammer_ioctl.c: hammer_ioc_set_version`).

Later versions read everything that earlier ones wrote, so nothing is converted, with one exception: from version 4 on
the UNDO FIFO is a ring of numbered records.  The new version has to be durable before anything is written that only it
can read.  It stands in the header beside what UNDO covers, so no recovery takes it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hammerfs.errors import UsageError
from hammerfs.ondisk import crc
from hammerfs.ondisk.constants import VERSION_UNDO_SEQUENCED, VOLUME_VERSION_MAX, VOLUME_VERSION_MIN

if TYPE_CHECKING:
    from hammerfs.fs.context import Context


def needs_quiet(ctx: Context, version: int) -> bool:
    """Whether the step to `version` can only be made while nobody uses the file system."""
    return ctx.version < VERSION_UNDO_SEQUENCED <= version


def check_version(ctx: Context, version: int) -> None:
    """UsageError when the file system cannot have that version: there is no way back."""
    if not VOLUME_VERSION_MIN <= version <= VOLUME_VERSION_MAX:
        raise UsageError(f"there is no version {version}; {VOLUME_VERSION_MAX} is the latest")
    if version < ctx.version:
        raise UsageError(f"the file system has version {ctx.version}, and there is no way back to {version}")


def raise_version(ctx: Context, version: int) -> None:
    """Have that version from now on.  Back-end code; with `needs_quiet`, nothing may be dirty nor unclosed."""
    check_version(ctx, version)
    undo, header = ctx.undo, ctx.root.header
    assert undo is not None, "a read-only mount keeps its version"
    anew = needs_quiet(ctx, version)
    before = header.copy()
    header.vol_version = version
    if anew:
        undo.begin_anew()
        # The old header says that nothing has to be undone, so what stands in the ring does not matter to it.
        ctx.volumes.barrier()
        ctx.root.point_fifo(undo.first_offset, undo.next_offset)
    assert header.copy() != before
    ctx.volumes.write_header()
    ctx.volumes.barrier()
    ctx.volumes.version = ctx.version = version
    ctx.checksum = crc.function_for(version)
    undo.adopt_version()
