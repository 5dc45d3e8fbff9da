"""What mkfs accepts, how large the FIFO becomes, and that an interrupted mkfs leaves no half file system behind."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hammerfs.device.base import Device
from hammerfs.device.file import FileDevice
from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import BusyError, DeviceError, UsageError
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, BUFSIZE
from hammerfs.ondisk.crc import Buffer
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.ops.mkfs import (
    MIN_FREE_BIGBLOCKS,
    FormatRequest,
    default_undo_bigblocks,
    is_formatted,
    label_of,
    plan_format,
    write_file_system,
)
from hammerfs.ops.mkfs_specials import Specials

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
FSID = uuid.UUID("428e7f4e-f07e-614a-9eb5-e707305a8205")


def request(**changes: object) -> FormatRequest:
    settings: dict[str, object] = {"label": "TEST", "force": True, "fsid": FSID, "time_ns": 1_600_000_000_123_456_789}
    return FormatRequest(**(settings | changes))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------
# the UNDO FIFO's size


@pytest.mark.parametrize(
    ("size", "undo_size"),
    [
        (256 * MIB, 16 * MIB),
        (512 * MIB, 32 * MIB),
        (1 * GIB, 56 * MIB),
        (5 * GIB, 256 * MIB),
        (10 * GIB, 512 * MIB),
        (16 * GIB, 512 * MIB),
        (700 * GIB, 720 * MIB),
        (5 * TIB, 1024 * MIB),
    ],
)
def test_the_fifo_fits_the_file_system(size: int, undo_size: int) -> None:
    plan = plan_format(request(), [size])
    assert plan.undo_chosen
    assert plan.layout.parameters.undo_bigblocks * BIGBLOCK_SIZE == undo_size


@given(st.integers(10 * GIB, 1 << 52))
def test_from_ten_gib_on_the_fifo_is_newfs_hammers(area: int) -> None:
    original = min(max(area // 1000, 512 * MIB), 1024 * MIB)
    assert abs(default_undo_bigblocks(area) * BIGBLOCK_SIZE - original) <= BIGBLOCK_SIZE


@given(st.integers(320 * MIB, 10 * GIB))
def test_a_small_file_system_loses_little_to_its_fifo(area: int) -> None:
    assert 16 * MIB <= default_undo_bigblocks(area) * BIGBLOCK_SIZE <= area / 20 + BIGBLOCK_SIZE


def test_a_fifo_asked_for_is_rounded_up_to_bigblocks() -> None:
    plan = plan_format(request(undo_size=9 * MIB), [GIB])
    assert not plan.undo_chosen
    assert plan.layout.parameters.undo_bigblocks == 2
    assert plan.warnings == ("the UNDO/REDO FIFO has less than 512 MiB, as -f permits",)


def test_a_fifo_of_nothing_leaves_the_choice_open() -> None:
    assert plan_format(request(undo_size=0), [GIB]).undo_chosen


# ------------------------------------------------------------------------------------------------
# what is refused


@pytest.mark.parametrize(
    ("changes", "sizes", "sentence"),
    [
        ({"label": ""}, [GIB], "must have a label"),
        ({"label": "x" * 64}, [GIB], "at most 63 bytes"),
        ({"label": "é" * 32}, [GIB], "this one has 64 bytes"),
        ({"version": 0}, [GIB], "version 0 is unknown"),
        ({"version": 8}, [GIB], "version 8 is unknown, versions 1 to 7"),
        ({}, [], "1 to 256 volumes, not 0"),
        ({}, [GIB] * 257, "1 to 256 volumes, not 257"),
        ({"undo_size": 24 * MIB, "force": False}, [16 * GIB], "should have at least 512 MiB; -f"),
        ({"undo_size": 2 * GIB}, [16 * GIB], "at most 1 GiB"),
        ({"undo_size": 1000}, [GIB], "multiple of 16 KiB"),
        ({"boot_area_size": 16 * KIB, "force": False}, [16 * GIB], "boot area should have at least 32 KiB"),
        ({"boot_area_size": 257 * MIB}, [16 * GIB], "at most 256 MiB"),
        ({"memory_log_size": 16 * KIB, "force": False}, [16 * GIB], "memory log should have at least 256 KiB"),
        ({"memory_log_size": 65 * GIB}, [100 * GIB], "at most 64 GiB"),
        ({"time_ns": -1}, [GIB], "cannot be stored"),
        ({"time_ns": 10**9 << 32}, [GIB], "cannot be stored"),
        ({"force": False}, [10 * GIB], "volume 0 would have less than 10 GiB of space; -f"),
        ({}, [0], "volume 0 is too small: 0 bytes"),
        ({}, [64 * KIB], "volume 0 is too small"),
        ({}, [32 * MIB], "volume 0 is too small: its UNDO FIFO"),
        ({"undo_size": 600 * MIB}, [GIB // 2], "volume 0 is too small"),
        ({}, [64 * MIB], "would be full from the start: it needs about 248 MiB"),
        ({}, [GIB, 9 * MIB], "volume 1 is too small"),
        ({}, [(1 << 52) + MIB], "volume 0 is too large"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(changes: dict[str, object], sizes: list[int], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        plan_format(request(**changes), sizes)


def test_the_smallest_file_system_has_room_for_a_few_files() -> None:
    plan = plan_format(request(), [241 * MIB])
    assert plan.layout.free_bigblocks == MIN_FREE_BIGBLOCKS


def test_what_is_not_said_is_chosen() -> None:
    one, two = (plan_format(FormatRequest(label="x"), [11 * GIB]).layout.parameters for _ in range(2))
    assert one.fsid != two.fsid
    assert one.time_us > 1_600_000_000_000_000
    assert (one.version, one.boot_area_size, one.memory_log_size) == (7, 32 * KIB, 256 * KIB)


# ------------------------------------------------------------------------------------------------
# writing


class FailingDevice(MemoryDevice):
    """Fails at the n-th write from now on; counts writes, and remembers what was written since the last barrier."""

    def __init__(self, size: int) -> None:
        super().__init__(size, name="failing")
        self.writes_left = 1 << 60
        self.unsynced: list[int] = []

    def write(self, offset: int, data: Buffer) -> None:
        if self.__dict__.get("writes_left", 1) <= 0:
            raise DeviceError("write", self.name, offset, len(data), "no more")
        super().write(offset, data)
        if "unsynced" in self.__dict__:
            self.writes_left -= 1
            self.unsynced.append(offset)

    def barrier(self) -> None:
        self.unsynced.clear()


def formatted(*sizes: int, **changes: object) -> list[MemoryDevice]:
    devices = [MemoryDevice(size) for size in sizes]
    write_file_system(plan_format(request(**changes), sizes).layout, devices)
    return devices


def test_what_was_planned_is_on_the_devices() -> None:
    devices = formatted(512 * MIB, 300 * MIB)
    headers = [VolumeHeader(device.read(0, BUFSIZE)) for device in devices]
    assert [header.vol_no for header in headers] == [0, 1]
    assert all(is_formatted(device) and label_of(device) == "TEST" for device in devices)


def test_same_uuid_and_time_give_the_same_bytes() -> None:
    one, two = (formatted(512 * MIB)[0] for _ in range(2))
    assert one._pages == two._pages
    later = formatted(512 * MIB, time_ns=1_600_000_000_123_457_000)[0]
    assert later._pages != one._pages, "another microsecond"
    same = formatted(512 * MIB, time_ns=1_600_000_000_123_456_000)[0]
    assert same._pages == one._pages, "times are cut to microseconds"


def test_everything_is_durable_at_the_end() -> None:
    devices = [FailingDevice(300 * MIB), FailingDevice(300 * MIB)]
    write_file_system(plan_format(request(), [300 * MIB] * 2).layout, devices)
    assert not any(device.unsynced for device in devices)


def writes_of(device: FailingDevice, others: Sequence[Device]) -> int:
    before = device.writes_left
    devices = [device, *others]
    write_file_system(plan_format(request(), [one.size for one in devices]).layout, devices)
    return before - device.writes_left


def test_an_interrupted_mkfs_leaves_no_header_that_lies() -> None:
    """Over an old file system, stopped at any write of volume 0: not HAMMER until all contents are there."""
    device, other = FailingDevice(300 * MIB), MemoryDevice(300 * MIB)
    writes_of(device, [other])
    total = writes_of(device, [other])
    plan = plan_format(request(label="NEW"), [300 * MIB] * 2)
    for stop in (1, 2, total // 2, total - 2, total - 1):
        device.writes_left = stop
        with pytest.raises(DeviceError, match="no more"):
            write_file_system(plan.layout, [device, other])
        assert not is_formatted(device), f"stopped after {stop} of {total} writes"
        device.writes_left = 1 << 60
        writes_of(device, [other])
    device.writes_left = total
    write_file_system(plan.layout, [device, other])
    assert label_of(device) == "NEW"


# ------------------------------------------------------------------------------------------------
# specials


def test_a_new_file_has_its_size_and_stays_when_kept(tmp_path: Path) -> None:
    path = tmp_path / "new.img"
    with Specials([str(path)], wanted_size=MIB + 5, force=False) as specials:
        assert not path.exists(), "nothing is made before prepare"
        (device,) = specials.prepare()
        assert device.size == specials.sizes[0] == MIB + 5
        specials.keep()
    assert path.stat().st_size == MIB + 5
    assert path.stat().st_blocks == 0


def test_what_is_not_kept_is_taken_back(tmp_path: Path) -> None:
    new, short = tmp_path / "new.img", tmp_path / "short.img"
    short.write_bytes(b"data")
    with Specials([str(new), str(short)], wanted_size=MIB, force=False) as specials:
        specials.prepare()
        assert new.stat().st_size == short.stat().st_size == MIB
    assert not new.exists()
    assert short.read_bytes() == b"data"


def test_a_longer_file_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.img"
    path.touch()
    os.truncate(path, 2 * MIB)
    with pytest.raises(UsageError, match="has 2097152 bytes already"):
        Specials([str(path)], wanted_size=MIB, force=True)
    FileDevice(str(path), writable=True).close()


def test_a_special_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "busy.img"
    path.write_bytes(bytes(MIB))
    holder = FileDevice(str(path), writable=True)
    with pytest.raises(BusyError, match=r"busy\.img"):
        Specials([str(path)], wanted_size=None, force=True)
    holder.close()
    with Specials([str(path)], wanted_size=None, force=True), pytest.raises(BusyError):
        FileDevice(str(path), writable=True)


def test_a_hammer_volume_is_overwritten_by_force_only(tmp_path: Path) -> None:
    path = tmp_path / "old.img"
    (old,) = formatted(300 * MIB, label="PRECIOUS")
    path.write_bytes(old.read(0, BUFSIZE))
    with pytest.raises(UsageError, match="labelled 'PRECIOUS'; -f overwrites"):
        Specials([str(path)], wanted_size=None, force=False)
    Specials([str(path)], wanted_size=None, force=True).close()


@pytest.mark.parametrize("wanted_size", [None, MIB])
def test_the_same_special_twice_is_refused(tmp_path: Path, wanted_size: int | None) -> None:
    path, link = tmp_path / "one.img", tmp_path / "link.img"
    path.write_bytes(b"")
    link.symlink_to(path)
    with pytest.raises(UsageError, match="given twice"):
        Specials([str(path), str(link)], wanted_size=wanted_size, force=True)
    link.unlink()
    os.link(path, link)
    with pytest.raises(BusyError, match="given twice"):
        Specials([str(path), str(link)], wanted_size=wanted_size, force=True)


def test_specials_that_cannot_be_are_refused(tmp_path: Path) -> None:
    missing, nowhere = str(tmp_path / "missing.img"), str(tmp_path / "no" / "where.img")
    with pytest.raises(UsageError, match="does not exist; --size"):
        Specials([missing], wanted_size=None, force=False)
    with pytest.raises(UsageError, match="neither a regular file nor a block device"):
        Specials([str(tmp_path)], wanted_size=None, force=False)
    with pytest.raises(UsageError, match="neither a regular file nor a block device"):
        Specials(["/dev/null"], wanted_size=MIB, force=False)
    with (
        Specials([nowhere], wanted_size=MIB, force=False) as specials,
        pytest.raises(UsageError, match=r"cannot create .*where\.img: No such file"),
    ):
        specials.prepare()
    with (
        Specials([missing], wanted_size=1 << 80, force=False) as specials,
        pytest.raises(UsageError, match="cannot give"),
    ):
        specials.prepare()
    assert not os.path.exists(missing)
