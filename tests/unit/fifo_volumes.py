"""Small formatted volumes in memory: a header, an UNDO FIFO of one or more big-blocks, and room for meta-data."""

from __future__ import annotations

import uuid
from functools import lru_cache

from hammerfs.device.base import Device
from hammerfs.device.memory import MemoryDevice
from hammerfs.ondisk.address import Offset, encode
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    FSTYPE_UUID,
    UNDO_ALIGN,
    VOL_JUNK_SIZE,
    VOLUME_SIGNATURE,
    ZONE_RAW_BUFFER,
    ZONE_UNDO,
)
from hammerfs.ondisk.fifo import dummy_record
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.store.recovery import recover_stage1
from hammerfs.store.undo import UndoFifo
from hammerfs.store.volumes import VolumeSet

FSID = uuid.UUID("6b6a1f0e-2f3c-4c0d-9a55-0123456789ab")
FIFO_START = encode(ZONE_UNDO, 0, 0)
CAPACITY = BIGBLOCK_SIZE
META_START = encode(ZONE_RAW_BUFFER, 0, BIGBLOCK_SIZE)
"""Behind the FIFO's only big-block."""


@lru_cache
def formatted_bigblock(version: int) -> bytes:
    """A FIFO as mkfs leaves it: a DUMMY per sector, numbered from 0."""
    return b"".join(dummy_record(version, i) for i in range(BIGBLOCK_SIZE // UNDO_ALIGN))


def make_header(version: int = 7, number: int = 0, count: int = 1, bigblocks: int = 2) -> VolumeHeader:
    """A header that is right in all respects."""
    header = VolumeHeader(bytearray(16384))
    header.vol_signature = VOLUME_SIGNATURE
    header.vol_fstype = uuid.UUID(FSTYPE_UUID)
    header.vol_fsid = FSID
    header.vol_label = b"tiny"
    header.vol_no = number
    header.vol_count = count
    header.vol_version = version
    header.vol_bot_beg = header.vol_mem_beg = header.vol_buf_beg = VOL_JUNK_SIZE
    header.vol_buf_end = VOL_JUNK_SIZE + bigblocks * BIGBLOCK_SIZE
    if number == 0:
        header.vol0_next_tid = 0x100000000
        entry = header.blockmap(ZONE_UNDO)
        entry.first_offset = entry.next_offset = FIFO_START
        entry.alloc_offset = FIFO_START + CAPACITY
        entry.update_crc(version)
        header.set_undo_bigblock(0, encode(ZONE_RAW_BUFFER, 0, 0))
    header.update_crc()
    return header


def make_device(
    version: int = 7, number: int = 0, count: int = 1, *, bigblocks: int = 2, name: str | None = None
) -> MemoryDevice:
    """A formatted volume of `bigblocks` big-blocks; the first of volume 0 is the FIFO."""
    header = make_header(version, number, count, bigblocks)
    device = MemoryDevice(header.vol_buf_end, name=name or f"volume{number}.img")
    device.write(0, header.raw)
    if number == 0:
        device.write(VOL_JUNK_SIZE, formatted_bigblock(version))
    return device


def patched(device: MemoryDevice, **fields: object) -> MemoryDevice:
    """The device with header fields set to other values."""
    header = VolumeHeader(bytearray(device.read(0, 16384)))
    for name, value in fields.items():
        setattr(header, name, value)
    device.write(0, header.raw)
    return device


def open_fifo(device: Device) -> tuple[VolumeSet, UndoFifo]:
    """Recover a single volume and take its FIFO over."""
    volumes = VolumeSet.open([device])
    result = recover_stage1(volumes, collapse=True)
    return volumes, UndoFifo(volumes, result.first_offset, result.next_offset, result.seq)


def close_cycle(volumes: VolumeSet, fifo: UndoFifo, first: Offset | None = None) -> None:
    """Let the header forget all UNDO records but those from `first` on, durably."""
    entry = volumes.root.header.blockmap(ZONE_UNDO)
    entry.first_offset = fifo.next_offset if first is None else first
    entry.next_offset = fifo.next_offset
    volumes.write_header()
    volumes.barrier()
    fifo.clear_history()
