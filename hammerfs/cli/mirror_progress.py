"""How far mirroring is: on stderr, in the scoreboard file (-e), and for the next run in the cycle file (-c)."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.hearing import Hearing
from hammerfs.errors import UsageError
from hammerfs.ondisk.constants import MAX_TID, MIN_OBJID
from hammerfs.ondisk.element import BASE, first_key

_PHASE, _SCAN, _EVENT = (0, 20), (20, 78), (98, 70)
"""Where the lines of a scoreboard begin, and how wide they are."""
_TID = struct.Struct("<Q")
_GLANCE_SECONDS = 0.1
"""So often the line about the scan is written: each piece would fill a log, and no eye follows it."""


class Scoreboard:
    """A small file of three lines that is rewritten in place, for whoever looks."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._text = bytearray()

    def put(self, line: tuple[int, int], text: str) -> None:
        """Replace a line.  A file that cannot be written is no reason to stop mirroring."""
        if self._path is None:
            return
        start, width = line
        self._text += b" " * (start + width - len(self._text))
        self._text[start : start + width] = text.encode()[: width - 1].ljust(width - 1) + b"\n"
        with suppress(OSError), open(self._path, "wb") as board:
            board.write(self._text)


class MirrorProgress:
    """What the sending end tells about itself, with -v as hammer(8) does: what goes on in one line that is rewritten.

    `streaming` -- it goes on when its source does
    """

    def __init__(
        self, options: HammerOptions, *, streaming: bool = False, clock: Callable[[], float] = monotonic
    ) -> None:
        self._board = Scoreboard(options.scoreboard)
        self._verbosity = options.verbosity
        self._chunk_mbytes = options.splitup_bytes >> 20
        self._streaming = streaming
        self._clock = clock
        self._announced = False
        self._begun = False
        self._obj_id = MIN_OBJID
        self._scan = ""
        self._due = 0.0

    def running(self) -> None:
        """A batch begins."""
        self._board.put(_PHASE, "Running")
        if self._verbosity > 1:
            print("Running", file=sys.stderr)
        elif self._streaming or not self._begun:
            self._say(("\r" if self._begun else "\n") + "Running  \b\b")
        self._begun = True
        self._obj_id = MIN_OBJID

    def waiting(self) -> None:
        """Everything is sent."""
        self._board.put(_PHASE, "Waiting")
        if self._verbosity > 1:
            print("Waiting", file=sys.stderr)
        else:
            self._say(" W")

    def delayed(self) -> None:
        """There is more to send, and it is not time for it."""
        self._say("\bD")

    def woken(self) -> None:
        """It goes on."""
        self._say("\b ")

    def prescan(self) -> Hearing:
        """A range is looked through that is to be cut into pieces; said once.  Who hears how far that is."""
        if self._announced:
            return Hearing()
        if self._verbosity >= 0:
            if self._verbosity > 0:
                print(file=sys.stderr)
            chunks = f" ({self._chunk_mbytes}MB chunks)" if self._verbosity > 1 else ""
            print(f"Prescan to break up bulk transfer{chunks}", file=sys.stderr, flush=True)
        return Hearing(on_item=self._chunk)

    def _chunk(self, item: dict[str, Any]) -> None:
        if self._verbosity > 1:
            self._say(".")
        self._board.put(_SCAN, f"Prescan chunk {item['chunk']}")

    def cut(self, batches: list[dict[str, int]], total: int) -> None:
        """What the range was cut into; said once."""
        sizes = ", ".join(str(batch["bytes"]) for batch in batches[:3])
        text = f"Prescan {len(batches)} chunks, total {total >> 20} MBytes"
        self._board.put(_EVENT, text)
        if not self._announced and self._verbosity >= 0:
            more = ", ..." if len(batches) > 3 else ""
            dots_end = "\n" if self._verbosity > 1 else ""
            print(f"{dots_end}{text} ({sizes}{more})", file=sys.stderr)
            self._announced = True

    def item(self, item: dict[str, Any]) -> None:
        """Which object the scan has come to, or which record the target will lack, since its data is nowhere."""
        if "at" in item:
            self._obj_id = item["at"]
        else:
            print(f"Mirror-read: left out {item['lost']}", file=sys.stderr)

    def sent(self, begin: int, end: int, total: int) -> None:
        """A piece went out, up to the object that was told of last."""
        text = f"obj={self._obj_id & MAX_TID:016x} tids={begin:016x}:{end:016x} {total:11d}"
        self._board.put(_SCAN, text)
        self._scan = text
        if self._clock() >= self._due:
            self._show_scan()

    def batch_ended(self, *, more: bool) -> None:
        """Nothing more comes of this batch; `more` says whether another one of the same range does."""
        if self._scan:
            self._show_scan()
            self._say("\n")
            self._scan = ""
        if more and self._streaming and self._verbosity == 1:
            self._say(" (bulk incremental)")

    def interrupted(self, path: str) -> None:
        """There was no time for all of it."""
        text = f"Mirror-read {path} interrupted by timer at {self._obj_id & MAX_TID:016x}"
        self._board.put(_EVENT, text)
        print(text, file=sys.stderr)

    def _show_scan(self) -> None:
        self._due = self._clock() + _GLANCE_SECONDS
        self._say(f"\rscan {self._scan}")

    def _say(self, text: str) -> None:
        if self._verbosity > 0:
            print(text, end="", file=sys.stderr, flush=True)


def load_cycle(path: str, begin: int) -> int:
    """The TID that a cycle file names, `begin` when there is no file."""
    try:
        with open(path, "rb") as file:
            raw = file.read(BASE.size + _TID.size)
    except FileNotFoundError:
        return begin
    except OSError as error:
        raise UsageError(f"cycle-file {path}: {error.strerror}") from None
    if len(raw) < BASE.size + _TID.size:
        raise UsageError(f"cycle-file {path}: malformed")
    tid: int = _TID.unpack_from(raw, BASE.size)[0]
    return tid


def save_cycle(path: str, tid: int) -> None:
    """Note where the next run begins, as hammer(8) does: an element's base, here the lowest one, and a TID."""
    raw = first_key(0) + _TID.pack(tid)
    try:
        with open(path, "wb") as file:
            file.write(raw)
    except OSError as error:
        print(f"Warning: Unable to write to {path}: {error.strerror}", file=sys.stderr)
