"""How listings of the past show types, owners and names."""

from __future__ import annotations

import pwd
from functools import lru_cache

from hammerfs.ondisk.constants import (
    OBJTYPE_BDEV,
    OBJTYPE_CDEV,
    OBJTYPE_DBFILE,
    OBJTYPE_DIRECTORY,
    OBJTYPE_FIFO,
    OBJTYPE_PSEUDOFS,
    OBJTYPE_REGFILE,
    OBJTYPE_SOCKET,
    OBJTYPE_SOFTLINK,
)

_TYPES = {
    OBJTYPE_DIRECTORY: ("d", "directory"),
    OBJTYPE_REGFILE: ("-", "file"),
    OBJTYPE_DBFILE: ("-", "file"),
    OBJTYPE_FIFO: ("p", "fifo"),
    OBJTYPE_CDEV: ("c", "character device"),
    OBJTYPE_BDEV: ("b", "block device"),
    OBJTYPE_SOFTLINK: ("l", "symlink"),
    OBJTYPE_PSEUDOFS: ("d", "directory"),
    OBJTYPE_SOCKET: ("s", "socket"),
}


def type_letter(obj_type: int) -> str:
    """As `ls -l` has it."""
    return _TYPES.get(obj_type, ("?", ""))[0]


def type_word(obj_type: int) -> str:
    """The same for programs."""
    return _TYPES.get(obj_type, ("", "unknown"))[1]


@lru_cache
def owner_name(uid: int) -> str:
    """The user's name on this machine, the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)
