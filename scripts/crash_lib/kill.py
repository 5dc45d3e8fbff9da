"""Real power cuts of real mounts: the server killed under load, and its device losing what was not flushed.

Every other round the server is killed by SIGKILL, which takes away what it held in memory.  In the rounds between, its
image lies on a file that keeps unflushed writes to itself (`losing_file.py`); that one dies first and takes them along.
After each the image is checked and mounted again, and holds whatever a writer's ledger says was fsynced.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from crash_lib import ledger_writer
from crash_lib.hammer_mount import HammerMount
from crash_lib.load import START_SECONDS_MAX, Load

KILLS_PER_FILE_SYSTEM = 10
LOAD_SECONDS_MAX = 2.0
SCRIPTS = Path(__file__).resolve().parent.parent


def kill_many(count: int, seed: int, say: Callable[[str], None], work: Path | None = None) -> int:
    """Kill `count` times; returns how many of them lost something that was acknowledged."""
    choose = random.Random(seed)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="crashtest-", dir=work) as name:
        for number in range(0, count, KILLS_PER_FILE_SYSTEM):
            folder = Path(name) / f"{number}"
            folder.mkdir()
            rounds = min(KILLS_PER_FILE_SYSTEM, count - number)
            for text in _one_file_system(folder, rounds, f"{seed} {number}", choose):
                failed += 1
                say(f"FAILED in a file system of seed {seed}, kills from {number} on: {text}")
            say(f"crashtest: {number + rounds} of {count} kills, {failed} failures")
    return failed


def _one_file_system(folder: Path, rounds: int, seed: str, choose: random.Random) -> Iterator[str]:
    """Kill a file system's server several times; complaints."""
    hammer = HammerMount(folder)
    backing = hammer.image
    written: list[tuple[Path, Path]] = []
    try:
        for number in range(rounds):
            top, ledger = hammer.path / f"round-{number}", folder / f"ledger-{number}"
            written.append((top, ledger))
            load_seconds = choose.uniform(0, LOAD_SECONDS_MAX)
            if number % 2:
                with losing(backing, folder, f"{seed} {number}") as (image, device):
                    hammer.image = image
                    hammer.mount()
                    _die(hammer, Load(top, ledger, f"{seed} {number}"), load_seconds, device)
                hammer.image = backing
            else:
                hammer.mount()
                _die(hammer, Load(top, ledger, f"{seed} {number}"), load_seconds, None)
            hammer.take_away()
            hammer.check()
            hammer.mount()
            for lost, noted in written:
                for text in ledger_writer.complaints(lost, ledger_writer.read_ledger(noted)):
                    yield f"kill {number}: {lost.name}: {text}"
            hammer.umount()
        hammer.check()
    finally:
        hammer.image = backing
        hammer.remove()


def _die(hammer: HammerMount, load: Load, seconds: float, device: subprocess.Popen[bytes] | None) -> None:
    with load:
        load.wait_for_first_fsync()
        load.run_for(seconds)
        if device is not None:
            device.send_signal(signal.SIGUSR1)
            device.wait(START_SECONDS_MAX)
        hammer.kill()
        load.end(device_died=device is not None)


@contextmanager
def losing(backing: Path, folder: Path, seed: str) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """The backing file's contents as a file that loses what was not flushed, and the process that serves it."""
    mountpoint = folder / "device"
    mountpoint.mkdir(exist_ok=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "crash_lib.losing_file", backing, mountpoint, seed],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])},
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"ready\n", "the losing file did not start"
        yield mountpoint / "image", server
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
        subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=False)
