"""`hammer stats`, `bstats` and `iostats`: what happens on all mounted file systems, line by line (`cmd_stats.c`).

The columns are hammer(8)'s; one that we do not count shows a dash.  Other than there, -t ends it, and a second argument
names one file system instead of all.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from hammerfs.cli.directive import Directive, DirectiveError, usage_error
from hammerfs.cli.directive import show as show_result
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import LiveReach
from hammerfs.vfs.controlclient import connected
from hammerfs.vfs.mounttable import FILESYSTEM_KIND, mounts

_BTREE = (
    "lookups",
    "searches",
    "inserts",
    "deletes",
    "elements",
    "splits",
    "iterations",
    "rootiters",
    "reciters",
)
_IO = {
    "f_read": "file_read",
    "f_write": "file_write",
    "d_read": "disk_read",
    "d_write": "disk_write",
    "i_flushes": "inode_flushes",
    "commits": "commits",
    "undo": "undo",
    "redo": "redo",
}
_TITLE_EVERY = 16
_INTERVAL_MIN = 0.001

Counters = dict[str, dict[str, int]]


def stats(options: HammerOptions, arguments: list[str]) -> int:
    """B-tree and I/O side by side."""
    return _run(options, arguments, "stats", ("btree", "io"))


def bstats(options: HammerOptions, arguments: list[str]) -> int:
    """What the B-tree did."""
    return _run(options, arguments, "bstats", ("btree",))


def iostats(options: HammerOptions, arguments: list[str]) -> int:
    """What was read and written."""
    return _run(options, arguments, "iostats", ("io",))


def _run(options: HammerOptions, arguments: list[str], word: str, groups: tuple[str, ...]) -> int:
    if len(arguments) > 2:
        raise usage_error(f"{word} [interval]")
    interval = _interval(arguments[0]) if arguments else 1.0
    end = time.monotonic() + options.timeout if options.timeout else None
    with ExitStack() as stack:
        reaches = [LiveReach(stack.enter_context(connected(path))) for path in _paths(arguments[1:])]
        before = _collect(reaches)
        if options.json:
            show_result(options, word, {"counters": {group: before[group] for group in groups}}, [])
            return 0
        count = 0
        while end is None or time.monotonic() + interval <= end:
            time.sleep(interval)
            now = _collect(reaches)
            if count % _TITLE_EVERY == 0:
                print("\t".join(_title(group) for group in groups))
            print("\t".join(_line(group, now[group], before[group]) for group in groups), flush=True)
            before = now
            count += 1
    return 0


def _interval(text: str) -> float:
    try:
        return max(float(text), _INTERVAL_MIN)
    except ValueError:
        raise DirectiveError(f"'{text}' is no interval in seconds") from None


def _paths(given: list[str]) -> list[str]:
    paths = given or [mount.path for mount in mounts() if mount.kind == FILESYSTEM_KIND]
    if not paths:
        raise DirectiveError("No mounted HAMMER filesystems found")
    return paths


def _collect(reaches: list[LiveReach]) -> Counters:
    """The counters of all file systems added up, as hammer(8) shows those of all its mounts."""
    total: Counters = {"btree": {}, "io": {}}
    for reach in reaches:
        told = reach.call("statistics", {})
        for group, sums in total.items():
            for name, value in told[group].items():
                sums[name] = sums.get(name, 0) + value
    return total


def _title(group: str) -> str:
    if group == "btree":
        return " ".join(f"{name:>10}" for name in _BTREE)
    return " ".join(f"{name:>9}" for name in _IO)


def _line(group: str, now: dict[str, int], before: dict[str, int]) -> str:
    width, names = (10, _BTREE) if group == "btree" else (9, tuple(_IO.values()))
    shown = [str(now[name] - before[name]) if name in now else "-" for name in names]
    return " ".join(f"{text:>{width}}" for text in shown)


DIRECTIVES = (
    Directive("stats", "stats [interval]", stats),
    Directive("bstats", "bstats [interval]", bstats),
    Directive("iostats", "iostats [interval]", iostats),
)
