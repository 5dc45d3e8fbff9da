"""`hammerfs restore`: bring back a file or directory as it was, without ever overwriting anything unasked.

What is brought back is made beside its place under a name of its own first, whole with owners, modes, times and
attributes, and renamed then: nobody sees half of it, and if it fails, nothing has changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hammerfs.cli.directive import show
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.looking_back import MountedPast, looking_back
from hammerfs.cli.moment import TIME_HELP, names_tid, parse_tid, parse_time, tid_text
from hammerfs.cli.past import Past, add_command, as_of, exists, moment_of, place_of
from hammerfs.cli.treecopy import copy_tree
from hammerfs.cli.verb import Subparsers
from hammerfs.errors import UsageError
from hammerfs.ondisk.address import Tid

_EPILOG = """\
Without a moment, what was deleted comes back as it was before that. Where something stands already, its differences to
what would come back are shown, and the past is written beside it, as PATH.0x...; --force puts it in its place.

examples:
  hammerfs restore -n deleted-file               what would be done
  hammerfs restore deleted-folder
  hammerfs restore --time 2026-11-22T10:00:00 file
  hammerfs restore --tid 0x0000000123456780 --force folder
  hammerfs restore -f disk.img --to /tmp/back /dir/file   from volumes that are not mounted

'hammerfs log PATH' lists the moments of a path, 'hammerfs ls --deleted DIR' what can be brought back."""


ENDS = ("removed", "moved away")
"""Events of a log (`ops/name_history.py`) after which a name is no more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    source -- path as of the moment; target -- where it goes; occupied -- something stands there that has to give way
    """

    tid: Tid
    source: str
    target: Path
    occupied: bool


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
    moments.add_argument("--before-delete", action="store_true", help="as it was before it was deleted")
    parser.add_argument("-n", "--dry-run", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("--force", action="store_true", help="replace what stands there now")
    parser.add_argument("--to", metavar="TARGET", help="bring it there instead of its own place")
    parser.add_argument("path", metavar="PATH", help="file or directory, there or not any more")


def run(args: argparse.Namespace) -> int:
    """Bring it back, or beside; 0."""
    with looking_back(args) as past:
        plan = _plan(past, args)
        if plan.occupied and not args.json:
            _print_differences(past, plan)
        target = plan.target
        if plan.occupied and not args.force:
            target = _beside(plan)
        if not args.dry_run:
            if target == plan.target and plan.occupied:
                _keep_in_history(target)
            _bring_back(past, plan.source, target)
    result = {
        "source": plan.source,
        "tid": tid_text(plan.tid),
        "target": str(target),
        "replaced": plan.occupied and args.force,
        "done": not args.dry_run,
    }
    verb = "would restore" if args.dry_run else "restored"
    place = f", in the place of what is there now: {target}" if result["replaced"] else f" as {target}"
    show(HammerOptions(json=args.json), "restore", result, [f"{verb} {plan.source}{place}"])
    return 0


def _plan(past: Past, args: argparse.Namespace) -> Plan:
    if args.specials and args.to is None:
        raise UsageError("volumes given by -f are only read: say by --to where it shall be brought")
    if "@@" in os.path.basename(args.path) and args.to is None:
        raise UsageError(f"{args.path} is in the past: name it as of now, and the moment by --tid")
    path = args.path.rstrip("/") or "/"
    tid = _moment(past, args, path)
    source = as_of(past, path, tid)
    if not exists(past, source):
        raise UsageError(f"{path}: there was nothing of that name at {tid_text(tid)}")
    target = Path(args.to) if args.to is not None else Path(path)
    if target.is_mount():
        raise UsageError(f"{target} is the root of a file system: bring back what is in it, or use --to")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is no directory: bring that one back first, or use --to")
    return Plan(tid, source, target, os.path.lexists(target))


def _moment(past: Past, args: argparse.Namespace, path: str) -> Tid:
    if args.tid is not None:
        return parse_tid(args.tid)
    if args.time is not None:
        if names_tid(args.time):
            raise UsageError(f"--time {args.time}: that is a transaction id; --tid takes it")
        parse_time(args.time)
        return moment_of(past, path, args.time)
    is_there = exists(past, path)
    if is_there and not args.before_delete:
        raise UsageError(f"{path} is there: say by --tid or --time which state you want; 'hammerfs log' lists them")
    place, name = place_of(past, path)
    entries = past.ask(place, "log", name=name)["entries"]
    last: Tid | None = next((entry["tid"] - 1 for entry in entries if entry["event"] in ENDS), None)
    if last is None:
        raise UsageError(f"{path} was not deleted" if is_there else f"{path}: nothing is known of such a name")
    return last


def _beside(plan: Plan) -> Path:
    """A free name beside the target."""
    stem = f"{plan.target.name}.{tid_text(plan.tid)}"
    names = [stem, *(f"{stem}.{number}" for number in range(1, 1000))]
    free = next((name for name in names if not os.path.lexists(plan.target.with_name(name))), None)
    if free is None:
        raise UsageError(f"{plan.target}: too many earlier states of it lie beside it")
    return plan.target.with_name(free)


def _print_differences(past: Past, plan: Plan) -> None:
    """From what stands there now to what would come back."""
    with past.local([plan.source]) as folder:
        source = folder / plan.source.lstrip("/") if folder.is_absolute() else Path(plan.source)
        sys.stdout.flush()
        subprocess.run(["diff", "-N", "-r", "-u", "--no-dereference", "--", str(plan.target), str(source)], check=False)


def _keep_in_history(target: Path) -> None:
    """Flush what is to be replaced: only what was on disk once can be brought back in its turn."""
    with suppress(UsageError):  # elsewhere than on HAMMER there is no history to keep it in
        MountedPast().ask(str(target.parent), "synctid")


def _bring_back(past: Past, source: str, target: Path) -> None:
    """Make it beside its place, then put it there; what stood there goes last."""
    made = target.with_name(f".{target.name[:200]}.restoring-{os.getpid()}")
    old = target.with_name(f".{target.name[:200]}.replaced-{os.getpid()}")
    try:
        copy_tree(past, source, made)
        if os.path.lexists(target):
            target.rename(old)
        try:
            made.rename(target)
        except BaseException:
            with suppress(OSError):
                old.rename(target)
            raise
    except BaseException:
        _remove(made)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
