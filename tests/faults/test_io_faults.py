"""Each I/O of a workload fails in turn: errors, never wrong data, never a hang, and nothing promised is lost.

What is held after each run is said in `faulty_run`: every step either happened or did not, reads are right or fail,
after a failed write or barrier nothing more reaches any device, one line is logged, and the next mount finds a whole
state that contains what was acknowledged (INV-6, INV-11).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import pytest
import trio.testing
from faulty_run import Fault, FsyncRun, RedoRun, Run, SyncRun, runs_with_each_fault
from flusher_control import gated, running, until
from small_filesystem import fresh, make, mount

from hammerfs.device.faulty import FaultyDevice
from hammerfs.device.recording import BarrierEnd, RecordingDevice, RecordingLog, Write
from hammerfs.errors import FlushFailedError, ReadOnlyError

FAULTS = {
    "read": Fault("read"),
    "all reads": Fault("read", lasting=True),
    "write": Fault("write"),
    "write, not latched": Fault("write", latched=False),
    "short write": Fault("write", errno.ENOSPC, short=True),
    "barrier": Fault("barrier"),
    "barrier, not latched": Fault("barrier", latched=False),
    "device gone": Fault("any", errno.ENXIO, lasting=True),
}


FAULTS_OF_FSYNC = ["all reads", "write, not latched", "barrier, not latched", "device gone"]
"""Where the way through the flusher matters; the others are the same below it."""
SEEDS = range(5, 5 + int(os.environ.get("HAMMERFS_FAULT_SEEDS", "1")))
"""One workload each; more of them for those who have the time."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", FAULTS)
def test_each_io_fails_while_everything_is_flushed(name: str, seed: int) -> None:
    judge_all(name, runs_with_each_fault(SyncRun, FAULTS[name], seed=seed, steps=20))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", FAULTS_OF_FSYNC[:3])
def test_each_io_fails_while_single_files_are_fsynced(name: str, seed: int) -> None:
    judge_all(name, runs_with_each_fault(FsyncRun, FAULTS[name], seed=seed + 3, steps=30))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", FAULTS_OF_FSYNC[1:])
def test_each_io_fails_while_files_are_fsynced_by_redo(name: str, seed: int) -> None:
    judge_all(name, runs_with_each_fault(RedoRun, FAULTS[name], seed=seed, steps=20))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", FAULTS)
def test_each_io_of_either_volume_fails_while_everything_is_flushed(name: str, seed: int) -> None:
    both = [
        runs_with_each_fault(SyncRun, replace(FAULTS[name], volume=volume), count=2, seed=seed, steps=12)
        for volume in (0, 1)
    ]
    # What lies on the first, and is not in memory, may be read by the flusher alone.
    for runs in [[*both[0], *both[1]]] if FAULTS[name].action == "read" else both:
        judge_all(name, runs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("volume", [0, 1])
@pytest.mark.parametrize("name", FAULTS_OF_FSYNC[1:])
def test_each_io_of_either_volume_fails_while_files_are_fsynced_by_redo(name: str, volume: int, seed: int) -> None:
    fault = replace(FAULTS[name], volume=volume)
    judge_all(name, runs_with_each_fault(RedoRun, fault, count=2, seed=seed, steps=12))


def test_a_barrier_that_ended_on_the_first_volume_and_failed_on_the_second_counts_for_nothing() -> None:
    """INV-11: what is held of every run is held of those, in which half of a barrier was done."""
    runs = runs_with_each_fault(SyncRun, replace(FAULTS["barrier"], volume=1), count=2, seed=5, steps=12)
    half_done = [run for run in runs if isinstance(run.last_before_fault, BarrierEnd)]
    assert half_done
    for run in half_done:
        assert run.twin is not None
        with pytest.raises(ReadOnlyError):
            run.twin.fs.write(run.twin.inode(run.twin.files()[0]), 0, b"more")


def judge_all(name: str, runs: Sequence[Run]) -> None:
    """The runs together show that the faults were felt, and that an error of reading is the reader's only."""
    mounted = [run.twin for run in runs if run.twin is not None]
    failed = [twin.fs.failure is not None for twin in mounted]
    if FAULTS[name].action == "read":
        assert len(mounted) < len(runs), "what the mount itself could not read"
        assert False in failed
    else:
        assert True in failed


@pytest.mark.trio
@pytest.mark.expect_log("read-only from now on, nothing more is written: .* cannot write")
@pytest.mark.parametrize("behind", [False, True])
async def test_a_write_that_fails_in_the_front_end_stops_a_cycle_that_is_being_written(behind: bool) -> None:
    """INV-11: the cycle stands at its first barrier, and none of its meta-data may follow.

    Nor any other data: the thread that writes `behind` begins no more writes.
    """
    devices = fresh()
    log = RecordingLog()
    faulty = FaultyDevice(RecordingDevice(devices[0], log), "write", 0, errno.EIO, latched=False)
    with gated() as gate:
        fs = mount([faulty])
        inode = make(fs, fs.root, b"f", b"x")
        async with running(fs) as flusher:
            gate.close()
            flusher.async_(flusher.queue(None))
            await gate.until_waiting()
            faulty.nth = faulty.counts["write"] + 1
            written = len(log.entries)
            if behind:
                fs.write(inode, 0, bytes(2 << 20))
                with trio.fail_after(60):
                    while flusher.failure is None:
                        await trio.sleep(0.001)
            else:
                fs.ctx.blocks.behind = None
                with pytest.raises(FlushFailedError) as caught:
                    fs.write(inode, 0, bytes(8 << 20))
                assert caught.value.errno == errno.EIO
            with pytest.raises(ReadOnlyError):
                fs.write(inode, 0, b"more")
            gate.open()
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(FlushFailedError):
                await fs.sync()
    assert not any(isinstance(entry, Write) for entry in log.entries[written:])


@pytest.mark.trio
@pytest.mark.expect_log("read-only from now on, nothing more is written: .* cannot write")
async def test_an_fsync_that_fails_while_the_flusher_waits_for_its_lock_stops_it() -> None:
    """INV-11: what looked at the failure before it waited has to look again."""
    log = RecordingLog()
    faulty = FaultyDevice(RecordingDevice(fresh()[0], log), "write", 0, errno.EIO, latched=False)
    with gated():
        fs = mount([faulty])
        inode, other = make(fs, fs.root, b"f", b"x"), make(fs, fs.root, b"g", b"x")
        async with running(fs) as flusher:
            await fs.fsync(inode)
            with mock.patch("hammerfs.fs.filedata._LAY_DOWN_BLOCKS", 1):
                fs.write(other, 0, bytes(4 * 16384))
            await flusher._finalize_lock.acquire()
            flusher.async_()
            await until(lambda: bool(flusher._finalize_lock.statistics().tasks_waiting))
            fs.write(inode, 0, b"to be laid")
            faulty.nth = faulty.counts["write"] + 1
            with pytest.raises(FlushFailedError):
                await fs.fsync(inode)
            written = len(log.entries)
            flusher._finalize_lock.release()
            await trio.testing.wait_all_tasks_blocked()
    assert len(log.entries) == written


# --- faults of a recovery -----------------------------------------------------------------------
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", FAULTS)
def test_each_io_of_a_recovery_and_of_what_follows_fails(name: str, seed: int) -> None:
    """UNDO and REDO wait in the FIFO; whatever comes of this mount, the next one finds all that was fsynced."""
    judge_recoveries(name, runs_with_each_fault(RedoRun, FAULTS[name], seed=seed, steps=6, after_crash=True))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("volume", [0, 1])
@pytest.mark.parametrize("name", FAULTS_OF_FSYNC[1:])
def test_each_io_of_a_recovery_of_either_volume_fails(name: str, volume: int, seed: int) -> None:
    fault = replace(FAULTS[name], volume=volume)
    judge_recoveries(name, runs_with_each_fault(RedoRun, fault, count=2, seed=seed, steps=8, after_crash=True))


def judge_recoveries(name: str, runs: Sequence[Run]) -> None:
    """Some recoveries failed, and some mounts that came behind one that did not."""
    judge_all(name, runs)
    assert 2 < sum(run.twin is None for run in runs) < len(runs)
