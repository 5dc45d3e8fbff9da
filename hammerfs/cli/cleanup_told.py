"""What `cleanup` tells programs: one object about all PFSs, made while lines for people go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from hammerfs.cli.directive import show
from hammerfs.cli.hammer_options import HammerOptions

HANDLED, ALREADY_HANDLED, LOCKED, FAILED = "handled", "already handled", "locked", "failed"
"""What became of a PFS."""


class Told:
    """What was done: for each PFS where it is and what became of each line of its configuration."""

    def __init__(self) -> None:
        self._pfss: list[dict[str, Any]] = []

    def pfs(self, path: str, state: str, **more: Any) -> None:
        """A PFS, or a path that leads to none; lines that come now are of its configuration."""
        self._pfss.append({"path": path, "state": state, **more, "lines": []})

    def line(self, word: str, outcome: str) -> None:
        """What is done about a line; results that come now belong to it.  Its code is None until it has ended."""
        self._pfss[-1]["lines"].append({"word": word, "outcome": outcome, "code": None, "results": []})

    def ended(self, code: int, error: str | None = None) -> None:
        """With which exit code the work on a line ended."""
        self._pfss[-1]["lines"][-1].update({"code": code} if error is None else {"code": code, "error": error})

    def broken_off(self) -> None:
        """The work on a line came to a step at which it could stop, and goes on from there the next time."""
        self._pfss[-1]["lines"][-1]["code"] = None

    def result(self, text: str) -> None:
        """What a directive printed for programs that was carried out for a line."""
        decoder = json.JSONDecoder()
        while text := text.lstrip():
            found, end = decoder.raw_decode(text)
            self._pfss[-1]["lines"][-1]["results"].append(found)
            text = text[end:]

    @contextmanager
    def shown(self, options: HammerOptions) -> Iterator[None]:
        """With --json lines go to stderr meanwhile, and at the end, however that comes, all is shown as one object."""
        if not options.json:
            yield
            return
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            show(options, "cleanup", {"pfss": self._pfss}, ())
