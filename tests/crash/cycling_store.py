"""The smallest thing that flushes like HAMMER: random changes of meta-data, cycle after cycle, on recorded devices.

Every cycle logs old contents, then writes in the order of `hammer_flusher_finalize`: UNDO, barrier, volume header, and
meta-data.  Before version 4 the header's first sector goes ahead, with a barrier of its own.  The header's
first_offset is the end of the cycle before.  The state at the end of each cycle is kept, so that what recovery gives
can be looked up among them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from fifo_volumes import META_START, make_device

from hammerfs.device.base import Device
from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import RecordingDevice, RecordingLog
from hammerfs.ondisk.address import Offset, encode
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BUFMASK,
    BUFSIZE,
    VERSION_UNDO_SEQUENCED,
    ZONE_RAW_BUFFER,
    ZONE_RAW_VOLUME,
    ZONE_UNDO,
)
from hammerfs.store.recovery import RecoveryResult, recover_stage1
from hammerfs.store.undo import UndoFifo
from hammerfs.store.volumes import VolumeSet

BUFFERS = 24
"""Meta-data buffers per volume that a cycle may change."""
_INODES_FIELD = 224
_ROOT_FIELD = 240


def meta_offset(volume: int, buffer: int) -> Offset:
    """Where a meta-data buffer lies; volume 0's first big-block is the FIFO."""
    return encode(ZONE_RAW_BUFFER, volume, BIGBLOCK_SIZE + buffer * BUFSIZE)


def fingerprint(volumes: VolumeSet) -> str:
    """Everything that UNDO protects: meta-data, and the headers without what no UNDO covers."""
    digest = hashlib.sha256()
    for number, volume in volumes.volumes.items():
        raw = bytearray(volume.buffer)
        entry = volume.header.blockmap(ZONE_UNDO)
        raw[entry.base : entry.base + entry.SIZE] = bytes(entry.SIZE)
        raw[156:160] = bytes(4)  # vol_crc
        raw[248:256] = bytes(8)  # vol0_next_tid
        digest.update(raw)
        digest.update(volumes.read(meta_offset(number, 0), BUFFERS * BUFSIZE))
    return digest.hexdigest()


def recover(devices: Sequence[Device], *, collapse: bool = True) -> tuple[VolumeSet, RecoveryResult]:
    volumes = VolumeSet.open(devices)
    return volumes, recover_stage1(volumes, collapse=collapse)


class CyclingStore:
    """A file system of `count` volumes without files.

    states -- fingerprint after each cycle, the first before any
    marks -- log position at which each state's cycle had written everything
    next_tids -- highest TID written to a header so far, per log position
    """

    def __init__(self, version: int, count: int, seed: int, devices: Sequence[MemoryDevice] = ()) -> None:
        self.log = RecordingLog()
        images = list(devices) or [make_device(version, number, count) for number in range(count)]
        self.devices = [RecordingDevice(image, self.log) for image in images]
        self.random = random.Random(seed)
        self.volumes, result = recover(self.devices)
        self.fifo = UndoFifo(self.volumes, result.first_offset, result.next_offset, result.seq)
        self.states = [fingerprint(self.volumes)]
        self.marks = [len(self.log.entries)]

    def cycle(self, changes: int = 12) -> None:
        """One flush group: change, log, finalize."""
        dirty: dict[Offset, bytearray] = {}
        for _ in range(self.random.randint(1, changes)):
            self._change(dirty)
        self._change_header()
        self._finalize(dirty)
        self.states.append(fingerprint(self.volumes))
        self.marks.append(len(self.log.entries))

    def settle(self) -> None:
        """Close the last cycle: a header that begins behind it, with barriers around."""
        self.volumes.barrier()
        self._point_fifo(self.fifo.next_offset)
        self.volumes.write_header()
        self.volumes.barrier()

    def _change(self, dirty: dict[Offset, bytearray]) -> None:
        number = self.random.randrange(len(self.devices))
        base = meta_offset(number, self.random.randrange(BUFFERS))
        image = dirty.get(base) or bytearray(self.volumes.read(base, BUFSIZE))
        dirty[base] = image
        size = self.random.choice((8, 16, 64, 100, 472, 512, 4096, 9000))
        start = self.random.randrange(0, BUFSIZE - size, 8)
        self.fifo.log(base + start, bytes(image[start : start + size]))
        image[start : start + size] = self.random.randbytes(size)

    def _change_header(self) -> None:
        header = self.volumes.root.header
        for field in (_INODES_FIELD, _ROOT_FIELD):
            self.fifo.log(encode(ZONE_RAW_VOLUME, 0, field), header.copy()[field : field + 8])
        header.vol0_stat_inodes += 1
        header.vol0_btree_root = META_START + self.random.randrange(BIGBLOCK_SIZE) & ~BUFMASK
        entry = header.blockmap(8)
        self.fifo.log(encode(ZONE_RAW_VOLUME, 0, entry.base), entry.copy())
        entry.next_offset += 4096
        header.vol0_next_tid += 16

    def _finalize(self, dirty: dict[Offset, bytearray]) -> None:
        end = self.fifo.next_offset
        self.fifo.flush()
        self.volumes.barrier()
        self._point_fifo(self.fifo.first_offset)
        if self.volumes.version < VERSION_UNDO_SEQUENCED:
            self.volumes.write_header_start()
            self.volumes.barrier()
        self.volumes.write_header()
        for base in self.random.sample(sorted(dirty), len(dirty)):
            self.volumes.write(base, dirty[base])
        self.fifo.first_offset = end
        self.fifo.clear_history()

    def _point_fifo(self, first: Offset) -> None:
        entry = self.volumes.root.header.blockmap(ZONE_UNDO)
        entry.first_offset = first
        entry.next_offset = self.fifo.next_offset
