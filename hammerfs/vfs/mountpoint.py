"""The directory to mount on: whether it will do, and how to let go of it.

Every refusal is one sentence that says what is in the way and, where one command helps, which.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from functools import partial
from typing import Final

import trio

from hammerfs.errors import BusyError, HammerError, UsageError
from hammerfs.vfs.mounttable import mount_at
from hammerfs.vfs.readiness import refuse_dead_mount

log = logging.getLogger(__name__)

_FUSE_DEVICE: Final = "/dev/fuse"
_PROGRAM_FOLDERS: Final = "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin"
"""Where programs are looked for.  Not in $PATH: that may lead into the very file system that is served here."""


def check_fuse() -> None:
    """UsageError when this user cannot mount FUSE file systems on this machine."""
    try:
        os.close(os.open(_FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise UsageError(f"there is no {_FUSE_DEVICE}; 'modprobe fuse' as root may provide it") from None
    except OSError as error:
        raise UsageError(f"cannot open {_FUSE_DEVICE}: {error.strerror}") from None
    program("fusermount3")


def program(name: str) -> str:
    """Path of a program; UsageError when it is not installed."""
    path = shutil.which(name, path=_PROGRAM_FOLDERS)
    if path is None:
        raise UsageError(f"the program {name} is missing (fusermount3 is in the package fuse3)")
    return path


def prepare_mountpoint(path: str) -> str:
    """`path` as everything else here wants it, absolute and without symbolic links.

    UsageError unless it is an empty directory that the user may mount on, BusyError when something is mounted there.
    """
    if not path:
        raise UsageError("the name of the mount point is empty")  # it would stand for the working directory
    refuse_dead_mount(path)
    place = os.path.realpath(path)
    mounted = mount_at(place)
    if mounted is not None:
        raise BusyError(f"{mounted.source} ({mounted.kind}) is mounted on {path} already")
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        raise UsageError(f"mount point {path} does not exist") from None
    except NotADirectoryError:
        raise UsageError(f"mount point {path} is not a directory") from None
    except OSError as error:
        raise UsageError(f"cannot use mount point {path}: {error.strerror}") from None
    if names:
        raise UsageError(f"mount point {path} is not empty")
    if not os.access(place, os.W_OK):
        raise UsageError(f"mount point {path} is not writable for you, and mounting takes that")
    return place


async def unmount(mountpoint: str) -> None:
    """Unmount from inside the server, which goes on answering meanwhile: the kernel writes its dirty pages first.

    When programs still use the file system, what they wrote so far is written back and the mount point is freed; the
    server stays for them, and `pyfuse3.main` returns when the last one has let go.  Raises HammerError when even that
    fails.
    """
    refusal = await _complaint_of("fusermount3", "-u", "--", mountpoint)
    if refusal is None or mount_at(mountpoint) is None:
        return
    log.warning("%s: still in use (%s); it leaves the tree now, and the server with its last user", mountpoint, refusal)
    refusal = await _complaint_of("sync", "--file-system", "--", mountpoint)
    if refusal is not None:
        log.warning("%s: writing back what the kernel caches failed: %s", mountpoint, refusal)
    refusal = await _complaint_of("fusermount3", "-uz", "--", mountpoint)
    if refusal is not None and mount_at(mountpoint) is not None:
        raise HammerError(f"cannot unmount {mountpoint}: {refusal}")


async def _complaint_of(name: str, *arguments: str) -> str | None:
    """Run a program beside the event loop; None when it did well, else what it said.

    Cancelled, it leaves the program to itself: that may wait for answers which only come when the session is closed.
    """
    command = partial(
        subprocess.run,
        [program(name), *arguments],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    done = await trio.to_thread.run_sync(command, abandon_on_cancel=True)
    return None if done.returncode == 0 else complaint(done)


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What a program that failed said, without its name and the path it was given."""
    words = done.stderr.strip().rpartition(": ")[2]
    return words or f"{os.path.basename(str(done.args[0]))} returned {done.returncode}"
