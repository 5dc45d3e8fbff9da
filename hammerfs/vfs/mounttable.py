"""What is mounted where, from /proc/self/mountinfo (proc_pid_mountinfo(5)), and what a path depends on by that."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILESYSTEM_KIND: Final = "fuse.hammer"
"""How the kernel lists our mounts: a FUSE file system of subtype hammer."""

_TABLE: Final = "/proc/self/mountinfo"
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
_OWNER: Final = re.compile(r"\buser_id=(\d+)")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the table.

    device -- "major:minor" of the file system, the same for all places where it is mounted
    path -- where it is mounted, absolute and without symbolic links
    kind -- file system type
    source -- what is mounted: for ours the root volume
    owner -- uid of the user whose server answers, for FUSE; otherwise 0
    """

    device: str
    path: str
    kind: str
    source: str
    owner: int


def mounts() -> list[Mount]:
    """Everything mounted in this mount namespace, in the order it was mounted."""
    with open(_TABLE, "rb") as table:
        return [_parse(line) for line in table]


def mount_at(path: str) -> Mount | None:
    """The file system mounted exactly at `path`, absolute and free of symbolic links; the topmost of several.

    Asks no file system anything, so that a server may ask for its own mount.
    """
    return next((mount for mount in reversed(mounts()) if mount.path == path), None)


def devices_under(path: str) -> set[str]:
    """All that a file or a block device depends on, as far as it can be told: file systems and devices, "major:minor".

    Follows what is mounted, loop devices, partitions, and devices made of others.  OSError when there is nothing.
    """
    table = mounts()
    found: set[str] = set()
    below = [_device(path)]
    while below:
        device = below.pop()
        if device in found:
            continue
        found.add(device)
        sources = [mount.source for mount in table if mount.device == device and mount.source.startswith("/")]
        sysfs = Path("/sys/dev/block", device)
        for folder in (sysfs, sysfs / ".."):
            with suppress(OSError):
                sources.append(os.fsdecode((folder / "loop/backing_file").read_bytes()).rstrip("\n"))
        for source in sources:
            with suppress(OSError):
                below.append(_device(source))
        below += [slave.read_text().strip() for slave in sysfs.glob("slaves/*/dev")]
    return found


def _device(path: str) -> str:
    status = os.stat(path)
    number = status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def _parse(line: bytes) -> Mount:
    before, _, after = line.rstrip(b"\n").partition(b" - ")
    fields = before.split(b" ")
    kind, source, options = after.split(b" ")[:3]
    owner = _OWNER.search(options.decode("ascii", "replace"))
    return Mount(
        device=fields[2].decode("ascii"),
        path=_unescape(fields[4]),
        kind=_unescape(kind),
        source=_unescape(source),
        owner=int(owner.group(1)) if owner else 0,
    )


def _unescape(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match.group(1), 8)]), field))
