"""`hammer reblock` and its kin, `rebalance`: free big-blocks, fill nodes (`cmd_reblock.c`, `cmd_rebalance.c`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from hammerfs.cli.cycle_file import begin_numbers, keep_position
from hammerfs.cli.directive import Directive, show, usage_error
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import reaching, watching
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, LOCALIZE_INODE, LOCALIZE_MISC, MAX_TID, MIN_OBJID, NODE_SIZE

_PARTS = {
    "reblock": "btree,inodes,dirs,data",
    "reblock-btree": "btree",
    "reblock-inodes": "inodes",
    "reblock-dirs": "dirs",
    "reblock-data": "data",
}
_FROM = {"inodes": LOCALIZE_INODE, "dirs": LOCALIZE_MISC, "data": LOCALIZE_MISC}
"""Where the records of those begin that do not take all of them."""
_USAGES = {name: f"{name} <filesystem> [fill_percentage]" for name in _PARTS}
_REBALANCE = "rebalance <filesystem> [saturation_percentage]"


def reblock(name: str, options: HammerOptions, arguments: list[str]) -> int:
    """Move what lies in big-blocks that are filled less than a percentage, all by default."""
    percentage = _percentage(arguments, 100, 0)
    if percentage is None:
        raise usage_error(*_USAGES.values())
    path = arguments[0]
    begin = begin_numbers(options.cycle_path)
    call = {"parts": _PARTS[name], "percentage": percentage, "all_pfs": options.all_pfs, "begin": begin}
    with reaching(options, path, writable=True) as reach, watching(options) as hearing:
        _tell_start(options, "reblock", begin or [_FROM.get(_PARTS[name], 0), MIN_OBJID])
        result = reach.call("reblock", call, hearing, options.timeout)
    keep_position(options.cycle_path, result["interrupted"], result["position"])
    show(options, name, result, [f"free level {result['free_level']}/{BIGBLOCK_SIZE}", *reblock_lines(result, path)])
    return 0


def rebalance(options: HammerOptions, arguments: list[str]) -> int:
    """Fill nodes up to a percentage, 85 by default."""
    percentage = _percentage(arguments, 85, 50)
    if percentage is None:
        raise usage_error(_REBALANCE)
    path = arguments[0]
    begin = begin_numbers(options.cycle_path)
    call = {"percentage": percentage, "all_pfs": options.all_pfs, "begin": begin}
    with reaching(options, path, writable=True) as reach, watching(options) as hearing:
        _tell_start(options, "rebalance", begin or [0, MIN_OBJID])
        result = reach.call("rebalance", call, hearing, options.timeout)
    keep_position(options.cycle_path, result["interrupted"], result["position"])
    show(options, "rebalance", result, rebalance_lines(result, path))
    return 0


def _percentage(arguments: list[str], default: int, least: int) -> int | None:
    """The second argument; None when arguments are not what they should be.  A `%` may follow."""
    if not 1 <= len(arguments) <= 2:
        return None
    if len(arguments) == 1:
        return default
    text = arguments[1].removesuffix("%")
    return int(text) if text.isdecimal() and least <= int(text) <= 100 else None


def _tell_start(options: HammerOptions, word: str, begin: Sequence[int]) -> None:
    """Say where a run begins, before it does: it may take hours, and whoever stops it by force learns no more."""
    if not options.json:
        localization, obj_id = begin
        print(f"{word} start {obj_id & MAX_TID:016x}:{localization:04x}", flush=True)


def reblock_lines(result: dict[str, Any], path: str) -> Iterator[str]:
    """What a run did, in the words of hammer(8)."""
    yield _ended("Reblock", result, path)
    yield "Reblocked:"
    yield f"    {result['nodes_moved']}/{result['nodes']} B-Tree nodes"
    yield f"    {result['nodes_moved'] * NODE_SIZE}/{result['nodes'] * NODE_SIZE} B-Tree bytes"
    yield f"    {result['records_moved']}/{result['records']} data elements"
    yield f"    {result['size_moved']}/{result['size']} data bytes"
    if result["damaged"]:
        yield f"    {result['damaged']} data elements are damaged and were left where they are"


def rebalance_lines(result: dict[str, Any], path: str) -> Iterator[str]:
    """The same; nothing collides here, as nobody else changes the tree meanwhile."""
    yield _ended("Rebalance", result, path)
    yield "Rebalance:"
    yield f"    {result['scanned']} B-Tree nodes scanned"
    yield f"    {result['removed']} B-Tree nodes deleted"
    yield "    0 collision retries"
    yield f"    {result['filled']} B-Tree nodes rebalanced"


def _ended(word: str, result: dict[str, Any], path: str) -> str:
    if not result["interrupted"]:
        return f"{word} {path} succeeded"
    localization, obj_id = result["position"]
    return f"{word} {path} interrupted by timer at {obj_id & MAX_TID:016x}:{localization:04x}"


DIRECTIVES = (
    *(Directive(name, usage, partial(reblock, name)) for name, usage in _USAGES.items()),
    Directive("rebalance", _REBALANCE, rebalance),
)
