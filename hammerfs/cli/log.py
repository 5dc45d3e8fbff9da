"""`hammerfs log`: what happened to a path, newest first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from hammerfs.cli.directive import show
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.history_words import owner_name, type_letter, type_word
from hammerfs.cli.looking_back import looking_back
from hammerfs.cli.moment import tid_text, time_text
from hammerfs.cli.past import Past, add_command, place_of
from hammerfs.cli.verb import Subparsers

EXIT_NOTHING = 1
_EPILOG = """\
Each line: the transaction id, when it was, what happened, the size from then on, the owner, and what changed.
Append @@ and the transaction id to the path to see it as it was from then on.

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
    place, name = place_of(past, path)
    entries = past.ask(place, "log", name=name)["entries"]
    return {"path": path, "entries": [_entry(entry) for entry in entries]}


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        **entry,
        "tid": tid_text(entry["tid"]),
        "obj_id": f"0x{entry['obj_id']:016x}",
        "obj_type": type_word(entry["obj_type"]),
        "letter": type_letter(entry["obj_type"]),
    }


def _lines(logs: list[dict[str, Any]]) -> Iterator[str]:
    for log in logs:
        if len(logs) > 1:
            yield f"{log['path']}:"
        if not log["entries"]:
            yield f"{log['path']}: nothing is known of it"
        for entry in log["entries"]:
            head = f"{entry['tid']} {time_text(entry['seconds'])} {entry['event']:<10}"
            what = list(entry["what"])
            if entry["data_bytes"] and "data" in what:
                what[what.index("data")] = f"data ({entry['data_bytes']} bytes written)"
            tail = f"{entry['letter']} {entry['size']:>12} {owner_name(entry['uid']):<8} {', '.join(what)}"
            yield f"{head} {tail}".rstrip()
