"""How far mirroring is: on stderr, in the scoreboard file (-e), and for the next run in the cycle file (-c)."""

from __future__ import annotations

import struct
import sys
from contextlib import suppress
from typing import Any

from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.errors import UsageError
from hammerfs.ondisk.element import BASE, first_key

_PHASE, _SCAN, _EVENT = (0, 20), (20, 78), (98, 70)
"""Where the lines of a scoreboard begin, and how wide they are."""
_TID = struct.Struct("<Q")


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


def tell_lost(item: dict[str, Any]) -> None:
    """Say on stderr which record the target will lack, since its data is nowhere."""
    print(f"Mirror-read: left out {item['lost']}", file=sys.stderr)


class MirrorProgress:
    """What the sending end tells about itself."""

    def __init__(self, options: HammerOptions) -> None:
        self._board = Scoreboard(options.scoreboard)
        self._verbose = options.verbose
        self._talkative = options.verbosity > 1
        self._announced = False
        self._quiet = options.quiet

    def phase(self, name: str) -> None:
        """`Running` or `Waiting`."""
        self._board.put(_PHASE, name)
        if self._talkative:
            print(name, file=sys.stderr)

    def prescan(self, batches: list[dict[str, int]], total: int) -> None:
        """What a range was cut into; said once."""
        sizes = ", ".join(str(batch["bytes"]) for batch in batches[:3])
        text = f"Prescan {len(batches)} chunks, total {total >> 20} MBytes"
        self._board.put(_EVENT, text)
        if not self._announced and not self._quiet:
            more = ", ..." if len(batches) > 3 else ""
            print(f"{text} ({sizes}{more})", file=sys.stderr)
            self._announced = True

    def sent(self, begin: int, end: int, total: int) -> None:
        """A piece went out."""
        text = f"tids={begin:016x}:{end:016x} {total:11d}"
        self._board.put(_SCAN, text)
        if self._verbose and sys.stderr.isatty():
            print(f"\rscan {text}", end="", file=sys.stderr, flush=True)

    def interrupted(self, path: str) -> None:
        """There was no time for all of it."""
        text = f"Mirror-read {path} interrupted by timer"
        self._board.put(_EVENT, text)
        print(text, file=sys.stderr)


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
