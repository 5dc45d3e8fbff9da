"""Printing reports that are lines of text, names and all as the bytes that they are on disk."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable


def take_any_name() -> None:
    """Let names that are not UTF-8 go to stdout as their own bytes, by whatever way they come there."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def print_lines(lines: Iterable[str]) -> None:
    """Write lines to stdout; names that are not UTF-8 come out as their own bytes."""
    take_any_name()
    for line in lines:
        sys.stdout.write(line + "\n")
