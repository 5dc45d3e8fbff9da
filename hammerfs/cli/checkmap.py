"""`hammerfs checkmap`: compare the freemap with what is in use, in the manner of hammer(8) checkmap."""

from __future__ import annotations

import argparse

from hammerfs.cli.report_lines import print_report
from hammerfs.cli.specials import reading_volumes
from hammerfs.cli.verb import Subparsers, add_json, add_specials
from hammerfs.ops.blockmap_report import checkmap_lines


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "checkmap",
        help="compare the freemap with what is in use",
        description="Count what the B-tree uses in each big-block and compare with the freemap.",
    )
    add_specials(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report; 0."""
    with reading_volumes(args.specials) as volumes:
        print_report("checkmap", checkmap_lines(volumes), as_json=args.json)
    return 0
