"""From clock time to TIDs: the newest change of a PFS that was not made later.

TIDs only count; but each record says when it began and ended, so the records of a PFS give a table from seconds to the
newest TID of each second.  It is made by one pass over the PFS's records, when somebody first asks, and brought up to
date by a look at what changed since.  A slave's TIDs are its master's, so every PFS has a table of its own.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from datetime import datetime
from typing import TYPE_CHECKING

from hammerfs.ondisk.address import Localization, Tid
from hammerfs.ondisk.constants import LOCALIZE_MASK, MAX_KEY, MAX_OBJID, MAX_RECTYPE, MAX_TID, MIN_KEY, MIN_OBJID
from hammerfs.ondisk.element import pack_key, unpack_leaf
from hammerfs.ops.pace import Paced, numbered

if TYPE_CHECKING:
    from hammerfs.fs.context import Context


class MomentTable:
    """The table of one PFS.  `brought_up_to_date` has to run to its end before `before` is asked."""

    def __init__(self, localization: Localization) -> None:
        self._low = pack_key(localization, MIN_OBJID, 0, MIN_KEY, 1)
        self._high = pack_key(localization | LOCALIZE_MASK, MAX_OBJID, MAX_RECTYPE, MAX_KEY, MAX_TID)
        self._newest: Tid = 0
        self._tid_at: dict[int, Tid] = {}
        self._seconds: list[int] = []
        self._tids: list[Tid] = []

    def brought_up_to_date(self, ctx: Context) -> Paced[None]:
        """Take in what changed since the last time; pauses where other tasks may run.

        A nomirror mount leaves no trace of where it changed something, so everything is looked at again.
        """
        tree = ctx.tree
        since = 0 if ctx.options.nomirror else self._newest
        changed = tree.scan_younger(self._low, self._high, since) if since else tree.scan(self._low, self._high)
        newest = self._newest
        for pause, raw in numbered(changed):
            if pause:
                yield
            element = unpack_leaf(raw)
            self._note(element.create_ts, element.create_tid)
            self._note(element.delete_ts, element.delete_tid)
            newest = max(newest, element.create_tid, element.delete_tid)
        if newest != self._newest:
            self._newest = newest
            self._seconds = sorted(self._tid_at)
            self._tids = []
            for second in self._seconds:
                # A clock that was set back must not lead to a TID older than one that is known for an earlier second.
                self._tids.append(max(self._tid_at[second], self._tids[-1] if self._tids else 0))

    def _note(self, second: int, tid: Tid) -> None:
        """Remember a TID of a second; records that the original's ioctls write, snapshots say, carry no time."""
        if second and tid > self._tid_at.get(second, 0):
            self._tid_at[second] = tid

    def before(self, time_us: int) -> Tid | None:
        """The newest TID given out by that time (microseconds since 1970); None when the PFS did not exist yet."""
        index = bisect_right(self._seconds, time_us // 1_000_000)
        return self._tids[index - 1] if index else None


def moment_before(ctx: Context, localization: Localization, time_us: int) -> Paced[Tid | None]:
    """The same for whoever asks once."""
    table = MomentTable(localization)
    yield from table.brought_up_to_date(ctx)
    return table.before(time_us)


# --- clock times as text --------------------------------------------------------------------------

_SHAPES = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d")


def parse_clock(text: str) -> int:
    """A local time, or UTC with a Z at its end, in microseconds since 1970; ValueError when it is none.

    What is left out at its right is zero.
    """
    zone, digits = ("+0000", text[:-1]) if text.endswith("Z") else ("", text)
    for shape in _SHAPES:
        try:
            moment = datetime.strptime(digits + zone, shape + ("%z" if zone else ""))
            return int(moment.timestamp() * 1_000_000)
        except (ValueError, OverflowError):
            continue
    raise ValueError(f"{text!r} is no time")


def clock_text(time_us: int) -> str:
    """A time as `parse_clock` takes it."""
    return time.strftime(_SHAPES[0], time.localtime(time_us // 1_000_000))
