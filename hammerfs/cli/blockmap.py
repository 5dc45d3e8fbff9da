"""`hammerfs blockmap`: print the freemap in the manner of hammer(8) blockmap."""

from __future__ import annotations

import argparse

from hammerfs.cli.report_lines import print_report
from hammerfs.cli.specials import reading_volumes
from hammerfs.cli.verb import Subparsers, add_json, add_specials
from hammerfs.ops.blockmap_report import blockmap_lines


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "blockmap", help="print the freemap", description="Print the freemap: both layers, big-block by big-block."
    )
    add_specials(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report; 0."""
    with reading_volumes(args.specials) as volumes:
        print_report("blockmap", blockmap_lines(volumes), as_json=args.json)
    return 0
