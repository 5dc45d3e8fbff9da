"""`hammerfs umount`: unmount, and return when the last byte is on disk.

umount(8) returns when the kernel has let go, with everything since the last flush still in the server's memory.  So
this command waits for the server's end, and tells when that was not a good one.
"""

from __future__ import annotations

import argparse
import errno
import os
import select
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from typing import Final

from hammerfs.cli.verb import Subparsers
from hammerfs.errors import HammerError, UsageError
from hammerfs.vfs.mountpoint import complaint, program
from hammerfs.vfs.mounttable import FILESYSTEM_KIND, Mount, mount_at, mounts
from hammerfs.vfs.serverfile import ServerNote, note_path, read_note

EXIT_UNFLUSHED: Final = 1
GLANCE_SECONDS: Final = 1.0
"""Whoever just looks, as `hammer iostats` does, holds a mount for an instant; busy for longer, it is in use."""
PATIENCE_SECONDS: Final = 5
"""After this long the user is told what is being waited for."""


class UnmountError(HammerError):
    """The file system is still mounted."""

    exit_code = 1


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "umount",
        help="unmount and return after the last byte is on disk",
        description=(
            "Unmount a file system and return when its server has brought everything to disk. "
            "umount(8) and fusermount3(1) unmount it too, but return earlier: then the image must not be "
            "copied, nor its medium removed, before the server has ended."
        ),
        epilog="Exit codes: 0 everything is on disk, 1 still in use or not everything reached the disk, 2 not mounted.",
    )
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", help="where the file system is mounted")


def run(args: argparse.Namespace) -> int:
    """Unmount and wait; 0 when everything is on disk."""
    mounted = _find(args.mountpoint)
    path = note_path(mounted.device, mounted.owner)
    note = read_note(path, mounted.owner)
    watch = None if note is None else _watch(note)
    try:
        _unmount(mounted)
        elsewhere = next((other.path for other in mounts() if other.device == mounted.device), None)
        if elsewhere is not None:
            raise UnmountError(f"{args.mountpoint} is unmounted, but the same file system is in use on {elsewhere}")
        if note is None:
            return _complain(
                f"{args.mountpoint} is unmounted, but its server is unknown: nothing tells when it is done"
            )
        if watch is not None:
            _wait(watch, note.pid, args.mountpoint)
    finally:
        if watch is not None:
            os.close(watch)
    left = read_note(path, mounted.owner)
    if left is None or not left.same_server(note):
        return 0
    with suppress(OSError):
        path.unlink()
    if left.failure is not None:
        return _complain(f"{args.mountpoint}: not everything could be brought to disk: {left.failure}")
    return _complain(
        f"{args.mountpoint}: the server was killed; the next mount recovers everything that was fsynced or flushed"
    )


def _find(path: str) -> Mount:
    mounted = mount_at(os.path.realpath(path))
    if mounted is None:
        raise UsageError(f"nothing is mounted on {path}")
    if mounted.kind != FILESYSTEM_KIND:
        raise UsageError(f"{path} is a mounted file system of type {mounted.kind}, not {FILESYSTEM_KIND}")
    if os.geteuid() not in (0, mounted.owner):
        raise UnmountError(f"{path} was mounted by user {mounted.owner}; only that user and root can unmount it")
    return mounted


def _watch(note: ServerNote) -> int | None:
    """A descriptor that becomes readable when the server ends; None when it has ended."""
    try:
        watch = os.pidfd_open(note.pid)
    except ProcessLookupError:
        return None
    if note.alive:
        return watch
    os.close(watch)
    return None


def _unmount(mounted: Mount) -> None:
    command = [program("fusermount3"), "-u", "--", mounted.path]
    deadline = time.monotonic() + GLANCE_SECONDS
    while True:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode == 0:
            return
        reason = complaint(done)
        if reason != os.strerror(errno.EBUSY):
            raise UnmountError(f"cannot unmount {mounted.path}: {reason}")
        if time.monotonic() >= deadline:
            raise UnmountError(_in_use(mounted.path, reason))
        time.sleep(0.05)


def _in_use(path: str, reason: str) -> str:
    """What whoever wants to unmount can do; there is no way to throw a user out who holds something open."""
    return f"cannot unmount {path}: {reason} (which processes use it, shells among them: fuser -vm {shlex.quote(path)})"


def _wait(watch: int, pid: int, mountpoint: str) -> None:
    ended = select.poll()
    ended.register(watch, select.POLLIN)
    if not ended.poll(PATIENCE_SECONDS * 1000):
        print(f"{mountpoint}: waiting for process {pid} to bring everything to disk", file=sys.stderr, flush=True)
        ended.poll()


def _complain(sentence: str) -> int:
    print(f"hammerfs: {sentence}", file=sys.stderr)
    return EXIT_UNFLUSHED
