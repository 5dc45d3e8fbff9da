"""What can be asked of a file system by name, whether it is mounted or not.

An operation is a function from a `Call` to work (`fs/work.py`) whose result is a dictionary that JSON can hold.  It
knows neither sockets nor terminals.  `registry.py` lists all of them; docs/architecture.md, Control, tells how to add
one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from hammerfs.errors import UsageError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Work
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import MAX_TID

Result: TypeAlias = dict[str, Any]


def never() -> bool:
    """Nobody asks the work to stop."""
    return False


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    fs -- the file system, open
    place -- what the request is about: the object that a path led to
    arguments -- from a client, so nothing is known of them but that they are JSON
    interrupted -- whether the work should stop soon and say how far it got (^C, -t)
    exclusive -- nobody else uses the file system while the work is done
    """

    fs: FileSystem
    place: Inode
    arguments: Mapping[str, Any]
    interrupted: Callable[[], bool] = never
    exclusive: bool = False

    def text(self, name: str, default: str | None = None) -> str:
        """A string argument, fit for `os.fsencode`; UsageError when it is missing without a default, or not that."""
        value = self.arguments.get(name, default)
        if not isinstance(value, str):
            raise UsageError(f"argument '{name}' has to be a text")
        try:
            os.fsencode(value)
        except UnicodeEncodeError:
            raise UsageError(f"argument '{name}' is no text that could be a name") from None
        return value

    def number(self, name: str, default: int | None = None, *, most: int | None = None) -> int:
        """A whole number, from 0 to `most` where that is given: what a record holds may have no other."""
        value = self.arguments.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise UsageError(f"argument '{name}' has to be a whole number")
        if most is not None and not 0 <= value <= most:
            raise UsageError(f"argument '{name}' has to be between 0 and {most}")
        return value

    def tid(self, name: str) -> Tid:
        """A transaction id."""
        return self.number(name, most=MAX_TID)

    def flag(self, name: str) -> bool:
        """A truth value, False when it is not there."""
        value = self.arguments.get(name, False)
        if not isinstance(value, bool):
            raise UsageError(f"argument '{name}' has to be true or false")
        return value

    def numbers(self, name: str) -> list[int]:
        """A list of whole numbers, empty when it is not there."""
        value = self.arguments.get(name, [])
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise UsageError(f"argument '{name}' has to be a list of whole numbers")
        return value

    def pairs(self, name: str) -> list[tuple[int, int]]:
        """A list of whole numbers that belong together by twos."""
        numbers = self.numbers(name)
        if len(numbers) % 2:
            raise UsageError(f"argument '{name}' has to be a list of pairs")
        return list(zip(numbers[::2], numbers[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked for.

    name -- by which clients ask for it
    work -- what it does
    changes -- it needs a file system that can be written to
    alters_views -- what was shown of other PFSs or of the past may be different afterwards, so that nobody may go on
        believing what he remembers of them
    """

    name: str
    work: Callable[[Call], Work[Result]]
    changes: bool = False
    alters_views: bool = False
