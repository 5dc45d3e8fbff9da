"""`hammerfs show-undo`: print the UNDO/REDO FIFO in the manner of hammer(8) show-undo."""

from __future__ import annotations

import argparse

from hammerfs.cli.report_lines import print_report
from hammerfs.cli.specials import reading_volumes
from hammerfs.cli.verb import Subparsers, add_json, add_specials
from hammerfs.ops.show_undo import show_undo_lines


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "show-undo", help="print the UNDO/REDO FIFO", description="Print every record of the UNDO/REDO FIFO."
    )
    add_specials(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report; 0."""
    with reading_volumes(args.specials) as volumes:
        print_report("show-undo", show_undo_lines(volumes), as_json=args.json)
    return 0
