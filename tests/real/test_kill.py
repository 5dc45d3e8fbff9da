"""SIGKILL to the server at random instants under load: what was fsynced stays, and mounting again is quick."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from crash_lib import ledger_writer
from crash_lib.kill import kill_many
from crash_lib.load import Load
from hammer_mount import FULL, HammerMount

pytestmark = [pytest.mark.real, pytest.mark.mount, pytest.mark.slow]

FILE_SYSTEMS = 5 if FULL else 1
KILLS = 10 if FULL else 8
LOAD_SECONDS_MAX = 4.0 if FULL else 2.0
MOUNT_SECONDS_MAX = 2.0


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


def test_a_device_that_loses_what_was_not_flushed_takes_nothing_that_was_fsynced(tmp_path: Path) -> None:
    """Two deaths: of the server, then of the device below it, with all that no barrier had covered."""
    said: list[str] = []
    assert not kill_many(2, random.randrange(1 << 32), said.append, tmp_path), "\n".join(said)
