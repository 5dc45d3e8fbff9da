"""Recovery stage 1 on images that DragonFly's own code left behind in a crash, held against what it printed itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judge import CRASHED, WITH_REDO

from hammerfs.device.file import FileDevice
from hammerfs.device.overlay import OverlayDevice
from hammerfs.ondisk.address import to_zone2
from hammerfs.store.recovery import RecoveryResult, recover_stage1
from hammerfs.store.undo import UndoFifo
from hammerfs.store.volumes import VolumeSet

Unpack = Callable[[str], Path]
Load = Callable[[str], dict[str, Any]]


def recover_in_memory(path: Path, *, collapse: bool) -> tuple[VolumeSet, RecoveryResult]:
    volumes = VolumeSet.open([OverlayDevice(FileDevice(str(path), writable=False))])
    return volumes, recover_stage1(volumes, collapse=collapse)


@pytest.mark.parametrize("name", [*CRASHED, *WITH_REDO])
def test_range_numbers_and_messages_are_the_originals(
    name: str, golden_original: Unpack, golden_manifest: Load
) -> None:
    manifest = golden_manifest(name)
    printed = manifest.get("ro_mount_kernel_messages") or manifest["rw_mount_kernel_messages"]
    expected = [re.sub(r" ?\((RO|RW)\)$", "", line) for line in printed]
    volumes, result = recover_in_memory(golden_original(f"{name}.img"), collapse=False)
    volumes.close()
    assert result.messages == expected
    assert result.undone_records == result.fifo.records


@pytest.mark.parametrize("name", [*CRASHED, *WITH_REDO])
def test_recovering_again_finds_nothing_more_to_undo(name: str, golden_original: Unpack) -> None:
    path = golden_original(f"{name}.img")
    volumes, first = recover_in_memory(path, collapse=True)
    assert first.fifo.length > 0
    again = recover_stage1(VolumeSet.open([volume.device for volume in volumes.volumes.values()]), collapse=True)
    volumes.close()
    assert again.fifo.length == 0
    assert again.messages[-1] == "mounted clean, no recovery needed"
    assert (again.first_offset, again.next_offset, again.seq) == (
        first.first_offset,
        first.next_offset,
        first.seq,
    )


@pytest.mark.parametrize("name", [*CRASHED, *WITH_REDO])
def test_a_range_that_is_kept_is_found_again(name: str, golden_original: Unpack) -> None:
    volumes, first = recover_in_memory(golden_original(f"{name}.img"), collapse=False)
    overlay = volumes.root.device
    before = overlay.read(0, overlay.size // 64)
    again = recover_stage1(VolumeSet.open([overlay]), collapse=False)
    assert again.fifo == first.fifo
    assert overlay.read(0, overlay.size // 64) == before
    volumes.close()


@pytest.mark.parametrize("name", ["g1-basic", "g2-history", "g6-v1", "g6-v4", "g10-upgrade-v1to7"])
def test_a_clean_image_is_not_written_to(name: str, golden_original: Unpack) -> None:
    lower = FileDevice(str(golden_original(f"{name}.img")), writable=False)
    overlay = OverlayDevice(lower)
    result = recover_stage1(VolumeSet.open([overlay]), collapse=True)
    assert result.fifo.length == 0
    assert overlay.page_bytes == 0
    overlay.close()


def test_what_we_log_after_the_originals_fifo_continues_it(golden_original: Unpack) -> None:
    """The FIFO of a clean image is taken over in the middle of a sector, and both parts are found."""
    image = OverlayDevice(FileDevice(str(golden_original("g1-basic.img")), writable=False))
    volumes = VolumeSet.open([image])
    clean = recover_stage1(volumes, collapse=True)
    target = to_zone2(volumes.root.header.vol0_btree_root)
    old = volumes.read(target, 64)
    fifo = UndoFifo(volumes, clean.first_offset, clean.next_offset, clean.seq)
    fifo.log(target, old)
    fifo.flush()
    volumes.write(target, bytes(64))
    found = recover_stage1(VolumeSet.open([image]), collapse=True)
    assert found.undone_records == 1
    assert found.undone_bytes == 64
    assert volumes.read(target, 64) == old
    image.close()


def test_two_volumes_recover_together(golden_original: Unpack) -> None:
    """UNDO for the second volume is applied there; the order in which volumes are given does not matter."""
    devices = [
        OverlayDevice(FileDevice(str(golden_original(f"g8-vol{number}.img")), writable=False)) for number in (1, 0)
    ]
    volumes = VolumeSet.open(devices)
    clean = recover_stage1(volumes, collapse=True)
    target = (2 << 60) | (1 << 52) | 0x800000
    old = volumes.read(target, 100)
    fifo = UndoFifo(volumes, clean.first_offset, clean.next_offset, clean.seq)
    fifo.log(target, old)
    fifo.log((1 << 60) | (1 << 52) | 80, volumes.volumes[1].buffer[80:96])
    fifo.flush()
    volumes.write(target, bytes(range(100)))
    label = volumes.volumes[1].header.label
    volumes.volumes[1].buffer[80:96] = b"overwritten".ljust(16, b"\0")
    volumes.write_header(volumes.volumes[1])
    again = VolumeSet.open(devices)
    assert recover_stage1(again, collapse=True).undone_records == 2
    assert again.read(target, 100) == old
    assert again.volumes[1].header.label == label
    again.close()
