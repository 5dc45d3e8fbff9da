"""Log lines about requests that failed for reasons nobody asked for, without flooding the log.

A program that walks over a damaged tree may produce thousands of them a second.  The first few of a minute are
logged, the others counted, and the count is told with the next line that is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

LINES_PER_PERIOD: Final = 10
PERIOD_SECONDS: Final = 60.0


class Complaints:
    """A logger that speaks at most LINES_PER_PERIOD times in PERIOD_SECONDS."""

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._period_end = 0.0
        self._lines = 0
        self._withheld = 0

    def log(self, text: str | Callable[[], str], error: BaseException | None = None) -> None:
        """One line, with a traceback when `error` is given: that is for bugs of ours, not for damage.

        A text that takes an effort may be a function, which is called only when the line is logged.
        """
        now = self._clock()
        if now >= self._period_end:
            self._period_end = now + PERIOD_SECONDS
            self._lines = 0
        self._lines += 1
        if self._lines > LINES_PER_PERIOD:
            self._withheld += 1
            return
        message = text if isinstance(text, str) else text()
        if self._withheld:
            message = f"{message} ({self._withheld} more messages were not shown)"
            self._withheld = 0
        self._logger.error("%s", message, exc_info=error)


def shown(args: Sequence[object]) -> str:
    """The first two arguments of a request: node id and name or offset, never contents."""
    words = [f"{arg:#x}" if isinstance(arg, int) else repr(arg) for arg in args[:2] if isinstance(arg, int | bytes)]
    return f"({', '.join(words)})"
