"""Reaching a file system to ask operations of it: through the server that has it mounted, or by opening its volumes.

A directive does not care which: it gets a `Reach` and calls operations by name.  ^C asks the operation that runs to
come to an end, so that it can say how far it got; a second one ends it at its next step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.hearing import Hearing, interrupts
from hammerfs.cli.progress import reporting
from hammerfs.vfs.controlclient import Connection, connected


class Reach(Protocol):
    """A file system that answers operations about one place in it."""

    def call(
        self, operation: str, arguments: Mapping[str, Any], hearing: Hearing | None = None, seconds: int = 0
    ) -> dict[str, Any]:
        """The operation's result; HammerError when it has none to give.  Stops after `seconds`, if they are not 0."""


class LiveReach:
    """A mounted file system, through its server."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def call(
        self, operation: str, arguments: Mapping[str, Any], hearing: Hearing | None = None, seconds: int = 0
    ) -> dict[str, Any]:
        with interrupts(self.connection.stop):
            return self.connection.request(operation, arguments, hearing or Hearing(), seconds)


@contextmanager
def reaching(options: HammerOptions, path: str, *, writable: bool = False) -> Iterator[Reach]:
    """The file system that `path` lies on, for the time of the block.

    With `-f` that is the one on those volumes, and `path` begins at its root; `writable` says whether operations that
    change it will be called.  A crash before is recovered from, in memory unless `writable`.
    """
    if options.specials:
        from hammerfs.cli.offline import OfflineReach, opened  # brings the whole core along

        with opened(options, writable=writable) as fs:
            yield OfflineReach(fs, path)
        return
    with connected(path) as connection:
        yield LiveReach(connection)


@contextmanager
def watching(options: HammerOptions) -> Iterator[Hearing]:
    """A hearing that shows progress as the options ask for it: a bar, or a line each ten seconds."""
    with reporting(options.quiet or options.json) as progress:
        yield Hearing(progress)
