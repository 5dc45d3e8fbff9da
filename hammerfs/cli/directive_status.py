"""`hammer info`: what a file system is and how full (`cmd_info.c`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hammerfs.cli.directive import Directive, DirectiveError, asked_of_each, show
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import reaching
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, ROOT_PFSID, ROOT_VOLNO
from hammerfs.ops.escaping import on_one_line
from hammerfs.vfs.mounttable import FILESYSTEM_KIND, mounts

_INFO = "info [<dirpath> ...]"
_UNITS = " KMGTPE"


def info(options: HammerOptions, arguments: list[str]) -> int:
    """Describe the file systems that the paths lie on, or all that are mounted."""
    paths = arguments or (["/"] if options.specials else _mounted())
    if not paths:
        raise DirectiveError("No mounted HAMMER filesystems found")

    def ask(path: str) -> dict[str, Any]:
        with reaching(options, path) as reach:
            return reach.call("info", {}) | (reach.call("reclaimable", {}) if options.verbose else {})

    results, complete = asked_of_each("info", paths, ask)
    show(options, "info", {"filesystems": results}, _blocks(results))
    return 0 if complete else 1


def _mounted() -> list[str]:
    return [mount.path for mount in mounts() if mount.kind == FILESYSTEM_KIND]


def _blocks(results: list[dict[str, Any]]) -> Iterator[str]:
    for number, result in enumerate(results):
        if number:
            yield ""
        yield from info_lines(result)


def info_lines(result: dict[str, Any]) -> Iterator[str]:
    """The lines of one file system, as hammer(8) prints them."""
    root = next(volume["device"] for volume in result["volumes"] if volume["number"] == ROOT_VOLNO)
    total, free, reserved = result["bigblocks"], result["bigblocks_free"], result["bigblocks_reserved"]
    used = total - free
    yield "Volume identification"
    yield f"\tLabel               {on_one_line(result['label'])}"
    yield f"\tNo. Volumes         {len(result['volumes'])}"
    yield f"\tHAMMER Volumes      {':'.join(volume['device'] for volume in result['volumes'])}"
    yield f"\tRoot Volume         {root}"
    yield f"\tFSID                {result['fsid']}"
    yield f"\tHAMMER Version      {result['version']}"
    yield "Big-block information"
    yield f"\tTotal      {total:10d}"
    for name, count in (("Used", used), ("Reserved", reserved), ("Free", free - reserved)):
        yield f"\t{name:<8}   {count:10d} ({_percent(count, total)})"
    yield "Space information"
    yield f"\tNo. Inodes {result['inodes']:10d}"
    yield f"\tTotal size     {humanized(total * BIGBLOCK_SIZE):>6} ({total * BIGBLOCK_SIZE} bytes)"
    for name, count in (("Used", used), ("Reserved", reserved), ("Free", free - reserved)):
        yield f"\t{name:<8}       {humanized(count * BIGBLOCK_SIZE):>6} ({_percent(count, total)})"
    if "reclaimable" in result:
        size = result["reclaimable"]
        yield f"\tReclaimable    {humanized(size):>6} ({_percent(size, total * BIGBLOCK_SIZE)})"
    yield "PFS information"
    yield "\t  PFS#  Mode    Snaps"
    for pfs in result["pfs_list"]:
        mark = " (root PFS)" if pfs["id"] == ROOT_PFSID else ""
        yield f"\t{pfs['id']:6d}  {'SLAVE' if pfs['slave'] else 'MASTER':<6} {pfs['snapshots']:>6}{mark}"


def _percent(part: int, whole: int) -> str:
    return f"{100.0 if not whole else part * 100.0 / whole:.2f}%"


def humanized(size: int) -> str:
    """A size in at most five characters, as humanize_number(3) writes it: 1024 a unit, one decimal below ten."""
    sign, rest, unit = ("-", -size, 0) if size < 0 else ("", size, 0)
    amount = float(rest)
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount /= 1024
        unit += 1
    if unit == 0:
        return f"{sign}{rest}B"
    number = f"{amount:.1f}" if amount < 9.95 else f"{amount:.0f}"
    return f"{sign}{number}{_UNITS[unit]}"


DIRECTIVES = (Directive("info", _INFO, info),)
