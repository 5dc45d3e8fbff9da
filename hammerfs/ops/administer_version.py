"""The format version: told, and raised (`hammer_ioctl.c: hammer_ioc_get_version, hammer_ioc_set_version`)."""

from __future__ import annotations

from hammerfs.errors import UsageError
from hammerfs.fs import formatversion
from hammerfs.fs.work import Want, Work
from hammerfs.ondisk.constants import VOLUME_VERSION_MAX, VOLUME_VERSION_MIN
from hammerfs.ops.operation import Call, Operation, Result

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
        if formatversion.needs_quiet(ctx, version) and not call.exclusive:
            raise UsageError(
                "this step lays out the UNDO FIFO anew: unmount, and use hammer -f blkdevs version-upgrade"
            )
        yield Want.DURABLE
        formatversion.raise_version(ctx, version)
    return {"before": before, "version": version}


OPERATIONS = (Operation("version-get", _get), Operation("version-upgrade", _upgrade, changes=True))
