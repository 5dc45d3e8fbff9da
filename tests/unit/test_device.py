"""The Device protocol, held by every implementation alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hammerfs.device.base import Device
from hammerfs.device.faulty import FaultyDevice
from hammerfs.device.file import FileDevice
from hammerfs.device.memory import MemoryDevice
from hammerfs.device.overlay import OverlayDevice
from hammerfs.device.recording import RecordingDevice
from hammerfs.errors import DeviceError

SIZE = 5 * 16384 + 1000
Make = Callable[[], Device]


@pytest.fixture(params=["file", "file at an offset", "memory", "overlay", "recording", "faulty"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    def build() -> Device:
        if request.param.startswith("file"):
            offset = 4096 if "offset" in request.param else 0
            path = tmp_path / "image"
            with path.open("wb") as image:
                image.truncate(SIZE + offset)
            return FileDevice(str(path), writable=True, offset=offset)
        memory = MemoryDevice(SIZE)
        if request.param == "overlay":
            return OverlayDevice(memory)
        if request.param == "recording":
            return RecordingDevice(memory)
        if request.param == "faulty":
            return FaultyDevice(memory, "read", 1000, 5)
        return memory

    return build


def test_holes_read_as_zeros_and_writes_read_back(make: Make) -> None:
    device = make()
    assert device.size == SIZE
    assert device.writable
    assert device.read(0, SIZE) == bytes(SIZE)
    device.write(100, b"abc")
    device.write_vector(16384 - 2, [b"12", bytearray(b"34"), memoryview(b"56"), b""])
    device.write(SIZE - 4, b"tail")
    device.barrier()
    device.prefetch(0, SIZE)
    device.begin_writing(0, SIZE)
    assert device.read(99, 5) == b"\0abc\0"
    assert device.read(16384 - 3, 8) == b"\000123456\0"
    assert device.read(SIZE - 4, 4) == b"tail"
    assert device.read(SIZE, 0) == b""
    device.close()
    device.close()


@pytest.mark.parametrize(("offset", "size"), [(SIZE - 3, 4), (SIZE + 1, 1), (-1, 4), (0, SIZE + 1)])
def test_nothing_is_read_beyond_the_device(make: Make, offset: int, size: int) -> None:
    device = make()
    with pytest.raises(DeviceError) as caught:
        device.read(offset, size)
    assert device.name in str(caught.value)
    assert str(offset) in str(caught.value)
    device.close()


@pytest.mark.parametrize(("offset", "size"), [(SIZE - 3, 4), (SIZE, 1), (-1, 1)])
def test_nothing_is_written_beyond_the_device(make: Make, offset: int, size: int) -> None:
    device = make()
    with pytest.raises(DeviceError):
        device.write(offset, b"x" * size)
    assert device.size == SIZE
    assert device.read(0, SIZE) == bytes(SIZE)
    device.close()


def test_many_chunks_are_written_as_one(make: Make) -> None:
    device = make()
    chunks = [bytes([i % 251]) * 7 for i in range(3000)]
    device.write_vector(11, chunks)
    assert device.read(11, 21000) == b"".join(chunks)
    device.close()


@given(
    st.lists(st.tuples(st.integers(0, 70000), st.binary(min_size=1, max_size=40000)), max_size=8),
    st.integers(0, 70000),
    st.integers(0, 40000),
)
def test_paged_devices_agree_with_plain_bytes(writes: list[tuple[int, bytes]], start: int, size: int) -> None:
    limit = 110_000
    below = MemoryDevice(limit, b"below" * 10000)
    overlay = OverlayDevice(below)
    memory = below.copy()
    model = bytearray(b"below" * 10000).ljust(limit, b"\0")
    for offset, data in writes:
        for device in (memory, overlay):
            device.write(offset, data)
        model[offset : offset + len(data)] = data
    assert memory.read(start, size) == model[start : start + size]
    assert overlay.read(start, size) == model[start : start + size]
    assert below.read(0, limit) == (b"below" * 10000).ljust(limit, b"\0")


def test_a_memory_device_shares_what_it_copies_and_drops_zeros() -> None:
    device = MemoryDevice(1 << 42, b"x" * 100)
    twin = device.copy()
    assert twin.same_bytes(device)
    twin.write(0, b"y")
    assert device.read(0, 2) == b"xx"
    assert twin.read(0, 2) == b"yx"
    assert not twin.same_bytes(device)
    twin.write(0, bytes(100))
    assert twin.page_bytes == 0


def test_a_read_only_memory_device_refuses_writes() -> None:
    device = MemoryDevice(100, b"abc", writable=False)
    assert not device.writable
    with pytest.raises(DeviceError, match="read-only"):
        device.write(0, b"x")
    assert device.read(0, 3) == b"abc"
