"""Directory entries: their data (16 bytes and the name) and the name hashes that key them.

Algorithm 0: CRC-32 of the name, masked positive, in the upper word.  Algorithm 1 (version 6 and up): the upper word is
the sum of the CRC-32s of the segments between `. - _ ~`, the lower word holds the whole name's CRC folded to 16 bits in
its upper half.  The rest of the lower word counts collisions.  A directory keeps the algorithm of its creation; 2 and 3
are reserved by the format and no implementation writes them (`hammer_direntry_namekey`).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from hammerfs.ondisk.constants import CAP_DIRHASH_ALG0, CAP_DIRHASH_ALG1, CAP_DIRHASH_MASK

_HEADER = struct.Struct("<qII")
ENTRY_HEADER_SIZE = _HEADER.size
_SEPARATORS = re.compile(rb"[.\-_~]")
_ALG0_ITERATIONS = 0xFFFFFFFF
_ALG1_ITERATIONS = 0x00FFFFFF
_SMALLEST = 1 << 32
"""The upper word is never 0: that space is left to `.` and `..`."""
PATH_MAX = 4096
"""Bytes of a path that anybody can use, as Linux has it."""


class EntryData(NamedTuple):
    """What a directory entry says: which object, in which PFS, under which name."""

    obj_id: int
    localization: int
    name: bytes


def pack_entry(obj_id: int, localization: int, name: bytes) -> bytes:
    """A directory entry's data."""
    return _HEADER.pack(obj_id, localization, 0) + name


def unpack_entry(raw: bytes) -> EntryData:
    """A directory entry's data, read; raises ValueError when it is too short."""
    if len(raw) < ENTRY_HEADER_SIZE:
        raise ValueError(f"directory entry of {len(raw)} bytes")
    obj_id, localization, _ = _HEADER.unpack_from(raw, 0)
    return EntryData(obj_id, localization, raw[ENTRY_HEADER_SIZE:])


def path_text(names: Iterable[bytes]) -> str:
    """A path from the root as text; what is not UTF-8 in a name is written as `\\xff`."""
    return "/" + "/".join(name.decode("utf-8", "backslashreplace") for name in names)


def is_hashable(cap_flags: int) -> bool:
    """Whether `name_key` knows the rule of a directory with these capability flags."""
    return cap_flags & CAP_DIRHASH_MASK in (CAP_DIRHASH_ALG0, CAP_DIRHASH_ALG1)


def name_key(cap_flags: int, name: bytes) -> tuple[int, int]:
    """The first key that `name` may have in a directory with these capability flags, and the last.

    Raises ValueError for the reserved algorithms 2 and 3.
    """
    algorithm = cap_flags & CAP_DIRHASH_MASK
    if algorithm == CAP_DIRHASH_ALG1:
        total = 0
        for segment in _SEPARATORS.split(name):
            if segment:
                total += zlib.crc32(segment)
        whole = zlib.crc32(name)
        low = (whole ^ (whole << 16)) & 0xFFFF0000
        key = ((total & 0x7FFFFFFF) << 32) | low
        if not key >> 32:
            key |= _SMALLEST
        return key, key + _ALG1_ITERATIONS
    if algorithm == CAP_DIRHASH_ALG0:
        key = (zlib.crc32(name) & 0x7FFFFFFF) << 32 or _SMALLEST
        return key, key + _ALG0_ITERATIONS
    raise ValueError(f"directory hash algorithm {algorithm} is reserved")
