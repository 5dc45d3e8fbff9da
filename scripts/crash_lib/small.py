"""Small file systems in memory, formatted once per kind and copied for every use."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from hammerfs.device.base import Device
from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import RecordingDevice, RecordingLog
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.ondisk.address import encode
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BUFSIZE,
    OBJTYPE_CDEV,
    OBJTYPE_DIRECTORY,
    OBJTYPE_FIFO,
    OBJTYPE_REGFILE,
    ZONE_BTREE,
    ZONE_LARGE_DATA,
    ZONE_META,
)
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.ops.mkfs import FormatRequest, plan_format, write_file_system

FIFO_SIZE = BIGBLOCK_SIZE
"""The smallest UNDO FIFO there is."""
VOLUME_SIZE = 320 * 1024 * 1024
FSID = uuid.UUID("3f0c1d52-7a51-4f0e-8c39-00a0c9e5b0f1")
START_US = 1_700_000_000_000_000
RECOVERY_US = START_US + 1_000_000_000_000
"""When the power comes back: later than anything that happened before."""
DIRECTORY, FILE, NAMED_PIPE, CHARACTER_DEVICE = OBJTYPE_DIRECTORY, OBJTYPE_REGFILE, OBJTYPE_FIFO, OBJTYPE_CDEV


@lru_cache
def formatted(version: int = 7, count: int = 1, size: int = VOLUME_SIZE) -> tuple[MemoryDevice, ...]:
    """Freshly made volumes; for copying only.

    Several volumes are all used from the beginning, or a small file system would stay on the first: the B-tree's root,
    the FIFO and small data lie there, further nodes, meta-data and large data on the last.
    """
    request = FormatRequest(
        "small", version=version, undo_size=FIFO_SIZE, fsid=FSID, time_ns=START_US * 1000, force=True
    )
    plan = plan_format(request, [size] * count)
    devices = tuple(MemoryDevice(size, name=f"volume{number}.img") for number in range(count))
    write_file_system(plan.layout, devices)
    if count > 1:
        _append_on(devices[0], count - 1)
    _share_equal_pages(devices)
    return devices


def _share_equal_pages(devices: Sequence[MemoryDevice]) -> None:
    """Keep each content once: two thirds of a fresh file system are a freemap that says the same all over."""
    known: dict[bytes, bytes] = {}
    for device in devices:
        for index, page in device._pages.items():
            device._pages[index] = known.setdefault(page, page)


def _append_on(root: MemoryDevice, volume: int) -> None:
    """Let zones append on a volume as if those before it were full, each in a big-block of its own."""
    header = VolumeHeader(bytearray(root.read(0, BUFSIZE)))
    for place, zone in enumerate((ZONE_BTREE, ZONE_META, ZONE_LARGE_DATA), 1):
        header.blockmap(zone).next_offset = encode(zone, volume, place * BIGBLOCK_SIZE)
        header.blockmap(zone).update_crc(header.vol_version)
    header.update_crc()
    root.write(0, header.raw)


def fresh(version: int = 7, count: int = 1, size: int = VOLUME_SIZE) -> list[MemoryDevice]:
    """A new file system's volumes."""
    return [device.copy() for device in formatted(version, count, size)]


def ticking(start_us: int = START_US) -> Callable[[], int]:
    """A clock that moves on by a millisecond at each look, so that times are the same in every run."""
    return itertools.count(start_us, 1000).__next__


def mount(devices: Sequence[Device], *, start_us: int = START_US, **options: Any) -> FileSystem:
    """Mount with options named as in MountOptions; the flush timer stays out of the way unless asked for."""
    options.setdefault("flush_seconds", 1e6)
    options.setdefault("cache_bytes", 8 * 1024 * 1024)
    return FileSystem.open(devices, MountOptions(**options), clock=ticking(start_us))


def recorded(devices: Sequence[MemoryDevice]) -> tuple[list[RecordingDevice], RecordingLog]:
    """The devices with one log over all of them."""
    log = RecordingLog()
    return [RecordingDevice(device, log) for device in devices], log
