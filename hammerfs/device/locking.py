"""Locks on volumes: one writer or many readers, and the name of whoever is in the way.

flock(2) locks belong to the open file, so they also keep two openings within one process apart, and they go away with
the process, however it ends.  /proc/locks tells the holder's pid; a lock taken before a fork is listed under the pid
of a parent that may be gone, in which case whoever has the file open is named instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from hammerfs.errors import BusyError


def lock(fd: int, name: str, *, exclusive: bool) -> None:
    """Take the lock without waiting; BusyError names the process that holds it."""
    operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(busy_message(fd, name)) from None


def busy_message(fd: int, name: str) -> str:
    """One sentence that says who uses the file behind `fd`."""
    pids = lock_holders(fd)
    if os.getpid() in pids:
        return f"{name} is already open in this process; was it given twice?"
    if not pids:
        return f"{name} is in use by another process"
    users = " and ".join(f"process {pid}{_command(pid)}" for pid in pids)
    return f"{name} is in use by {users}"


def lock_holders(fd: int) -> list[int]:
    """Pids of the processes that hold a flock on the file behind `fd`, as far as /proc tells."""
    status = os.fstat(fd)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    listed: list[int] = []
    try:
        with open("/proc/locks", encoding="ascii") as table:
            lines = table.read().splitlines()
    except OSError:
        return []
    for line in lines:
        fields = line.split()
        if len(fields) < 6 or fields[1] != "FLOCK" or not fields[4].isdigit():
            continue  # another kind of lock, or one that is waited for ("->")
        place, _, inode = fields[5].rpartition(":")
        # Stacked file systems list another device number than stat does; then the open file decides.
        pid = int(fields[4])
        if inode == str(status.st_ino) and (place == device or _has_open(pid, status)):
            listed.append(pid)
    alive = [pid for pid in dict.fromkeys(listed) if os.path.exists(f"/proc/{pid}")]
    return alive or _openers(status)


def _openers(status: os.stat_result) -> list[int]:
    own = os.getpid()
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [pid for pid in pids if pid != own and _has_open(pid, status)]


def _has_open(pid: int, status: os.stat_result) -> bool:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(f"/proc/{pid}/fd/{descriptor}"), status):
                return True
    return False


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return f" ({comm.read().strip()})"
    except OSError:
        return ""
