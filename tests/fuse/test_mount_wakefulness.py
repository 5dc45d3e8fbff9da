"""Processors stay awake for clients that ask one thing after the other, unless the mount is to save power."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hammer_mount import HammerMount

from hammerfs.vfs.wakefulness import needed_latency

DEVICE = Path("/dev/cpu_dma_latency")
SECONDS_MAX = 20

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0 or not DEVICE.exists(), reason="the kernel takes the need from root only"),
    pytest.mark.skipif(needed_latency() is None, reason="this machine's processors wake up as quickly as they can"),
]


def holders() -> set[int]:
    """The processes that hold the file by which a need is stated."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(entry) == str(DEVICE):
                found.add(int(entry.parts[2]))
    return found


def latency_allowed() -> int:
    """What the kernel goes by, whoever stated it."""
    with DEVICE.open("rb") as file:
        value: int = struct.unpack("=i", file.read(4))[0]
    return value


def test_processors_are_awake_while_requests_come_and_not_for_long(hammer_mount: Callable[[], HammerMount]) -> None:
    """The kernel tells the shortest of all needs, so this can be seen only while nobody else states one."""
    needed = needed_latency()
    assert needed is not None
    mount = hammer_mount()
    mount.mount()
    assert mount.server() in holders()
    deadline = time.monotonic() + SECONDS_MAX
    while latency_allowed() <= needed:
        if time.monotonic() > deadline:
            pytest.skip("somebody else keeps the processors awake")
        time.sleep(0.01)
    deadline = time.monotonic() + SECONDS_MAX
    number = 0
    while not number or latency_allowed() > needed:
        assert time.monotonic() < deadline, "the need was never stated"
        for _ in range(50):
            number += 1
            (mount.path / f"directory{number}").mkdir()
    while latency_allowed() <= needed:
        if time.monotonic() > deadline:
            assert holders() != {mount.server()}, "the need was never taken back"
            pytest.skip("somebody else keeps the processors awake")
        time.sleep(0.01)


def test_a_mount_that_saves_power_never_asks(hammer_mount: Callable[[], HammerMount]) -> None:
    mount = hammer_mount()
    mount.mount("powersave")
    for number in range(50):
        (mount.path / f"directory{number}").mkdir()
    assert mount.server() not in holders()
