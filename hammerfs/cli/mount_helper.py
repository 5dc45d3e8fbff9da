"""`mount.hammer`: `hammerfs mount` as mount(8) calls it, for `mount -t hammer` and lines of fstab(5); mount_hammer(8).

mount(8) runs the program `/sbin/mount.hammer SPECIAL MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]`.  From
DragonFly's mount_hammer come several specials and -T.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from hammerfs import compiled
from hammerfs.cli import mount
from hammerfs.cli.errors import guarded
from hammerfs.cli.mount_options import parse_mount_options

PROGRAMS = {"mount.hammer", "mount_hammer"}


def main(argv: Sequence[str] | None = None) -> int:
    """Mount; returns the exit code.  A program of its own runs compiled modules."""
    if argv is None:
        compiled.use()
    parser = build_parser()
    # Options may stand between and behind the operands.
    return guarded(parser.prog, lambda: run(parser.parse_intermixed_args(argv)))


def build_parser() -> argparse.ArgumentParser:
    """What mount(8) gives to its helpers, and mount_hammer's -T."""
    name = os.path.basename(sys.argv[0])
    parser = argparse.ArgumentParser(
        prog=name if name in PROGRAMS else "mount.hammer",
        description="Mount a HAMMER file system, as 'hammerfs mount' does, for mount(8) and fstab(5).",
        epilog="'hammerfs mount --help' lists the options that -o takes.",
    )
    add = parser.add_argument
    add("-o", dest="options", action="append", default=[], metavar="OPTIONS", help="mount options, commas between them")
    add("-T", dest="tid", metavar="0x...", help="the past, as of that transaction id; the same as -o tid=0x...")
    add("-f", dest="fake", action="store_true", help="check the options, and mount nothing")
    add("-s", "-n", "-v", action="store_true", dest="ignored", help="accepted, as mount(8) may give them; no effect")
    add("-N", dest="namespace", metavar="NAMESPACE", help=argparse.SUPPRESS)
    add("-t", dest="kind", metavar="TYPE", help=argparse.SUPPRESS)
    add("specials", metavar="SPECIAL", nargs="+", help="image file or block device; all volumes of one file system")
    add("mountpoint", metavar="MOUNTPOINT", help="an empty directory")
    return parser


def run(args: argparse.Namespace) -> int:
    """Mount, in the background; 0 when the file system can be used."""
    options = [*args.options, *([f"tid={args.tid}"] if args.tid is not None else [])]
    if args.fake:
        parse_mount_options(options)
        return 0
    return mount.run(
        argparse.Namespace(options=options, specials=args.specials, mountpoint=args.mountpoint, foreground=False)
    )


if __name__ == "__main__":
    sys.exit(main())
