"""What a command module offers to the dispatcher, and the arguments that many commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Protocol, TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class Verb(Protocol):
    """A module of this package that implements one command."""

    def add_parser(self, subparsers: Subparsers) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; returns the exit code.  A HammerError becomes one sentence and its own exit code."""


def add_specials(parser: argparse.ArgumentParser) -> None:
    """The volumes of one file system, in any order."""
    parser.add_argument(
        "specials",
        metavar="SPECIAL",
        nargs="+",
        help="image file or block device; all volumes of one file system, as words of their own or with ':' in between",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """A result for programs."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def split_specials(words: Sequence[str]) -> list[str]:
    """Paths of the volumes; `a:b` stands for two, unless a file of that very name exists."""
    return [path for word in words for path in ([word] if os.path.lexists(word) else word.split(":")) if path]


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Silence progress reports."""
    parser.add_argument("-q", "--quiet", action="store_true", help="report no progress")
