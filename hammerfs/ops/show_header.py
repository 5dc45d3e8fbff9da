"""What every report of hammer(8) begins with: the volume header's facts and the zones, in its columns."""

from __future__ import annotations

from collections.abc import Iterator

from hammerfs.ondisk.address import LONG_MASK
from hammerfs.ondisk.constants import FSTYPE_STRING, FSTYPE_UUID, MAX_ZONES, ZONE_UNDO
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.ops.escaping import on_one_line

ZONE_LABELS = {
    1: "raw_volume",
    2: "raw_buffer",
    3: "undo",
    4: "freemap",
    8: "btree",
    9: "meta",
    10: "large_data",
    11: "small_data",
    15: "unavail",
}
_UNITS = ("B", "KB", "MB", "GB", "TB")


def size_text(size: int) -> str:
    """A size as hammer(8) prints it: the next unit begins at half of it, two decimals, six columns."""
    unit = 0
    while unit < len(_UNITS) - 1 and size >= 1024 ** (unit + 1) // 2:
        unit += 1
    return f"{size / 1024**unit:6.2f}{_UNITS[unit]}"


def header_lines(header: VolumeHeader) -> Iterator[str]:
    """The root volume's header as lines."""
    yield f"vol_label\t{on_one_line(header.label)}"
    yield f"vol_count\t{header.vol_count}"
    name = f' "{FSTYPE_STRING}"' if str(header.vol_fstype) == FSTYPE_UUID else ""
    yield f"vol_fstype\t{header.vol_fstype}{name}"
    yield f"vol_fsid\t{header.vol_fsid}"
    yield f"vol_bot_beg\t{size_text(header.vol_bot_beg)}"
    yield f"vol_mem_beg\t{size_text(header.vol_mem_beg)}"
    yield f"vol_buf_beg\t{size_text(header.vol_buf_beg)}"
    yield f"vol_buf_end\t{size_text(header.vol_buf_end)}"
    yield f"vol0_next_tid\t{header.vol0_next_tid:016x}"
    undo = header.blockmap(ZONE_UNDO)
    size = undo.alloc_offset & LONG_MASK
    used = undo.next_offset - undo.first_offset
    yield f"undo_size\t{size_text(size)}"
    yield f"undo_used\t{size_text(used if used >= 0 else used + size)}"
    yield "zone #             phys             first            next             alloc"
    for zone in range(MAX_ZONES):
        entry = header.blockmap(zone)
        yield (
            f"zone {zone:<2} {ZONE_LABELS.get(zone, ''):<10} {entry.phys_offset:016x} {entry.first_offset:016x} "
            f"{entry.next_offset:016x} {entry.alloc_offset:016x}"
        )
