"""The configuration of `hammer cleanup`: its lines, when each is due, and which snapshots have expired.

    snapshots  <period> <retention-time> [any]
    prune, rebalance, dedup, reblock, recopy  <period> <max-runtime>

Times are numbers with d, h, m or s behind them.  Source: `cmd_cleanup.c`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

from hammerfs.errors import UsageError

_TIME = re.compile(r"(\d{1,9})([dhms]?)\Z", re.ASCII)
_SHOWN_MAX = 40
"""Of a word that is wrong: whoever wrote the configuration may have meant no good."""
WORDS = ("snapshots", "prune", "rebalance", "dedup", "reblock", "recopy")
_FACTORS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}
_STAMP = re.compile(r"[^-.]*[-.](\d{4})(\d{2})(\d{2})(?:-(\d{2})(\d{2}))?")
_WITHOUT_SNAPSHOTS = ("/tmp", "/var/tmp", "/usr/obj")


class ConfigLine(NamedTuple):
    """One line: `period` and `limit` in seconds; what the limit limits depends on the word."""

    word: str
    period: int
    limit: int
    any_name: bool


def default_config(path: str) -> str:
    """What a PFS is done that nobody has configured."""
    snapshots = "0d 0d" if path in _WITHOUT_SNAPSHOTS else "1d 60d"
    others = "prune     1d 5m\nrebalance 1d 5m\n#dedup     1d 5m\nreblock   1d 5m\nrecopy    30d 10m\n"
    return f"snapshots {snapshots}\n{others}"


def parse_config(text: str) -> Iterator[ConfigLine]:
    """The lines that say something; UsageError for a time that cannot be."""
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words:
            period, limit = (seconds_of(word) for word in (*words[1:3], *("0", "0")[len(words[1:3]) :]))
            yield ConfigLine(words[0], period, limit, "any" in words[3:4])


def is_configuration(text: str) -> bool:
    """Whether a text is meant to be one, right or wrong: some line begins with a word of it."""
    return any(line.partition("#")[0].split()[:1] == [word] for line in text.splitlines() for word in WORDS)


def seconds_of(text: str) -> int:
    """A time in seconds."""
    match = _TIME.match(text)
    if match is None:
        raise UsageError(f"{text[:_SHOWN_MAX]!r} is no time: a number of up to nine digits and d, h, m or s")
    return int(match.group(1)) * _FACTORS[match.group(2)]


def is_due(period: int, last: int | None, now: int) -> bool:
    """Whether a period has gone by since the run at `last`; both in seconds since 1970.

    A day has gone by when midnight has, in local time, however long ago the last run was; so with hours and minutes.
    """
    if last is None:
        return True
    return _begun(now, period) - _begun(last, period) >= period


def _begun(moment: int, period: int) -> int:
    """The beginning of the minute, hour or day, the largest that the period is a multiple of."""
    parts = list(time.localtime(moment))
    for place, unit in ((5, 60), (4, 3600), (3, 86400)):
        if period % unit == 0:
            parts[place] = 0
    parts[8] = -1
    return int(time.mktime(time.struct_time(parts)))


def stamp_of(name: str) -> int | None:
    """When a snapshot of that name was taken, None when the name does not tell."""
    match = _STAMP.match(name)
    if match is None:
        return None
    year, month, day, hour, minute = (int(part or 0) for part in match.groups())
    try:
        return int(time.mktime((year, month, day, hour, minute, 0, 0, 0, -1)))
    except (OverflowError, ValueError):
        return None


def is_expired(name: str, any_name: bool, retention: int, now: int) -> bool:
    """Whether a snapshot softlink has been there longer than `retention`, as far as its name tells."""
    stamp = stamp_of(name) if any_name or name.startswith("snap-") else None
    return stamp is not None and now - stamp > retention
