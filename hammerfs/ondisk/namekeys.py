"""The hashes that hammer(8) prints for names: namekey1, namekey2 and namekey32 (`hammer.c: main`).

The first is the beginning of algorithm 0 (`direntry.py`); no directory has ever been filed by the other two.
"""

from __future__ import annotations

import zlib

_NEVER_ZERO = 1 << 32


def namekey1(name: bytes) -> int:
    """CRC-32, made positive, in the upper word."""
    return (zlib.crc32(name) & 0x7FFFFFFF) << 32 or _NEVER_ZERO


def namekey32(name: bytes) -> int:
    """CRC-32, made positive."""
    return zlib.crc32(name) & 0x7FFFFFFF or 1


def namekey2(name: bytes) -> int:
    """Five bits of each of the outer characters and six of what is between, above a CRC-32: like names lie together."""
    size = len(name)
    key = zlib.crc32(name) & 0xFFFFFFFE
    if size > 5:
        inner = zlib.crc32(name[3 : size - 2])
        key |= ((inner ^ (inner >> 6) ^ (inner >> 12)) & 0x3F) << 42
    if size >= 3:
        key |= (name[2] & 0x1F) << 48
    if size >= 2:
        key |= (name[1] & 0x1F) << 53 | (name[-2] & 0x1F) << 37
    if size >= 1:
        key |= (name[0] & 0x1F) << 58 | (name[-1] & 0x1F) << 32
    return key or _NEVER_ZERO
