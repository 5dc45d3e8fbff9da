"""The file systems that are compared: making, mounting, unmounting, and finding their servers.

Most of them live in image files of one size, some in folders that grow; all in one folder, so that they share a disk.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
BIN = PROJECT / ".venv" / "bin"
COMMAND_SECONDS_MAX = 300
UNMOUNT_TRIES_MAX = 40
UMOUNT = "umount {mnt}"
"""For all without a command of their own; then the server's end is waited for: it comes when everything is written."""


class BenchError(Exception):
    """Something that ends the measurement of one peer; its text is for the terminal."""


@dataclass(frozen=True)
class Kind:
    """Commands of one kind of file system, with {img}, {mnt} and {size} (bytes) to be filled in.

    programs -- what has to be installed
    make -- "" where empty folders are all that it takes
    has_server -- whether a process serves it, whose CPU time and memory can be told
    only_by_name -- takes part only when it is asked for
    counts -- the server tells how many requests it has answered
    keeps_history -- what was there before can be looked at
    stays -- the mount command is the server, and ends with the mount
    check -- verifies an unmounted image, "" where nothing does
    tidy -- commands that give space back on a mounted one
    recovers -- what was acknowledged is there again when the server was killed and the image is mounted again
    unmount -- its own command where there is one; that may need a server that answers
    folders -- it lives in {img}.NAME for each of these instead of in an image, and is as large as the disk lets it be
    """

    name: str
    programs: tuple[str, ...]
    make: str
    mount: str
    has_server: bool = True
    only_by_name: bool = False
    counts: bool = False
    keeps_history: bool = False
    stays: bool = False
    check: str = ""
    tidy: tuple[str, ...] = ()
    recovers: bool = False
    unmount: str = UMOUNT
    folders: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """The programs that are not there."""
        return [program for program in self.programs if shutil.which(program) is None and not Path(program).is_file()]


HAMMERFS = Kind(
    "hammerfs",
    (f"{BIN}/hammerfs", f"{BIN}/mkfs_hammer.py"),
    f"{BIN}/mkfs_hammer.py -f -L bench --size {{size}} {{img}}",
    f"{BIN}/hammerfs mount {{img}} {{mnt}}",
    counts=True,
    keeps_history=True,
    check=f"{BIN}/hammerfs check {{img}}",
    tidy=(f"{BIN}/hammer prune-everything {{mnt}}", f"{BIN}/hammer reblock {{mnt}}"),
    recovers=True,
)
HAMMERFS_PURE = replace(
    HAMMERFS, name="hammerfs-pure", mount=f"env HAMMERFS_PURE=1 {HAMMERFS.mount}", only_by_name=True
)
HAMMERFS_POWERSAVE = replace(
    HAMMERFS,
    name="hammerfs-powersave",
    mount=f"{BIN}/hammerfs mount -o powersave {{img}} {{mnt}}",
    only_by_name=True,
)
FUSE2FS = Kind(
    "fuse2fs",
    ("mkfs.ext4", "fuse2fs"),
    "mkfs.ext4 -q -F -E nodiscard {img}",
    "fuse2fs -o rw,fakeroot,allow_other {img} {mnt}",
    check="e2fsck -fn {img}",
)
NTFS_3G = Kind(
    "ntfs-3g",
    ("mkntfs", "ntfs-3g"),
    "mkntfs -q -F -f {img}",
    "ntfs-3g -o big_writes {img} {mnt}",
)
EXT4 = Kind(
    "ext4",
    ("mkfs.ext4", "mount"),
    "mkfs.ext4 -q -F -E nodiscard {img}",
    "mount -o loop {img} {mnt}",
    has_server=False,
)

EXAMPLE_VARIABLE = "PYFUSE3_EXAMPLE"
"""Names `passthroughfs.py`, which comes with pyfuse3's sources and not with what pip installs."""
_EXAMPLE = os.environ.get(EXAMPLE_VARIABLE, "passthroughfs.py")
PASSTHROUGH = Kind(
    "passthrough",
    (_EXAMPLE,),
    "",
    f"{BIN}/python {shlex.quote(_EXAMPLE)} {{img}}.source {{mnt}}",
    only_by_name=True,
    stays=True,
    folders=("source",),
)

S3QL_VARIABLE = "S3QL_BIN"
"""Names the folder of s3ql's programs, which may be that of a virtual environment; without it they are on PATH."""


def s3ql(folder: str) -> Kind:
    """s3ql with its defaults on a folder of the same disk; its programs are in `folder`, or on PATH if that is "".

    Its cache and its log, which would go to the user's home, go beside the images, and no file of the user's that may
    hold other settings is read. It stays in the foreground: to get into the background, version 6.3 forks while a
    thread may hold a lock of its event loop, which then nobody releases: of some fifty mounts two hung.
    """
    mkfs, mount, umount = programs = tuple(str(Path(folder, f"{name}.s3ql")) for name in ("mkfs", "mount", "umount"))
    settings = "--authfile /dev/null --cachedir {img}.cache"
    return Kind(
        "s3ql",
        # umount.s3ql asks fuser whether somebody is using the mount.
        (*programs, "fuser"),
        f"{shlex.quote(mkfs)} --plain {settings} local://{{img}}.backend",
        f"{shlex.quote(mount)} --fg --quiet {settings} --log {{img}}.cache/log local://{{img}}.backend {{mnt}}",
        only_by_name=True,
        stays=True,
        unmount=f"{shlex.quote(umount)} {{mnt}}",
        folders=("backend", "cache"),
    )


S3QL = s3ql(os.environ.get(S3QL_VARIABLE, ""))

KINDS = {
    kind.name: kind for kind in (HAMMERFS, HAMMERFS_PURE, HAMMERFS_POWERSAVE, FUSE2FS, NTFS_3G, EXT4, PASSTHROUGH, S3QL)
}
BASE = FUSE2FS.name
"""The peer that all others are compared with."""


def run(command: str) -> str:
    """Run a command and return what it said; BenchError with the end of that when it fails."""
    done = subprocess.run(
        shlex.split(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()[-400:]
        raise BenchError(f"{command}: exit status {done.returncode}: {said}")
    return done.stdout.decode(errors="replace")


def is_mounted(folder: Path) -> bool:
    """Whether something is mounted exactly there."""
    with open("/proc/self/mountinfo") as table:
        return any(line.split()[4] == str(folder) for line in table)


def is_alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids_with_argument(argument: str) -> list[int]:
    """Processes, other than this one and its parent, that have it as a whole argument."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal() or int(folder.name) in (os.getpid(), os.getppid()):
            continue
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(argument) in arguments:
            found.append(int(folder.name))
    return found


class Peer:
    """One image of one kind, or its folders, and its mount point, in a folder.

    server -- the pid of the process that serves the mount, None while there is none
    """

    def __init__(self, kind: Kind, folder: Path, image_bytes: int) -> None:
        self.kind = kind
        self.image = folder / f"{kind.name}.img"
        self.mountpoint = folder / f"{kind.name}.mnt"
        self._image_bytes = image_bytes
        self._folders = [folder / f"{self.image.name}.{name}" for name in kind.folders]
        self._beside = folder / f"{kind.name}.beside"
        self.server: int | None = None
        self._in_foreground: subprocess.Popen[bytes] | None = None

    def _command(self, text: str) -> str:
        image, mountpoint = shlex.quote(str(self.image)), shlex.quote(str(self.mountpoint))
        return text.format(img=image, mnt=mountpoint, size=self._image_bytes)

    def beside(self) -> Peer:
        """Another one of this kind and size, not made yet, which goes when this one is removed."""
        self._beside.mkdir(exist_ok=True)
        return Peer(self.kind, self._beside, self._image_bytes)

    def make(self) -> None:
        """A fresh file system in a sparse image, or in folders."""
        self.mountpoint.mkdir(exist_ok=True)
        self._delete()
        for folder in self._folders:
            folder.mkdir()
        if not self._folders:
            with open(self.image, "wb") as file:
                file.truncate(self._image_bytes)
        if self.kind.make:
            run(self._command(self.kind.make))

    def mount(self) -> None:
        """Mount and find the server."""
        if self.kind.stays:
            self._start_server()
        else:
            run(self._command(self.kind.mount))
        if not is_mounted(self.mountpoint):
            raise BenchError(f"{self.kind.name} is not mounted, although its mount command succeeded")
        if self.kind.has_server:
            pids = pids_with_argument(str(self.mountpoint))
            if len(pids) != 1:
                raise BenchError(f"{len(pids)} processes look like the server of {self.mountpoint}")
            self.server = pids[0]

    def _start_server(self) -> None:
        """Wait until a server that stays in the foreground has mounted and answers, or has ended."""
        server = self._in_foreground = subprocess.Popen(
            shlex.split(self._command(self.kind.mount)), stdin=subprocess.DEVNULL, start_new_session=True
        )
        while server.poll() is None and not is_mounted(self.mountpoint):
            time.sleep(0.01)
        # Until it answers it is still starting up, which is not to be counted as CPU time of what comes first.
        os.stat(self.mountpoint)

    def check(self) -> tuple[float, float]:
        """Verify the unmounted image; returns seconds and peak memory in MiB. BenchError when it is not sound."""
        began = time.monotonic()
        checker = subprocess.Popen(
            shlex.split(self._command(self.kind.check)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(checker.pid, 0)
        checker.returncode = os.waitstatus_to_exitcode(status)
        if checker.returncode:
            raise BenchError(f"{self.kind.check}: exit status {checker.returncode}")
        return time.monotonic() - began, usage.ru_maxrss / 1024

    def tidy(self) -> None:
        """Give space back, where that is not done at once."""
        for command in self.kind.tidy:
            run(self._command(command))

    def kill(self) -> None:
        """End the server at once, as a crash would, and clear the dead mount away."""
        assert self.server is not None
        os.kill(self.server, signal.SIGKILL)
        while is_alive(self.server):
            time.sleep(0.001)
        self._server_ended()
        run(self._command(f"{UMOUNT} -l"))

    def requests(self) -> int | None:
        """Requests that the server has answered since it was mounted, None where it does not tell."""
        if not self.kind.counts:
            return None
        told = run(f"{BIN}/hammer --json iostats 1 {shlex.quote(str(self.mountpoint))}")
        return int(json.loads(told)["counters"]["io"]["requests"])

    def moment(self) -> str:
        """Bring everything to disk, and tell what stands behind `@@` in a path that shows it; keeps_history only."""
        return run(f"{BIN}/hammer synctid {shlex.quote(str(self.mountpoint))}").strip()

    def umount(self, watch: Callable[[], None] = lambda: None) -> None:
        """Unmount and wait for the server's end; `watch` is called every few milliseconds meanwhile."""
        for tries_left in reversed(range(UNMOUNT_TRIES_MAX)):
            try:
                self._umount_once(watch)
                return
            except BenchError:
                # Whoever had a file open a moment ago may not be quite gone.
                if not tries_left or not is_mounted(self.mountpoint):
                    raise
                time.sleep(0.25)

    def _umount_once(self, watch: Callable[[], None]) -> None:
        command = self._command(self.kind.unmount)
        unmounting = subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + COMMAND_SECONDS_MAX
        while unmounting.poll() is None or (not unmounting.returncode and self._has_live_server()):
            if time.monotonic() > deadline:
                unmounting.kill()
                raise BenchError(f"{command}: no end after {COMMAND_SECONDS_MAX} s")
            watch()
            time.sleep(0.002)
        said, _ = unmounting.communicate()
        if unmounting.returncode:
            raise BenchError(f"{command}: {said.decode(errors='replace').strip()}")
        self._server_ended()

    def _has_live_server(self) -> bool:
        return self.server is not None and is_alive(self.server)

    def _server_ended(self) -> None:
        self.server = None
        if self._in_foreground is not None:
            # It is a child of this process, and stays a zombie until somebody asks.
            self._in_foreground.wait()
            self._in_foreground = None

    def remove(self) -> None:
        """Unmount if need be and delete the image, or the folders."""
        if self.kind.unmount != UMOUNT:
            self._give_up()
        elif is_mounted(self.mountpoint):
            self.server = next(iter(pids_with_argument(str(self.mountpoint))), None)
            self.umount()
        self._delete()
        if self.mountpoint.exists():
            self.mountpoint.rmdir()
        if self._beside.exists():
            self.beside().remove()
            self._beside.rmdir()

    def _give_up(self) -> None:
        """End at once whatever still works for the mount, also after an unmount that was given up; clear that away.

        To unmount in its own way would fail where its server has died, and could take minutes to store what goes away.
        """
        pids = pids_with_argument(str(self.mountpoint))
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(is_alive(pid) for pid in pids):
            time.sleep(0.001)
        self._server_ended()
        if is_mounted(self.mountpoint):
            run(self._command(f"{UMOUNT} -l"))

    def _delete(self) -> None:
        self.image.unlink(missing_ok=True)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
