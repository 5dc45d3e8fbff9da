"""`hammer stats`, `bstats` and `iostats`: what happens on all mounted file systems, line by line (`cmd_stats.c`).

The columns are hammer(8)'s.  Other than there, -t ends it, and a second argument names one file system instead of all.
"""

from __future__ import annotations

import time

from hammerfs.cli.directive import Directive, DirectiveError, usage_error
from hammerfs.cli.directive import show as show_result
from hammerfs.cli.errors import EXIT_ERROR, described_of
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import LiveReach
from hammerfs.errors import HammerError, UsageError
from hammerfs.vfs.controlclient import connected
from hammerfs.vfs.mounttable import FILESYSTEM_KIND, Mount, mounts

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
_GROUPS = ("btree", "io")
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
    watched = _Watched(arguments[1] if len(arguments) > 1 else None)
    if options.json:
        totals = watched.totals()
        show_result(options, word, {"counters": {group: totals[group] for group in groups}}, [])
        return 0
    count = 0
    while end is None or time.monotonic() + interval <= end:
        time.sleep(interval)
        news = watched.news()
        if count % _TITLE_EVERY == 0:
            print("\t".join(_title(group) for group in groups))
        print("\t".join(_line(group, news[group]) for group in groups), flush=True)
        count += 1
    return 0


def _interval(text: str) -> float:
    try:
        return max(float(text), _INTERVAL_MIN)
    except ValueError:
        raise DirectiveError(f"'{text}' is no interval in seconds") from None


class _Watched:
    """The file systems that are looked at, added up as hammer(8) adds up all its mounts: one, or all there are.

    Each look is a connection of its own, since one that is kept keeps a file system from being unmounted.  One that
    cannot answer, being in trouble or just unmounted, hides none of the others; HammerError when none answers.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._seen: dict[str, tuple[Mount, Counters]] = {}
        self._look_around()

    def totals(self) -> Counters:
        """What all have done up to the last look."""
        return _sum([counters for _, counters in self._seen.values()])

    def news(self) -> Counters:
        """What all have done since the last look; what was mounted meanwhile counts from now on."""
        before = self._seen
        self._look_around()
        return _sum([_difference(now, before.get(path, (mount, now))[1]) for path, (mount, now) in self._seen.items()])

    def _look_around(self) -> None:
        paths = [self._path] if self._path else [mount.path for mount in mounts() if mount.kind == FILESYSTEM_KIND]
        refusal = DirectiveError("No mounted HAMMER filesystems found")
        seen = {}
        for path in paths:
            known = self._seen.get(path)
            try:
                seen[path] = _look(path, known and known[0])
            except (HammerError, OSError) as error:
                code = error.exit_code if isinstance(error, HammerError) else EXIT_ERROR
                refusal = DirectiveError(described_of(path, error), code)
        if not seen:
            raise refusal
        self._seen = seen


def _look(path: str, expected: Mount | None = None) -> tuple[Mount, Counters]:
    """The counters of what is mounted at a path; UsageError when that is no more what was `expected`."""
    with connected(path) as connection:
        mount = connection.mount
        if expected is not None and (mount.device, mount.path) != (expected.device, expected.path):
            raise UsageError(f"{expected.path} has been unmounted")
        told = LiveReach(connection).call("statistics", {})
    return mount, {group: dict(told[group]) for group in _GROUPS}


def _difference(now: Counters, before: Counters) -> Counters:
    if any(now[group][name] < value for group in _GROUPS for name, value in before[group].items()):
        return now  # counters only grow: it has been mounted anew
    return {group: {name: value - before[group][name] for name, value in now[group].items()} for group in _GROUPS}


def _sum(all_counters: list[Counters]) -> Counters:
    total: Counters = {group: {} for group in _GROUPS}
    for counters in all_counters:
        for group, sums in total.items():
            for name, value in counters[group].items():
                sums[name] = sums.get(name, 0) + value
    return total


def _title(group: str) -> str:
    if group == "btree":
        return " ".join(f"{name:>10}" for name in _BTREE)
    return " ".join(f"{name:>9}" for name in _IO)


def _line(group: str, counters: dict[str, int]) -> str:
    width, names = (10, _BTREE) if group == "btree" else (9, tuple(_IO.values()))
    return " ".join(f"{counters[name]:>{width}}" for name in names)


DIRECTIVES = (
    Directive("stats", "stats [interval]", stats),
    Directive("bstats", "bstats [interval]", bstats),
    Directive("iostats", "iostats [interval]", iostats),
)
