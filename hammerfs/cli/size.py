"""Sizes on the command line and in what commands print, as newfs_hammer(8) and hammer(8) write them.

A size is a whole number, decimal or 0x..., and one of K, M, G, T, each 1024 times the one before (`newfs_hammer.c:
getsize`, `misc.c: sizetostr`).
"""

from __future__ import annotations

import re

from hammerfs.errors import UsageError

_SUFFIXES = "KMGT"
_SIZE = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)([KkMmGgTt]?)")


def parse_size(text: str, *, suffix_required: bool = False) -> int:
    """The bytes that `text` means; UsageError when it means none.

    newfs_hammer insists on a suffix, so that `-u 24` is not taken for 24 bytes; where bytes make sense it may be left
    out.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{text}' is no size: a whole number and K, M, G or T was expected")
    digits, suffix = match.groups()
    if suffix_required and not suffix:
        raise UsageError(f"'{text}' lacks a suffix: K, M, G or T")
    number = int(digits, 16) if digits[:2].lower() == "0x" else int(digits)
    exponent = _SUFFIXES.index(suffix.upper()) + 1 if suffix else 0
    return number << (10 * exponent)


def format_size(size: int) -> str:
    """A size with two decimals in the unit where it exceeds one half, in nine columns as hammer(8) prints it."""
    if size < 1024 // 2:
        return f"{size:6.2f}B"
    unit = 1024
    for suffix in _SUFFIXES[:-1]:
        if size < unit * 1024 // 2:
            return f"{size / unit:6.2f}{suffix}B"
        unit *= 1024
    return f"{size / unit:6.2f}{_SUFFIXES[-1]}B"
