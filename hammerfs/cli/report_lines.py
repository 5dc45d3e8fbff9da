"""Printing reports that are lines of text, names and all as the bytes that they are on disk."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable

JSON_FORMAT = "hammerfs/1"
"""What every object for programs says of itself."""


def take_any_name() -> None:
    """Let names that are not UTF-8 go to stdout as their own bytes, by whatever way they come there."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def print_lines(lines: Iterable[str]) -> None:
    """Write lines to stdout; names that are not UTF-8 come out as their own bytes."""
    take_any_name()
    for line in lines:
        sys.stdout.write(line + "\n")


def print_report(command: str, lines: Iterable[str], *, as_json: bool) -> None:
    """The same, or with --json one object whose `lines` they are, each written when it comes."""
    if not as_json:
        print_lines(lines)
        return
    sys.stdout.write(json.dumps({"format": JSON_FORMAT, "command": command})[:-1] + ', "lines": [')
    separator = "\n "
    for line in lines:
        sys.stdout.write(separator + json.dumps(line))
        separator = ",\n "
    sys.stdout.write("\n]}\n")
