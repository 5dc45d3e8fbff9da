"""Cancelling at the n-th checkpoint, for every n: an instrument counts the steps of chosen tasks.

A task runs from checkpoint to checkpoint.  When it has come to its n-th one, a cancel scope around it is cancelled, so
that this very checkpoint raises Cancelled; a run that ends before it came to n shows that all have been tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio


@dataclass
class Cancellation:
    """steps -- checkpoints that the chosen tasks have come to; happened -- whether the scope was cancelled."""

    steps: int = 0
    happened: bool = False


class _Counter(trio.abc.Instrument):
    def __init__(self, nth: int, names: tuple[str, ...], scope: trio.CancelScope) -> None:
        self._nth = nth
        self._names = names
        self._scope = scope
        self.result = Cancellation()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not any(name in task.name for name in self._names):
            return
        self.result.steps += 1
        if self.result.steps == self._nth:
            self.result.happened = True
            self._scope.cancel()


@contextmanager
def cancelled_at(nth: int, names: tuple[str, ...], scope: trio.CancelScope) -> Iterator[Cancellation]:
    """Cancel `scope` when tasks whose names contain one of `names` have come to their `nth` checkpoint from now on."""
    counter = _Counter(nth, names, scope)
    trio.lowlevel.add_instrument(counter)
    try:
        yield counter.result
    finally:
        trio.lowlevel.remove_instrument(counter)


def tried_all(attempt: Callable[[int], Cancellation], limit: int = 2000) -> int:
    """Call `attempt` with 1, 2, 3 ... until one ends uncancelled; returns how many checkpoints were tried."""
    for nth in range(1, limit):
        if not attempt(nth).happened:
            return nth - 1
    raise AssertionError(f"more than {limit} checkpoints")
