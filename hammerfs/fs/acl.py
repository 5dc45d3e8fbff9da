"""POSIX ACLs: what setting one does to a file's mode, what chmod does to an ACL, and what a directory hands down.

The kernel checks permissions, but leaves it to the server to keep the mode and the two attributes in step (acl(5)):

- the access ACL's owner, mask (or group, without a mask) and others are the nine bits of the mode, seen twice;
- an access ACL that says no more than the mode is not stored;
- a new object gets its directory's default ACL as access ACL, less what its mode does not grant, and a new directory
  gets it as default ACL too.

HAMMER knows nothing of this; it belongs to the `xattr` mount option.  An attribute's value is the kernel's: a version
number, then eight bytes for each entry.  The kernel has applied the umask to a new object's mode, default ACL or not.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, NamedTuple

from hammerfs.errors import FileOperationError
from hammerfs.fs import xattr
from hammerfs.fs.inode import Dirty, Inode

if TYPE_CHECKING:
    from hammerfs.fs.context import Context

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"

USER_OBJ = 0x01
USER = 0x02
GROUP_OBJ = 0x04
GROUP = 0x08
MASK = 0x10
OTHER = 0x20

_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_SHIFTS = {USER_OBJ: 6, OTHER: 0}
_MODE_BITS = 0o777


class AclEntry(NamedTuple):
    """One line of an ACL: whom it is for, and rwx."""

    tag: int
    permissions: int
    id: int


def unpack(value: bytes) -> list[AclEntry]:
    """The entries of an attribute's value; EINVAL for what is none."""
    if value[:4] != _VERSION or len(value) % _ENTRY.size != 4:
        raise FileOperationError(errno.EINVAL)
    return [AclEntry(*fields) for fields in _ENTRY.iter_unpack(value[4:])]


def pack(entries: list[AclEntry]) -> bytes:
    """The value of an attribute with these entries."""
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in entries)


def is_minimal(entries: list[AclEntry]) -> bool:
    """Whether the entries say no more than a mode can."""
    return all(entry.tag in (USER_OBJ, GROUP_OBJ, OTHER) for entry in entries)


def _shifts(entries: list[AclEntry]) -> dict[int, int]:
    """Where in a mode the entries of a tag are; the group's bits hold the mask if there is one."""
    group = MASK if any(entry.tag == MASK for entry in entries) else GROUP_OBJ
    return {**_SHIFTS, group: 3}


def mode_of(entries: list[AclEntry]) -> int:
    """The nine bits that the entries stand for."""
    shifts = _shifts(entries)
    mode = 0
    for entry in entries:
        if entry.tag in shifts:
            mode |= (entry.permissions & 7) << shifts[entry.tag]
    return mode


def with_mode(entries: list[AclEntry], mode: int) -> list[AclEntry]:
    """The entries with owner, mask or group, and others as the mode says."""
    shifts = _shifts(entries)
    return [
        entry._replace(permissions=mode >> shifts[entry.tag] & 7) if entry.tag in shifts else entry for entry in entries
    ]


def _stored(ctx: Context, inode: Inode, name: bytes) -> list[AclEntry] | None:
    try:
        return unpack(xattr.get(ctx, inode, name))
    except FileOperationError:
        return None


def set_access(ctx: Context, inode: Inode, value: bytes) -> None:
    """Set the access ACL, and the mode with it."""
    entries = unpack(value)
    if not is_minimal(entries):
        xattr.set_(ctx, inode, ACCESS, value)
    elif _stored(ctx, inode, ACCESS) is not None:
        xattr.remove(ctx, inode, ACCESS)
    _set_mode(ctx, inode, mode_of(entries))


def follow_mode(ctx: Context, inode: Inode) -> None:
    """The mode has changed: the access ACL follows."""
    entries = _stored(ctx, inode, ACCESS)
    if entries is not None:
        xattr.set_(ctx, inode, ACCESS, pack(with_mode(entries, inode.data.mode)))


def inherit(ctx: Context, parent: Inode, inode: Inode) -> None:
    """A new object takes over what its directory has for it."""
    entries = _stored(ctx, parent, DEFAULT)
    if entries is None:
        return
    granted = mode_of(entries) & inode.data.mode
    access = with_mode(entries, granted)
    if not is_minimal(access):
        xattr.set_(ctx, inode, ACCESS, pack(access))
    if inode.is_directory:
        xattr.set_(ctx, inode, DEFAULT, pack(entries))
    _set_mode(ctx, inode, granted)


def _set_mode(ctx: Context, inode: Inode, mode: int) -> None:
    if inode.data.mode & _MODE_BITS != mode:
        inode.data.mode = inode.data.mode & ~_MODE_BITS | mode
        inode.data.ctime = ctx.clock()
        ctx.dirty.mark(inode, Dirty.INODE)
