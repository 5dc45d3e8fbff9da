"""`hammerfs diff`: what changed in a tree between two moments, without reading the tree."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from hammerfs.cli.directive import show
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.history_words import type_letter, type_word
from hammerfs.cli.looking_back import looking_back
from hammerfs.cli.moment import is_moment
from hammerfs.cli.past import Past, add_command, as_of, exists, moment_of, place_of
from hammerfs.cli.verb import Subparsers
from hammerfs.errors import UsageError
from hammerfs.ops.escaping import on_one_line

EXIT_DIFFERENT = 1
_LETTERS = {"added": "+", "removed": "-", "modified": "M", "renamed": "R"}
_EPILOG = """\
Before and after are paths to one tree. One of them may be a bare moment instead, a transaction id or a time: then it is
the other one's path as of that. What did not change is not looked at, however large the tree is.

Each line: + added, - removed, M modified, R renamed; then what of it changed, and its sizes.

examples:
  hammerfs diff dir@@0x0000000123456780 dir     since that moment
  hammerfs diff 2026-11-22T10:00:00 dir         the same, by the clock
  hammerfs diff -f disk.img 0x0000000123456780 /

exit codes: 0 no difference, 1 there are some, 2 for errors"""


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "diff",
        help_="list what changed in a tree between two moments",
        description="List what was added, removed, renamed or modified below a directory between two moments.",
        epilog=_EPILOG,
    )
    parser.add_argument("before", metavar="BEFORE", help="the earlier state: PATH@@0x..., or a moment")
    parser.add_argument("after", metavar="AFTER", help="the later state: PATH, PATH@@0x..., or a moment")


def run(args: argparse.Namespace) -> int:
    """Compare; 0 for no difference, 1 for some."""
    with looking_back(args) as past:
        before, after = _both(past, args.before, args.after)
        changes = _changes(past, before, after)
    told = [_change(change) for change in changes]
    show(HammerOptions(json=args.json), "diff", {"before": before, "after": after, "changes": told}, _lines(told))
    return EXIT_DIFFERENT if changes else 0


def _both(past: Past, before: str, after: str) -> tuple[str, str]:
    """Both as paths."""
    if is_moment(before) and is_moment(after):
        raise UsageError("these are two moments, but of what? One of the two has to be a path")
    if is_moment(before):
        return _as_of(past, after, before), after
    if is_moment(after):
        return before, _as_of(past, before, after)
    return before, after


def _as_of(past: Past, path: str, moment: str) -> str:
    bare = path.partition("@@")[0] or "."
    return as_of(past, bare, moment_of(past, bare, moment))


def _changes(past: Past, before: str, after: str) -> list[dict[str, Any]]:
    """Both have to be told from one place, the directory that the first one is in."""
    for path in (before, after):
        if not exists(past, path):
            raise UsageError(f"{path}: No such file or directory")
    place, name = place_of(past, before)
    other, other_name = place_of(past, after)
    way = "" if other == place else os.path.relpath(past.absolute(other), past.absolute(place))
    found = past.ask(place, "diff", before=name, after=f"{way}/{other_name}")
    changes: list[dict[str, Any]] = found["changes"]
    return changes


def _change(change: dict[str, Any]) -> dict[str, Any]:
    obj_type = change.pop("obj_type")
    return {**change, "type": type_word(obj_type), "letter": type_letter(obj_type)}


def _lines(changes: list[dict[str, Any]]) -> Iterator[str]:
    for change in changes:
        slash = "/" if change["letter"] == "d" else ""
        path = on_one_line(change["path"]) + slash
        if change["old_path"] is not None:
            path = f"{on_one_line(change['old_path'])}{slash} -> {path}"
        notes = list(change["what"])
        if "data" in notes:
            notes[notes.index("data")] = f"data, {change['old_size']} -> {change['size']} bytes"
        tail = f" ({'; '.join(notes)})" if notes else ""
        yield f"{_LETTERS[change['kind']]} {path}{tail}"
