"""Looking into the past from a command: through the paths of a mounted file system, or into volumes given by `-f`.

A command gets a `Past` and does not care which.  Names of moments are paths in both cases: `file@@0x...`.  What cannot
be had through a path, because it is about what no path leads to any more, is asked of the file system
(`ops/history.py`).
"""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hammerfs.cli.moment import at, names_tid, parse_tid, parse_time
from hammerfs.cli.verb import Subparsers, add_json
from hammerfs.errors import HammerError, UsageError
from hammerfs.ondisk.address import Tid

READ_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Status:
    """What lstat(2) tells; `identity` is the same for two names of one object."""

    mode: int
    uid: int
    gid: int
    size: int
    atime_ns: int
    mtime_ns: int
    rdev: int
    nlink: int
    identity: tuple[int, int]

    @property
    def is_directory(self) -> bool:
        """Whether there may be names below it."""
        return stat.S_ISDIR(self.mode)


class Tree(Protocol):
    """Paths that can be looked at.  What reads raises OSError with the path when there is nothing."""

    def status(self, path: str) -> Status:
        """What is there, symlinks not followed."""

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted."""

    def content(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """A file's bytes from an offset on, in pieces of READ_SIZE but for the last one."""

    def ranges(self, path: str) -> list[tuple[int, int]] | None:
        """From and to which byte a file holds data; None where nobody knows, and all of it has to be read."""

    def target(self, path: str) -> str:
        """Where a symlink leads."""

    def xattrs(self, path: str) -> dict[str, bytes]:
        """Extended attributes, empty where there are none or they are not supported."""


class Past(Tree, Protocol):
    """Where paths lead, now and earlier."""

    def ask(
        self, place: str, operation: str, *, on_item: Callable[[dict[str, Any]], None] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """What the file system answers about a directory, or what is or was below it; `on_item` gets parts of that.

        ^C is a KeyboardInterrupt at once: what only looks has nothing to bring to an end.
        """

    def is_top(self, path: str) -> bool:
        """Whether a path leads to a file system's root, which has no name."""

    def absolute(self, path: str, *, follow: bool = True) -> str:
        """The path from the root that paths begin at, without symlinks or, unless `follow`, with those that it has."""

    def local(self, paths: Sequence[str]) -> AbstractContextManager[Path]:
        """A folder in which these paths, as far as they exist, can be read by any program while the block lasts.

        One that is absolute has copies, by `local_name`.
        """


def place_of(past: Past, path: str) -> tuple[str, str]:
    """The directory that a path's last name is in, and that name; the root itself has none, and is its own place.

    What ends with a slash means what a symlink there leads to.
    """
    if past.is_top(path):
        return path, ""
    if _says_no_name(path):
        path = past.absolute(path)
        if past.is_top(path):
            return path, ""
    place, name = os.path.split(path)
    return place or ".", name


def as_of(past: Past, path: str, tid: Tid) -> str:
    """The path by which something is seen as of a moment; a root's own name lies outside of its file system."""
    if past.is_top(path) or _says_no_name(path):
        return at(f"{path.rstrip('/')}/", tid)
    return at(path, tid)


def _says_no_name(path: str) -> bool:
    return path.rpartition("/")[2] in ("", ".", "..")


def local_name(path: str) -> str:
    """What a path is called in the folder of `Past.local`, below which it stays whatever its parts say."""
    return os.path.normpath(f"/{path.lstrip('/')}").lstrip("/") or "root"


def exists(past: Tree, path: str) -> bool:
    """Whether a path leads to anything."""
    try:
        past.status(path)
    except OSError:
        return False
    return True


def ranges_of(past: Past, path: str) -> list[tuple[int, int]] | None:
    """What a file system answers about a file that holds data in places."""
    place, name = os.path.split(path)
    ranges: list[tuple[int, int]] = []

    def take(part: dict[str, Any]) -> None:
        ranges.extend((start, end) for start, end in part["ranges"])

    try:
        past.ask(place or ".", "data-ranges", on_item=take, path=name)
    except HammerError:
        return None
    return ranges


def add_command(
    subparsers: Subparsers, name: str, *, help_: str, description: str, epilog: str
) -> argparse.ArgumentParser:
    """A command that looks into the past: with examples below its options, `--json` and `-f`."""
    parser = subparsers.add_parser(
        name, help=help_, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_json(parser)
    add_volumes(parser)
    return parser


def add_volumes(parser: argparse.ArgumentParser) -> None:
    """`-f`, for commands that look into the past."""
    parser.add_argument(
        "-f",
        dest="specials",
        metavar="SPECIALS",
        action="append",
        default=[],
        help="look into these volumes (colons between them), not a mounted file system; paths begin at their root",
    )


def moment_of(past: Past, path: str, text: str) -> Tid:
    """The TID that a moment's text means for what is at a path: the TID itself, or the newest one by a clock time."""
    if names_tid(text):
        return parse_tid(text)
    time_us = parse_time(text)
    place, name = place_of(past, path)
    if not name or is_directory(past, path):
        place = path
    while not leads_to_directory(past, place) and place not in ("", ".", "/"):
        # Any directory of the file system will do; what is meant may be gone together with its own.
        place = os.path.dirname(place) or "."
    tid: Tid | None = past.ask(place, "moment", time_us=time_us)["tid"]
    if tid is None:
        raise UsageError(f"{path}: there is no history as old as {text}")
    return tid


def is_directory(past: Tree, path: str) -> bool:
    """Whether there is a directory now."""
    try:
        return past.status(path).is_directory
    except OSError:
        return False


def leads_to_directory(past: Tree, path: str) -> bool:
    """The same of what a symlink there leads to, as the name of a PFS is one."""
    return is_directory(past, f"{path}/.")
