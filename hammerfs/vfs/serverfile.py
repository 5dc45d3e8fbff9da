"""The note that a server leaves while it serves a mount: where it can be reached, and for whose end `umount` waits.

umount(2) returns when the kernel has let go of the mount; the server flushes after that.  The note tells which process
to wait for.  It is called after the mount's device number and lies where only the server's user may write:
/run/hammerfs for root, /run/user/UID/hammerfs or /tmp/hammerfs-UID for others.

A server that ends well removes its note; one that could not bring everything to disk writes the reason into it, and
one that was killed leaves it as it is.  Process numbers are used again, so the note holds the process's start time too.
Device numbers are used again as soon as a mount is gone, while its server may still be flushing: the note under that
number may then be another server's, which nobody else may change.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from hammerfs.errors import UsageError


@dataclass(frozen=True, slots=True)
class ServerNote:
    """Who serves a mount.

    pid, start_ticks -- the process and when it started, in clock ticks since boot
    failure -- why not everything reached the disk, None while nothing is wrong
    control -- path of its control socket, None when it has none
    """

    pid: int
    start_ticks: int
    failure: str | None = None
    control: str | None = None

    @classmethod
    def of_this_process(cls, failure: str | None = None, control: str | None = None) -> ServerNote:
        return cls(os.getpid(), _start_ticks(os.getpid()) or 0, failure, control)

    @property
    def alive(self) -> bool:
        """Whether that very process still runs."""
        return _start_ticks(self.pid) == self.start_ticks

    def same_server(self, other: ServerNote) -> bool:
        """Whether both notes are of one process."""
        return (self.pid, self.start_ticks) == (other.pid, other.start_ticks)


def runtime_folder(uid: int) -> Path:
    """Where the servers of a user keep notes and sockets."""
    if uid == 0:
        return Path("/run/hammerfs")
    if (runtime := Path(f"/run/user/{uid}")).is_dir():
        return runtime / "hammerfs"
    return Path(f"/tmp/hammerfs-{uid}")


def own_folder(folder: Path) -> None:
    """Make a folder for notes and sockets if need be; UsageError when it belongs to somebody else."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise UsageError(f"{folder} does not belong to the user who mounts")


def note_path(device: str, uid: int) -> Path:
    """Where the server of a mount keeps its note; `device` is "major:minor" of the mounted file system."""
    return runtime_folder(uid) / device.replace(":", "-")


def write_note(path: Path | None, note: ServerNote) -> None:
    """Leave a note, whole or not at all; UsageError when its folder belongs to somebody else."""
    if path is None:
        return
    own_folder(path.parent)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(asdict(note)), encoding="utf-8")
    unfinished.replace(path)


def read_note(path: Path, uid: int) -> ServerNote | None:
    """The note of a server run by `uid`, None when there is none that can be trusted."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != uid:
                return None
            fields = json.load(file)
        return ServerNote(int(fields["pid"]), int(fields["start_ticks"]), fields["failure"], fields.get("control"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def end_note(path: Path | None, failure: str | None) -> None:
    """This process, which served the mount, ends: all is on disk, or why not.  Leaves another server's note alone."""
    if path is None:
        return
    own = ServerNote.of_this_process(failure)
    present = read_note(path, os.geteuid())
    if present is not None and not present.same_server(own) and present.alive:
        return
    if failure is not None:
        write_note(path, own)
        return
    with contextlib.suppress(OSError):
        path.unlink()


def _start_ticks(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    # Field 22 of proc_pid_stat(5); the first one after the command's name is field 3.
    return None if fields[0] == b"Z" else int(fields[19])
