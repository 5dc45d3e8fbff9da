"""`.hammer`: snapshots and moments of a PFS as directories, for whoever knows nothing of TIDs.

    .hammer/latest                     the newest state that no crash takes back
    .hammer/snapshots/LABEL            each snapshot; one without a label by its date
    .hammer/tid/0x0000000123456780     the state of a TID
    .hammer/time/2026-11-22T10:00:00   the newest state that is not younger, by the local clock, or UTC with a Z

It is in the root of each PFS as it is now, not in views of the past.  A name of that kind that somebody made himself
stands before it.  `tid` and `time` list what belongs to snapshots, and lead to much more.

The directories are inodes that exist nowhere else: of a moment before all moments, with numbers that no object has.
So they take node ids from the table that views take theirs from, and refuse changes as the past does.  What they hold
is looked up afresh each time; what is found is an ordinary view.  A slave's root is a moment itself, the one that was
mirrored last: what leads to just that is a symlink up, as no directory can hold itself.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import Final

import pyfuse3
import trio

from hammerfs.errors import FileOperationError
from hammerfs.fs import pfs
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import SNAPDIR_OFF, SNAPDIR_VISIBLE
from hammerfs.fs.rootrecords import snapshots
from hammerfs.ondisk.address import Localization, Tid
from hammerfs.ondisk.constants import MAX_TID, OBJID_ROOT, OBJTYPE_DIRECTORY, OBJTYPE_SOFTLINK
from hammerfs.ondisk.inode import InodeData
from hammerfs.ops.administer_sync import durable_tid
from hammerfs.ops.moments import MomentTable, clock_text, parse_clock
from hammerfs.vfs.attributes import Attributes
from hammerfs.vfs.nodeids import NodeIds

SNAPDIR_NAME: Final = b".hammer"
NO_MOMENT: Final = 0
"""The `as_of` of these directories: no record was ever visible at this TID."""
_FIRST_COOKIE: Final = 3
"""Behind `..`, and in front of all entries that a root may have besides."""
_TOP, _SNAPSHOTS, _TIDS, _TIMES, _UP, _UP_TWICE, _HERE = range(2, 9)
_LATEST: Final = b"latest"
_FOLDERS: Final = {b"snapshots": _SNAPSHOTS, b"tid": _TIDS, b"time": _TIMES}
_LINKS: Final = {_UP: b"..", _UP_TWICE: b"../..", _HERE: b"."}
"""From `.hammer` and from one of its folders to the root that they are in; from any directory to itself."""
_MODE: Final = 0o555
_LINK_MODE: Final = 0o777


class Snapdir:
    """The `.hammer` directories of one mount."""

    def __init__(self, fs: FileSystem, node_ids: NodeIds, attributes: Attributes) -> None:
        self._fs = fs
        self._node_ids = node_ids
        self._attributes = attributes
        self._mode = fs.options.snapdir
        self._tables: dict[Localization, MomentTable] = {}

    # --- what the handlers ask ------------------------------------------------------------------
    def is_in(self, directory: Inode) -> bool:
        """Whether a directory is a PFS's root as it is now, and has one of these.

        A mounted slave keeps the root that it was mounted with, while the moment that is mirrored last moves on.
        """
        if directory.obj_id != OBJID_ROOT or self._mode == SNAPDIR_OFF or directory.as_of == NO_MOMENT:
            return False
        return directory.as_of == self._home(directory.localization)

    def inode(self, localization: Localization, number: int) -> Inode:
        """One of these directories, or links up; it belongs to whoever owns the root, and is as old."""
        root = self._root(localization, self._now(localization)).data
        data = InodeData(mode=_MODE, obj_type=OBJTYPE_DIRECTORY, nlinks=2, uid=root.uid, gid=root.gid)
        if number in _LINKS:
            target = _LINKS[number]
            data.obj_type, data.mode, data.nlinks = OBJTYPE_SOFTLINK, _LINK_MODE, 1
            data.symlink, data.size = target, len(target)
        data.ctime = data.mtime = data.atime = root.ctime
        return Inode(localization, number, NO_MOMENT, data, on_disk=False, read_only=True)

    async def lookup(self, directory: Inode, name: bytes) -> pyfuse3.EntryAttributes:
        """What a name leads to in a root, where there is nothing else of that name, or in one of these directories."""
        if directory.as_of != NO_MOMENT:
            found = self.inode(directory.localization, _TOP) if name == SNAPDIR_NAME else None
        else:
            found = await self._find(directory, name)
        if found is None:
            raise FileOperationError(errno.ENOENT)
        return self._entry(found)

    def here(self, directory: Inode) -> pyfuse3.EntryAttributes:
        """A link that leads from a directory to itself, for names of it that lie in it, as `@@-1` does."""
        return self._entry(self.inode(directory.localization, _HERE))

    def reply(self, directory: Inode, start_id: int, token: pyfuse3.ReaddirToken) -> bool:
        """List what these directories hold, or a root besides its entries; whether there is room for more."""
        for cookie, (name, inode) in enumerate(self._shown(directory), _FIRST_COOKIE):
            if cookie <= start_id:
                continue
            entry = self._entry(inode)
            if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), entry, cookie):
                self._node_ids.forget([(entry.st_ino, 1)])
                return False
        return True

    def _shown(self, directory: Inode) -> Iterator[tuple[bytes, Inode]]:
        if directory.as_of == NO_MOMENT:
            yield from self._content(directory)
        elif self._mode == SNAPDIR_VISIBLE and self.is_in(directory) and not self._is_taken(directory):
            yield SNAPDIR_NAME, self.inode(directory.localization, _TOP)

    def _is_taken(self, root: Inode) -> bool:
        try:
            self._fs.lookup(root, SNAPDIR_NAME)
        except FileOperationError:
            return False
        return True

    def _entry(self, inode: Inode) -> pyfuse3.EntryAttributes:
        """Labels are given anew and snapshots removed: the kernel has to ask each time."""
        entry = self._attributes.referenced(inode)
        entry.entry_timeout = 0
        return entry

    # --- what is in them ------------------------------------------------------------------------
    async def _find(self, directory: Inode, name: bytes) -> Inode | None:
        localization = directory.localization
        if directory.obj_id == _TOP:
            if name in _FOLDERS:
                return self.inode(localization, _FOLDERS[name])
            return self._latest_view(localization) if name == _LATEST else None
        if directory.obj_id == _SNAPSHOTS:
            tid = self._snapshots(localization).get(name)
        elif directory.obj_id == _TIDS:
            tid = _parse_tid(name)
        else:
            tid = await self._tid_at(localization, name)
        return None if tid is None else self._view(localization, tid, _UP_TWICE)

    def _content(self, directory: Inode) -> Iterator[tuple[bytes, Inode]]:
        localization = directory.localization
        if directory.obj_id == _TOP:
            latest = self._latest_view(localization)
            if latest is not None:
                yield _LATEST, latest
            for name, number in _FOLDERS.items():
                yield name, self.inode(localization, number)
            return
        if directory.obj_id == _SNAPSHOTS:
            moments = self._snapshots(localization)
        elif directory.obj_id == _TIDS:
            moments = {b"0x%016x" % snapshot.tid: snapshot.tid for snapshot in snapshots(self._fs.ctx, localization)}
        else:
            moments = {_date(snapshot.ts): snapshot.tid for snapshot in snapshots(self._fs.ctx, localization)}
        for name, tid in moments.items():
            view = self._view(localization, tid, _UP_TWICE)
            if view is not None:
                yield name, view

    def _snapshots(self, localization: Localization) -> dict[bytes, Tid]:
        """A PFS's snapshots by name: of several with one label the oldest has it, the others add their TID."""
        named: dict[bytes, Tid] = {}
        for snapshot in snapshots(self._fs.ctx, localization):
            label = bytes(snapshot.label).partition(b"\0")[0].replace(b"/", b"_")
            name = label if label not in (b"", b".", b"..") else _date(snapshot.ts)
            named[name if name not in named else b"%s.0x%016x" % (name, snapshot.tid)] = snapshot.tid
        return named

    # --- moments --------------------------------------------------------------------------------
    def _now(self, localization: Localization) -> Tid:
        return pfs.view_of(self._fs.ctx, localization, MAX_TID)

    def _home(self, localization: Localization) -> Tid:
        """The moment of the root that has the directory."""
        mounted = self._fs.root
        if localization == mounted.localization and self._fs.options.as_of is None:
            return mounted.as_of
        return self._now(localization)

    def _latest(self, localization: Localization) -> Tid:
        """The newest moment that stays what it is: what is durable, or was mirrored last."""
        now = self._now(localization)
        return durable_tid(self._fs) if now == MAX_TID else now

    def _latest_view(self, localization: Localization) -> Inode | None:
        return self._view(localization, self._latest(localization), _UP)

    def _root(self, localization: Localization, as_of: Tid) -> Inode:
        return self._fs.inode(localization, OBJID_ROOT, as_of)

    def _view(self, localization: Localization, tid: Tid, way_up: int) -> Inode | None:
        """A PFS's root as of a TID, or the link `way_up` to the root that is that already; None before it has come."""
        if tid > self._fs.ctx.root.next_tid:
            return None
        view = pfs.view_of(self._fs.ctx, localization, tid)
        if view == self._home(localization):
            return self.inode(localization, way_up)
        try:
            return self._root(localization, view)
        except FileOperationError:
            return None

    async def _tid_at(self, localization: Localization, name: bytes) -> Tid | None:
        """The newest TID by a clock time that is not in the future: its state changes no more."""
        try:
            time_us = parse_clock(name.decode("ascii"))
        except ValueError:
            return None
        if time_us > time.time() * 1_000_000:
            return None
        table = self._tables.setdefault(localization, MomentTable(localization))
        for _ in table.brought_up_to_date(self._fs.ctx):
            await trio.lowlevel.checkpoint()
        tid = table.before(time_us)
        return None if tid is None else min(tid, self._latest(localization))


def _parse_tid(name: bytes) -> Tid | None:
    at = pfs.parse_at_name(b"@@" + name)
    return None if at is None or at.pfs is not None or at.tid == MAX_TID else at.tid


def _date(time_us: int) -> bytes:
    return clock_text(time_us).encode("ascii")
