"""The devices that tests are built on: faults on demand, and the images that a power cut can leave."""

from __future__ import annotations

import errno
from typing import Literal

import pytest

from hammerfs.device.faulty import FaultyDevice
from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import RecordingDevice, RecordingLog, Write, drop_all, keep_all
from hammerfs.errors import DeviceError

SECTOR = 512


def test_the_nth_read_fails_and_the_next_succeeds() -> None:
    device = FaultyDevice(MemoryDevice(4096), "read", 2, errno.EIO)
    assert device.read(0, 1) == b"\0"
    with pytest.raises(DeviceError, match="Input/output error"):
        device.read(0, 1)
    assert device.read(0, 1) == b"\0"
    assert device.counts == {"read": 3, "write": 0, "barrier": 0}


def test_a_lasting_read_fault_stays() -> None:
    device = FaultyDevice(MemoryDevice(4096), "read", 1, errno.EIO, lasting=True)
    for _ in range(3):
        with pytest.raises(DeviceError):
            device.read(0, 1)


@pytest.mark.parametrize("action", ["write", "barrier"])
def test_a_failed_write_or_barrier_refuses_all_that_follow(action: Literal["write", "barrier"]) -> None:
    lower = MemoryDevice(4096)
    device = FaultyDevice(lower, action, 2, errno.EIO)
    device.write(0, b"a")
    device.barrier()
    with pytest.raises(DeviceError):  # noqa: PT012 -- which of the two fails is the parameter
        device.write(1, b"b")
        device.barrier()
    for _ in range(2):
        with pytest.raises(DeviceError, match="an earlier"):
            device.write(2, b"c")
        with pytest.raises(DeviceError, match="an earlier"):
            device.barrier()
    assert lower.read(2, 1) == b"\0"


def test_a_short_write_leaves_its_first_half() -> None:
    lower = MemoryDevice(8192)
    device = FaultyDevice(lower, "write", 1, errno.ENOSPC, short=True)
    with pytest.raises(DeviceError, match="No space"):
        device.write_vector(0, [b"x" * 1024, b"y" * 1024])
    assert lower.read(0, 2048) == b"x" * 1024 + bytes(1024)


def recorded() -> tuple[RecordingDevice, RecordingLog]:
    device = RecordingDevice(MemoryDevice(8 * SECTOR, b"0" * 8 * SECTOR))
    return device, device.log


def test_a_write_is_certain_only_after_a_barrier_that_began_later() -> None:
    device, log = recorded()
    device.write(0, b"a")
    device.barrier()
    device.write(1, b"b")
    assert [write.data for write in log.uncertain(1)] == [b"a"]
    assert [write.data for write in log.uncertain(2)] == [b"a"], "the barrier has begun, but not returned"
    assert log.uncertain(3) == []
    assert [write.data for write in log.uncertain(4)] == [b"b"]
    assert log.power_cut(4, drop_all)[0].read(0, 2) == b"a0"
    assert log.power_cut(4, keep_all)[0].read(0, 2) == b"ab"
    assert log.power_cut(0, keep_all)[0].read(0, 2) == b"00", "going back starts from the base again"


def test_every_combination_of_fates_is_made_once() -> None:
    device, log = recorded()
    device.write(0, b"x" * 2 * SECTOR)
    device.write(4 * SECTOR, b"y")
    images = {image.read(0, 8 * SECTOR) for [image] in log.all_power_cuts(2)}
    assert len(images) == 4 * 2
    torn = b"0" * SECTOR + b"x" * SECTOR
    assert any(image.startswith(torn) for image in images)


def test_sectors_never_tear_and_later_writes_win() -> None:
    device, log = recorded()
    device.write(100, b"a" * 600)
    device.write(200, b"b" * 100)
    for _, [image] in log.random_power_cuts(seed=1, count=300):
        first = image.read(0, SECTOR)
        allowed = {
            b"0" * SECTOR,
            b"0" * 100 + b"a" * 412,
            b"0" * 100 + b"a" * 100 + b"b" * 100 + b"a" * 212,
            b"0" * 200 + b"b" * 100 + b"0" * 212,
        }
        assert first in allowed
        assert image.read(SECTOR, 188) in (b"0" * 188, b"a" * 188)


def test_the_same_seed_cuts_the_same_way() -> None:
    device, log = recorded()
    for at in range(8):
        device.write(at * SECTOR, bytes([at]) * SECTOR)
    cuts = [[(position, image.read(0, 4096)) for position, [image] in log.random_power_cuts(7, 20)] for _ in range(2)]
    assert cuts[0] == cuts[1]
    assert len({image for _, image in cuts[0]}) > 5


def test_devices_that_share_a_log_are_cut_at_the_same_moment() -> None:
    log = RecordingLog()
    first, second = (RecordingDevice(MemoryDevice(1024), log) for _ in range(2))
    first.write(0, b"1")
    second.write(0, b"2")
    second.barrier()
    assert log.entries[0] == Write(0, 0, b"1")
    images = log.power_cut(len(log.entries), drop_all)
    assert [image.read(0, 1) for image in images] == [b"\0", b"2"]
