"""A PFS that is mirrored from or to: where it is, what is asked of it, and how a slave comes to be."""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from hammerfs.cli import hammer
from hammerfs.cli.directive import DirectiveError
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.hearing import Hearing
from hammerfs.cli.reach import Desk, Reach, reaching, working
from hammerfs.errors import StreamError, UsageError
from hammerfs.ondisk.pfs import PfsData

_PFS_TARGET = re.compile(r"@@(?:PFS|(?:-1|0[xX][0-9a-fA-F]{16}):)\d{5}\Z")


class MirrorEnd:
    """A PFS within reach.

    path -- as the user wrote it
    """

    def __init__(self, reach: Reach, path: str, arguments: dict[str, str]) -> None:
        self.path = path
        self._reach = reach
        self._arguments = arguments

    def call(
        self, operation: str, arguments: Mapping[str, Any], hearing: Hearing | None = None, seconds: int = 0
    ) -> dict[str, Any]:
        """An operation about this PFS; see `Reach.call`."""
        return self._reach.call(operation, {**self._arguments, **arguments}, hearing, seconds)

    def state(self, *, sync: bool = False) -> PfsData:
        """The PFS's record; with `sync` everything that was accepted so far is part of it."""
        told = self.call("mirror-state", {"sync": sync})
        return PfsData(bytearray(bytes.fromhex(told["record"])))

    def demand_slave_of(self, source: PfsData) -> PfsData:
        """The PFS's record; StreamError when `source` cannot be mirrored to it."""
        state = self.state()
        if source.shared_uuid != state.shared_uuid:
            raise StreamError("mirror-write: source and target have different shared-uuid's!")
        if not state.is_slave:
            raise StreamError("mirror-write: target must be in slave mode")
        return state


@contextmanager
def reaching_end(options: HammerOptions, path: str, *, writable: bool = False) -> Iterator[MirrorEnd]:
    """The PFS that a path leads to, for the time of the block."""
    place, arguments = place_of(options, path)
    with reaching(options, place, writable=writable) as reach:
        yield MirrorEnd(reach, path, arguments)


@contextmanager
def end_at(desk: Desk, options: HammerOptions, path: str) -> Iterator[MirrorEnd]:
    """The same, where the directive works already."""
    place, arguments = place_of(options, path)
    with desk.reach(place) as reach:
        yield MirrorEnd(reach, path, arguments)


def place_of(options: HammerOptions, path: str) -> tuple[str, dict[str, str]]:
    """The path to reach a file system by, and the arguments that name the PFS there.

    The symlink that stands for a PFS is not followed: a slave that nothing was mirrored to has nothing behind it.
    UsageError for what -T does not allow.
    """
    check_target(options, path)
    trimmed = path.rstrip("/") or path
    folder, name = os.path.split(trimmed)
    if name and (options.specials or _leads_to_pfs(trimmed)):
        return folder or ("/" if options.specials else "."), {"name": name}
    return path, {}


def _leads_to_pfs(path: str) -> bool:
    try:
        return _PFS_TARGET.match(os.readlink(path)) is not None
    except OSError:
        return False


def check_target(options: HammerOptions, path: str) -> None:
    """-T names the tree that somebody from outside may mirror to and from; UsageError for what lies elsewhere."""
    allowed = options.restrict_target
    if allowed is None:
        return
    tree = allowed.rstrip("/")
    if path != allowed and path != tree and not path.startswith(tree + "/"):
        raise UsageError("hammer-remote: restricted target")
    if ".." in path[len(tree) :].split("/"):
        raise UsageError("hammer-remote: '..' not allowed")


def is_missing(options: HammerOptions, path: str) -> bool:
    """Whether a path leads to nothing at all."""
    with working(options) as desk:
        return desk.names.kind(path.rstrip("/") or path, follow=False) is None


def create_slave(options: HammerOptions, path: str, shared: uuid.UUID) -> None:
    """Make the slave that does not exist yet, if the user wants that."""
    if options.yes:
        print(f"PFS slave {path} does not exist. Auto create new slave PFS!", file=sys.stderr)
    else:
        print(f"PFS slave {path} does not exist.", file=sys.stderr)
        print("Do you want to create a new slave PFS? [y/n] ", end="", file=sys.stderr, flush=True)
        if not _yes_from_terminal():
            raise DirectiveError("Aborting operation")
    words = ["pfs-slave", path, f"shared-uuid={shared}"]
    with redirect_stdout(sys.stderr):  # stdout belongs to the stream
        hammer.directive(words[0]).run(HammerOptions(specials=options.specials), words[1:])


def _yes_from_terminal() -> bool:
    """The answer of whoever sits at the terminal, since stdin belongs to the stream."""
    try:
        with open("/dev/tty") as terminal:
            return terminal.readline().strip().lower().startswith("y")
    except OSError:
        print("No terminal for response", file=sys.stderr)
        return False
