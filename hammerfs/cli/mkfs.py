"""`mkfs_hammer.py`, `mkfs.hammer`, `newfs_hammer`: make a HAMMER file system; newfs_hammer(8)'s options and output.

Exit codes: 0 made, 1 refused or failed (as newfs_hammer's), 2 for arguments that make no sense.
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Sequence

from hammerfs.cli.errors import EXIT_ERROR, guarded
from hammerfs.cli.progress import reporting
from hammerfs.cli.size import format_size, parse_size
from hammerfs.errors import UsageError
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, ROOT_VOLNO, VOLUME_VERSION_DEFAULT
from hammerfs.ops.mkfs import FormatPlan, FormatRequest, plan_format, write_file_system
from hammerfs.ops.mkfs_specials import Specials

EXIT_FAILED = 1
PROGRAMS = {"mkfs_hammer.py", "mkfs_hammer", "mkfs.hammer", "newfs_hammer"}
COMFORTABLE_SIZE = 50 << 30
"""Below this HAMMER's own manual recommends another file system; we say what to do instead."""

DESCRIPTION = """\
Make a HAMMER file system on image files or block devices. Several SPECIALs become
the volumes of one file system, the first its root volume, number 0; all of them
are needed to mount it. Everything on them is lost."""

EPILOG = """\
A SIZE is a whole number and K, M, G or T (powers of 1024), a multiple of 16K for
-b, -m and -u.

The UNDO/REDO FIFO makes crashes harmless and fsync fast. Without -u it gets 0.1%% of
volume 0, at least 512M and at most 1G, but never more than a twentieth: 1G gets
56M, 10G and up 512M. It is really written, the rest of an image stays sparse.

-f is needed for less than 10G on volume 0, for a FIFO below 512M asked for by -u,
for areas below their minimum, and to overwrite an existing HAMMER file system.

examples:
  %(prog)s -L HOME --size 100G home.img          a sparse image, made on the spot
  %(prog)s -f -L SMALL --size 1G small.img       a small one
  %(prog)s -L BIG /dev/sdb1 /dev/sdc1            one file system on two devices
  hammerfs mount home.img /mnt                   use it"""


def main(argv: Sequence[str] | None = None) -> int:
    """Make a file system; returns the exit code."""
    parser = build_parser()
    code = guarded(parser.prog, lambda: run(parser.parse_args(argv)))
    return EXIT_FAILED if code == EXIT_ERROR else code


def build_parser() -> argparse.ArgumentParser:
    """newfs_hammer's options and our three long ones."""
    name = os.path.basename(sys.argv[0])
    parser = argparse.ArgumentParser(
        prog=name if name in PROGRAMS else "mkfs_hammer",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-L", dest="label", metavar="LABEL", required=True, help="name of the file system, up to 63 bytes")
    add("-f", dest="force", action="store_true", help="force: small sizes, overwriting a HAMMER file system")
    add("-b", dest="boot", metavar="SIZE", type=_area, help="boot area on each volume, 32K to 256M (32K); unused")
    add("-m", dest="memory", metavar="SIZE", type=_area, help="memory log on each volume, 256K to 64G (256K); unused")
    add("-u", dest="undo", metavar="SIZE", type=_area, help="UNDO/REDO FIFO on volume 0, up to 1G (see below)")
    add(
        "-V",
        dest="version",
        metavar="VERSION",
        type=_number,
        default=VOLUME_VERSION_DEFAULT,
        help="volume version, 1 to 7 (%(default)s): 6 brought better directory hashes, 7 CRC-32C",
    )
    add("--size", metavar="SIZE", type=_size, help="first create, or extend, image files of this size, sparse")
    add("--fsid", metavar="UUID", type=_uuid, help="the file system's uuid (random)")
    add("--time", metavar="NS", type=_number, help="time of creation in ns since 1970 (now)")
    add("specials", metavar="SPECIAL", nargs="+", help="image file or block device")
    return parser


def run(args: argparse.Namespace) -> int:
    """Check, announce, write, summarize."""
    request = FormatRequest(
        label=args.label,
        version=args.version,
        boot_area_size=args.boot,
        memory_log_size=args.memory,
        undo_size=args.undo,
        fsid=args.fsid,
        time_ns=args.time,
        force=args.force,
    )
    with Specials(args.specials, wanted_size=args.size, force=args.force) as specials:
        plan = plan_format(request, specials.sizes)
        _announce(plan, specials)
        with reporting(quiet=False) as progress:
            write_file_system(plan.layout, specials.prepare(), progress)
        specials.keep()
    _summarize(plan, args.specials)
    return 0


def _announce(plan: FormatPlan, specials: Specials) -> None:
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for number, (path, size) in enumerate(zip(specials.paths, specials.sizes, strict=True)):
        print(f"Volume {number} {specials.kind(number)} {path:<15} size {format_size(size)}")
    undo_size = plan.layout.parameters.undo_bigblocks * BIGBLOCK_SIZE
    print(f"initializing the undo map ({undo_size >> 20} MB)", flush=True)


def _summarize(plan: FormatPlan, paths: Sequence[str]) -> None:
    layout, parameters = plan.layout, plan.layout.parameters
    undo = format_size(parameters.undo_bigblocks * BIGBLOCK_SIZE)
    if plan.undo_chosen:
        undo += "  (chosen by the size of volume 0, -u SIZE sets it)"
    total = sum(parameters.volume_sizes)
    plural = "" if len(paths) == 1 else "s"
    print("---------------------------------------------")
    print(f"HAMMER version {parameters.version}")
    print(f"{len(paths)} volume{plural} total size {format_size(total)}")
    print(f"root-volume:         {paths[ROOT_VOLNO]}")
    print(f"boot-area-size:      {format_size(parameters.boot_area_size)}")
    print(f"memory-log-size:     {format_size(parameters.memory_log_size)}")
    print(f"undo-buffer-size:    {undo}")
    print(f"total-pre-allocated: {format_size(layout.preallocated_size)}")
    print(f"free for files:      {format_size(layout.free_bigblocks * BIGBLOCK_SIZE)}")
    print(f"fsid:                {parameters.fsid}")
    if total < COMFORTABLE_SIZE:
        print()
        print("NOTE: HAMMER keeps what is deleted or overwritten as history. On less than 50 GB")
        print("that fills the space soon; '-o nohistory' mounts without keeping history.")


def _area(text: str) -> int:
    return _parsed_size(text, suffix_required=True)


def _size(text: str) -> int:
    return _parsed_size(text, suffix_required=False)


def _parsed_size(text: str, *, suffix_required: bool) -> int:
    try:
        return parse_size(text, suffix_required=suffix_required)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no uuid") from None


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number") from None
