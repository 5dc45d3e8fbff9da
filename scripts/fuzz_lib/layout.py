"""Where the fields of each structure are: name, place and `struct` code.

Written down once more, apart from `hammerfs.ondisk`: what is fuzzed here should not depend on how it is read there.
"""

from __future__ import annotations

import struct
from typing import NamedTuple


class Field(NamedTuple):
    """One integer of a structure."""

    name: str
    at: int
    code: str

    @property
    def size(self) -> int:
        """Its bytes."""
        return struct.calcsize(self.code)

    def read(self, raw: bytes | bytearray) -> int:
        """Its value."""
        value: int = struct.unpack_from("<" + self.code, raw, self.at)[0]
        return value

    def pack(self, value: int) -> bytes:
        """A value's bytes; what does not fit is cut to the field's bits."""
        return (value & ((1 << 8 * self.size) - 1)).to_bytes(self.size, "little")


def _fields(*triples: tuple[str, int, str]) -> dict[str, Field]:
    return {name: Field(name, at, code) for name, at, code in triples}


_ZONES = (3, 4, 8, 9, 10, 11)
_BLOCKMAP = (("phys", 0), ("first", 8), ("next", 16), ("alloc", 24))

HEADER = _fields(
    ("signature", 0, "Q"), ("bot_beg", 8, "q"), ("mem_beg", 16, "q"), ("buf_beg", 24, "q"), ("buf_end", 32, "q"),
    ("fsid", 48, "Q"), ("fstype", 64, "Q"), ("label", 80, "Q"), ("no", 144, "i"), ("count", 148, "i"),
    ("version", 152, "I"), ("crc", 156, "I"), ("flags", 160, "I"), ("rootvol", 164, "I"), ("bigblocks", 200, "q"),
    ("freebigblocks", 208, "q"), ("inodes", 224, "q"), ("btree_root", 240, "Q"), ("next_tid", 248, "Q"),
    *((f"zone{zone}_{name}", 264 + 40 * zone + at, "Q") for zone in _ZONES for name, at in _BLOCKMAP),
    *((f"undo{index}", 904 + 8 * index, "Q") for index in range(3)),
)  # fmt: skip
NODE = _fields(
    ("crc", 0, "I"), ("parent", 8, "Q"), ("count", 16, "i"), ("type", 20, "B"), ("mirror_tid", 56, "Q")
)  # fmt: skip
_BASE = (
    ("obj_id", 0, "q"), ("key", 8, "q"), ("create_tid", 16, "Q"), ("delete_tid", 24, "Q"), ("rec_type", 32, "H"),
    ("obj_type", 34, "B"), ("btype", 35, "B"), ("localization", 36, "I"),
)  # fmt: skip
LEAF = _fields(
    *_BASE, ("create_ts", 40, "I"), ("delete_ts", 44, "I"), ("data_offset", 48, "Q"), ("data_len", 56, "i"),
    ("data_crc", 60, "I"),
)  # fmt: skip
INTERNAL = _fields(*_BASE, ("mirror_tid", 40, "Q"), ("subtree", 48, "Q"))
INODE = _fields(
    ("version", 0, "H"), ("mode", 2, "H"), ("uflags", 4, "I"), ("rmajor", 8, "I"), ("rminor", 12, "I"),
    ("ctime", 16, "Q"), ("parent", 24, "q"), ("uid", 44, "I"), ("gid", 60, "I"), ("obj_type", 64, "B"),
    ("cap_flags", 65, "B"), ("nlinks", 72, "Q"), ("size", 80, "Q"), ("symlink", 88, "Q"), ("mtime", 112, "Q"),
    ("atime", 120, "Q"),
)  # fmt: skip
ENTRY = _fields(("obj_id", 0, "q"), ("localization", 8, "I"), ("name", 16, "B"))
PFS = _fields(
    ("low_tid", 0, "Q"), ("beg_tid", 8, "Q"), ("end_tid", 16, "Q"), ("flags", 76, "I"), ("label", 80, "Q"),
    ("prune_min", 220, "i"), ("prune_max", 224, "i"),
)  # fmt: skip
LAYER1 = _fields(("blocks_free", 0, "Q"), ("phys", 8, "Q"), ("crc", 28, "I"))
LAYER2 = _fields(("zone", 0, "B"), ("append", 4, "I"), ("free", 8, "i"), ("crc", 12, "I"))
FIFO = _fields(
    ("signature", 0, "H"), ("type", 2, "H"), ("size", 4, "I"), ("seq", 8, "I"), ("crc", 12, "I"),
    ("offset", 16, "Q"), ("bytes", 24, "i"), ("redo_offset", 24, "Q"), ("redo_size", 32, "i"),
    ("redo_flags", 36, "I"), ("redo_localization", 40, "I"),
)  # fmt: skip
