"""`hammerfs VERB`: finds the command, imports its module and nothing else, and runs it.

Start-up matters: scripts call these commands by the hundred, and the FUSE stack alone takes longer to import than a
check of a small image takes to run.  So each verb's module is imported only when that verb was asked for; the list of
verbs that `--help` prints comes from the table here.  What is no verb of ours may be one of hammer(8)'s (`hammer.py`).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import cast

from hammerfs import __version__, compiled
from hammerfs.cli import hammer
from hammerfs.cli.errors import EXIT_ERROR, guarded
from hammerfs.cli.verb import Verb

VERBS: dict[str, tuple[str, str]] = {
    "mount": ("hammerfs.cli.mount", "mount a file system"),
    "umount": ("hammerfs.cli.umount", "unmount and return after the last byte is on disk"),
    "check": ("hammerfs.cli.check", "verify everything, read-only"),
    "show": ("hammerfs.cli.show", "print the B-tree"),
    "show-undo": ("hammerfs.cli.show_undo", "print the UNDO/REDO FIFO"),
    "blockmap": ("hammerfs.cli.blockmap", "print the freemap"),
    "ls": ("hammerfs.cli.ls", "list directories, or what was deleted from them"),
    "log": ("hammerfs.cli.log", "list what happened to a file or directory"),
    "diff": ("hammerfs.cli.diff", "list what changed in a tree between two moments"),
    "restore": ("hammerfs.cli.restore", "bring back a file or directory as it was"),
    "undo": ("hammerfs.cli.undo", "earlier versions of files, and what changed between them"),
    "checkmap": ("hammerfs.cli.checkmap", "compare the freemap with what is in use"),
}


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser with every verb's name and the arguments of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="hammerfs",
        description="DragonFly BSD's HAMMER file system on Linux.",
        epilog="Every command line of DragonFly's hammer(8) works, too; 'hammer -h' lists them.",
    )
    parser.add_argument("--version", action="version", version=version() if chosen is None else "")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (_, summary) in VERBS.items():
        if name == chosen:
            load(name).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def version() -> str:
    """What `--version` prints."""
    return f"hammerfs {__version__}, {'compiled' if compiled.in_use() else 'not compiled'}"


def load(name: str) -> Verb:
    """Import the module behind a verb."""
    return cast(Verb, importlib.import_module(VERBS[name][0]))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `hammerfs` command; returns the exit code.  A program of its own runs compiled modules."""
    if argv is None:
        compiled.use()
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded("hammerfs", lambda: run(arguments))


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line, without the program's name; the exit code."""
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    known = chosen if chosen in VERBS else None
    if known is None and hammer.is_meant(arguments):
        return hammer.run(arguments)
    if not arguments:
        build_parser(None).print_help(sys.stderr)
        return EXIT_ERROR
    args = build_parser(known).parse_args(arguments)
    return load(args.verb).run(args)


if __name__ == "__main__":
    sys.exit(main())
