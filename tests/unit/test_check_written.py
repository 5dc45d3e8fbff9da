"""The checker on what our own file system wrote: mirror TIDs with and without a nomirror mount."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from small_filesystem import fresh, make, mount

from hammerfs.device.base import Device
from hammerfs.ops.check import check_devices


def write(devices: Sequence[Device], round_number: int, **options: Any) -> None:
    fs = mount(devices, **options)
    for number in range(150):
        make(fs, fs.root, b"%d of round %d" % (number, round_number), b"content" * number)
    fs.close_now()


def test_mirror_tids_reach_the_root() -> None:
    devices = fresh()
    for round_number in range(3):
        write(devices, round_number)
        report = check_devices(devices, mirrored=True)
        assert report.clean, report.problems[:5]
    assert report.counts["B-tree nodes"] > 10
    assert report.counts["entries"] == 450
    assert not report.notes


def test_a_nomirror_mount_is_noted_and_no_problem() -> None:
    devices = fresh()
    write(devices, 0)
    write(devices, 1, nomirror=True)
    report = check_devices(devices)
    assert report.clean, report.problems[:5]
    assert any("as after a nomirror mount" in note.text for note in report.notes)
    assert not check_devices(devices, mirrored=True).clean
