"""`hammerfs restore`: bring back a file or directory as it was, without ever overwriting anything unasked.

What is brought back is made beside its place under a name of its own first, whole with owners, modes, times and
attributes, and renamed then: nobody sees half of it, and if it fails, nothing has changed.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hammerfs.cli.differences import print_differences
from hammerfs.cli.directive import show
from hammerfs.cli.earlier import Folder, Whereabouts, folders_of, root_of, whereabouts
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.looking_back import MountedPast, looking_back
from hammerfs.cli.moment import TIME_HELP, is_at_moment, names_tid, parse_tid, parse_time, tid_text, time_text
from hammerfs.cli.past import Past, Tree, add_command, exists, is_directory, moment_of
from hammerfs.cli.placing import fitting, making
from hammerfs.cli.progress import reporting
from hammerfs.cli.regained import RegainedTree, RemovedNames, WentTogether, broken_off_at, removal_at
from hammerfs.cli.treecopy import copy_tree
from hammerfs.cli.verb import Subparsers
from hammerfs.errors import UsageError
from hammerfs.ondisk.address import Tid
from hammerfs.ops.escaping import on_one_line
from hammerfs.ops.progress import Progress
from hammerfs.vfs.controlclient import mount_of_device

_EPILOG = """\
Without a moment, what was deleted comes back as it was before that; a folder with all that went within a minute of one
another. --before-delete does so for what is there again, or still: rm -r may have been broken off.
Where something stands already, its differences to what would come back are shown, and the past is written
beside it, as PATH.0x...; --force puts it in its place.

examples:
  hammerfs restore -n deleted-file               what would be done
  hammerfs restore deleted-folder
  hammerfs restore --time 2026-11-22T10:00:00 file
  hammerfs restore --tid 0x0000000123456780 --force folder
  hammerfs restore -f disk.img --to /tmp/back /dir/file   from volumes that are not mounted

'hammerfs log PATH' lists the moments of a path, 'hammerfs ls --deleted DIR' what can be brought back."""


EXIT_INCOMPLETE = 1
REMOVED = "removed"
ENDS = (REMOVED, "moved away")
"""Events of a log (`ops/name_history.py`) after which a name is no more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    past -- in which `source` is what shall come back
    source -- path as of the moment; target -- where it goes; occupied -- something stands there that has to give way
    removal -- how a directory went that did not go at once
    names -- how many are to come back, 0 where nobody counted them
    """

    past: Tree
    tid: Tid
    source: str
    target: Path
    occupied: bool
    removal: WentTogether | None
    names: int = 0


class Wanted(NamedTuple):
    """A moment; what went from then on, if it was found by that; and where each name is to be seen as it was last."""

    tid: Tid
    removal: WentTogether | None = None
    names: RemovedNames | None = None


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "restore",
        help_="bring back a file or directory as it was",
        description="Bring back a file, or a directory with all that is in it, as it was at a moment.",
        epilog=_EPILOG,
    )
    moments = parser.add_mutually_exclusive_group()
    moments.add_argument("--tid", metavar="0x...", help="as of that transaction id")
    moments.add_argument("--time", metavar="TIME", help=f"as of that time: {TIME_HELP}")
    moments.add_argument(
        "--before-delete",
        action="store_true",
        help="as it was before it was deleted; a directory that is there, as before names last went from it",
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("--force", action="store_true", help="replace what stands there now")
    parser.add_argument("--to", metavar="TARGET", help="bring it there instead of its own place")
    parser.add_argument("path", metavar="PATH", help="file or directory, there or not any more")


def run(args: argparse.Namespace) -> int:
    """Bring it back, or beside; 0, or 1 when a part of it could not be."""
    with looking_back(args) as past:
        plan = _plan(past, args)
        if plan.occupied and not args.json:
            print_differences(plan.past, str(plan.target), plan.source)
        if args.dry_run:
            names = [plan.target.name, *_beside(plan)] if args.force or not plan.occupied else _beside(plan)
            target = next(plan.target.with_name(name) for name in names if args.force or _is_free(plan, name))
        else:
            with reporting(args.json) as progress:
                progress.phase("restoring", plan.names)
                target = _bring_back(plan, progress, force=args.force)
    removal = plan.removal if plan.removal is not None and plan.removal.took_more else None
    result = {
        "source": plan.source,
        "tid": plan.tid,
        "target": str(target),
        "replaced": plan.occupied and args.force,
        "removal": None if removal is None else removal.told(),
        "done": not args.dry_run,
    }
    verb = "would restore" if args.dry_run else "restored"
    source = on_one_line(plan.source)
    if removal is not None:
        source += f", as it was before {_how_it_went(removal)},"
    place = "in the place of what is there now:" if result["replaced"] else "as"
    comma = "," if result["replaced"] and not source.endswith(",") else ""
    show(
        HammerOptions(json=args.json), "restore", result, [f"{verb} {source}{comma} {place} {on_one_line(str(target))}"]
    )
    return EXIT_INCOMPLETE if removal is not None and removal.lost else 0


def _how_it_went(removal: WentTogether) -> str:
    begin, end = time_text(removal.begin_seconds), time_text(removal.end_seconds)
    notes = [f"{removal.earlier} more had gone before"] * bool(removal.earlier)
    notes += [f"{removal.lost} that went with them cannot be read or reached"] * bool(removal.lost)
    more = f" ({', '.join(notes)})" if notes else ""
    return f"{removal.names} names went from {begin} to {end.partition(' ')[2]}{more}"


def _plan(past: Past, args: argparse.Namespace) -> Plan:
    if args.specials and args.to is None:
        raise UsageError("volumes given by -f are only read: say by --to where it shall be brought")
    path = _without_dots(args.path)
    if args.to is None and _is_in_the_past(past, path):
        raise UsageError(f"{path} is in the past: name it as of now, and the moment by --tid, or use --to")
    where = whereabouts(past, path)
    tid, removal, names = _wanted(past, args, where)
    source = where.at(past, tid)
    if not exists(past, source):
        raise UsageError(f"{path}: there was nothing of that name at {tid_text(tid)}")
    tree: Tree = past
    if removal is not None and names is not None:
        root = root_of(past, where.folders[0].top)
        tree = RegainedTree(past, source, partial(where.at, past), root, names, removal.end - 1)
    target = _target(path if args.to is None else args.to)
    return Plan(tree, tid, source, target, os.path.lexists(target), removal, 0 if names is None else len(names.seen))


def _without_dots(path: str) -> str:
    """A path whose end says its own directory, without that: what is gone cannot be entered."""
    while path.endswith(("/", "/.")) and path.strip("/."):
        path = path[:-1]
    return path or "/"


def _target(path: str) -> Path:
    """Where it goes; UsageError where nothing can be made."""
    target = Path(path)
    if path.rstrip("/").rpartition("/")[2] in ("", ".", ".."):
        raise UsageError(f"'{path}' has no name that could be given to what comes back: say one by --to")
    if target.is_mount() and not target.is_symlink():
        raise UsageError(f"{target} is the root of a file system: bring back what is in it, or use --to")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is no directory: bring that one back first, or use --to")
    if not os.access(target.parent, os.W_OK | os.X_OK, effective_ids=True):
        raise UsageError(f"nothing can be made in {target.parent}: use --to")
    return target


def _is_in_the_past(past: Past, path: str) -> bool:
    """Whether a part of a path names a moment; a name that only reads so stands in its directory like any other."""
    parts = path.split("/")
    named = [depth for depth, part in enumerate(parts, 1) if is_at_moment(part) and not part.startswith("@@-1:")]
    return any(not _is_name(past, "/".join(parts[: depth - 1]) or ".", parts[depth - 1]) for depth in named)


def _is_name(past: Past, folder: str, name: str) -> bool:
    """Whether a directory knows or knew something by a name, be it what reads as a moment."""
    return any(past.ask(place.seen, "incarnations", name=name)["entries"] for place in folders_of(past, folder))


def _wanted(past: Past, args: argparse.Namespace, where: Whereabouts) -> Wanted:
    path = where.path
    if args.tid is not None:
        return Wanted(parse_tid(args.tid))
    if args.time is not None:
        if names_tid(args.time):
            raise UsageError(f"--time {args.time}: that is a transaction id; --tid takes it")
        parse_time(args.time)
        return Wanted(moment_of(past, path, args.time))
    is_there = exists(past, path)
    if is_there and not args.before_delete:
        raise UsageError(
            f"{path} is there: say by --tid or --time which state you want, of those that 'hammerfs log' lists, or by "
            "--before-delete that it is the one before something went"
        )
    gone = _before_it_went(past, where)
    left = broken_off_at(past, path) if is_there and is_directory(past, path) else None
    if left is not None and (gone is None or gone[0] < left.end):
        return Wanted(left.begin - 1, left)
    if gone is not None:
        return gone[1]
    if is_there:
        raise UsageError(f"{path} was not deleted; --tid and --time bring back what it was at a moment")
    raise UsageError(f"{path}: nothing is known of such a name")


def _before_it_went(past: Past, where: Whereabouts) -> tuple[Tid, Wanted] | None:
    """When something of that name went last, and the moment before that."""
    for folder, entries in where.ask(past, "log", "entries"):
        end = next((entry for entry in entries if entry["event"] in ENDS), None)
        if (
            folder.end is not None
            and (end is None or end["tid"] < folder.end)
            and exists(past, f"{folder.seen}/{where.name}")
        ):
            # It went with its directory, which was renamed or moved away.
            return folder.end, Wanted(folder.end - 1)
        if end is not None:
            return end["tid"], _before(past, where, folder, end)
    return None


def _before(past: Past, where: Whereabouts, folder: Folder, end: dict[str, Any]) -> Wanted:
    """The moment before something ended; of a directory, the one before the first of its names went."""
    last: Tid = end["tid"] - 1
    if end["event"] != REMOVED:
        return Wanted(last)
    removal, names = removal_at(past, folder.seen, where.name, end["tid"], folder.begin)
    before = removal.begin - 1
    return Wanted(before if removal.names and exists(past, where.at(past, before)) else last, removal, names)


def _is_free(plan: Plan, name: str) -> bool:
    return not os.path.lexists(plan.target.with_name(name))


def _beside(plan: Plan) -> Iterator[str]:
    """Names beside the target, the best first."""
    ends = [f".{tid_text(plan.tid)}{number}" for number in ("", *(f".{number}" for number in range(1, 1000)))]
    return (fitting("", plan.target.name, end) for end in ends)


def _keep_in_history(target: Path) -> None:
    """Flush what is to be replaced: only what was on disk once can be brought back in its turn."""
    folder = str(target.parent)
    if mount_of_device(os.stat(folder).st_dev, folder) is not None:  # elsewhere there is no history to keep it in
        MountedPast().ask(folder, "synctid")


def _bring_back(plan: Plan, progress: Progress, *, force: bool) -> Path:
    """Make it beside its place, and put it there, or under another name where something stands unless `force`."""
    target = plan.target
    with making(target) as made:
        copy_tree(plan.past, plan.source, made.path, progress)
        if force:
            if os.path.lexists(target):
                _keep_in_history(target)
            made.replace(target.name)
            return target
        names = _beside(plan) if plan.occupied else itertools.chain([target.name], _beside(plan))
        name = next((name for name in names if made.put(name)), None)
        if name is None:
            raise UsageError(f"{target}: too many earlier states of it lie beside it")
        return target.with_name(name)
