"""POSIX access control lists as extended attributes hold them (acl(5), the xattr format of Linux).

The kernel checks permissions by them once FUSE is told that we understand them, and leaves four things to the server:
an access ACL and the mode of a file say the same about owner, group and others; chmod changes both; what is created in
a directory with a default ACL inherits it; setting an ACL takes the sgid bit where chmod would.  These are pure
functions on the attribute's bytes.

One thing cannot be had: pyfuse3 does not tell the kernel to leave the umask to us, so the umask applies even where a
default ACL should take its place.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Final

from hammerfs.errors import FileOperationError

ACCESS_NAME: Final = b"system.posix_acl_access"
DEFAULT_NAME: Final = b"system.posix_acl_default"

_VERSION: Final = 2
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_USER_OBJ: Final = 0x01
_USER: Final = 0x02
_GROUP_OBJ: Final = 0x04
_GROUP: Final = 0x08
_MASK: Final = 0x10
_OTHER: Final = 0x20
_NAMED: Final = (_USER, _GROUP)
_SHIFTS: Final = {_USER_OBJ: 6, _GROUP_OBJ: 3, _MASK: 3, _OTHER: 0}
"""Where the permissions of an entry stand in a mode."""


@dataclass(frozen=True, slots=True)
class Acl:
    """Entries of (tag, permissions, uid or gid)."""

    entries: tuple[tuple[int, int, int], ...]

    @classmethod
    def unpack(cls, value: bytes) -> Acl:
        """Read an attribute's value; EINVAL when it is no ACL."""
        body = len(value) - _HEADER.size
        if body < 0 or body % _ENTRY.size or _HEADER.unpack_from(value)[0] != _VERSION:
            raise FileOperationError(errno.EINVAL)
        entries = tuple(_ENTRY.iter_unpack(value[_HEADER.size :]))
        tags = [tag for tag, _, _ in entries]
        required = {_USER_OBJ, _GROUP_OBJ, _OTHER} | ({_MASK} if any(tag in tags for tag in _NAMED) else set())
        once = all(tags.count(tag) == 1 for tag in required) and tags.count(_MASK) <= 1
        if not once or not set(tags) <= required | {_MASK, *_NAMED}:
            raise FileOperationError(errno.EINVAL)
        return cls(entries)

    def pack(self) -> bytes:
        """The attribute's value."""
        return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in self.entries)

    @property
    def is_minimal(self) -> bool:
        """Whether a mode says all of it."""
        return len(self.entries) == 3

    @property
    def _group_tag(self) -> int:
        """The entry that stands for the group bits of the mode."""
        return _MASK if any(tag == _MASK for tag, _, _ in self.entries) else _GROUP_OBJ

    def mode(self, before: int) -> int:
        """The mode that goes with this access ACL: nine bits from here, the rest as `before`."""
        permissions = {tag: perm & 7 for tag, perm, _ in self.entries if tag not in _NAMED}
        shown = (_USER_OBJ, self._group_tag, _OTHER)
        return before & ~0o777 | sum(permissions[tag] << _SHIFTS[tag] for tag in shown)

    def with_mode(self, mode: int) -> Acl:
        """The access ACL after chmod."""
        shown = (_USER_OBJ, self._group_tag, _OTHER)
        return Acl(
            tuple(
                (tag, mode >> _SHIFTS[tag] & 7 if tag in shown else perm, number) for tag, perm, number in self.entries
            )
        )

    def inherited(self, mode: int) -> Acl:
        """The access ACL of what is created with `mode` where this is the default ACL."""
        shown = (_USER_OBJ, self._group_tag, _OTHER)
        return Acl(
            tuple(
                (tag, perm & (mode >> _SHIFTS[tag]) & 7 if tag in shown else perm, number)
                for tag, perm, number in self.entries
            )
        )
