"""The FUSE handlers: what the kernel asks, said in the words of `FileSystem`, and nothing else.

**Shape.**  Every handler is a plain function without a checkpoint, so what it does is atomic for all other requests and
for the flusher; only fsync and waiting for a congested flusher are asynchronous.  `_request` and `_change` make the
coroutines that pyfuse3 wants and turn errors into errnos in one place.  A file handle is the node id: opening a file
leaves no state here but the count that keeps an unlinked file alive.

**What the kernel does for us**, with the write-back cache that is always on, and `default_permissions`, which is on
except where only root gets in (`private`):
- permissions, umask, sticky directories, O_APPEND, O_DIRECT, locks, and `..` of what it has in its cache;
- it owns size, mtime and ctime of regular files while it caches their pages, and tells them by SETATTR; atime it leaves
  to us, who see a READ only of what is not in its cache;
- suid and sgid bits: cleared by a SETATTR of its own before a write, truncate or chown reaches us.  The one exception
  is O_TRUNC, which comes as a flag of OPEN, so `open` clears them.

**What the kernel is told not to ask.**  `flush` is not implemented, `getxattr` and its kin only with the
`xattr` option (`XattrOperations`): pyfuse3 answers ENOSYS once and the kernel does not come back.  Names, absent names
and attributes may be cached for a day (`attributes.CACHE_SECONDS`).
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from hammerfs.errors import (
    CorruptionError,
    DeviceError,
    FileOperationError,
    HammerError,
    NoSpaceError,
    PrunedError,
    ReadOnlyError,
)
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.constants import OBJTYPE_REGFILE
from hammerfs.ondisk.direntry import path_text
from hammerfs.vfs.acl import ACCESS_NAME, DEFAULT_NAME, Acl
from hammerfs.vfs.attributes import TYPE_OF_MODE, Attributes, absent_entry, statvfs, stored_time
from hammerfs.vfs.complaints import Complaints, shown
from hammerfs.vfs.listing import Listings
from hammerfs.vfs.nameless import Nameless
from hammerfs.vfs.nodeids import OBJ_ID_MIN, NodeIds
from hammerfs.vfs.presentnames import PresentNames
from hammerfs.vfs.refusedwriters import RefusedWriters
from hammerfs.vfs.snapdir import NO_MOMENT, SNAPDIR_NAME, Snapdir
from hammerfs.vfs.strangers import is_guarded, refuse_strangers
from hammerfs.vfs.toldtimes import ToldTimes
from hammerfs.vfs.xattrnames import check_name, is_listed

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Handler = Callable[Concatenate[Any, _P], _R]
_AsyncHandler = Callable[Concatenate[Any, _P], Coroutine[Any, Any, _R]]

_ROOM_TRIES: Final = 2
"""One flush for what was removed, another for what the kernel let go of (FORGET) only during the first."""
_REQUESTS_BY_NAME: Final = {"lookup", "create", "mknod", "mkdir", "symlink", "unlink", "rmdir", "rename", "readdir"}
"""Requests about a name in a directory, not about the directory itself."""
_SUID_SGID: Final = stat.S_ISUID | stat.S_ISGID
_ANY_EXECUTE: Final = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def _request(handler: _Handler[_P, _R]) -> _AsyncHandler[_P, _R]:
    """A handler that changes nothing, or something that costs no space."""
    guarded = is_guarded(handler)

    @functools.wraps(handler)
    async def answer(self: HammerOperations, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            if guarded and self.private:
                refuse_strangers(args)
            return handler(self, *args, **kwargs)
        except Exception as error:
            raise self.refusal(handler.__name__, args, error) from None

    return answer


def _change(handler: _Handler[_P, _R]) -> _AsyncHandler[_P, _R]:
    """A handler that gives the flusher work, and waits first if that has too much already.

    What finds no space is tried again after a flush: whoever deletes on a full file system wants to go on at once.
    """
    guarded = is_guarded(handler)

    @functools.wraps(handler)
    async def answer(self: HammerOperations, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            if guarded and self.private:
                refuse_strangers(args)
            if self.fs.congested:
                await self.fs.throttle()
            for _ in range(_ROOM_TRIES):
                try:
                    return handler(self, *args, **kwargs)
                except NoSpaceError:
                    if not await self.fs.make_room():
                        raise
            return handler(self, *args, **kwargs)
        except Exception as error:
            raise self.refusal(handler.__name__, args, error) from None

    return answer


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
        self._complaints = Complaints(logging.getLogger(__name__))
        self._refused_writers = RefusedWriters()
        self._told_times = ToldTimes()
        self._snapdir = Snapdir(fs, self.node_ids, self._attributes)
        self._listings = Listings(
            fs, self.node_ids, self._attributes, self._snapdir, functools.partial(self.refusal, "readdir")
        )

    def inode_of(self, node_id: int) -> Inode:
        """What a node id stands for, which is the inode number that stat(2) shows."""
        if node_id >= OBJ_ID_MIN:
            return self.fs.inode(self._localization, node_id, self._as_of)
        identity = self.node_ids.identity(node_id)
        if identity[2] == NO_MOMENT:
            return self._snapdir.inode(*identity[:2])
        return self.fs.inode(*identity)

    def refusal(self, request: str, args: Sequence[object], error: Exception) -> FUSEError:
        """The errno to answer; damage and failing devices are logged, and so are bugs, with traceback."""
        if isinstance(error, FUSEError):
            return error
        if isinstance(error, NoSpaceError) and request == "write" and isinstance(args[0], int):
            self._refused_writers.add(args[0])
        if not isinstance(error, HammerError):
            self._complaints.log(f"{request}{shown(args)}: unexpected {type(error).__name__}: {error}", error)
            return FUSEError(errno.EIO)
        if isinstance(error, CorruptionError | DeviceError | PrunedError):
            self._complaints.log(lambda: f"{request}{shown(args)}{self._named(request, args)}: {error}")
        return FUSEError(error.errno)

    def _named(self, request: str, args: Sequence[object]) -> str:
        """Which file a request is about: its path from the mounted root, or its number where that cannot be told."""
        if not args or not isinstance(args[0], int):
            return ""
        identity = self._localization, args[0], self._as_of
        if args[0] < OBJ_ID_MIN:
            try:
                identity = self.node_ids.identity(args[0])
            except FileOperationError:
                return ""
        names = self.fs.path_of(*identity)
        if names is None:
            return f" of object {identity[1]:#x}"
        if request in _REQUESTS_BY_NAME and len(args) > 1 and isinstance(args[1], bytes):
            names = *names, args[1]
        return f" of {path_text(names)!r}"

    # --- names ----------------------------------------------------------------------------------
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        """An absent name is cached too, except one that names a moment, which may lie in the future.

        `@@-1` and the number of the mounted PFS lead back to a directory from inside.  The kernel's tree cannot hold
        itself: it refuses that with ELOOP, and takes it for an I/O error where the directory is the root.
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
                raise FileOperationError(errno.ELOOP)
            entry = self._attributes.referenced(inode)
            if not self.present_names.may_be_remembered(parent_inode, name):
                entry.entry_timeout = 0
            return entry
        except Exception as error:
            raise self.refusal("lookup", (parent_inode, name), error) from None

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """The kernel drops inodes from its cache; there is no answer, so no error can be told."""
        try:
            if self._nameless:
                for node_id, _ in inode_list:
                    self._nameless.forget(node_id)
            self.node_ids.forget(inode_list)
        except Exception as error:
            self.refusal("forget", (), error)

    def session_ended(self) -> None:
        """The kernel will ask for nothing more, nor send FORGET and RELEASE for what it still held: that may go."""
        self._nameless.forget_all()
        self.fs.release_all()

    @_change
    def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        inode = self._new(parent_inode, name, mode, ctx)
        self.fs.opened(inode)
        entry = self._attributes.referenced(inode)
        return FileInfo(fh=FileHandleT(entry.st_ino), keep_cache=True), entry

    @_change
    def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        return self._attributes.referenced(self._new(parent_inode, name, mode, ctx, rdev))

    @_change
    def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        return self._attributes.referenced(self._new(parent_inode, name, mode, ctx))

    def _new(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext, rdev: int = 0) -> Inode:
        obj_type = TYPE_OF_MODE.get(stat.S_IFMT(mode), OBJTYPE_REGFILE)
        parent = self.inode_of(parent_inode)
        major, minor = (os.major(rdev), os.minor(rdev)) if rdev else (0, 0)
        return self.fs.create(parent, name, obj_type, mode & 0o7777, ctx.uid, ctx.gid, major, minor)

    @_change
    def symlink(self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext) -> EntryAttributes:
        inode = self.fs.symlink(self.inode_of(parent_inode), name, target, ctx.uid, ctx.gid)
        return self._attributes.referenced(inode)

    @_change
    def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        target = self.inode_of(inode)
        self.fs.link(target, self.inode_of(new_parent_inode), new_name)
        return self._attributes.referenced(target)

    @_change
    def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        self._nameless.settle(self.fs.unlink(self.inode_of(parent_inode), name, hold=True))

    @_change
    def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        self._nameless.settle(self.fs.rmdir(self.inode_of(parent_inode), name, hold=True))

    @_change
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

    @_request
    def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        link = self.inode_of(inode)
        target = self.fs.readlink(link)
        self.fs.accessed(link)
        return FileNameT(target)

    # --- attributes -----------------------------------------------------------------------------
    @_request
    def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        if self._refused_writers.take(inode):
            raise NoSpaceError("no space left for what was written to this file")
        return self._attributes.of(self.inode_of(inode), inode)

    @_change
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

    @_request
    def statfs(self, ctx: RequestContext) -> StatvfsData:
        return statvfs(self.fs.statfs())

    @_request
    def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        """Comes of access(2) and chdir(2) where the kernel checks nothing: root may all but run what nobody may."""
        target = self.inode_of(inode)
        is_file = target.data.obj_type == OBJTYPE_REGFILE
        if mode & os.W_OK and target.read_only and (is_file or target.is_directory):
            raise ReadOnlyError("the past is read-only")
        return not (mode & os.X_OK and not target.is_directory and not target.data.mode & _ANY_EXECUTE)

    # --- contents -------------------------------------------------------------------------------
    @_request
    def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        target = self.inode_of(inode)
        if target.read_only and (flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC):
            raise ReadOnlyError("the past is read-only")
        if flags & os.O_TRUNC:
            drops_bits = target.data.mode & _SUID_SGID and ctx.uid
            self.fs.setattr(target, size=0, mode=target.data.mode & ~_SUID_SGID if drops_bits else None)
        self.fs.opened(target)
        return FileInfo(fh=FileHandleT(inode), keep_cache=True)

    @_request
    def release(self, fh: FileHandleT) -> None:
        self._refused_writers.take(fh)
        inode = self.inode_of(fh)
        self.fs.released(inode)
        if (shown := self._told_times.closed(inode)) is not None:
            self.fs.correct_times(inode, *shown)

    @_request
    def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        inode = self.inode_of(fh)
        data = self.fs.read(inode, off, size)
        self.fs.accessed(inode)
        return data

    @_change
    def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        inode = self.inode_of(fh)
        self._told_times.writing(inode)
        return self.fs.write(inode, off, buf)

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        """Return when file and contents are as durable as the `fsync` option says."""
        try:
            await self.fs.fsync(self.inode_of(fh), datasync)
        except Exception as error:
            raise self.refusal("fsync", (fh,), error) from None

    # --- directories ----------------------------------------------------------------------------
    @_request
    def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(inode)

    async def releasedir(self, fh: FileHandleT) -> None:
        """Nothing was kept."""

    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """A directory is made durable like a file."""
        await self.fsync(fh, datasync)

    @_request
    def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        directory = self.inode_of(fh)
        if not start_id:
            self.fs.accessed(directory)
        self._listings.reply(directory, fh, start_id, token)


class XattrOperations(HammerOperations):
    """Handlers of a mount with the `xattr` option, which brings POSIX ACLs along."""

    enable_acl = True

    @_request
    def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        check_name(name)
        return self.fs.getxattr(self.inode_of(inode), name)

    @_request
    def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return [XAttrNameT(name) for name in self.fs.listxattr(self.inode_of(inode)) if is_listed(name, ctx.uid)]

    @_change
    def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        check_name(name)
        target = self.inode_of(inode)
        if name == ACCESS_NAME:
            self._set_access_acl(target, Acl.unpack(value), drop=0 if self._keeps_sgid(target, ctx) else stat.S_ISGID)
            return
        if name == DEFAULT_NAME:
            Acl.unpack(value)
        self.fs.setxattr(target, name, value)

    @_change
    def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        """Removing an ACL that is not there is no error, as the mode is always one."""
        check_name(name)
        target = self.inode_of(inode)
        if name not in (ACCESS_NAME, DEFAULT_NAME) or self._acl(target, name) is not None:
            self.fs.removexattr(target, name)

    def _acl(self, inode: Inode, name: bytes) -> Acl | None:
        try:
            return Acl.unpack(self.fs.getxattr(inode, name))
        except FileOperationError as error:
            if error.errno == errno.ENODATA:
                return None
            raise

    def _keeps_sgid(self, inode: Inode, ctx: RequestContext) -> bool:
        """Whether the sgid bit, if set, may stay: it goes where the caller is neither root nor of the file's group.

        With chmod(2) the kernel sees to that.  An ACL sets a mode as well, and there the kernel leaves it to us.
        """
        gid = self._attributes.of(inode, 0).st_gid
        if ctx.uid == 0 or ctx.gid == gid or not inode.data.mode & stat.S_ISGID:
            return True
        try:
            return gid in pyfuse3.get_sup_groups(ctx.pid)
        except OSError:  # of a PID namespace that is not ours
            return False

    def _set_access_acl(self, inode: Inode, acl: Acl, *, drop: int = 0) -> None:
        """Mode and access ACL always say the same; an ACL that says no more than the mode is not kept.

        drop -- bits that the mode loses
        """
        if not acl.is_minimal:
            self.fs.setxattr(inode, ACCESS_NAME, acl.pack())
        elif self._acl(inode, ACCESS_NAME) is not None:
            self.fs.removexattr(inode, ACCESS_NAME)
        self.fs.setattr(inode, mode=acl.mode(inode.data.mode & ~drop))

    def _set_attributes(self, target: Inode, attr: EntryAttributes, fields: SetattrFields) -> None:
        super()._set_attributes(target, attr, fields)
        if fields.update_mode and (acl := self._acl(target, ACCESS_NAME)) is not None:
            self.fs.setxattr(target, ACCESS_NAME, acl.with_mode(target.data.mode).pack())

    def _new(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext, rdev: int = 0) -> Inode:
        """What is created in a directory with a default ACL inherits it."""
        inode = super()._new(parent_inode, name, mode, ctx, rdev)
        default = self._acl(self.inode_of(parent_inode), DEFAULT_NAME)
        if default is not None:
            if inode.is_directory:
                self.fs.setxattr(inode, DEFAULT_NAME, default.pack())
            self._set_access_acl(inode, default.inherited(inode.data.mode))
        return inode


def operations_for(fs: FileSystem, *, private: bool = False) -> HammerOperations:
    """The handlers that the mount's options ask for."""
    return XattrOperations(fs, private=private) if fs.options.xattr else HammerOperations(fs, private=private)
