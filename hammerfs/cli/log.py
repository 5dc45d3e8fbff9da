"""`hammerfs log`: what happened to a path, newest first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from hammerfs.cli.directive import show
from hammerfs.cli.earlier import Folder, whereabouts
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.history_words import owner_name, type_letter, type_word
from hammerfs.cli.looking_back import looking_back
from hammerfs.cli.moment import tid_text, time_text
from hammerfs.cli.past import Past, add_command
from hammerfs.cli.verb import Subparsers
from hammerfs.ops.escaping import on_one_line

EXIT_NOTHING = 1
_EPILOG = """\
Each line: the transaction id, when it was, what happened, the size from then on, the owner, and what changed.
Append @@ and the transaction id to the path to see it as it was from then on. What was in a folder that is gone, or was
made anew, follows the path by which that can still be seen: its transaction id may be replaced.

examples:
  hammerfs log file
  hammerfs log --json deleted-file
  hammerfs log -f disk.img /dir/file     on volumes that are not mounted

exit codes: 0 listed, 1 nothing is known of one of the paths, 2 for errors"""


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "log",
        help_="list what happened to a file or directory",
        description="List the changes of files and directories, newest first. The paths need not exist any more.",
        epilog=_EPILOG,
    )
    parser.add_argument("paths", metavar="PATH", nargs="+", help="file or directory, there or not any more")


def run(args: argparse.Namespace) -> int:
    """List; 0, or 1 when nothing is known of one of the paths."""
    with looking_back(args) as past:
        logs = [_log(past, path) for path in args.paths]
    show(HammerOptions(json=args.json), "log", {"paths": logs}, _lines(logs))
    return 0 if all(log["entries"] for log in logs) else EXIT_NOTHING


def _log(past: Past, path: str) -> dict[str, Any]:
    """Newest first; what was in an earlier directory of the same name has the path to that in `earlier_path`."""
    where = whereabouts(past, path)
    entries = [
        _entry(entry, folder, where.name) for folder, found in where.ask(past, "log", "entries") for entry in found
    ]
    return {"path": path, "entries": entries}


def _entry(entry: dict[str, Any], folder: Folder, name: str) -> dict[str, Any]:
    return {
        **entry,
        "earlier_path": None if folder.end is None else f"{folder.seen}/{name}",
        "tid": tid_text(entry["tid"]),
        "obj_id": f"0x{entry['obj_id']:016x}",
        "obj_type": type_word(entry["obj_type"]),
        "letter": type_letter(entry["obj_type"]),
    }


def _lines(logs: list[dict[str, Any]]) -> Iterator[str]:
    for log in logs:
        if len(logs) > 1:
            yield f"{on_one_line(log['path'])}:"
        if not log["entries"]:
            yield f"{on_one_line(log['path'])}: nothing is known of it"
        earlier = None
        for entry in log["entries"]:
            if entry["earlier_path"] != earlier:
                earlier = entry["earlier_path"]
                yield f"in an earlier folder, {on_one_line(str(earlier))}:"
            head = f"{entry['tid']} {time_text(entry['seconds'])} {entry['event']:<10}"
            what = list(entry["what"])
            if entry["data_bytes"] and "data" in what:
                what[what.index("data")] = f"data ({entry['data_bytes']} bytes written)"
            tail = f"{entry['letter']} {entry['size']:>12} {owner_name(entry['uid']):<8} {', '.join(what)}"
            yield f"{head} {tail}".rstrip()
