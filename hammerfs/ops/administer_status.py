"""What a file system is: label, uuid, version, volumes, space, inodes (`hammer_ioctl.c: hammer_ioc_get_info`)."""

from __future__ import annotations

from typing import Any

from hammerfs.fs.context import Context
from hammerfs.fs.rootrecords import pfs_records, snapshots
from hammerfs.fs.work import Work
from hammerfs.ondisk.address import pfs_localization, pfs_of
from hammerfs.ondisk.constants import BIGBLOCK_SIZE
from hammerfs.ops.operation import Call, Operation, Result


def volumes_of(ctx: Context) -> list[dict[str, Any]]:
    """The volumes, by number."""
    return [{"number": volume.number, "device": volume.device.name} for volume in ctx.volumes.volumes.values()]


def _info(call: Call) -> Work[Result]:
    yield from ()
    ctx = call.fs.ctx
    root = ctx.root
    kept_bytes = ctx.blockmap.allocatable_bigblocks * BIGBLOCK_SIZE - ctx.space.available
    return {
        "label": call.fs.label,
        "fsid": str(call.fs.fsid),
        "version": ctx.version,
        "read_only": call.fs.read_only,
        "pfs": pfs_of(call.place.localization),
        "volumes": volumes_of(ctx),
        "bigblocks": root.total_bigblocks,
        "bigblocks_free": root.free_bigblocks,
        "bigblocks_reserved": min(root.free_bigblocks, -(-max(kept_bytes, 0) // BIGBLOCK_SIZE)),
        "inodes": root.inode_count,
        "pfs_list": [
            {"id": pfs_id, "slave": record.is_slave, "snapshots": len(snapshots(ctx, pfs_localization(pfs_id)))}
            for pfs_id, record in pfs_records(ctx)
            if not record.is_deleted
        ],
    }


OPERATIONS = (Operation("info", _info),)
