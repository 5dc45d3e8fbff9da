"""Handlers of a mount with the `xattr` option, extended attributes and POSIX ACLs, and which handlers a mount gets.

An ACL and the mode always say the same, so handlers that change one of them change the other, and what is created in a
directory with a default ACL inherits it.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Sequence

import pyfuse3
from pyfuse3 import EntryAttributes, InodeT, RequestContext, SetattrFields, XAttrNameT

from hammerfs.errors import FileOperationError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.vfs.acl import ACCESS_NAME, DEFAULT_NAME, Acl
from hammerfs.vfs.answering import change, request
from hammerfs.vfs.operations import HammerOperations
from hammerfs.vfs.xattrnames import check_name, is_listed


class XattrOperations(HammerOperations):
    """Handlers of a mount with the `xattr` option, which brings POSIX ACLs along."""

    enable_acl = True

    @request
    def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        check_name(name)
        return self.fs.getxattr(self.inode_of(inode), name)

    @request
    def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return [XAttrNameT(name) for name in self.fs.listxattr(self.inode_of(inode)) if is_listed(name, ctx.uid)]

    @change
    def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        check_name(name)
        target = self.inode_of(inode)
        if name == ACCESS_NAME:
            self._set_access_acl(target, Acl.unpack(value), drop=0 if self._keeps_sgid(target, ctx) else stat.S_ISGID)
            return
        if name == DEFAULT_NAME:
            Acl.unpack(value)
        self.fs.setxattr(target, name, value)

    @change
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
