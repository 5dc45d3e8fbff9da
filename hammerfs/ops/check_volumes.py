"""Phase 1: volume headers.  What `VolumeSet.open` refuses is not repeated here; this looks at what it lets pass.

Stale checksums are notes: the original neither verifies `vol_crc` and `entry_crc` nor keeps them up to date
(`hammer_ondisk.c: hammer_load_volume`, `hammer_recover.c`).
"""

from __future__ import annotations

from itertools import pairwise

from hammerfs.ondisk.address import encode, short_of, volume_of, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    BUFMASK,
    BUFSIZE,
    MAX_UNDO_BIGBLOCKS,
    RECORD_ZONES,
    ZONE_BTREE,
    ZONE_FREEMAP,
    ZONE_RAW_BUFFER,
    ZONE_RAW_VOLUME,
    ZONE_UNDO,
)
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.ops.check_report import Report
from hammerfs.store.volumes import VolumeSet

KIND = "volume header"
ROOT = f"{encode(ZONE_RAW_VOLUME, 0, 0):016x}"
"""Place of the root volume's header in findings."""


def check_headers(volumes: VolumeSet, report: Report) -> None:
    """Layout of every volume, and the UNDO FIFO: what recovery relies on and leaves as it is."""
    for number, volume in sorted(volumes.volumes.items()):
        report.count("volumes")
        _check_layout(number, volume.header, volume.device.size, report)
        if not volume.header.crc_ok():
            report.note(KIND, header_place(number), "vol_crc is stale")
    _check_undo_array(volumes, report)


def header_place(number: int) -> str:
    """A volume header's place in findings: its zone-1 address."""
    return f"{encode(ZONE_RAW_VOLUME, number, 0):016x}"


def check_counts(volumes: VolumeSet, report: Report) -> None:
    """Whether all headers count the volumes alike; the root's counts, and a mount lets the others follow."""
    count = volumes.root.header.vol_count
    for number, volume in sorted(volumes.volumes.items()):
        if volume.header.vol_count != count:
            text = f"counts {volume.header.vol_count} volumes, the root's {count}"
            report.note(KIND, header_place(number), text)


def _check_layout(number: int, header: VolumeHeader, device_size: int, report: Report) -> None:
    order = (0, BUFSIZE, header.vol_bot_beg, header.vol_mem_beg, header.vol_buf_beg, header.vol_buf_end, device_size)
    if any(low > high for low, high in pairwise(order)):
        report.problem(
            KIND,
            header_place(number),
            f"areas overlap or end beyond the device of {device_size} bytes: boot {header.vol_bot_beg}, "
            f"memory log {header.vol_mem_beg}, buffers {header.vol_buf_beg} to {header.vol_buf_end}",
        )
    for name, value in (("vol_buf_beg", header.vol_buf_beg), ("vol_buf_end", header.vol_buf_end)):
        if value & BUFMASK:
            report.problem(KIND, header_place(number), f"{name} {value} is not a multiple of {BUFSIZE}")
    if header.vol_flags & ~1:
        report.note(KIND, header_place(number), f"unknown volume flags {header.vol_flags:08x}")


def check_zones(root: VolumeHeader, report: Report) -> None:
    """The root volume's zones and pointers, which recovery may have restored."""
    for zone in RECORD_ZONES:
        entry = root.blockmap(zone)
        end = encode(zone + 1, 0, 0)
        if zone_of(entry.alloc_offset) != zone:
            report.problem(KIND, ROOT, f"zone {zone}'s alloc_offset {entry.alloc_offset:016x} is of another zone")
        if zone_of(entry.next_offset) != zone and entry.next_offset != end:
            report.problem(KIND, ROOT, f"zone {zone}'s next_offset {entry.next_offset:016x} is of another zone")
    for zone in (ZONE_UNDO, ZONE_FREEMAP, *RECORD_ZONES):
        if not root.blockmap(zone).crc_ok(root.vol_version):
            report.note(KIND, ROOT, f"blockmap entry CRC of zone {zone} is stale")
    freemap = root.blockmap(ZONE_FREEMAP).phys_offset
    if zone_of(freemap) != ZONE_RAW_BUFFER or freemap & BIGBLOCK_MASK:
        report.problem(KIND, ROOT, f"the freemap's address {freemap:016x} is no big-block")
    if zone_of(root.vol0_btree_root) != ZONE_BTREE:
        report.problem(KIND, ROOT, f"the B-tree root {root.vol0_btree_root:016x} is not in zone {ZONE_BTREE}")


def _check_undo_array(volumes: VolumeSet, report: Report) -> None:
    root = volumes.root.header
    entry = root.blockmap(ZONE_UNDO)
    size = short_of(entry.alloc_offset)
    if zone_of(entry.alloc_offset) != ZONE_UNDO or size % BIGBLOCK_SIZE or not 0 < size <= undo_limit():
        report.problem(KIND, ROOT, f"the UNDO FIFO's end {entry.alloc_offset:016x} is impossible")
        return
    for name, offset in (("first", entry.first_offset), ("next", entry.next_offset)):
        if zone_of(offset) != ZONE_UNDO or offset > entry.alloc_offset:
            report.problem(KIND, ROOT, f"the UNDO FIFO's {name}_offset {offset:016x} is outside of the FIFO")
    for index in range(size // BIGBLOCK_SIZE):
        bigblock = root.undo_bigblock(index)
        known = volume_of(bigblock) in volumes.volumes
        if zone_of(bigblock) != ZONE_RAW_BUFFER or bigblock & BIGBLOCK_MASK or not known:
            report.problem(KIND, ROOT, f"big-block {index} of the UNDO FIFO has the address {bigblock:016x}")


def undo_limit() -> int:
    """Most bytes an UNDO FIFO can have."""
    return MAX_UNDO_BIGBLOCKS * BIGBLOCK_SIZE


def undo_bigblocks(root: VolumeHeader) -> list[int]:
    """Zone-2 addresses of the UNDO FIFO's big-blocks."""
    size = min(short_of(root.blockmap(ZONE_UNDO).alloc_offset), undo_limit())
    return [root.undo_bigblock(index) for index in range(size // BIGBLOCK_SIZE)]
