"""What becomes of what an operation says while it runs, and of ^C meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from hammerfs.ops.progress import Progress, SilentProgress


def _drop(_part: object) -> None:
    """Nobody asked for it."""


def _nothing(_limit: int) -> bytes:
    return b""


@dataclass(slots=True)
class Hearing:
    """What is done with what an operation says before its result; see `vfs/controlclient.py: Hearer`.

    progress -- told how far it is
    on_item, on_data -- get the parts of its result
    source -- where bytes for it come from
    on_wait -- gets the descriptor by which the server will answer, and may look at others meanwhile
    """

    progress: Progress = field(default_factory=SilentProgress)
    on_item: Callable[[dict[str, Any]], None] = _drop
    on_data: Callable[[bytes], None] = _drop
    source: Callable[[int], bytes] = _nothing
    on_wait: Callable[[int], None] = _drop

    def phase(self, name: str, total: int) -> None:
        self.progress.phase(name, total)

    def advance(self, amount: int) -> None:
        self.progress.advance(amount)

    def item(self, item: dict[str, Any]) -> None:
        self.on_item(item)

    def data(self, content: bytes) -> None:
        self.on_data(content)

    def supply(self, limit: int) -> bytes:
        return self.source(limit)

    def wait(self, answer: int) -> None:
        self.on_wait(answer)


class _FirstAsks:
    """A handler of ^C: the first one asks what runs to stop, the second one is a KeyboardInterrupt.

    asked -- the first one has come
    """

    def __init__(self, ask_to_stop: Callable[[], None]) -> None:
        self._ask_to_stop = ask_to_stop
        self.asked = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._ask_to_stop()


@contextmanager
def interrupts(ask_to_stop: Callable[[], None]) -> Iterator[None]:
    """Within the block the first ^C calls `ask_to_stop`; the second one is a KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, _FirstAsks(ask_to_stop))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Within the block ^C is a KeyboardInterrupt at once: what waits has nothing to bring to an end.

    So is one that came just before: what it asked may not have run yet, and then nobody would hear it any more.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if isinstance(before, _FirstAsks) and before.asked:
            raise KeyboardInterrupt
        yield
    finally:
        signal.signal(signal.SIGINT, before)
