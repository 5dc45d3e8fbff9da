"""What would be different if something of the past stood where something stands now, for people to read.

Contents as diff(1) shows them, one file at a time; what it does not see, kinds, owners, modes, attributes and where
symlinks lead, as lines of their own.  Names and contents cannot give a terminal orders.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile

from hammerfs.cli.errors import described
from hammerfs.cli.looking_back import MountedPast
from hammerfs.cli.past import Status, Tree
from hammerfs.cli.treecopy import content_of, naming
from hammerfs.ops.escaping import on_one_line

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
_BINARY = 2
_SHOWN_MAX = 16 * 1024 * 1024
"""Bytes in a file of which it is shown what differs: both are read by diff(1), and one is written for it."""
_PIECE = 64 * 1024
_PATH_MAX = 64 * 1024


def print_differences(past: Tree, present: str, source: str) -> None:
    """From what is at `present` now, anywhere, to what is at `source` in the past, with all that is below."""
    is_terminal = sys.stdout.isatty()
    sys.stdout.flush()
    for text in _differences(MountedPast(), present, past, source):
        sys.stdout.buffer.write(_harmless(text) if is_terminal else text)
    sys.stdout.buffer.flush()


def _harmless(text: bytes) -> bytes:
    """Text as a terminal may get it, to which the ends of lines and tabs are no orders."""
    lines = (line.split("\t") for line in os.fsdecode(text).split("\n"))
    return os.fsencode("\n".join("\t".join(map(on_one_line, parts)) for parts in lines))


def _differences(now: Tree, present: str, past: Tree, source: str) -> Iterator[bytes]:
    """Of one path and what is below it, which waits on a stack, since trees may be deeper than Python calls.

    Below what is no directory there is nothing: a symlink that stands in the way leads to something else.
    """
    waiting = [(present, source, True, True)]
    while waiting:
        present, source, is_now, was_then = waiting.pop()
        inner: set[str] = set()
        inner_then: set[str] = set()
        try:
            here = _status(now, present) if is_now else None
            there = _status(past, source) if was_then else None
            for line in _notes_of(now, present, here, past, source, there):
                yield os.fsencode(line + "\n")
            yield _content_difference(now, present, here, past, source, there)
            if len(source) < _PATH_MAX:  # A damaged directory may be in itself.
                inner, inner_then = _names(now, present, here), _names(past, source, there)
        except OSError as error:  # What cannot be shown is no reason not to bring it back.
            yield os.fsencode(f"{on_one_line(present)}: {on_one_line(described(error))}\n")
        waiting += [
            (f"{present}/{name}", f"{source}/{name}", name in inner, name in inner_then)
            for name in sorted(inner | inner_then, reverse=True)
        ]


def _notes_of(
    now: Tree, present: str, here: Status | None, past: Tree, source: str, there: Status | None
) -> Iterator[str]:
    """What there is to say of one path alone."""
    shown = on_one_line(present)
    if here is not None and there is not None:
        yield from (f"{shown}: {note}" for note in _notes(now, present, here, past, source, there))
    elif here is not None:
        yield f"only now: {shown} ({_kind(here)})"
    elif there is not None:
        yield f"only then: {shown} ({_kind(there)})"


def _status(past: Tree, path: str) -> Status | None:
    try:
        return past.status(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _names(past: Tree, path: str, status: Status | None) -> set[str]:
    return set(past.names(path)) if status is not None and status.is_directory else set()


def _kind(status: Status) -> str:
    return _KINDS.get(stat.S_IFMT(status.mode), "object")


def _notes(now: Tree, present: str, here: Status, past: Tree, source: str, there: Status) -> Iterator[str]:
    """What differs of two objects but for their contents."""
    if _kind(here) != _kind(there):
        yield f"{_kind(here)} -> {_kind(there)}"
        return
    if stat.S_IMODE(here.mode) != stat.S_IMODE(there.mode):
        yield f"mode {stat.S_IMODE(here.mode):04o} -> {stat.S_IMODE(there.mode):04o}"
    if (here.uid, here.gid) != (there.uid, there.gid):
        yield f"owner {here.uid}:{here.gid} -> {there.uid}:{there.gid}"
    if stat.S_ISLNK(here.mode):
        first, second = now.target(present), past.target(source)
        if first != second:
            yield f"target {on_one_line(first)} -> {on_one_line(second)}"
    before, after = now.xattrs(present), past.xattrs(source)
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield f"attribute {on_one_line(name)} {_presence(name, before, after)}"


def _presence(name: str, before: dict[str, bytes], after: dict[str, bytes]) -> str:
    if name not in after:
        return "only now"
    return "changed" if name in before else "only then"


def _content_difference(
    now: Tree, present: str, here: Status | None, past: Tree, source: str, there: Status | None
) -> bytes:
    """What diff(1) says of two files; an absent one is empty."""
    first = here is not None and stat.S_ISREG(here.mode)
    second = there is not None and stat.S_ISREG(there.mode)
    sizes = here.size if here is not None and first else 0, there.size if there is not None and second else 0
    if not (first or second) or (
        first and second and sizes[0] == sizes[1] and _same_content(now, present, past, source)
    ):
        return b""
    if max(sizes) > _SHOWN_MAX:
        return os.fsencode(f"{on_one_line(present)}: contents differ, {sizes[0]} -> {sizes[1]} bytes\n")
    with NamedTemporaryFile() as then:
        with naming(then.name):
            # Volumes that are not mounted have no path that diff(1) could read.
            for piece in content_of(past, source) if second else ():
                then.write(piece)
            then.flush()
        labels = ["--label", _label(present, here), "--label", _label(source, there)]
        troubles: list[str] = []
        told = b"".join(compare([*labels, "--", present if first else "/dev/null", then.name], troubles))
    return told + os.fsencode("".join(f"{on_one_line(present)}: {trouble}\n" for trouble in troubles))


def compare(words: Sequence[str], troubles: list[str], folder: Path | None = None) -> Iterator[bytes]:
    """What `diff -u` says of two paths below a folder, in pieces; `troubles` gets a sentence if it could not see all.

    Its exit code 2 alone is no trouble: binary files that differ get it, too.
    """
    with TemporaryFile() as complaints:
        diff = subprocess.Popen(["diff", "-u", *words], cwd=folder, stdout=subprocess.PIPE, stderr=complaints)
        with diff:
            assert diff.stdout is not None
            while piece := diff.stdout.read(_PIECE):
                yield piece
        if diff.returncode in (0, 1):
            return
        complaints.seek(0)
        said = "; ".join(map(on_one_line, os.fsdecode(complaints.read()).strip().split("\n")))
    if said or diff.returncode != _BINARY:
        troubles.append(said or f"diff ended with {diff.returncode}")


def _label(path: str, status: Status | None) -> str:
    """A name and a time as diff(1) puts them above a difference; what is not there has the time 0, as with -N."""
    seconds, nanoseconds = divmod(0 if status is None else status.mtime_ns, 1_000_000_000)
    moment = time.localtime(seconds)
    when = f"{time.strftime('%Y-%m-%d %H:%M:%S', moment)}.{nanoseconds:09d} {time.strftime('%z', moment)}"
    return f"{on_one_line(path)}\t{when}"


def _same_content(now: Tree, present: str, past: Tree, source: str) -> bool:
    pieces = zip_longest(content_of(now, present), content_of(past, source))
    return all(first == second for first, second in pieces)
