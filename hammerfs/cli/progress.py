"""Progress on stderr: a bar on a terminal when rich is installed, else a line every ten seconds, or nothing.

Short work stays silent: the first line appears only after ten seconds, the bar vanishes when the work is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TextIO

from hammerfs.ops.progress import Progress, SilentProgress

INTERVAL = 10.0
"""Seconds between two lines where there is no terminal."""


class LineProgress:
    """One line each time INTERVAL seconds have passed since the last one (or since the start)."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._name = ""
        self._total = 0
        self._done = 0
        self._due = clock() + INTERVAL

    def phase(self, name: str, total: int) -> None:
        """Begin a phase."""
        self._name, self._total, self._done = name, total, 0

    def advance(self, amount: int) -> None:
        """Count work, and print when it is time."""
        self._done += amount
        now = self._clock()
        if now < self._due:
            return
        self._due = now + INTERVAL
        share = f"{min(100, 100 * self._done // self._total)}%" if self._total else str(self._done)
        print(f"{self._name}: {share}", file=self._stream, flush=True)


class BarProgress:
    """A rich progress bar; one task that is renamed from phase to phase."""

    def __init__(self, rich_progress: ModuleType, stream: TextIO) -> None:
        from rich.console import Console

        self._bar = rich_progress.Progress(console=Console(file=stream), transient=True)
        self._task = self._bar.add_task("", total=None)

    def start(self) -> None:
        """Show the bar."""
        self._bar.start()

    def stop(self) -> None:
        """Remove the bar."""
        self._bar.stop()

    def phase(self, name: str, total: int) -> None:
        """Begin a phase."""
        self._bar.update(self._task, description=name, total=total or None, completed=0)

    def advance(self, amount: int) -> None:
        """Count work; rich draws ten times a second at most."""
        self._bar.advance(self._task, amount)


@contextmanager
def reporting(quiet: bool, stream: TextIO | None = None) -> Iterator[Progress]:
    """The progress report that fits the stream (stderr by default), for the time of the `with` block."""
    output = sys.stderr if stream is None else stream
    if quiet:
        yield SilentProgress()
        return
    rich_progress = _rich() if output.isatty() else None
    if rich_progress is None:
        yield LineProgress(output)
        return
    bar = BarProgress(rich_progress, output)
    bar.start()
    try:
        yield bar
    finally:
        bar.stop()


def _rich() -> ModuleType | None:
    try:
        import rich.progress
    except ImportError:
        return None
    return rich.progress
