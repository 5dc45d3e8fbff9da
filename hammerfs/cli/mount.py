"""`hammerfs mount`: serve a file system on a directory, in the background once the root directory answers."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial

from hammerfs.cli.mount_options import MountRequest, parse_mount_options
from hammerfs.cli.verb import Subparsers, split_specials
from hammerfs.device.file import FileDevice
from hammerfs.errors import UsageError
from hammerfs.fs.mount import FileSystem
from hammerfs.vfs.daemon import run_in_background, run_in_foreground
from hammerfs.vfs.mountpoint import check_fuse, prepare_mountpoint
from hammerfs.vfs.mounttable import devices_under, mount_at
from hammerfs.vfs.readiness import Readiness
from hammerfs.vfs.server import serve
from hammerfs.vfs.xattroperations import operations_for

_OPTIONS_HELP = """\
options (-o), separated by commas:
  ro, rw            read-only: not a byte is written, recovery happens in memory
  nohistory         keep no history: what is overwritten or deleted is gone
  nomirror          do not maintain what mirroring needs; faster
  noatime, atime    leave access times alone (the default), or keep them
  xattr             extended attributes and POSIX ACLs; costs a request per write
  allow_other       let other users in, as far as file permissions do
  default_permissions   check permissions also where only root gets in, which without this
                    may do everything there; for root programs that act for others
  uid=N, gid=N      show everything as owned by this user, this group
  fsync=0..4        0: fsync(2) is a full flush; 2 (default): durable the fastest way;
                    1, 3: started when fsync returns; 4: does nothing
  skip_redo=0..2    after a crash, 0 (default): what fsync promised is redone, or the mount
                    refused; 1: redone as far as that is possible; 2: given up
  flush=SECONDS     bring changes to disk after this time at the latest (5)
  cache=SIZE        memory for caches (128M)
  tid=0x...         the past, as of that transaction id, read-only
  pfs=ID            a pseudo file system instead of the root
  snapdir=WORD      .hammer in each PFS root, with its snapshots and moments as directories:
                    hidden (the default) from listings, visible, or off
  dedup             do not store again what is known to lie on disk (version 5 and up)
  keepfree=SIZE|N%  when less than this can be written, prune, and remove the oldest
                    snapshots; off by default
  powersave         let processors sleep between two requests: slower; without this, and
                    where root mounts, they stay awake as long as requests come quickly
  offset=BYTES      where the volume begins in each special
  nosuid, nodev, noexec, suid, dev, exec, sync, dirsync   as in mount(8); nosuid and
                    nodev are the default
"""


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "mount",
        help="mount a file system",
        usage="hammerfs mount [-h] [-f] [-o OPTIONS] SPECIAL[:SPECIAL...] MOUNTPOINT",
        description="Mount the file system on the given volumes. Returns when it can be used.",
        epilog=_OPTIONS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground; Ctrl-C unmounts")
    parser.add_argument("-o", dest="options", action="append", default=[], metavar="OPTIONS", help="see below")
    parser.add_argument(
        "specials", metavar="SPECIAL", nargs="+", help="image file or block device; all volumes of one file system"
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="an empty directory")


def run(args: argparse.Namespace) -> int:
    """Mount; 0 when it is mounted, or in the foreground, when everything is on disk after unmounting."""
    request = parse_mount_options(args.options, by_root=os.geteuid() == 0)
    specials = [os.path.abspath(path) for path in split_specials(args.specials)]
    mountpoint = prepare_mountpoint(args.mountpoint)
    check_fuse()
    server = partial(_serve, specials, request, mountpoint)
    if args.foreground:
        return run_in_foreground(server, _announce)
    _announce(run_in_background(server))
    return 0


def _serve(specials: Sequence[str], request: MountRequest, mountpoint: str, readiness: Readiness) -> int:
    writable = not request.filesystem.read_only
    with ExitStack() as opened:
        devices = []
        for path in specials:
            device = FileDevice(path, writable=writable, offset=request.offset, exclusive=True)
            opened.callback(device.close)
            devices.append(device)
        fs = FileSystem.open(devices, request.filesystem)
        fs.open_device = partial(_open_volume, mountpoint, request.offset)
        operations = operations_for(fs, private=request.private)
        serve(operations, mountpoint, fs.source, request.kernel, readiness, powersave=request.powersave)
    return 0


def _open_volume(mountpoint: str, offset: int, path: str) -> FileDevice:
    """A device to be added; UsageError for one that this very mount is under: it would wait for itself.

    To be called where that does no harm yet: looking at the path may be a request to this mount.
    """
    mount = mount_at(mountpoint)
    with suppress(OSError):  # FileDevice says it better
        if mount is not None and mount.device in devices_under(path):
            raise UsageError(f"{path} lies on the file system that it would become a part of")
    return FileDevice(path, writable=True, offset=offset, exclusive=True)


def _announce(message: str) -> None:
    if message:
        print(message, file=sys.stderr, flush=True)
