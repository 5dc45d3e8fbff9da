"""Snapshots and the cleanup configuration of a PFS, as records on its root (`hammer_ioctl.c: hammer_ioc_add_snapshot`
and following, `hammer_ioc_get_config`, `hammer_ioc_set_config`).

A snapshot costs nothing: it is the TID of a durable state, with a time and a label, that pruning will respect.
"""

from __future__ import annotations

import os

from hammerfs.errors import UsageError
from hammerfs.fs import rootrecords
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Want, Work
from hammerfs.ondisk.address import pfs_of
from hammerfs.ondisk.constants import (
    LABEL_SIZE,
    MAX_TID,
    OBJTYPE_REGFILE,
    OBJTYPE_SOFTLINK,
    VERSION_SNAPSHOT_RECORDS,
)
from hammerfs.ondisk.pfs import CONFIG_DATA_SIZE
from hammerfs.ops.administer_sync import synchronized
from hammerfs.ops.operation import Call, Operation, Result

_ADOPTED = b"migrated"
"""The label that the original gives them."""
_CONFIG_NAME = b"config"
_SECONDS_MAX = (1 << 63) // 1_000_000


def records_supported(fs: FileSystem) -> bool:
    """Whether the format has snapshot and configuration records."""
    return fs.ctx.version >= VERSION_SNAPSHOT_RECORDS


def require_records(fs: FileSystem) -> None:
    """UsageError before version 3."""
    if not records_supported(fs):
        raise UsageError(
            "This directive requires you to upgrade the filesystem to version 3.  "
            "Use 'hammer snapshot' for legacy operation."
        )


def _add(call: Call) -> Work[Result]:
    """Record the state of this moment; with `legacy` also where the format has no records, which are left out then.

    `added` says whether the record is of this call: one of the same moment may have been there, and stays as it was.
    """
    fs = call.fs
    if not call.flag("legacy"):
        require_records(fs)
    label = os.fsencode(call.text("label", ""))[: LABEL_SIZE - 1]
    fs.ctx.space.check_change()
    tid = yield from synchronized(fs)
    added = False
    if records_supported(fs):
        added = rootrecords.add_snapshot(fs.ctx, call.place.localization, tid, fs.ctx.clock(), label)
        yield Want.DURABLE
    pfs, mounted = pfs_of(call.place.localization), pfs_of(fs.root.localization)
    return {"tid": tid, "pfs": pfs, "mounted_pfs": mounted, "added": added}


def _adopt(call: Call) -> Work[Result]:
    """Record snapshots that softlinks have kept so far, pairs of a TID and seconds; how many were not on record."""
    require_records(call.fs)
    moments = call.pairs("links")
    if not all(0 < tid <= MAX_TID and 0 <= seconds <= _SECONDS_MAX for tid, seconds in moments):
        raise UsageError("argument 'links' holds a TID or a time that cannot be")
    added = 0
    for tid, seconds in moments:
        call.fs.ctx.space.check_change()
        added += rootrecords.add_snapshot(call.fs.ctx, call.place.localization, tid, seconds * 1_000_000, _ADOPTED)
        yield Want.PAUSE
    yield Want.DURABLE
    return {"added": added}


def _folder(call: Call) -> Work[Result]:
    """What `hammer cleanup` may keep in a directory: softlinks, with their sizes and the earlier of their two times in
    seconds, and the text of a file `config`, None when there is none."""
    fs, links, config = call.fs, [], None
    for entry in fs.readdir(call.place, 0):
        inode = fs.lookup(call.place, entry.name)
        if inode.data.obj_type == OBJTYPE_SOFTLINK:
            seconds = min(inode.data.ctime, inode.data.mtime) // 1_000_000
            name, target = os.fsdecode(entry.name), os.fsdecode(fs.readlink(inode))
            links.append({"name": name, "target": target, "size": inode.data.size, "seconds": seconds})
        elif entry.name == _CONFIG_NAME and inode.data.obj_type == OBJTYPE_REGFILE:
            config = os.fsdecode(fs.read(inode, 0, CONFIG_DATA_SIZE))
        yield Want.PAUSE
    return {"links": links, "config": config}


def _list(call: Call) -> Work[Result]:
    yield from ()
    found = rootrecords.snapshots(call.fs.ctx, call.place.localization)
    return {
        "pfs": pfs_of(call.place.localization),
        "snapshots": [
            {"tid": item.tid, "time_us": item.ts, "label": os.fsdecode(item.label.split(b"\0", 1)[0])} for item in found
        ],
    }


def _remove(call: Call) -> Work[Result]:
    """Remove the records of the given TIDs; says which there were none of."""
    require_records(call.fs)
    absent = []
    for tid in call.numbers("tids"):
        known = 0 <= tid <= MAX_TID and rootrecords.remove_snapshot(call.fs.ctx, call.place.localization, tid)
        if not known:
            absent.append(tid)
        yield Want.PAUSE
    yield Want.DURABLE
    return {"pfs": pfs_of(call.place.localization), "absent": absent}


def _get_configuration(call: Call) -> Work[Result]:
    yield from ()
    text = rootrecords.configuration(call.fs.ctx, call.place.localization)
    return {"pfs": pfs_of(call.place.localization), "text": None if text is None else os.fsdecode(text)}


def _set_configuration(call: Call) -> Work[Result]:
    require_records(call.fs)
    text = os.fsencode(call.text("text"))
    if len(text) >= CONFIG_DATA_SIZE:
        raise UsageError(f"config file too big, limit {CONFIG_DATA_SIZE - 1} bytes")
    if b"\0" in text:
        raise UsageError("a configuration cannot hold a NUL")
    call.fs.ctx.space.check_change()
    rootrecords.configure(call.fs.ctx, call.place.localization, text)
    yield Want.DURABLE
    return {"pfs": pfs_of(call.place.localization)}


OPERATIONS = (
    Operation("snapshot-add", _add, changes=True),
    Operation("snapshot-adopt", _adopt, changes=True),
    Operation("snapshot-folder", _folder),
    Operation("snapshot-list", _list),
    Operation("snapshot-remove", _remove, changes=True),
    Operation("config-get", _get_configuration),
    Operation("config-set", _set_configuration, changes=True),
)
