"""The parts of a mounted file system that every operation needs, wired once at mount."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hammerfs.btree.tree import BTree
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import MAX_MASTERS
from hammerfs.store.blockmap import Blockmap
from hammerfs.store.buffers import MetaBuffers
from hammerfs.store.datablocks import DataBlocks
from hammerfs.store.freemap import FreeMap
from hammerfs.store.rootvolume import RootVolume
from hammerfs.store.undo import UndoFifo
from hammerfs.store.volumes import VolumeSet

if TYPE_CHECKING:
    from hammerfs.fs.flushgroup import DirtyInodes
    from hammerfs.fs.inodecache import InodeCache
    from hammerfs.fs.livededup import LiveDedup
    from hammerfs.fs.options import MountOptions
    from hammerfs.fs.redolog import RedoJournal
    from hammerfs.fs.space import Space


_CLOCK_REALTIME_COARSE = 5
"""Linux' number of it; the time module has no name for it."""


def now_us() -> int:
    """Microseconds since 1970, by the clock that the kernel takes file times from.

    With a write-back cache the kernel sets some of a file's times itself.  By a finer clock than its own, ours would be
    up to a tick ahead, and a file written right after it was created would seem to have been written before.
    """
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) // 1000


@dataclass(slots=True)
class Context:
    """One mounted file system, taken apart.  Holds no logic but the giving out of TIDs.

    rewritten_pfs -- PFSs whose records some work rewrites as a whole; it has them to itself
    live_dedup -- where equal blocks lie; None unless the mount asked for that
    volumes_changing -- some work adds or removes a volume
    """

    options: MountOptions
    volumes: VolumeSet
    undo: UndoFifo | None
    buffers: MetaBuffers
    root: RootVolume
    freemap: FreeMap
    blockmap: Blockmap
    tree: BTree
    blocks: DataBlocks
    space: Space
    inodes: InodeCache
    dirty: DirtyInodes
    redo: RedoJournal | None
    read_only: bool
    live_dedup: LiveDedup | None = None
    clock: Callable[[], int] = now_us
    version: int = field(init=False)
    checksum: crc.CrcFunction = field(init=False)
    rewritten_pfs: set[int] = field(default_factory=set)
    volumes_changing: bool = False

    def __post_init__(self) -> None:
        self.version = self.volumes.version
        self.checksum = crc.function_for(self.version)

    def alloc_tid(self, count: int = 1) -> Tid:
        """The first of `count` new TIDs, multiples of 16 (`hammer_alloc_tid`, master id 0)."""
        tid = (self.root.next_tid + MAX_MASTERS) & -MAX_MASTERS
        self.root.next_tid = tid + (count - 1) * MAX_MASTERS
        return tid
