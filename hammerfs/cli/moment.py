"""How users name moments, and how they are shown to them: TIDs, indexes, clock times."""

from __future__ import annotations

import re
import time
from typing import Final

from hammerfs.errors import UsageError
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import MAX_TID
from hammerfs.ops.moments import parse_clock

TIME_HELP: Final = "2026-11-22T10:00:00 (local time, UTC with a Z at its end; what is left out at its right is zero)"
_TID: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}\Z")
_AT_NAME: Final = re.compile(r"@@(?:-1|0[xX][0-9a-fA-F]{16})(?::\d{5})?\Z")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d(T\d\d(:\d\d(:\d\d)?)?)?Z?\Z")


def parse_tid(text: str) -> Tid:
    """A TID as users write it, `0x` and up to 16 digits; UsageError for anything else."""
    if not _TID.match(text) or not 0 < int(text, 16) <= MAX_TID:
        raise UsageError(f"'{text}' is no transaction id, such as 0x0000000123456780")
    return int(text, 16)


def tid_text(tid: Tid) -> str:
    """A TID as it stands behind `@@`."""
    return f"0x{tid:016x}"


def at(path: str, tid: Tid) -> str:
    """A path's name as of a moment."""
    return f"{path}@@{tid_text(tid)}"


def is_at_moment(name: str) -> bool:
    """Whether a name says as of when it is meant, or by which PFS, as a path's last part or any other may."""
    return _AT_NAME.search(name) is not None


def names_tid(text: str) -> bool:
    """Whether a word is a TID."""
    return _TID.match(text) is not None


def is_moment(text: str) -> bool:
    """Whether a word is a TID or a clock time, rather than a path."""
    return names_tid(text) or _TIME.match(text) is not None


def parse_time(text: str) -> int:
    """A clock time in microseconds since 1970; UsageError when it is none."""
    try:
        return parse_clock(text)
    except ValueError:
        raise UsageError(f"'{text}' is no time, such as {TIME_HELP}") from None


def time_text(seconds: int) -> str:
    """A time as hammer(8) and undo(1) print it."""
    return time.strftime("%d-%b-%Y %H:%M:%S", time.localtime(seconds))
