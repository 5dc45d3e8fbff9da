"""`hammer snap`, `snaplo`, `snapq`, `snapls`, `snaprm` and the older `snapshot` (`cmd_snapshot.c`).

A snapshot is a record on the root of its PFS and, unless only its path is asked for, a softlink to `@@0x<tid>`.  In a
PFS that is not mounted by itself the link names the PFS as well; the original's leads into PFS 0 then.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from hammerfs.cli.directive import Directive, DirectiveError, asked_of_each, show, usage_error
from hammerfs.cli.errors import described
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.names import KIND_DIRECTORY, KIND_SYMLINK, Names, directory_part
from hammerfs.cli.reach import Desk, Reach, working
from hammerfs.errors import HammerError
from hammerfs.ops.escaping import on_one_line

DEFAULT_NAME = "snap-%Y%m%d-%H%M"
_SNAP = "snap <path> [<note>]"
_SNAPLO = "snaplo <path> [<note>]"
_SNAPQ = "snapq <dir> [<note>]"
_SNAPRM = ("snaprm <path> ...", "snaprm <transid> ...", "snaprm <filesystem> <transid> ...")
_SNAPLS = "snapls [<path> ...]"
_SNAPSHOT = ("snapshot [<filesystem>] <snapshot-dir>", "snapshot <filesystem> <snapshot-dir> [<note>]")
_LINK_TID = re.compile(r"@@0[xX]([0-9a-fA-F]+)(?::\d{5})?\Z")
_TID = re.compile(r"(?:0[xX])?[0-9a-fA-F]{1,16}\Z")


# --- making them --------------------------------------------------------------------------------


def snap(options: HammerOptions, arguments: list[str]) -> int:
    """A snapshot with a link that points to the root of the PFS."""
    return _snap(options, arguments, "snap", _SNAP)


def snaplo(options: HammerOptions, arguments: list[str]) -> int:
    """A snapshot with a link that points to the directory."""
    return _snap(options, arguments, "snaplo", _SNAPLO)


def snapq(options: HammerOptions, arguments: list[str]) -> int:
    """A snapshot without a link; its path is printed."""
    return _snap(options, arguments, "snapq", _SNAPQ)


def _snap(options: HammerOptions, arguments: list[str], word: str, usage: str) -> int:
    if not 1 <= len(arguments) <= 2:
        raise usage_error(usage)
    path, note = arguments[0], arguments[1] if len(arguments) == 2 else ""
    _refuse_nothing(path)
    with working(options, writable=True) as desk:
        names = desk.names
        kind = names.kind(path, follow=True)
        if kind not in (None, KIND_DIRECTORY):
            raise DirectiveError(f"hammer {word}: File {path} exists and is not a directory", 2)
        folder = path if kind else directory_part(path)
        is_root = names.is_root(folder)
        shown = f"{path.rstrip('/')}/{time.strftime(DEFAULT_NAME)}" if kind else path
        start = directory_part(shown)
        with desk.reach(folder) as reach:
            if word == "snapq":
                made = reach.call("snapshot-add", {"label": note})
                shown = _at(folder, made["tid"], is_root=is_root)
            else:
                _refuse_link(names, shown)
                way = (names.way_to_root if word == "snap" else names.way_to)(folder, start)
                made = reach.call("snapshot-add", {"label": note})
                target = f"{way}/{_root_name(made)}" if word == "snap" else _at(way, made["tid"], is_root=is_root)
                _link(names, reach, made, target, shown)
    told = {"path": shown, "tid": made["tid"], "pfs": made["pfs"]}
    show(options, word, told, [shown] if word == "snapq" else [])
    return 0


def snapshot(options: HammerOptions, arguments: list[str]) -> int:
    """The form that works on every version: a link, and a record where the format has them."""
    if not 1 <= len(arguments) <= 3:
        raise usage_error(*_SNAPSHOT)
    pattern, note = arguments[min(1, len(arguments) - 1)], arguments[2] if len(arguments) == 3 else ""
    _refuse_nothing(pattern)
    with working(options, writable=True) as desk:
        names = desk.names
        kind = names.kind(pattern, follow=True)
        if kind not in (None, KIND_DIRECTORY):
            raise DirectiveError(f"File {pattern} already exists", 2)
        if kind:
            pattern = f"{pattern.rstrip('/')}/{DEFAULT_NAME}"
        link = time.strftime(pattern)
        start = directory_part(link)
        filesystem = arguments[0] if len(arguments) > 1 else start
        _refuse_link(names, link)
        with desk.reach(filesystem) as reach:
            way = names.way_to_root(filesystem, start)
            made = reach.call("snapshot-add", {"label": note, "legacy": True})
            _link(names, reach, made, f"{way}/{_root_name(made)}", link)
    show(options, "snapshot", {"path": link, "tid": made["tid"], "pfs": made["pfs"]}, [link])
    return 0


def _root_name(made: dict[str, Any]) -> str:
    """How the root of the snapshot's PFS at that moment is called in the root of what is mounted."""
    suffix = "" if made["pfs"] == made["mounted_pfs"] else f":{made['pfs']:05d}"
    return f"@@{made['tid']:#018x}{suffix}"


def _at(folder: str, tid: int, *, is_root: bool) -> str:
    """A directory's path at a moment; `.` and `..` have no name that could take a suffix.

    Nor has the root of what is mounted, whose name lies in another file system.
    """
    has_name = folder.rpartition("/")[2] not in (".", "..", "") and not is_root
    return f"{folder}{'' if has_name or folder.endswith('/') else '/'}@@{tid:#018x}"


# --- their links --------------------------------------------------------------------------------


def _refuse_nothing(path: str) -> None:
    if not path:
        raise DirectiveError("an empty path names neither a snapshot nor its directory", 2)


def _refuse_link(names: Names, link: str) -> None:
    """What is in the way of a link, told before there is a snapshot: its record would hold history for ever."""
    taken = names.kind(link, follow=False)
    if taken not in (None, KIND_SYMLINK):
        what = "is a directory" if taken == KIND_DIRECTORY else "exists and is no softlink"
        raise DirectiveError(f"cannot make the softlink {link}: it {what}", 2)
    try:
        names.demand_folder(directory_part(link))
    except (HammerError, OSError) as error:
        raise DirectiveError(f"cannot make the softlink {link}: {described(error)}", 2) from None


def _link(names: Names, reach: Reach, made: dict[str, Any], target: str, link: str) -> None:
    """Make the link to a snapshot, in place of one that is there; without it the snapshot goes as well."""
    before = None
    try:
        if names.kind(link, follow=False) is not None:
            before = names.readlink(link)
            names.remove(link)
        names.symlink(target, link)
    except (HammerError, OSError) as error:
        if before is not None and names.kind(link, follow=False) is None:
            with suppress(HammerError, OSError):
                names.symlink(before, link)
        # An OSError of symlink(2) names the target first.
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        left = _taken_back(reach, made)
        raise DirectiveError(f"cannot make the softlink {link}: {reason}; {left}", 2) from None


def _taken_back(reach: Reach, made: dict[str, Any]) -> str:
    """Remove the record of a snapshot, unless it was there before; what has become of it."""
    if made.get("added", False):
        try:
            reach.call("snapshot-remove", {"tids": [made["tid"]]})
        except (HammerError, OSError):
            return f"the snapshot is on record all the same, 'hammer snaprm' with {made['tid']:#018x} removes it"
    return "no snapshot was made"


# --- listing and removing -----------------------------------------------------------------------


def snapls(options: HammerOptions, arguments: list[str]) -> int:
    """List the snapshots of the PFSs that the paths lie in."""
    with working(options) as desk:

        def ask(path: str) -> dict[str, Any]:
            with desk.reach(path) as reach:
                return reach.call("snapshot-list", {})

        results, complete = asked_of_each("snapls", arguments or [desk.here], ask)
    show(options, "snapls", {"lists": results}, _list_lines(results))
    return 0 if complete else 2


def _list_lines(results: list[dict[str, Any]]) -> Iterator[str]:
    for result in results:
        yield f"Snapshots on {result['path']}\tPFS#{result['pfs']}"
        yield "Transaction ID\t\tTimestamp\t\tNote"
        for item in result["snapshots"]:
            when = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(item["time_us"] // 1_000_000))
            yield f"{item['tid']:#018x}\t{when}\t{on_one_line(item['label']) or '-'}"


def snaprm(options: HammerOptions, arguments: list[str]) -> int:
    """Remove snapshots by their TIDs, or by softlinks, which go as well."""
    if not arguments:
        raise usage_error(*_SNAPRM)
    gone = _Gone()
    with working(options, writable=True) as desk:
        kinds = [desk.names.kind(word, follow=False) for word in arguments]
        if not any(kinds):
            _remove_records(desk, desk.here, arguments, gone)
        elif len(arguments) > 1 and not any(kinds[1:]) and desk.names.kind(arguments[0], follow=True) == KIND_DIRECTORY:
            _remove_records(desk, arguments[0], arguments[1:], gone)
        else:
            for word, kind in zip(arguments, kinds, strict=True):
                if kind != KIND_SYMLINK:
                    raise DirectiveError(f"hammer snaprm: not directory or snapshot softlink: {word}", 2)
                _remove_link(desk, word, gone)
    show(options, "snaprm", asdict(gone), [])
    return 0


@dataclass(slots=True)
class _Gone:
    """Snapshots that were removed, those that were on no record, and softlinks that were removed."""

    tids: list[int] = field(default_factory=list)
    absent_tids: list[int] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def _remove_records(desk: Desk, filesystem: str, words: list[str], gone: _Gone) -> None:
    for word in words:
        if not _TID.match(word):
            raise DirectiveError(f"hammer snaprm: not a file or tid: {word}", 2)
    with desk.reach(filesystem) as reach:
        _remove(reach, [int(word, 16) for word in words], gone)


def _remove_link(desk: Desk, link: str, gone: _Gone) -> None:
    """Remove the snapshot that a softlink leads to, and the link; one that leads to none stays."""
    target = desk.names.readlink(link)
    found = _LINK_TID.search(target)
    if found is None:
        raise DirectiveError(f"hammer snaprm: not directory or snapshot softlink: {link}", 2)
    if not target.startswith("/"):
        target = f"{directory_part(link)}/{target}"
    # Of the snapshot itself, which may be pruned already, only the PFS counts.
    place = target if desk.names.kind(target, follow=True) else directory_part(target)
    with desk.reach(place) as reach:
        _remove(reach, [int(found.group(1), 16)], gone)
    desk.names.remove(link)
    gone.links.append(link)


def _remove(reach: Reach, tids: list[int], gone: _Gone) -> None:
    absent = reach.call("snapshot-remove", {"tids": tids})["absent"]
    gone.tids += [tid for tid in tids if tid not in absent]
    gone.absent_tids += absent
    for tid in absent:
        print(f"Warning: hammer snaprm {tid:#018x}: meta-data not found", file=sys.stderr)


DIRECTIVES = (
    Directive("snap", _SNAP, snap),
    Directive("snaplo", _SNAPLO, snaplo),
    Directive("snapq", _SNAPQ, snapq),
    Directive("snaprm", "\nhammer ".join(_SNAPRM), snaprm),
    Directive("snapls", _SNAPLS, snapls),
    Directive("snapshot", "\nhammer ".join(_SNAPSHOT), snapshot),
)
