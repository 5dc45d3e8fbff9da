"""Reaching a file system to ask operations of it: through the server that has it mounted, or by opening its volumes.

A directive does not care which: it gets a `Reach` and calls operations by name.  ^C asks the operation that runs to
come to an end, so that it can say how far it got; a second one ends it at its next step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.hearing import Hearing, interrupts
from hammerfs.cli.names import MountedNames, Names
from hammerfs.cli.progress import reporting
from hammerfs.vfs.controlclient import Connection, RefusedError, connected


class Reach(Protocol):
    """A place in a file system that answers operations about it."""

    def call(
        self, operation: str, arguments: Mapping[str, Any], hearing: Hearing | None = None, seconds: int = 0
    ) -> dict[str, Any]:
        """The operation's result; HammerError when it has none to give.  Stops after `seconds`, if they are not 0."""


class LiveReach:
    """A mounted file system, through its server.

    path -- by which it was reached, "" where nobody named one
    """

    def __init__(self, connection: Connection, path: str = "") -> None:
        self.connection = connection
        self.path = path

    def call(
        self, operation: str, arguments: Mapping[str, Any], hearing: Hearing | None = None, seconds: int = 0
    ) -> dict[str, Any]:
        with interrupts(self.connection.stop):
            return self.ask(operation, arguments, hearing or Hearing(), seconds)

    def ask(self, operation: str, arguments: Mapping[str, Any], hearing: Hearing, seconds: int = 0) -> dict[str, Any]:
        """The same without a word about ^C, which ends it at once."""
        try:
            return self.connection.request(operation, arguments, hearing, seconds)
        except RefusedError as error:
            # The server knows a number for what a path led to, and no more words than that errno has.
            if not self.path or str(error) != os.strerror(error.errno):
                raise
            raise RefusedError(f"{_shown(self.path)}: {error}", error.errno, error.exit_code) from None


def _shown(path: str) -> str:
    """A path for people, to whom `.` says nothing; the shell remembers what the kernel has no path for any more."""
    if path != ".":
        return path
    try:
        return os.getcwd()
    except OSError:
        return os.environ.get("PWD", path)


class Desk(Protocol):
    """Where a directive works: on everything that is mounted, or on the one file system that `-f` names.

    here -- the path that is meant when none is given
    names -- what is called how
    """

    here: str
    names: Names

    def reach(self, path: str) -> AbstractContextManager[Reach]:
        """The place that a path leads to, for the time of a block; HammerError when it leads nowhere."""


class MountedDesk:
    """Everything that is mounted."""

    here = "."

    def __init__(self) -> None:
        self.names: Names = MountedNames()

    @contextmanager
    def reach(self, path: str) -> Iterator[LiveReach]:
        """The place, through the server that has it mounted."""
        with connected(path) as connection:
            yield LiveReach(connection, path)


@contextmanager
def working(options: HammerOptions, *, writable: bool = False) -> Iterator[Desk]:
    """Where the options say that a directive works, for the time of the block.

    With `-f` that is the file system on those volumes, and paths begin at its root; `writable` says whether operations
    that change it will be called.  A crash before is recovered from, in memory unless `writable`.
    """
    if options.specials:
        from hammerfs.cli.offline import OfflineDesk, opened  # brings the whole core along

        with opened(options, writable=writable) as fs:
            yield OfflineDesk(fs)
    else:
        yield MountedDesk()


@contextmanager
def reaching(options: HammerOptions, path: str, *, writable: bool = False) -> Iterator[Reach]:
    """The one place that a directive is about, for the time of the block; see `working`."""
    with working(options, writable=writable) as desk, desk.reach(path) as reach:
        yield reach


@contextmanager
def watching(options: HammerOptions) -> Iterator[Hearing]:
    """A hearing that shows progress as the options ask for it: a bar, or a line each ten seconds."""
    with reporting(options.quiet or options.json) as progress:
        yield Hearing(progress)
