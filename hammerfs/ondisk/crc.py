"""Checksums: CRC-32 up to version 6, CRC-32C from version 7, either one accepted on a version-7 volume.

An upgraded volume keeps the CRC-32 of everything written before the upgrade, so a version-7 reader has to accept both
on every structure (`hammer_crc.h`).  crcmod is the reference implementation of CRC-32C; the `crc32c` package, when
installed and found to agree with crcmod at import, does the work some thirty times faster.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TypeAlias

import crcmod.predefined

from hammerfs.ondisk.constants import INODE_CRC_SIZE, RECTYPE_INODE, VERSION_CRC32C

Buffer: TypeAlias = bytes | bytearray | memoryview
CrcFunction: TypeAlias = Callable[[Buffer], int]

_reference: CrcFunction = crcmod.predefined.mkPredefinedCrcFun("crc-32c")
_PROBE = bytes(range(256)) * 3


def _choose_crc32c() -> CrcFunction:
    try:
        import crc32c as accelerated
    except ImportError:
        return _reference
    function: CrcFunction = accelerated.crc32c
    return function if function(_PROBE) == _reference(_PROBE) else _reference


crc32: CrcFunction = zlib.crc32
crc32c: CrcFunction = _choose_crc32c()


def function_for(version: int) -> CrcFunction:
    """The checksum that a volume of `version` writes."""
    return crc32c if version >= VERSION_CRC32C else crc32


def matches(version: int, stored: int, data: Buffer) -> bool:
    """Whether `stored` is a checksum of `data` that a volume of `version` may carry."""
    if version >= VERSION_CRC32C:
        return crc32c(data) == stored or crc32(data) == stored
    return crc32(data) == stored


def split_crc(function: CrcFunction, data: Buffer, skip: int) -> int:
    """Checksum of a structure whose 4-byte CRC field at `skip` lies in its middle: both halves, XORed."""
    view = memoryview(data)
    return function(view[:skip]) ^ function(view[skip + 4 :])


def split_matches(version: int, stored: int, data: Buffer, skip: int) -> bool:
    """Like `matches`, for the XOR form used by volume headers and FIFO records."""
    if version >= VERSION_CRC32C and split_crc(crc32c, data, skip) == stored:
        return True
    return split_crc(crc32, data, skip) == stored


def record_crc(function: CrcFunction, rec_type: int, data: Buffer) -> int:
    """`data_crc` of a leaf element: the whole data, except that an inode's stops before mtime and atime."""
    if not data:
        return 0
    if rec_type == RECTYPE_INODE:
        return function(memoryview(data)[:INODE_CRC_SIZE])
    return function(data)


def record_matches(version: int, stored: int, rec_type: int, data: Buffer) -> bool:
    """Whether `stored` is an acceptable `data_crc` for a record's data."""
    if not data:
        return stored == 0
    covered = memoryview(data)[:INODE_CRC_SIZE] if rec_type == RECTYPE_INODE else data
    return matches(version, stored, covered)
