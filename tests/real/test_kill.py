"""SIGKILL to the server at random instants under load: what was fsynced stays, and mounting again is quick."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import ledger_writer
import pytest
from hammer_mount import FULL, HammerMount

pytestmark = [pytest.mark.real, pytest.mark.mount, pytest.mark.slow]

FILE_SYSTEMS = 5 if FULL else 1
KILLS = 10 if FULL else 8
LOAD_SECONDS_MAX = 4.0 if FULL else 2.0
MOUNT_SECONDS_MAX = 2.0
START_SECONDS_MAX = 30
POLL_SECONDS = 0.01
DEAD_MOUNT_ERRORS = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}
"""What system calls get when the server dies: those that follow, those under way, those that need a page of a file."""


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
            with pytest.raises(subprocess.TimeoutExpired):
                self._process.wait(POLL_SECONDS)

    def run_for(self, seconds: float) -> None:
        """Let it write."""
        with pytest.raises(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def end(self) -> None:
        """Wait for the end, which follows that of the mount; nothing else may have ended it."""
        _, said = self._process.communicate(timeout=START_SECONDS_MAX)
        assert self._process.returncode == 0
        reasons = {int(line.split()[0]) for line in said.splitlines()}
        assert reasons <= DEAD_MOUNT_ERRORS, said.decode()


@pytest.mark.parametrize("file_system", range(FILE_SYSTEMS))
def test_sigkill_loses_nothing_that_was_fsynced(hammer: HammerMount, tmp_path: Path, file_system: int) -> None:
    seed = os.environ.get("HAMMERFS_REAL_SEED") or f"{random.randrange(1 << 32)}"
    print(f"file system {file_system}, HAMMERFS_REAL_SEED={seed}")
    choose = random.Random(f"{seed} {file_system}")
    rounds: list[tuple[Path, Path]] = []
    for number in range(KILLS):
        folder, ledger = hammer.path / f"round-{number}", tmp_path / f"ledger-{number}"
        rounds.append((folder, ledger))
        with Load(folder, ledger, f"{seed} {file_system} {number}") as load:
            load.wait_for_first_fsync()
            load.run_for(choose.uniform(0, LOAD_SECONDS_MAX))
            hammer.kill()
            load.end()
        hammer.take_away()
        hammer.check()
        seconds = hammer.mount()
        complaints = [
            f"kill {number}: {folder.name}: {text}"
            for folder, ledger in rounds
            for text in ledger_writer.complaints(folder, ledger_writer.read_ledger(ledger))
        ]
        assert not complaints, "\n".join(complaints)
        assert seconds < MOUNT_SECONDS_MAX, f"kill {number}: mounting again took {seconds:.1f} s"
    hammer.remount()
    for folder, ledger in rounds:
        assert not list(ledger_writer.complaints(folder, ledger_writer.read_ledger(ledger)))
