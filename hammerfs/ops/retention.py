"""Which records pruning may take away.

A record lives from its create_tid up to, and not with, its delete_tid.  A snapshot demands what lives at its TID, and
everything that lived since the newest snapshot older than `prune_min` is demanded too, at every moment.  Without any
snapshot nothing is given up unless everything is.

Sources: `cmd_softprune.c: hammer_softprune_finalize`, `hammer_prune.c: prune_should_delete`.  There, records are given
up that lie between two neighbouring snapshots, their TIDs compared by division; a record created with the very TID of
a snapshot counts as lying behind it, though `@@` shows it, and a single snapshot lets nothing be pruned, other than
hammer(8) says.  Here a record goes exactly if no demanded moment shows it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import MAX_TID


class Moment(NamedTuple):
    """A snapshot: its TID, and when it was made in seconds since 1970, None when nobody knows."""

    tid: Tid
    seconds: int | None


class Rule(Protocol):
    """Decides about one record that was deleted."""

    def dispensable(self, create_tid: Tid, delete_tid: Tid) -> bool:
        """Whether no demanded moment shows a record of that lifetime."""


class Everything:
    """No history is demanded that ended by `until`."""

    def __init__(self, until: Tid = MAX_TID) -> None:
        self.until = until

    def dispensable(self, create_tid: Tid, delete_tid: Tid) -> bool:
        """All that was deleted by then."""
        return delete_tid <= self.until


class BetweenSnapshots:
    """The snapshots at `tids`, and every moment from the newest one on, are demanded."""

    def __init__(self, tids: Sequence[Tid]) -> None:
        assert tids, "without snapshots all history would go"
        self.tids = sorted(set(tids))

    def dispensable(self, create_tid: Tid, delete_tid: Tid) -> bool:
        """Whether the record's life ended by the newest snapshot and met none."""
        tids = self.tids
        if delete_tid > tids[-1]:
            return False
        # What was deleted before it was created, as only damage has it, no moment shows.
        at = bisect_left(tids, create_tid)
        return at == len(tids) or tids[at] >= delete_tid


def demanded_tids(moments: Iterable[Moment], prune_min: int, now: int) -> list[Tid]:
    """TIDs of the snapshots that count, ascending; `prune_min` and `now` in seconds.

    From the oldest one that is younger than `prune_min` on, snapshots need not be kept by themselves: the history
    around them is kept whole.
    """
    ordered = sorted(moments, key=lambda moment: moment.tid)
    if prune_min:
        for index, moment in enumerate(ordered):
            if moment.seconds and now - moment.seconds < prune_min:
                del ordered[index:]
                break
    return sorted({moment.tid for moment in ordered})
