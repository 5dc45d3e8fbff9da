"""What can be chosen when a file system is mounted."""

from __future__ import annotations

from dataclasses import dataclass

from hammerfs.ondisk.address import Tid

MIB = 1024 * 1024
FSYNC_FULL = 0
"""A full synchronous flush: durable, and no recovery can take it back, when fsync returns."""
FSYNC_BACKGROUND = 1
"""A full flush is started; fsync returns at once."""
FSYNC_DURABLE = 2
"""Durable on return by the cheapest way there is; the default."""
FSYNC_RELAXED = 3
"""As 2, but fsync does not wait (DragonFly's own default)."""
FSYNC_IGNORED = 4
"""fsync does nothing; the flush timer decides."""
REDO_REQUIRED = 0
"""Recovery runs REDO, and a mount where that fails is refused; the default (`vfs.hammer.skip_redo`)."""
REDO_OPTIONAL = 1
"""Recovery runs what it can of REDO."""
REDO_SKIPPED = 2
"""Recovery runs no REDO: what only fast fsyncs made durable is given up."""

SNAPDIR_HIDDEN = "hidden"
"""PFS roots have `.hammer`, but do not list it; the default."""
SNAPDIR_VISIBLE = "visible"
"""They list it."""
SNAPDIR_OFF = "off"
"""There is none."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """Options of one mount.

    nohistory -- overwritten and deleted records are removed at once
    nomirror -- mirror TIDs are not propagated up the B-tree
    fsync_mode -- one of the FSYNC_ modes, numbered as in `hammer_vop_fsync`
    skip_redo -- one of the REDO_ policies
    flush_seconds -- a change is on its way to disk after this long at the latest
    cache_bytes -- bound of all caches together
    as_of -- mount the past as it was at this TID, read-only
    pfs -- mount this PFS instead of the root
    snapdir -- one of the SNAPDIR_ words
    dedup -- what is written is not stored again where the same is known to lie on disk
    keep_free_bytes, keep_free_percent -- the oldest snapshots go when less than this can be written; 0: never
    uid, gid -- shown as owner of everything, instead of what the inodes say
    """

    read_only: bool = False
    nohistory: bool = False
    nomirror: bool = False
    noatime: bool = True
    xattr: bool = False
    fsync_mode: int = FSYNC_DURABLE
    skip_redo: int = REDO_REQUIRED
    flush_seconds: float = 5.0
    cache_bytes: int = 128 * MIB
    as_of: Tid | None = None
    pfs: int = 0
    snapdir: str = SNAPDIR_HIDDEN
    dedup: bool = False
    keep_free_bytes: int = 0
    keep_free_percent: int = 0
    uid: int | None = None
    gid: int | None = None
