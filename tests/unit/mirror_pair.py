"""A source and a slave PFS in small file systems, and batches from one to the other without any program between."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator

from small_filesystem import FSID, walk

from hammerfs.fs.inode import Inode
from hammerfs.fs.mirrorread import changes
from hammerfs.fs.mirrorwrite import BatchWriter, set_sync_tid
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.pfs import load_pfs, view_of
from hammerfs.fs.rootrecords import save_pfs
from hammerfs.ondisk.address import Tid, pfs_localization
from hammerfs.ondisk.constants import (
    MAX_KEY,
    MAX_TID,
    MIN_KEY,
    OBJID_ROOT,
    OBJTYPE_DIRECTORY,
    OBJTYPE_REGFILE,
    OBJTYPE_SOFTLINK,
    PFSD_SLAVE,
    RECTYPE_DATA,
)
from hammerfs.ondisk.element import pack_key, unpack_leaf
from hammerfs.ondisk.mirror import Pass, Record, Skip
from hammerfs.ondisk.pfs import PFS_DATA_SIZE, PfsData

Batch = list[Record | Pass | Skip]
SLAVE = 1


def make_slave(fs: FileSystem, pfs: int = SLAVE, shared: uuid.UUID = FSID) -> None:
    """An empty slave of a small file system's root PFS."""
    data = PfsData(bytearray(PFS_DATA_SIZE))
    data.sync_beg_tid = 1
    data.mirror_flags = PFSD_SLAVE
    data.shared_uuid = shared
    save_pfs(fs.ctx, pfs, data)
    settle(fs)


def settle(fs: FileSystem) -> Tid:
    """Flush everything durably; the TID of that state."""
    assert fs.flusher is not None
    fs.flusher.flush_now()
    return fs.flusher.cycle.flush_tid1


def synced(fs: FileSystem, pfs: int = SLAVE) -> Tid:
    """The TID that readers see a slave as of."""
    data = load_pfs(fs.ctx, pfs_localization(pfs))
    assert data is not None
    return data.sync_end_tid


def batch(fs: FileSystem, begin: Tid, end: Tid, pfs: int = 0) -> Batch:
    """What a source has to say about a range of TIDs."""
    return [record for record in changes(fs.ctx, pfs, begin, end) if record is not None]


def apply(fs: FileSystem, records: Iterable[Record | Pass | Skip], end: Tid, pfs: int = SLAVE) -> BatchWriter:
    """Apply records, in as many cycles as the UNDO FIFO demands."""
    writer = BatchWriter(fs.ctx, pfs, 1, end)
    for record in records:
        _drive(fs, writer.apply(record))
    return writer


def complete(fs: FileSystem, records: Iterable[Record | Pass | Skip], end: Tid, pfs: int = SLAVE) -> None:
    """Apply a whole batch and make it visible."""
    _drive(fs, apply(fs, records, end, pfs).finish())
    set_sync_tid(fs.ctx, pfs, end)
    settle(fs)


def _drive(fs: FileSystem, steps: Iterator[None]) -> None:
    assert fs.flusher is not None
    for _ in steps:
        if fs.flusher.cycle.undo_exhausted(2) or fs.flusher.cycle.meta_halflimit():
            fs.flusher.flush_now()


def lose_data(fs: FileSystem, parent: Inode, name: bytes, **fields: int) -> None:
    """Change the record of a file's data, and nothing else."""
    obj_id = fs.lookup(parent, name).obj_id
    scan = fs.ctx.tree.scan(pack_key(0, 0, 0, MIN_KEY, 1), pack_key(0xFFFFFFFF, MAX_KEY, 0xFFFF, MAX_KEY, MAX_TID))
    victim = next(leaf for leaf in map(unpack_leaf, scan) if leaf.obj_id == obj_id and leaf.rec_type == RECTYPE_DATA)
    fs.ctx.tree.remove(victim.packed_key(), 0)
    damaged = victim._replace(**fields)
    fs.ctx.tree.insert(damaged.packed_key(), damaged.pack(), 0)


def mirror(source: FileSystem, target: FileSystem) -> Batch:
    """Bring the slave up to date; what was sent for that."""
    end = settle(source)
    records = batch(source, synced(target) + 1, end)
    complete(target, records, end)
    return records


def slave_root(fs: FileSystem, pfs: int = SLAVE) -> Inode:
    """The slave's root as readers get it."""
    localization = pfs_localization(pfs)
    return fs.inode(localization, OBJID_ROOT, view_of(fs.ctx, localization, MAX_TID))


def tree(fs: FileSystem, top: Inode) -> dict[bytes, object]:
    """Everything that can be seen from `top` on, by path; times that are kept in place are left out."""
    return dict(_entries(fs, top, b""))


def _entries(fs: FileSystem, inode: Inode, path: bytes) -> Iterator[tuple[bytes, object]]:
    data = inode.data
    content: object = None
    if data.obj_type == OBJTYPE_REGFILE:
        content = fs.read(inode, 0, data.size)
    elif data.obj_type == OBJTYPE_SOFTLINK:
        content = fs.readlink(inode)
    names = fs.listxattr(inode)
    attributes = {name: fs.getxattr(inode, name) for name in names}
    yield path, (inode.obj_id, data.obj_type, data.mode, data.nlinks, data.size, content, attributes)
    if data.obj_type == OBJTYPE_DIRECTORY:
        for entry in list(fs.readdir(inode, 0)):
            yield from _entries(fs, fs.lookup(inode, entry.name), path + b"/" + entry.name)


__all__ = [
    "Batch",
    "apply",
    "batch",
    "complete",
    "lose_data",
    "make_slave",
    "mirror",
    "settle",
    "slave_root",
    "synced",
    "tree",
    "walk",
]
