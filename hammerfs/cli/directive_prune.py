"""`hammer prune`, `softprune`, `prune-everything`: give up history that no snapshot keeps (`cmd_softprune.c`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hammerfs.cli.cycle_file import begin_numbers, keep_position
from hammerfs.cli.directive import Directive, DirectiveError, show, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import Reach, reaching, watching
from hammerfs.cli.snapshot_links import SnapshotLink, parse_link, snapshot_links
from hammerfs.ondisk.constants import MAX_TID, ROOT_PFSID
from hammerfs.ops.escaping import on_one_line

_PRUNE = "prune <softlink-dir>"
_EVERYTHING = "prune-everything <filesystem>"
_SOFTPRUNE = "softprune <softlink-dir>"
_DAY, _HOUR, _MINUTE = 86400, 3600, 60


def prune(options: HammerOptions, arguments: list[str]) -> int:
    """Keep what snapshots show: those that softlinks in a directory name, and those on record in the file system."""
    if len(arguments) != 1:
        raise usage_error(_PRUNE, _EVERYTHING)
    return prune_kept(options, arguments[0])


def softprune(options: HammerOptions, arguments: list[str]) -> int:
    """The same by another name."""
    if len(arguments) != 1:
        raise usage_error(_PRUNE, _EVERYTHING)
    return prune_kept(options, arguments[0], word="softprune")


def prune_kept(options: HammerOptions, path: str, filesystem: str | None = None, word: str = "prune") -> int:
    """Prune what lies below the softlinks in `path`, or, if there are none, `filesystem` (`path` itself by default).

    Of an unmounted file system, with `filesystem` only softlinks count that are about the PFS which they lie in.
    """
    links = _links(options, path, everywhere=filesystem is None)
    where = links[0].place if links else (filesystem or path)
    with reaching(options, where, writable=True) as reach:
        pairs = [number for link in links for number in (link.tid, link.seconds)]
        plan = reach.call("prune-plan", {"links": pairs})
        _same_file_system(options, plan["pfs"], where, {link.place for link in links} - {where})
        shown = on_one_line(where)
        heading = list(_plan_lines(plan, shown))
        if not plan["tids"]:
            show(options, word, plan, heading)
            print("No snapshots found", file=sys.stderr)
            return 0
        return _carry_out(options, reach, word, shown, {"links": pairs}, heading)


def prune_everything(options: HammerOptions, arguments: list[str]) -> int:
    """Keep no history at all, and no snapshot."""
    if len(arguments) != 1:
        raise usage_error(_PRUNE, _EVERYTHING)
    path = arguments[0]
    with reaching(options, path, writable=True) as reach:
        plan = reach.call("prune-plan", {})
        heading = [f"Prune {path}: EVERYTHING", *_range_lines(plan, path)]
        return _carry_out(options, reach, "prune-everything", path, {"everything": True}, heading)


def _carry_out(
    options: HammerOptions, reach: Reach, word: str, path: str, arguments: dict[str, Any], heading: Iterable[str]
) -> int:
    begin = begin_numbers(options.cycle_path)
    with watching(options) as hearing:
        result = reach.call("prune", {**arguments, "begin": begin}, hearing, options.timeout)
    keep_position(options.cycle_path, result["interrupted"], result["position"])
    show(options, word, result, [*heading, *prune_lines(result, path)])
    return 0


def _links(options: HammerOptions, path: str, *, everywhere: bool) -> list[SnapshotLink]:
    if not options.specials:
        try:
            return list(snapshot_links(path))
        except OSError as error:
            raise DirectiveError(f"Cannot open directory {path}: {error.strerror}") from None
    with reaching(options, path) as reach:
        found, here = reach.call("snapshot-folder", {})["links"], reach.call("prune-plan", {})["pfs"]
    parsed = (parse_link("", path, item["target"], item["size"], item["seconds"]) for item in found)
    # Inside of volumes that are not mounted nobody knows where they used to be, nor which PFS was mounted there.
    pfss = ((link, here if link.pfs is None else link.pfs) for link in parsed if link is not None)
    return [
        link._replace(base="/", pfs=None if pfs == ROOT_PFSID else pfs)
        for link, pfs in pfss
        if everywhere or pfs == here
    ]


def _same_file_system(options: HammerOptions, pfs: int, first: str, others: Iterable[str]) -> None:
    """All links have to lead to one PFS: each has its own history.  Offline every PFS has one path only."""
    for other in others:
        same = False
        if not options.specials:
            with reaching(options, other) as reach:
                same = reach.call("prune-plan", {})["pfs"] == pfs and os.stat(other).st_dev == os.stat(first).st_dev
        if not same:
            raise DirectiveError("Currently only one HAMMER filesystem may be specified in the softlink scan")


# --- words --------------------------------------------------------------------------------------
def _plan_lines(plan: dict[str, Any], path: str) -> Iterator[str]:
    tids: Sequence[int] = plan["tids"]
    left_out = plan["snapshots"] - len(tids)
    if left_out:
        yield f"Prune {path}: prune_min: Will not clean between the teeth of the first {left_out} snapshots"
    for low, high in reversed(list(zip([1, *tids], tids, strict=False))):
        yield f"TID {low:016x} - {high:016x}"
    yield f"Prune {path}: {len(tids)} snapshots"
    if tids:
        yield from _range_lines(plan, path)


def _range_lines(plan: dict[str, Any], path: str) -> Iterator[str]:
    yield f"Prune {path}: objspace 8000000000000000:0000 7fffffffffffffff:ffff pfs_id {plan['pfs']}"
    seconds = plan["prune_min"]
    clock = f"{seconds // _HOUR % 24:02d}:{seconds // _MINUTE % 60:02d}:{seconds % 60:02d}"
    yield f"Prune {path}: prune_min is {seconds // _DAY}d/{clock}"


def prune_lines(result: dict[str, Any], path: str) -> Iterator[str]:
    """What a run did."""
    if result["interrupted"]:
        localization, obj_id = result["position"]
        yield f"Prune {path} interrupted by timer at {obj_id & MAX_TID:016x} {localization:04x}"
    else:
        yield f"Prune {path} succeeded"
    yield (
        f"Pruned {result['records']}/{result['scanned']} records ({result['entries']} directory entries) "
        f"and {result['size']} bytes"
    )
    if result["damaged"]:
        yield f"{result['damaged']} records are damaged and were left where they are; 'hammerfs check' names them"


DIRECTIVES = (
    Directive("prune", _PRUNE, prune),
    Directive("prune-everything", _EVERYTHING, prune_everything),
    Directive("softprune", _SOFTPRUNE, softprune),
)
