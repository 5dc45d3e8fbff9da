"""The volumes of one file system, and reads and writes at HAMMER offsets.

A volume is a device whose first 16 KiB hold a header; what follows from `vol_buf_beg` to `vol_buf_end` is addressed by
zone-2 offsets, and zones 4 and 8 to 11 are labels on the same addresses.  `VolumeSet.open` believes nothing: devices
may come in any order, and whatever keeps them from making up one file system is said in one sentence that names the
device (`hammer_ondisk.c: hammer_install_volume`, the checks of `hammer_vfs_mount`).

The volume header's checksum is not among the checks: the original never verifies it and its recovery leaves it stale.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, TypeAlias

from hammerfs.device.base import Device
from hammerfs.errors import CorruptionError, DeviceError, NotHammerError
from hammerfs.ondisk.address import SHORT_MASK, Offset, encode, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BUFSIZE,
    FSTYPE_UUID,
    MAX_UNDO_BIGBLOCKS,
    MAX_VOLUMES,
    ROOT_VOLNO,
    UNDO_ALIGN,
    VOLUME_SIGNATURE,
    VOLUME_SIGNATURE_REVERSED,
    VOLUME_VERSION_MAX,
    VOLUME_VERSION_MIN,
    ZONE_RAW_BUFFER,
    ZONE_UNDO,
)
from hammerfs.ondisk.crc import Buffer
from hammerfs.ondisk.volume import VOLUME_HEADER_SIZE, VolumeHeader

_HEADER_PAGE = 4096
"""The bytes of a header's buffer that are written for a change of the header, which is smaller: one page."""
assert VOLUME_HEADER_SIZE <= _HEADER_PAGE
_FSTYPE = uuid.UUID(FSTYPE_UUID)
_LISTED_MAX = 8
"""Numbers that a sentence about volumes names one by one."""
_Reader: TypeAlias = tuple[Callable[[int, int], bytes], int, int]
"""A device's read method, the device offset of buffer offset 0, and the size of the buffer area."""


class Volume:
    """One volume.

    number -- 0 (root) to 255
    device -- where it lives
    buffer -- the first 16 KiB of the device, as they will be written next
    header -- typed view on `buffer`
    was_intact -- whether the header's CRC was right when it was read; a wrong one proves nothing
    """

    __slots__ = ("buffer", "device", "header", "number", "was_intact")

    def __init__(self, device: Device) -> None:
        self.device = device
        self.buffer = bytearray(device.read(0, BUFSIZE))
        self.header = VolumeHeader(self.buffer)
        self.number = self.header.vol_no
        self.was_intact = self.header.crc_ok()


class VolumeSet:
    """All volumes of one file system; reads and writes accept offsets of any direct-translated zone.

    volumes -- by number
    root -- volume 0
    version -- format version of the file system, from the root volume
    fsid -- the uuid that all volumes share
    writable -- whether every device is
    bytes_read, bytes_written -- since the volumes were opened, headers not counted
    unsettled_bytes -- written since the last barrier began, headers not counted
    undo_first_durable -- first_offset of the UNDO FIFO in the newest root header known to be on stable storage
    """

    def __init__(self, volumes: Iterable[Volume]) -> None:
        self.volumes = {volume.number: volume for volume in sorted(volumes, key=lambda volume: volume.number)}
        self.root = self.volumes[ROOT_VOLNO]
        self.version = self.root.header.vol_version
        self.fsid = self.root.header.vol_fsid
        self.writable = all(volume.device.writable for volume in self.volumes.values())
        self.undo_first_durable: Offset = self.root.header.blockmap(ZONE_UNDO).first_offset
        self._undo_first_written = self.undo_first_durable
        self._unsettled: set[int] = set()
        self.unsettled_bytes = 0
        self.bytes_read = self.bytes_written = 0
        self._barrier_lock = threading.Lock()
        self._failed: DeviceError | None = None
        self._readers: list[_Reader | None] = [None] * MAX_VOLUMES
        for volume in self.volumes.values():
            self._readers[volume.number] = _reader_of(volume)

    @classmethod
    def open(cls, devices: Sequence[Device], *, check_size: bool = True, strangers: bool = False) -> VolumeSet:
        """Verify that the devices are the volumes of one file system.

        Raises NotHammerError when they are not, CorruptionError when a header cannot be right.  The devices stay the
        caller's to close until this returns.  `check_size=False` admits devices shorter than their header says,
        `strangers` more of them than the root's header counts, for `membership.py` to judge after recovery.
        """
        volumes = [_load(device, check_size) for device in devices]
        _check_family(volumes, strangers)
        result = cls(volumes)
        _check_version(result.root)
        _check_fifo(result)
        return result

    def read(self, offset: Offset, size: int) -> bytes:
        """`size` bytes; CorruptionError when the range is not within a volume's buffer area."""
        reader = self._readers[(offset >> 52) & 0xFF]
        if reader is not None:
            read, start, limit = reader
            short = offset & SHORT_MASK
            if short + size <= limit:
                self.bytes_read += size
                return read(start + short, size)
        self._outside(offset, size)

    def write(self, offset: Offset, data: Buffer) -> None:
        """Write at an offset; durable after the next `barrier`."""
        volume, place = self._locate(offset, len(data))
        volume.device.write(place, data)
        self._unsettled.add(volume.number)  # not before: a barrier in another thread may run in between
        self.unsettled_bytes += len(data)
        self.bytes_written += len(data)

    def write_vector(self, offset: Offset, chunks: Sequence[Buffer], *, counted: bool = True) -> None:
        """Write chunks that lie one behind the other from `offset` on; not `counted`: see `count`."""
        size = sum(map(len, chunks))
        volume, place = self._locate(offset, size)
        volume.device.write_vector(place, chunks)
        self._unsettled.add(volume.number)
        if counted:
            self.count(size)

    def count(self, size: int) -> None:
        """Count bytes that were written; for those that another thread wrote, as only one can count."""
        self.unsettled_bytes += size
        self.bytes_written += size

    def add(self, volume: Volume) -> None:
        """Have one more volume."""
        assert volume.number not in self.volumes, "a volume's number is taken"
        self.volumes = dict(sorted([*self.volumes.items(), (volume.number, volume)]))
        self._readers[volume.number] = _reader_of(volume)

    def remove(self, number: int) -> Volume | None:
        """Have a volume no longer, which nothing refers to; None when a barrier may still concern it."""
        if not self._barrier_lock.acquire(blocking=False):
            return None
        try:
            if number in self._unsettled:
                return None
            volume = self.volumes[number]
            self.volumes = {other: kept for other, kept in self.volumes.items() if other != number}
            self._readers[number] = None
            return volume
        finally:
            self._barrier_lock.release()

    def covers(self, offset: Offset, size: int) -> bool:
        """Whether a range lies within a volume's buffer area."""
        reader = self._readers[(offset >> 52) & 0xFF]
        return reader is not None and (offset & SHORT_MASK) + size <= reader[2]

    def write_header(self, volume: Volume | None = None, *, whole: bool = False) -> None:
        """Write a volume's header (the root's by default) with a fresh checksum; durable after the next `barrier`.

        Behind the header proper nothing in its buffer changes but by recovery, which writes the `whole` of it.
        """
        volume = volume or self.root
        volume.header.update_crc()
        volume.device.write(0, volume.buffer if whole else memoryview(volume.buffer)[:_HEADER_PAGE])
        self._unsettled.add(volume.number)
        if volume is self.root:
            self._undo_first_written = volume.header.blockmap(ZONE_UNDO).first_offset

    def write_header_start(self) -> None:
        """Write the first sector of the root's header: FIFO indices, counters, B-tree root and next TID.

        Before version 4 only the header tells recovery about new UNDO records, so this goes out, with a barrier behind
        it, before the rest of the header: a torn header whose second sector alone is new could not be undone.
        """
        self.root.header.update_crc()
        self.root.device.write(0, memoryview(self.root.buffer)[:UNDO_ALIGN])
        self._unsettled.add(ROOT_VOLNO)
        self._undo_first_written = self.root.header.blockmap(ZONE_UNDO).first_offset

    def barrier(self) -> None:
        """Return when everything written before the call is on stable storage; may be called from several threads.

        The second of two callers waits for the first, even when it has nothing of its own to settle: the first may be
        settling what the second wrote.  After a failure none succeeds any more, whatever the device would say: the
        second may have waited while the first lost what it wrote (INV-11).
        """
        with self._barrier_lock:
            if self._failed is not None:
                raise self._failed
            undo_first = self._undo_first_written
            self.unsettled_bytes = 0
            for number in tuple(self._unsettled):
                self._unsettled.discard(number)
                try:
                    self.volumes[number].device.barrier()
                except DeviceError as error:
                    self._failed = error
                    raise
            self.undo_first_durable = undo_first

    def prefetch(self, offset: Offset, size: int) -> None:
        """Hint that a range will be read soon."""
        volume, place = self._locate(offset, size)
        volume.device.prefetch(place, size)

    def begin_writing(self, offset: Offset, size: int) -> None:
        """Hint that a range was written for which a barrier will soon be waited."""
        volume, place = self._locate(offset, size)
        volume.device.begin_writing(place, size)

    def close(self) -> None:
        """Close every device, whatever happens to one of them.  Closing is no barrier."""
        with contextlib.ExitStack() as stack:
            for volume in self.volumes.values():
                stack.callback(volume.device.close)

    def _locate(self, offset: Offset, size: int) -> tuple[Volume, int]:
        reader = self._readers[(offset >> 52) & 0xFF]
        if reader is None:
            self._outside(offset, size)
        _, start, limit = reader
        short = offset & SHORT_MASK
        if short + size > limit:
            self._outside(offset, size)
        return self.volumes[(offset >> 52) & 0xFF], start + short

    def _outside(self, offset: Offset, size: int) -> NoReturn:
        number = (offset >> 52) & 0xFF
        reader = self._readers[number]
        if reader is None:
            raise CorruptionError(f"reference to volume {number}, which does not exist,", offset=offset)
        name = self.volumes[number].device.name
        what = f"reference to {size} bytes beyond the {reader[2]} that volume {number} ({name}) has"
        raise CorruptionError(what, offset=offset)


def _reader_of(volume: Volume) -> _Reader:
    start = volume.header.vol_buf_beg
    return volume.device.read, start, volume.header.vol_buf_end - start


def _load(device: Device, check_size: bool) -> Volume:
    """Read a device's header and check what can be checked without the other volumes."""
    name = device.name
    if device.size < BUFSIZE:
        raise NotHammerError(f"{name} is not a HAMMER volume: it has only {device.size} bytes")
    volume = Volume(device)
    header = volume.header
    if header.vol_signature == VOLUME_SIGNATURE_REVERSED:
        raise NotHammerError(f"{name} is a HAMMER volume of a machine with reversed byte order, which is not supported")
    if header.vol_signature != VOLUME_SIGNATURE:
        raise NotHammerError(f"{name} is not a HAMMER volume: its signature is {header.vol_signature:016x}")
    if header.vol_fstype != _FSTYPE:
        raise NotHammerError(f"{name} is not a HAMMER volume: its file system type is {header.vol_fstype}")
    if not 0 <= volume.number < MAX_VOLUMES:
        raise CorruptionError(f"volume number {volume.number}, where 0 to 255 are possible,", offset=144, path=name)
    if header.vol_rootvol != ROOT_VOLNO:
        raise CorruptionError(f"root volume number {header.vol_rootvol}, which must be 0,", offset=164, path=name)
    start, end = header.vol_buf_beg, header.vol_buf_end
    if not BUFSIZE <= start < end <= SHORT_MASK:
        raise CorruptionError(f"impossible buffer area {start} to {end} in the volume header", offset=24, path=name)
    if check_size and end > device.size:
        raise NotHammerError(f"{name} is truncated: the volume ends at byte {end}, the device at {device.size}")
    return volume


def _check_family(volumes: Sequence[Volume], strangers: bool) -> None:
    """Check that the volumes are all of one file system's, each once, and maybe some more."""
    if not volumes:
        raise NotHammerError("no volume was given")
    seen: dict[int, Volume] = {}
    root = next((volume for volume in volumes if volume.number == ROOT_VOLNO), volumes[0])
    for volume in volumes:
        if volume.header.vol_fsid != root.header.vol_fsid:
            raise NotHammerError(
                f"{volume.device.name} belongs to another file system ({volume.header.vol_fsid}) "
                f"than {root.device.name} ({root.header.vol_fsid})"
            )
        if volume.number in seen:
            twin = seen[volume.number].device.name
            raise NotHammerError(f"{twin} and {volume.device.name} are both volume {volume.number}")
        seen[volume.number] = volume
    count = root.header.vol_count
    if not 1 <= count <= MAX_VOLUMES:
        raise CorruptionError(f"impossible count of {count} volumes", offset=148, path=root.device.name)
    if ROOT_VOLNO not in seen or len(seen) < count:
        absent = [n for n in range(max(count, max(seen) + 1)) if n not in seen][: max(1, count - len(seen))]
        names = f"volume{'s' if len(absent) > 1 else ''} {_listed(absent)}"
        raise NotHammerError(f"{names} of {count} missing ({root.device.name} was given)")
    if len(seen) > count and not strangers:
        raise NotHammerError(f"{root.device.name} says the file system has {count} volumes, but {len(seen)} were given")


def _listed(numbers: Sequence[int]) -> str:
    """Ascending numbers for a sentence; a root header may be wrong about 250 of them."""
    if len(numbers) > _LISTED_MAX:
        return f"{', '.join(map(str, numbers[: _LISTED_MAX - 1]))} and {len(numbers) - _LISTED_MAX + 1} more"
    return ", ".join(map(str, numbers))


def _check_version(root: Volume) -> None:
    version = root.header.vol_version
    if not VOLUME_VERSION_MIN <= version <= VOLUME_VERSION_MAX:
        raise NotHammerError(
            f"{root.device.name} has HAMMER version {version}; "
            f"versions {VOLUME_VERSION_MIN} to {VOLUME_VERSION_MAX} are supported"
        )


def _check_fifo(volumes: VolumeSet) -> None:
    """Check where the root's header puts the UNDO FIFO: a wrong address would let UNDO records overwrite data."""
    name, header = volumes.root.device.name, volumes.root.header
    entry = header.blockmap(ZONE_UNDO)
    size = entry.alloc_offset - encode(ZONE_UNDO, 0, 0)
    if size <= 0 or size % BIGBLOCK_SIZE or size > MAX_UNDO_BIGBLOCKS * BIGBLOCK_SIZE:
        raise CorruptionError("impossible size of the UNDO FIFO in the volume header", offset=entry.base, path=name)
    seen: set[Offset] = set()
    for index in range(size // BIGBLOCK_SIZE):
        place = header.undo_bigblock(index)
        whole = zone_of(place) == ZONE_RAW_BUFFER and place % BIGBLOCK_SIZE == 0 and place not in seen
        if not whole or not volumes.covers(place, BIGBLOCK_SIZE):
            raise CorruptionError(f"impossible address {place:016x} of UNDO FIFO big-block {index}", path=name)
        seen.add(place)
