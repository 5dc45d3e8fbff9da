"""`hammerfs show`: print the B-tree in the manner of hammer(8) show."""

from __future__ import annotations

import argparse

from hammerfs.cli.report_lines import print_report
from hammerfs.cli.specials import reading_volumes
from hammerfs.cli.verb import Subparsers, add_json, add_specials
from hammerfs.ops.show import ShowOptions, show_lines
from hammerfs.ops.show_search import Search


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "show",
        help="print the B-tree",
        description="Print the B-tree, node by node, as it is on disk: recovery is not run first.",
    )
    parser.add_argument(
        "--at",
        metavar="KEY",
        type=Search.parse,
        help="mark what is at localization[:obj_id[:rec_type[:key[:create_tid]]]], hexadecimal, and begin there",
    )
    parser.add_argument("--only", action="store_true", help="with --at: only nodes that lead there")
    add_specials(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report; 0."""
    with reading_volumes(args.specials) as volumes:
        print_report(
            "show",
            show_lines(volumes, ShowOptions(search=args.at, strict=True if args.only else None)),
            as_json=args.json,
        )
    return 0
