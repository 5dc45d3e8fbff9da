"""A running ledger writer: load on a mount that is about to die."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from crash_lib import ledger_writer

START_SECONDS_MAX = 30
POLL_SECONDS = 0.01
DEAD_MOUNT_ERRORS = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}
"""What system calls get when the server dies: those that follow, those under way, those that need a page of a file."""
DEAD_DEVICE_ERRORS = {*DEAD_MOUNT_ERRORS, errno.EROFS}
"""The same when its device dies first: the mount turns read-only."""


class Load:
    """A running ledger writer, ended with all of its processes when the context is left."""

    def __init__(self, folder: Path, ledger: Path, seed: str) -> None:
        ledger.touch()
        self.ledger = ledger
        self._process = subprocess.Popen(
            [sys.executable, ledger_writer.__file__, folder, ledger, seed],
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def wait_for_first_fsync(self) -> None:
        """Return when the ledger has a line."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.ledger.stat().st_size:
            assert time.monotonic() < deadline, "nothing was fsynced"
            self.run_for(POLL_SECONDS)

    def run_for(self, seconds: float) -> None:
        """Let it write."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
            raise AssertionError("the writer ended early")

    def end(self, *, device_died: bool = False) -> None:
        """Wait for the end, which follows that of the mount or of its device; nothing else may have ended it."""
        _, said = self._process.communicate(timeout=START_SECONDS_MAX)
        lines = [line for line in said.splitlines() if not (device_died and line == ledger_writer.LIVE_MOUNT)]
        assert device_died or self._process.returncode == 0, said.decode()
        reasons = {int(line.split()[0]) for line in lines}
        assert reasons <= (DEAD_DEVICE_ERRORS if device_died else DEAD_MOUNT_ERRORS), said.decode()
