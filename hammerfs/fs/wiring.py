"""The parts of a mounted file system, connected."""

from __future__ import annotations

from collections.abc import Callable

from hammerfs.btree.tree import BTree
from hammerfs.fs.context import Context
from hammerfs.fs.flushgroup import DirtyInodes
from hammerfs.fs.inodecache import InodeCache
from hammerfs.fs.knownnames import NameCache
from hammerfs.fs.livededup import LiveDedup
from hammerfs.fs.options import MountOptions
from hammerfs.fs.redolog import RedoJournal
from hammerfs.fs.space import Space
from hammerfs.ondisk.address import Offset
from hammerfs.ondisk.constants import BUFSIZE, VERSION_UNDO_SEQUENCED
from hammerfs.store.blockmap import Blockmap
from hammerfs.store.buffers import MetaBuffers
from hammerfs.store.datablocks import DataBlocks
from hammerfs.store.freemap import FreeMap
from hammerfs.store.nodestore import ZoneNodeStore
from hammerfs.store.recovery import RecoveryResult
from hammerfs.store.rootvolume import RootVolume
from hammerfs.store.undo import UndoFifo
from hammerfs.store.volumes import VolumeSet

_INODE_BYTES = 2048
"""Memory of a cached inode with its data and dictionaries."""
_NAME_BYTES = 384
"""Memory of a directory entry that is known."""
_NODE_BYTES = 14 * 1024
"""Memory of a decoded B-tree node."""


def wire(
    volumes: VolumeSet,
    options: MountOptions,
    read_only: bool,
    clock: Callable[[], int],
    recovered: RecoveryResult,
) -> Context:
    """Connect the parts, bottom up."""
    undo = None
    if not read_only:
        undo = UndoFifo(volumes, recovered.first_offset, recovered.next_offset, recovered.seq)
    buffers = MetaBuffers(volumes, undo, options.cache_bytes * 3 // 8 // BUFSIZE)
    root = RootVolume(volumes)
    if not read_only:
        root.check()
    freemap = FreeMap(volumes, buffers)
    tree_holder: list[BTree] = []

    def reused(bigblock: Offset) -> None:
        buffers.invalidate(bigblock)
        tree_holder[0].invalidate(bigblock)
        if live_dedup is not None:
            live_dedup.forget(bigblock)

    blockmap = Blockmap(freemap, root, reused)
    blocks = DataBlocks(volumes, options.cache_bytes // 4)
    live_dedup = LiveDedup(blockmap, blocks) if options.dedup and not read_only else None
    nodes = ZoneNodeStore(volumes, buffers, blockmap, root)
    tree = BTree(
        nodes,
        root.btree_root,
        cache_nodes=max(64, options.cache_bytes * 3 // 8 // _NODE_BYTES),
        mirror=not options.nomirror,
    )
    tree_holder.append(tree)
    return Context(
        options=options,
        volumes=volumes,
        undo=undo,
        buffers=buffers,
        root=root,
        freemap=freemap,
        blockmap=blockmap,
        tree=tree,
        blocks=blocks,
        space=Space(blockmap, root, undo.capacity if undo is not None else BUFSIZE),
        inodes=InodeCache(
            max(256, options.cache_bytes // 8 // _INODE_BYTES),
            NameCache(max(1024, options.cache_bytes // 8 // _NAME_BYTES), unchanging=read_only),
        ),
        dirty=DirtyInodes(),
        redo=RedoJournal(undo) if undo is not None and volumes.version >= VERSION_UNDO_SEQUENCED else None,
        read_only=read_only,
        live_dedup=live_dedup,
        clock=clock,
    )
