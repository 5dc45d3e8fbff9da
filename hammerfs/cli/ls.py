"""`hammerfs ls`: what is in a directory or, with `--deleted`, what was in it and is not any more."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from hammerfs.cli.directive import show
from hammerfs.cli.earlier import Folder, folders_of
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.history_words import owner_name, type_letter, type_word
from hammerfs.cli.looking_back import looking_back
from hammerfs.cli.moment import tid_text, time_text
from hammerfs.cli.past import Past, add_command
from hammerfs.cli.verb import Subparsers
from hammerfs.errors import UsageError
from hammerfs.ops.escaping import on_one_line

_EPILOG = """\
Each line of --deleted tells when a name went away, the type, size and owner of what it led to, and under which name
that can be seen now: cp, tar and diff understand these names. What went with all that was in it was mostly empty at the
end; 'hammerfs restore' goes back to what it was before that.

examples:
  hammerfs ls --deleted .
  hammerfs ls --deleted folder@@0x0000000123456780   what was deleted by then
  hammerfs ls -f disk.img --deleted /dir             on volumes that are not mounted"""


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = add_command(
        subparsers,
        "ls",
        help_="list directories, or what was deleted from them",
        description="List what is in directories now or, with --deleted, what was deleted or renamed or moved away.",
        epilog=_EPILOG,
    )
    parser.add_argument("--deleted", action="store_true", help="names that are gone, and how to reach them")
    parser.add_argument("paths", metavar="DIR", nargs="*", default=["."], help="directories, of any moment")


def run(args: argparse.Namespace) -> int:
    """List; 0."""
    with looking_back(args) as past:
        listing = _deleted if args.deleted else _present
        found = [listed for path in args.paths for listed in listing(past, path)]
    show(HammerOptions(json=args.json), "ls", {"directories": found}, _lines(found, deleted=args.deleted))
    return 0


def _present(past: Past, path: str) -> list[dict[str, Any]]:
    try:
        return [{"path": path, "names": [{"name": name} for name in past.names(path)]}]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def _deleted(past: Past, path: str) -> list[dict[str, Any]]:
    """What went from a directory and, where the path led to another one earlier, what was in that."""
    return [_deleted_from(past, folder) for folder in folders_of(past, path)]


def _deleted_from(past: Past, folder: Folder) -> dict[str, Any]:
    names: list[dict[str, Any]] = []
    past.ask(folder.seen, "deleted", on_item=lambda part: names.extend(part["names"]), by_now=folder.end is not None)
    if folder.end is None:
        return {
            "path": folder.top,
            "names": [_gone(name, f"{name['name']}@@{tid_text(name['last_tid'])}") for name in names],
        }
    listed = []
    for name in names:
        last = min(name["last_tid"], folder.end - 1)
        if name["created"]["tid"] <= last and folder.begin <= last:
            listed.append(_gone(name | {"last_tid": last}, f"{folder.as_of(last)}/{name['name']}"))
    return {"path": folder.seen, "names": listed}


def _gone(name: dict[str, Any], seen: str) -> dict[str, Any]:
    """A deleted name for programs: TIDs as text, the type as a word; `seen` is a path to it."""
    return {
        "name": name["name"],
        "seen": seen,
        "type": type_word(name["obj_type"]),
        "letter": type_letter(name["obj_type"]),
        "obj_id": f"0x{name['obj_id']:016x}",
        "size": name["size"],
        "uid": name["uid"],
        "mtime_us": name["mtime_us"],
        "created_tid": tid_text(name["created"]["tid"]),
        "created_seconds": name["created"]["seconds"],
        "deleted_tid": tid_text(name["deleted"]["tid"]),
        "deleted_seconds": name["deleted"]["seconds"],
        "last_tid": tid_text(name["last_tid"]),
        "new_name": name["new_name"],
        "exists": name["exists"],
    }


def _lines(found: list[dict[str, Any]], *, deleted: bool) -> Iterator[str]:
    for listing in found:
        if len(found) > 1:
            yield f"{on_one_line(listing['path'])}:"
        for name in listing["names"]:
            if not deleted:
                yield on_one_line(name["name"])
                continue
            head = f"{time_text(name['deleted_seconds'])} {name['letter']} {name['size']:>12}"
            yield f"{head} {owner_name(name['uid']):<8} {on_one_line(name['seen'])}{_note(name)}"


def _note(name: dict[str, Any]) -> str:
    if name["new_name"] is not None:
        return f" (now {on_one_line(name['new_name'])})"
    return " (lives on elsewhere)" if name["exists"] else ""
