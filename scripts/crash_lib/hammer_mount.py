"""A file system in an image file, used through the commands that a user has: made, mounted, unmounted, checked, killed.

Nothing here reaches into the package: whoever uses it sees what any program sees.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = os.environ.get("HAMMERFS_REAL_FULL") == "1"
"""Whether to test at full size; without it the tests are as large as some minutes allow."""

COMMAND_SECONDS_MAX = 900
DEATH_SECONDS_MAX = 30
SERVER_BYTES_MAX = (128 + 64) << 20
"""Memory of a server: the default of the mount option `cache`, and 64 MiB for everything else."""
SMALL_LOG = ("-f", "-u", "128M")
"""mkfs options: an UNDO FIFO that a test fills and wraps, which it would not do with one of half a gigabyte."""

Argument = str | bytes | Path


def run(*command: Argument, cwd: Path | None = None, env: dict[str, str] | None = None, accept: int = 0) -> str:
    """Run a program and return its output, both streams; the test fails when it exits otherwise than with `accept`."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=env,
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )
    output = done.stdout.decode(errors="backslashreplace")
    words = b" ".join(os.fsencode(word) for word in command).decode(errors="backslashreplace")
    assert done.returncode == accept, f"{words}: exit status {done.returncode}\n{output[-4000:]}"
    return output


def hammerfs(*arguments: Argument) -> str:
    """Run the hammerfs that belongs to the interpreter of this test run."""
    return run(Path(sys.executable).with_name("hammerfs"), *arguments)


class HammerMount:
    """One image and its mount point in a folder.

    path -- the mount point
    image -- the image file, sparse
    peak_bytes -- the most memory that a server which was unmounted here had in use
    """

    def __init__(self, folder: Path, *, size: str = "16G", mkfs: Sequence[str] = SMALL_LOG) -> None:
        self.path = folder / "mnt"
        self.image = folder / "hammer.img"
        self.path.mkdir()
        mkfs_hammer = Path(sys.executable).with_name("mkfs_hammer.py")
        run(mkfs_hammer, "-L", "real", *mkfs, "--size", size, self.image)
        self._options: Sequence[str] = ()
        self.peak_bytes = 0

    def mount(self, *options: str) -> float:
        """Mount; returns the seconds that the command took."""
        self._options = options
        began = time.monotonic()
        hammerfs("mount", *(("-o", ",".join(options)) if options else ()), self.image, self.path)
        seconds = time.monotonic() - began
        assert self.is_mounted
        return seconds

    @property
    def is_mounted(self) -> bool:
        """Whether the kernel has a mount there, be its server alive or not."""
        with open("/proc/self/mountinfo") as table:
            return any(line.split()[4] == str(self.path) for line in table)

    def umount(self) -> None:
        """Unmount as a user should."""
        status = Path(f"/proc/{self.server()}/status").read_text()
        self.peak_bytes = max(self.peak_bytes, int(status.partition("VmHWM:")[2].split()[0]) * 1024)
        hammerfs("umount", self.path)
        assert not self.is_mounted

    def check(self) -> None:
        """Fail the test unless `hammerfs check` finds the unmounted image clean."""
        hammerfs("check", self.image)

    def remount(self) -> None:
        """Unmount, check, mount again with the same options."""
        self.umount()
        self.check()
        self.mount(*self._options)

    def server(self) -> int:
        """The pid of the process that serves the mount."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(self.path) in arguments and b"mount" in arguments:
                found.append(int(folder.name))
        assert len(found) == 1, f"servers of {self.path}: {found}"
        return found[0]

    def kill(self) -> None:
        """End the server by SIGKILL; the mount stays, dead, until `take_away`."""
        server = os.pidfd_open(self.server())
        signal.pidfd_send_signal(server, signal.SIGKILL)
        ended, _, _ = select.select([server], [], [], DEATH_SECONDS_MAX)
        os.close(server)
        assert ended, "the server outlived SIGKILL"

    def take_away(self) -> None:
        """Remove a dead mount, once nobody uses it; earlier, programs would write below the mount point.

        What the server had written is put on this machine's disk, lest the next mount's first barrier take the time.
        """
        self.detach()
        run("sync", "--data", self.image)

    def detach(self) -> None:
        """Have the kernel let go of the mount, once nobody uses it.

        A command that is about all mounts, as `hammer info` without arguments, holds each of them for a moment.
        """
        deadline = time.monotonic() + DEATH_SECONDS_MAX
        while subprocess.run(["fusermount3", "-u", self.path], stderr=subprocess.DEVNULL, check=False).returncode:
            assert time.monotonic() < deadline, f"somebody still uses {self.path}"
            time.sleep(0.1)
        assert not self.is_mounted

    def remove(self) -> None:
        """Leave nothing behind, whatever state a failed test has left things in."""
        if self.is_mounted:
            subprocess.run([Path(sys.executable).with_name("hammerfs"), "umount", self.path], check=False, timeout=120)
        if self.is_mounted:
            subprocess.run(["fusermount3", "-u", "-z", self.path], check=False)
        self.image.unlink(missing_ok=True)


@contextmanager
def several(folder: Path, **defaults: Any) -> Iterator[Callable[..., HammerMount]]:
    """A function that makes a file system below `folder`, with arguments of HammerMount beside the `defaults`.

    At the end each is unmounted, if it still is mounted, checked, its servers must have kept to their memory, and it is
    removed in any case.
    """
    made: list[HammerMount] = []

    def make(**options: Any) -> HammerMount:
        own = folder / f"fs{len(made)}"
        own.mkdir()
        made.append(HammerMount(own, **{**defaults, **options}))
        return made[-1]

    try:
        yield make
        for mount in made:
            if mount.is_mounted:
                mount.umount()
            mount.check()
            assert mount.peak_bytes <= SERVER_BYTES_MAX
    finally:
        for mount in made:
            mount.remove()
