"""The FUSE handlers: what the kernel asks, said in the words of `FileSystem`, and nothing else.

**Shape.**  Every handler is a plain function without a checkpoint, so what it does is atomic for all other requests and
for the flusher; only fsync and waiting for a congested flusher are asynchronous.  `request` and `change`
(`answering.py`) make the coroutines that pyfuse3 wants and turn errors into errnos in one place.  A file handle is the
node id: opening a file leaves no state here but the count that keeps an unlinked file alive.

**What the kernel does for us**, with the write-back cache that is always on, and `default_permissions`, which is on
except where only root gets in (`private`):
- permissions, umask, sticky directories, O_APPEND, O_DIRECT, locks, and `..` of what it has in its cache;
- it owns size, mtime and ctime of regular files while it caches their pages, and tells them by SETATTR; atime it leaves
  to us, who see a READ only of what is not in its cache;
- suid and sgid bits: cleared by a SETATTR of its own before a write, truncate or chown reaches us.  The one exception
  is O_TRUNC, which comes as a flag of OPEN, so `open` clears them.

**What the kernel is told not to ask.**  `flush` is not implemented, `getxattr` and its kin only with the `xattr`
option (`xattroperations.py`): pyfuse3 answers ENOSYS once and the kernel does not come back.  Names, absent names and
attributes may be cached for a day (`attributes.CACHE_SECONDS`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
)

from hammerfs.errors import FileOperationError, NoSpaceError, ReadOnlyError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.constants import OBJTYPE_REGFILE
from hammerfs.vfs.answering import Refusals, change, request
from hammerfs.vfs.attributes import TYPE_OF_MODE, Attributes, absent_entry, statvfs, stored_time
from hammerfs.vfs.listing import Listings
from hammerfs.vfs.nameless import Nameless
from hammerfs.vfs.nodeids import OBJ_ID_MIN, NodeIds
from hammerfs.vfs.presentnames import PresentNames
from hammerfs.vfs.refusedwriters import RefusedWriters
from hammerfs.vfs.snapdir import NO_MOMENT, SNAPDIR_NAME, Snapdir
from hammerfs.vfs.strangers import refuse_strangers
from hammerfs.vfs.toldtimes import ToldTimes

_SUID_SGID: Final = stat.S_ISUID | stat.S_ISGID
_ANY_EXECUTE: Final = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


class HammerOperations(pyfuse3.Operations):
    """All requests of one mount.

    fs -- the mounted file system
    node_ids -- what the kernel calls its inodes
    present_names -- what it remembers of the present of other PFSs
    private -- whether the kernel lets root in and nobody else, and checks no permissions
    """

    enable_writeback_cache = True

    def __init__(self, fs: FileSystem, *, private: bool = False) -> None:
        super().__init__()
        self.fs = fs
        self.private = private
        self.node_ids = NodeIds(fs.root)
        self.present_names = PresentNames()
        self._attributes = Attributes(self.node_ids, fs.options)
        self._localization = fs.root.localization
        self._as_of = fs.root.as_of
        self._nameless = Nameless(fs, self.node_ids)
        self._absent = absent_entry()
        self._refused_writers = RefusedWriters()
        self.refusals = Refusals(fs, self.node_ids, self._refused_writers)
        self._told_times = ToldTimes()
        self._snapdir = Snapdir(fs, self.node_ids, self._attributes)
        self._listings = Listings(fs, self.node_ids, self._attributes, self._snapdir, self._complain_of_listing)

    def _complain_of_listing(self, args: tuple[object, ...], error: Exception) -> None:
        self.refusals.answer("readdir", args, error)

    def inode_of(self, node_id: int) -> Inode:
        """What a node id stands for, which is the inode number that stat(2) shows."""
        if node_id >= OBJ_ID_MIN:
            return self.fs.inode(self._localization, node_id, self._as_of)
        identity = self.node_ids.identity(node_id)
        if identity[2] == NO_MOMENT:
            return self._snapdir.inode(*identity[:2])
        return self.fs.inode(*identity)

    # --- names ----------------------------------------------------------------------------------
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        """An absent name is cached too, except one that names a moment, which may lie in the future.

        `@@-1` and the number of the mounted PFS lead back to a directory from inside.  The kernel's tree cannot hold
        itself, and a second inode of a directory would bring second inodes of all files in it, with pages of their own
        for one content.  So what leads to the very directory is a link to it.  From further inside there is no link
        that leads up in every bind mount: that is refused with ELOOP, which the kernel would take for an I/O error.
        """
        try:
            if self.private:
                refuse_strangers((ctx,))
            parent = self.inode_of(parent_inode)
            try:
                inode = self.fs.lookup(parent, name)
            except FileOperationError as error:
                if parent.as_of == NO_MOMENT or (name == SNAPDIR_NAME and self._snapdir.is_in(parent)):
                    return await self._snapdir.lookup(parent, name)
                if error.errno == errno.ENOENT and b"@@" not in name:
                    return self._absent
                raise
            if (inode is self.fs.root or inode is parent) and name not in (b".", b".."):
                if inode is not parent:
                    raise FileOperationError(errno.ELOOP)
                return self._snapdir.here(parent)
            entry = self._attributes.referenced(inode)
            if not self.present_names.may_be_remembered(parent_inode, name):
                entry.entry_timeout = 0
            return entry
        except Exception as error:
            raise self.refusals.answer("lookup", (parent_inode, name), error) from None

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """The kernel drops inodes from its cache; there is no answer, so no error can be told."""
        try:
            if self._nameless:
                for node_id, _ in inode_list:
                    self._nameless.forget(node_id)
            self.node_ids.forget(inode_list)
        except Exception as error:
            self.refusals.answer("forget", (), error)

    def session_ended(self) -> None:
        """The kernel will ask for nothing more, nor send FORGET and RELEASE for what it still held: that may go."""
        self._nameless.forget_all()
        self.fs.release_all()

    @change
    def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        inode = self._new(parent_inode, name, mode, ctx)
        self.fs.opened(inode)
        entry = self._attributes.referenced(inode)
        return FileInfo(fh=FileHandleT(entry.st_ino), keep_cache=True), entry

    @change
    def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        return self._attributes.referenced(self._new(parent_inode, name, mode, ctx, rdev))

    @change
    def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes.referenced(self._new(parent_inode, name, mode, ctx))

    def _new(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext, rdev: int = 0) -> Inode:
        obj_type = TYPE_OF_MODE.get(stat.S_IFMT(mode), OBJTYPE_REGFILE)
        parent = self.inode_of(parent_inode)
        major, minor = (os.major(rdev), os.minor(rdev)) if rdev else (0, 0)
        return self.fs.create(parent, name, obj_type, mode & 0o7777, ctx.uid, ctx.gid, major, minor)

    @change
    def symlink(self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext) -> EntryAttributes:
        inode = self.fs.symlink(self.inode_of(parent_inode), name, target, ctx.uid, ctx.gid)
        return self._attributes.referenced(inode)

    @change
    def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        target = self.inode_of(inode)
        self.fs.link(target, self.inode_of(new_parent_inode), new_name)
        return self._attributes.referenced(target)

    @change
    def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        self._nameless.settle(self.fs.unlink(self.inode_of(parent_inode), name, hold=True))

    @change
    def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        self._nameless.settle(self.fs.rmdir(self.inode_of(parent_inode), name, hold=True))

    @change
    def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        old, new = self.inode_of(parent_inode_old), self.inode_of(parent_inode_new)
        replaced = self.fs.rename(old, name_old, new, name_new, flags, hold=True)
        if replaced is not None:
            self._nameless.settle(replaced)

    @request
    def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        link = self.inode_of(inode)
        target = self.fs.readlink(link)
        self.fs.accessed(link)
        return FileNameT(target)

    # --- attributes -----------------------------------------------------------------------------
    @request
    def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        if self._refused_writers.take(inode):
            raise NoSpaceError("no space left for what was written to this file")
        return self._attributes.of(self.inode_of(inode), inode)

    @change
    def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        target = self.inode_of(inode)
        self._told_times.told(target)
        self._set_attributes(target, attr, fields)
        return self._attributes.of(target, inode)

    def _set_attributes(self, target: Inode, attr: EntryAttributes, fields: SetattrFields) -> None:
        self.fs.setattr(
            target,
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_us=stored_time(attr.st_atime_ns) if fields.update_atime else None,
            mtime_us=stored_time(attr.st_mtime_ns) if fields.update_mtime else None,
            ctime_us=stored_time(attr.st_ctime_ns) if fields.update_ctime else None,
        )

    @request
    def statfs(self, ctx: RequestContext) -> StatvfsData:
        return statvfs(self.fs.statfs())

    @request
    def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        """Comes of access(2) and chdir(2) where the kernel checks nothing: root may all but run what nobody may."""
        target = self.inode_of(inode)
        is_file = target.data.obj_type == OBJTYPE_REGFILE
        if mode & os.W_OK and target.read_only and (is_file or target.is_directory):
            raise ReadOnlyError("the past is read-only")
        return not (mode & os.X_OK and not target.is_directory and not target.data.mode & _ANY_EXECUTE)

    # --- contents -------------------------------------------------------------------------------
    @request
    def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        target = self.inode_of(inode)
        if target.read_only and (flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC):
            raise ReadOnlyError("the past is read-only")
        if flags & os.O_TRUNC:
            drops_bits = target.data.mode & _SUID_SGID and ctx.uid
            self.fs.setattr(target, size=0, mode=target.data.mode & ~_SUID_SGID if drops_bits else None)
        self.fs.opened(target)
        return FileInfo(fh=FileHandleT(inode), keep_cache=True)

    @request
    def release(self, fh: FileHandleT) -> None:
        self._refused_writers.take(fh)
        inode = self.inode_of(fh)
        self.fs.released(inode)
        if (shown := self._told_times.closed(inode)) is not None:
            self.fs.correct_times(inode, *shown)

    @request
    def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        inode = self.inode_of(fh)
        data = self.fs.read(inode, off, size)
        self.fs.accessed(inode)
        return data

    @change
    def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        inode = self.inode_of(fh)
        self._told_times.writing(inode)
        return self.fs.write(inode, off, buf)

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        """Return when file and contents are as durable as the `fsync` option says."""
        try:
            await self.fs.fsync(self.inode_of(fh), datasync)
        except Exception as error:
            raise self.refusals.answer("fsync", (fh,), error) from None

    # --- directories ----------------------------------------------------------------------------
    @request
    def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    async def releasedir(self, fh: FileHandleT) -> None:
        """Nothing was kept."""

    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """A directory is made durable like a file."""
        await self.fsync(fh, datasync)

    @request
    def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        directory = self.inode_of(fh)
        if not start_id:
            self.fs.accessed(directory)
        self._listings.reply(directory, fh, start_id, token)
