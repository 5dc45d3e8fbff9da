"""`hammerfs check`: verify a file system, read-only, and say what was found.

Exit codes: 0 nothing wrong, 1 problems found, 2 the file system cannot be read at all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from hammerfs.cli.progress import reporting
from hammerfs.cli.report_lines import JSON_FORMAT, print_lines
from hammerfs.cli.specials import reading
from hammerfs.cli.verb import Subparsers, add_quiet, add_specials
from hammerfs.ops.check import Problem, Report, check_devices

EXIT_CLEAN = 0
EXIT_PROBLEMS = 1


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "check",
        help="verify everything, read-only",
        description="Verify a file system completely. Nothing is written; pending recovery is run in memory.",
        epilog="Exit codes: 0 nothing wrong, 1 problems found, 2 the file system cannot be read.",
    )
    add_specials(parser)
    add_quiet(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")
    parser.add_argument("--no-data", action="store_true", help="do not read the contents of files")


def run(args: argparse.Namespace) -> int:
    """Check; 0 or 1."""
    with reading(args.specials) as devices, reporting(args.quiet) as progress:
        report = check_devices(devices, progress, data=not args.no_data)
    if args.json:
        json.dump(as_json(report), sys.stdout, indent=1)
        print()
    else:
        print_lines(lines(report))
    return EXIT_CLEAN if report.clean else EXIT_PROBLEMS


def as_json(report: Report) -> dict[str, object]:
    """The report as an object whose keys stay as they are while `format` does."""
    return {
        "format": JSON_FORMAT,
        "command": "check",
        "clean": report.clean,
        "recovery_pending": report.recovery_pending,
        "problems": report.problem_total,
        "notes": report.note_total,
        "items": [
            *(_item("problem", problem) for problem in report.problems),
            *(_item("note", note) for note in report.notes),
        ],
        "counts": report.counts,
    }


def _item(severity: str, found: Problem) -> dict[str, str | int]:
    """A finding; `object`, `pfs`, `path` and `file_offset` are there as far as they are known."""
    item: dict[str, str | int] = {
        "severity": severity,
        "kind": found.kind,
        "where": found.where,
        "text": found.text,
    }
    if found.owner is not None:
        item["pfs"] = found.owner.pfs_id
        item["object"] = f"{found.owner.obj_id & ((1 << 64) - 1):016x}"
        if found.owner.file_offset is not None:
            item["file_offset"] = found.owner.file_offset
    if found.path is not None:
        item["path"] = found.path
    return item


def lines(report: Report) -> Iterator[str]:
    """The report for people: one line a phase, one a finding, and the verdict."""
    yield from _summary(report.counts, report.recovery_pending)
    for problem in report.problems:
        yield f"problem: {problem}"
    for note in report.notes:
        yield f"note: {note}"
    left_out = report.problem_total - len(report.problems)
    if left_out:
        yield f"{left_out} further problems of the same kinds are not listed"
    if report.clean:
        yield "clean"
    else:
        yield f"{report.problem_total} problem{'s' if report.problem_total > 1 else ''} found"


def _summary(counts: dict[str, int], pending: bool) -> Iterator[str]:
    get = counts.get
    yield f"volume headers: {get('volumes', 0)}"
    yield f"freemap: {get('big-blocks', 0)} big-blocks, {get('free big-blocks', 0)} free"
    state = f"{get('FIFO bytes active', 0)} bytes to roll back" if pending else "nothing to roll back"
    yield f"UNDO FIFO: {state}"
    yield f"B-tree: {get('B-tree nodes', 0)} nodes, {get('records', 0)} records"
    yield f"file data: {get('bytes of file data', 0)} bytes verified"
    yield f"names: {get('entries', 0)} entries, {get('inodes', 0)} inodes, {get('PFSs', 0)} PFSs"
