"""What a REDO record says of a file that no flush has written yet: where it appeared, and its attributes (ours).

The original's recovery passes over records whose flags it does not know, and over those of objects that are not there.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hammerfs.ondisk.constants import INODE_DATA_SIZE, MAX_NAME, OBJTYPE_REGFILE
from hammerfs.ondisk.fifo import REDO_PAYLOAD_MAX
from hammerfs.ondisk.inode import InodeData

_HEAD = struct.Struct("<q")
_NAME_AT = _HEAD.size + INODE_DATA_SIZE
assert _NAME_AT + MAX_NAME <= REDO_PAYLOAD_MAX, "a creation does not fit into one record"


class Creation(NamedTuple):
    """A regular file with one name.

    directory -- object id of the directory, in the file's PFS
    name -- the file's
    data -- its attributes; a size stands in it that counts for nothing, as writes follow
    """

    directory: int
    name: bytes
    data: InodeData


def pack_creation(creation: Creation) -> bytes:
    """The payload of a REDO_CREATE record."""
    return _HEAD.pack(creation.directory) + creation.data.pack() + creation.name


def unpack_creation(raw: bytes) -> Creation | None:
    """What such a record says; None when that cannot be."""
    name = raw[_NAME_AT:]
    if not 0 < len(name) <= MAX_NAME or b"/" in name or b"\0" in name or name in (b".", b".."):
        return None
    (directory,) = _HEAD.unpack_from(raw)
    data = InodeData.unpack(raw[_HEAD.size : _NAME_AT])
    if data.obj_type != OBJTYPE_REGFILE or data.nlinks != 1:
        return None
    return Creation(directory, name, data)
