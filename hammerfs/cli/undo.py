"""`undo`: earlier versions of files, their differences, and lists of them, with undo(1)'s flags and output.

A path may lead to a file, to a directory, or to nothing any more: the history of a name is that of all objects that
bore it (`ops/name_history.py`).  Follows `usr.bin/undo/undo.c`, and undo(1) where it promises more than that does:
with -a, the output file of -o is numbered; with several paths it is a template without -a, too.
"""

from __future__ import annotations

import argparse
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import IO, Any

from hammerfs.cli.differences import compare
from hammerfs.cli.directive import show
from hammerfs.cli.earlier import Whereabouts, whereabouts
from hammerfs.cli.errors import EXIT_ERROR, guarded
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.looking_back import looking_back
from hammerfs.cli.moment import parse_tid, tid_text, time_text
from hammerfs.cli.past import Past, add_volumes, exists, local_name
from hammerfs.cli.treecopy import content_of, naming
from hammerfs.cli.verb import Subparsers
from hammerfs.errors import UsageError
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import MAX_TID
from hammerfs.ops.escaping import on_one_line

FILE, DIFF, REVERSE, HISTORY = "file", "diff", "reverse", "history"
EXIT_FAILED = 1
_TIDS_MAX = 2
_DIGITS_MAX = 9
"""In an index: nothing has more versions."""
_TEMPLATE = re.compile(r"%(.?)")
_SUMMARY = "earlier versions of files, and what changed between them"
_EPILOG = """\
A TID is written 0x...; a plain number is an index: 0 is the latest version, 1 the one before it, and so on.
Without -t the version before the latest one is taken.

examples:
  undo -i file                      all moments at which the file changed
  undo file > file.old              the contents before the last change
  undo -d file                      what the last change was, as a diff
  undo -d -t 3 file                 what the last three changes were
  undo -t 0x0000000123456780 gone   a file that was deleted since
  undo -a -u file                   every version, as file.undo.0001 ...
  undo -f disk.img -i /dir/file     on volumes that are not mounted

exit codes: 0 done, 1 there is no history of one of the paths, 2 for errors"""


@dataclass(frozen=True, slots=True)
class Version:
    """A moment in the history of a path.  `seconds` is 0 for one that only the user knows of."""

    tid: Tid
    seconds: int = 0
    obj_id: int = 0


@dataclass(slots=True)
class Job:
    """What is to be done with each path: the options, checked.

    moments -- of -t: TIDs, or with `is_index` how many versions back
    template -- -o names a file for each path
    """

    kind: str
    everything: bool
    verbose: bool
    suffix: str
    output: str | None
    template: bool
    moments: list[tuple[int, bool]] = field(default_factory=list)


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    _declare(subparsers.add_parser("undo", **_PARSER))


_PARSER: dict[str, Any] = {
    "help": _SUMMARY,
    "description": "Bring back older versions of files and directories, deleted ones too, or show what changed.",
    "epilog": _EPILOG,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
}


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", dest="everything", action="store_true", help="go through the entire history")
    parser.add_argument("-d", dest="kind", action="store_const", const=DIFF, help="diff from the older to the newer")
    parser.add_argument("-D", dest="kind", action="store_const", const=REVERSE, help="diff from the newer to the older")
    parser.add_argument("-i", dest="listing", action="store_true", help="list transaction ids and times")
    parser.add_argument("-u", dest="beside", action="store_true", help="write PATH.undo.NNNN instead of stdout")
    parser.add_argument("-v", dest="verbose", action="store_true", help="tell of versions that cannot be had, too")
    parser.add_argument(
        "-o", dest="output", metavar="FILE", help="write to FILE; %%s is the path's last name when there are several"
    )
    parser.add_argument(
        "-t", dest="tids", metavar="TID", action="append", default=[], help="as of TID; twice: what changed in between"
    )
    parser.add_argument("--json", action="store_true", help="with -i: one JSON object")
    add_volumes(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="file or directory, there or not any more")


def run(args: argparse.Namespace) -> int:
    """Do it for each path; 0, or 1 when one of them has no history, or 2 when diff(1) could not compare it."""
    job = _job(args)
    with looking_back(args) as past:
        if args.json:
            return _print_json(past, args.paths)
        return max(_Undo(past, job, path).run() for path in args.paths)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `undo` command."""
    options = {name: value for name, value in _PARSER.items() if name != "help"}
    parser = argparse.ArgumentParser(prog="undo", **options)
    _declare(parser)
    return guarded("undo", lambda: run(parser.parse_args(argv)))


def _job(args: argparse.Namespace) -> Job:
    if args.listing and args.kind is not None:
        raise UsageError("-i lists moments, -d and -D show what changed: it has to be one of them")
    if args.json and not args.listing:
        raise UsageError("--json goes with -i")
    if args.output is not None and args.beside:
        raise UsageError("the -o option may not be combined with -u")
    if len(args.tids) > _TIDS_MAX:
        raise UsageError("-t may be given twice, not more often")
    several = len(args.paths) > 1
    if args.output is not None and several:
        _check_template(args.output)
    kind = HISTORY if args.listing else args.kind or (DIFF if len(args.tids) == _TIDS_MAX else FILE)
    return Job(
        kind,
        args.everything or args.listing,
        args.verbose,
        ".undo" if args.beside else "",
        args.output,
        several,
        [_moment(text) for text in args.tids],
    )


def _moment(text: str) -> tuple[int, bool]:
    """A TID, or an index and that it is one."""
    digits = text.removeprefix("+")
    is_index = digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX
    return (int(digits), True) if is_index else (parse_tid(text), False)


def _check_template(template: str) -> None:
    parts = _TEMPLATE.findall(template)
    if parts.count("s") != 1 or any(part not in ("s", "%") for part in parts):
        raise UsageError(f"-o {template}: with several paths there has to be one %s in it, and %% for a percent sign")


def versions_of(past: Past, where: Whereabouts) -> list[Version]:
    """The moments of a path, oldest first; tells of fake ones on stderr."""
    versions: dict[Tid, Version] = {}
    for folder in where.folders:
        found = past.ask(folder.seen, "versions", name=where.name)
        for tid in found["fake"]:
            print(f"Warning: fake transaction id {on_one_line(where.at(past, tid))}", file=sys.stderr)
        for moment in found["moments"]:
            if folder.knew(moment["tid"]):
                versions.setdefault(moment["tid"], Version(moment["tid"], moment["seconds"], moment["obj_id"]))
    return [versions[tid] for tid in sorted(versions)]


def _print_json(past: Past, paths: Sequence[str]) -> int:
    results = []
    for path in paths:
        where = whereabouts(past, path)
        moments = [
            {
                "tid": version.tid,
                "seconds": version.seconds,
                "obj_id": f"0x{version.obj_id:016x}",
                "exists": exists(past, where.at(past, version.tid)),
            }
            for version in versions_of(past, where)
        ]
        results.append({"path": path, "versions": moments})
    show(HammerOptions(json=True), "undo", {"paths": results}, ())
    return 0 if all(result["versions"] for result in results) else EXIT_FAILED


class _NotThere(Exception):
    """What was asked for does not exist; the text says what."""


class _Undo:
    """One path."""

    def __init__(self, past: Past, job: Job, path: str) -> None:
        self._past = past
        self._job = job
        self._path = path
        self._shown = on_one_line(path)
        self._troubled = False
        self._where = whereabouts(past, path)
        self._versions = versions_of(past, self._where)

    def run(self) -> int:
        """0, or 1 with a line that says what there is not, or 2 with lines of diff(1) about what it could not read."""
        try:
            done = self._all() if self._job.everything else self._one()
        except _NotThere as error:
            sys.stdout.flush()
            print(on_one_line(str(error)), file=sys.stderr)
            return EXIT_FAILED
        if not done:
            print(f"{self._shown}: No UNDO history found")
            return EXIT_FAILED
        return EXIT_ERROR if self._troubled else 0

    def _one(self) -> bool:
        """One version, or what changed between two of them."""
        moments = [self._version(*moment) for moment in self._job.moments]
        if not moments:
            moments = self._versions[-2:]
            if len(moments) < 2:
                return False
        self._generate(moments[0], moments[1] if len(moments) > 1 else None, 0)
        return True

    def _version(self, number: int, is_index: bool) -> Version:
        """undo(1) takes the version before the latest for one that there is not, which nobody asked for."""
        if not is_index:
            return Version(number, self._seconds_at(number))
        if number < len(self._versions):
            return self._versions[-1 - number]
        raise _NotThere(f"{self._path}: there is no version {number}, only {len(self._versions)} counted from 0")

    def _seconds_at(self, tid: Tid) -> int:
        """When the version that a TID shows was made."""
        return next((version.seconds for version in reversed(self._versions) if version.tid <= tid), 0)

    def _all(self) -> bool:
        versions = self._versions
        if not versions:
            return False
        print(f"{self._shown}: ITERATE ENTIRE HISTORY")
        changed = False
        for index, (older, newer) in enumerate(pairwise(versions), 1):
            self._generate(older, newer, index, inode_changed=changed)
            changed = newer.obj_id != older.obj_id
        if self._job.kind in (FILE, HISTORY):
            # After the last version there is nothing that it could be compared with.
            self._generate(versions[-1], Version(MAX_TID), len(versions), inode_changed=changed)
        return True

    def _generate(self, older: Version, newer: Version | None, index: int, *, inode_changed: bool = False) -> None:
        old_path = self._where.at(self._past, older.tid)
        new_path = self._path if newer is None else self._where.at(self._past, newer.tid)
        is_there = exists(self._past, old_path)
        if not is_there and not exists(self._past, new_path):
            sentence = f"Unable to access either {old_path} or {new_path}"
            if index == 0:
                raise _NotThere(sentence)
            if self._job.verbose:
                print(on_one_line(sentence), file=sys.stderr)
            return
        if self._job.kind == HISTORY:
            notes = (" inode-change" if inode_changed else "") + ("" if is_there else " file-deleted")
            print(f"\t{tid_text(older.tid)} {time_text(older.seconds)}{notes}")
            return
        if self._job.kind == FILE:
            self._check_file(old_path, older.tid, is_there=is_there, alone=index == 0)
            pieces = content_of(self._past, old_path) if is_there else iter(())
        elif self._job.kind == DIFF:
            until = self._seconds_at(MAX_TID) if newer is None else newer.seconds
            pieces = self._comparison(old_path, new_path, f" (to {time_text(until)})")
        else:
            pieces = self._comparison(new_path, old_path, "")
        with ExitStack() as stack:
            output = self._output(stack, older, index)
            for piece in pieces:
                output.write(piece)
            output.flush()

    def _check_file(self, path: str, tid: Tid, *, is_there: bool, alone: bool) -> None:
        """Only files have contents that could be written; of several versions, one may be that there was none."""
        if not is_there:
            if alone:
                raise _NotThere(f"{path}: there was nothing of that name")
            return
        mode = self._past.status(path).mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "a symlink" if stat.S_ISLNK(mode) else "no file"
            shows = " -d shows what changed," if stat.S_ISDIR(mode) else ""
            raise _NotThere(
                f"{path} is {kind}:{shows} 'hammerfs restore --tid {tid_text(tid)} {self._path}' brings it back"
            )

    def _output(self, stack: ExitStack, older: Version, index: int) -> IO[bytes]:
        """Where it goes; on stdout, a version's contents follow a line that says which one it is."""
        job = self._job
        name = None
        if job.output is not None:
            last = self._path.rstrip("/").rpartition("/")[2]
            name = job.output
            if job.template:
                name = _TEMPLATE.sub(lambda match: last if match[1] == "s" else "%", name)
            if job.everything:
                name = f"{name}.{index:04d}"
        elif job.suffix:
            name = f"{self._path}{job.suffix}.{index:04d}"
        if name is not None:
            stack.enter_context(naming(name))
            # A name that nobody gave may be a symlink that somebody else laid there.
            flags = os.O_NOFOLLOW if job.suffix else 0
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | flags, 0o666)
            return stack.enter_context(open(fd, "wb"))
        if job.kind == FILE:
            print(f"\n>>> {self._shown} {index:04d} {tid_text(older.tid)} {time_text(older.seconds)}\n", flush=True)
        return sys.stdout.buffer

    def _comparison(self, first: str, second: str, more: str) -> Iterator[bytes]:
        """What diff(1) shows, headed by its command line as undo(1) writes it; a path may look like an option."""
        print(f"diff -N -r -u {on_one_line(first)} {on_one_line(second)}{more}", flush=True)
        troubles: list[str] = []
        with self._past.local([first, second]) as folder:
            local = [local_name(path) for path in (first, second)] if folder.is_absolute() else [first, second]
            yield from compare(["-N", "-r", "--", *local], troubles, folder)
        for trouble in troubles:
            print(f"undo: {trouble}", file=sys.stderr)
            self._troubled = True


if __name__ == "__main__":
    sys.exit(main())
