"""What a tree tells about itself in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TreeStatistics:
    """What is in memory, and what was done since the tree was opened.

    searches -- keys sought in a leaf; descents -- those that began at the root; visits -- nodes that these went through
    compared -- elements that keys sought were compared with in all these nodes: those that halving takes, at most
    scanned -- elements that scans passed
    """

    cached_nodes: int
    dirty_nodes: int
    fresh_nodes: int
    reads: int
    writes: int
    evictions: int
    splits: int
    removals: int
    lookups: int
    searches: int
    descents: int
    visits: int
    inserts: int
    deletes: int
    scanned: int
    compared: int
