"""`rebalance`: fill B-tree nodes from their neighbours, so that fewer are needed (`hammer_rebalance.c`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Done, Phase, Want, Work
from hammerfs.ondisk.constants import INTERNAL_ELEMENTS
from hammerfs.ops.record_range import FIRST, Position, RecordRange, position_of

DEFAULT_PERCENTAGE = 85


@dataclass
class RebalanceOutcome:
    """What a run did.

    position -- where the next run goes on if this one was interrupted
    scanned, filled, removed -- nodes
    """

    position: Position = FIRST
    interrupted: bool = False
    scanned: int = 0
    filled: int = 0
    removed: int = 0


def saturation_of(percentage: int) -> int:
    """Elements that a node should hold; at least half of what it can."""
    return max(INTERNAL_ELEMENTS // 2, min(INTERNAL_ELEMENTS, INTERNAL_ELEMENTS * percentage // 100))


def rebalance(
    fs: FileSystem, reach: RecordRange, saturation: int, interrupted: Callable[[], bool]
) -> Work[RebalanceOutcome]:
    """Fill the nodes that hold the records in `reach`, row by row from the leaves upwards."""
    outcome = RebalanceOutcome(reach.first)
    tree = fs.ctx.tree
    yield Phase("rebalancing")
    row = 0
    while row < tree.height:
        key: bytes | None = reach.low
        while key is not None and key <= reach.high:
            if not row:
                outcome.position = position_of(key)
            step = tree.fill_step(key, row, saturation)
            outcome.scanned += step.examined
            outcome.filled += step.changed
            outcome.removed += step.removed
            key = step.next
            yield Done(step.examined)
            yield Want.PAUSE
            if interrupted():
                outcome.interrupted = True
                return outcome
        row += 1
    return outcome
