"""Names that lead to the present of a PFS, as far as the kernel remembers them.

`@@-1:00001` leads to the root of PFS 1 as it is now, or to a slave as it was at its last synchronization.  Promotion,
demotion, destruction and mirroring change what that is, behind the kernel's back; then it is told to forget these
names, and with them whatever it knows below.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import pyfuse3
import trio

NAMES_MAX: Final = 1024
_PRESENT: Final = b"@@-1:"


class PresentNames:
    """The names that the kernel was told of: at most NAMES_MAX, others it must not remember."""

    def __init__(self) -> None:
        self._told: set[tuple[int, bytes]] = set()

    def may_be_remembered(self, parent: int, name: bytes) -> bool:
        """Whether the kernel may remember what `name` means in the directory with that node id."""
        if not name.startswith(_PRESENT):
            return True
        if len(self._told) >= NAMES_MAX and (parent, name) not in self._told:
            return False
        self._told.add((parent, name))
        return True

    async def forget(self) -> None:
        """Have the kernel forget them all.

        In a thread, as the kernel may wait for an answer of ours to a request about the same directory.
        """
        told, self._told = self._told, set()
        if told:
            await trio.to_thread.run_sync(_invalidate, told)


def _invalidate(told: set[tuple[int, bytes]]) -> None:
    for parent, name in told:
        with suppress(OSError):  # forgotten already
            pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), pyfuse3.FileNameT(name))
