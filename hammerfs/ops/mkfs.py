"""Making a file system: which requests are sensible, how large the UNDO FIFO becomes, and in what order all is written.

The checks are those of `newfs_hammer.c` (`test_*_size`, `format_volume`); where the original demands -f, so do we, by
the same limits.  One thing differs: newfs_hammer gives every file system at least 512 MiB of UNDO FIFO, half of a 1 GiB
image.  `default_undo_bigblocks` documents our rule; from 10 GiB on, where the original does without -f, both agree.

Nothing is written before `plan_format` has returned.  Writing first takes an old header away, then lays down the
contents, and adds the new headers behind a barrier: whenever it is interrupted, the volumes are a whole file system or
plainly none.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hammerfs.device.base import Device
from hammerfs.errors import UsageError
from hammerfs.ondisk.address import SHORT_MASK
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BOOT_AREA_MAX,
    BOOT_AREA_MIN,
    BUFSIZE,
    LABEL_SIZE,
    MAX_UNDO_BIGBLOCKS,
    MAX_VOLUMES,
    MEMORY_LOG_MAX,
    MEMORY_LOG_MIN,
    MIN_UNDO_BIGBLOCKS,
    ROOT_VOLNO,
    VOLUME_SIGNATURE,
    VOLUME_SIGNATURE_REVERSED,
    VOLUME_VERSION_DEFAULT,
    VOLUME_VERSION_MAX,
    VOLUME_VERSION_MIN,
)
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.ops.mkfs_layout import Extent, FormatLayout, FormatParameters
from hammerfs.ops.progress import Progress, SilentProgress

UNFORCED_MIN = 10 << 30
"""Free space on volume 0 below which the original wants to be forced."""
MIN_FREE_BIGBLOCKS = 24
"""DragonFly keeps 20 big-blocks back from create and write (HAMMER_CHKSPC_WRITE): with fewer than this, a new file
system would already be full."""
SMALL_UNDO_SHARE = 20
"""A small file system's UNDO FIFO is one part in so many of volume 0."""
SMALL_UNDO_BIGBLOCKS = 2
"""Least UNDO FIFO that is chosen by itself."""
_UNDO_SHARE = 1000
_SIGNATURES = {VOLUME_SIGNATURE, VOLUME_SIGNATURE_REVERSED}


@dataclass(frozen=True, slots=True)
class FormatRequest:
    """What the user asked for.  Sizes are bytes, None leaves a choice to us; `time_ns` counts from 1970."""

    label: str
    version: int = VOLUME_VERSION_DEFAULT
    boot_area_size: int | None = None
    memory_log_size: int | None = None
    undo_size: int | None = None
    fsid: uuid.UUID | None = None
    time_ns: int | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class FormatPlan:
    """A request that passed all checks: the layout to write, and what the user should hear about it."""

    layout: FormatLayout
    warnings: tuple[str, ...]
    undo_chosen: bool
    """Whether the size of the UNDO FIFO is our choice."""


def default_undo_bigblocks(buffer_area_size: int) -> int:
    """Big-blocks of UNDO FIFO for a volume 0 with `buffer_area_size` bytes between vol_buf_beg and vol_buf_end.

    newfs_hammer takes 0.1 %, at least 512 MiB and at most 1 GiB.  We take the same, but never more than a twentieth
    and never less than 16 MiB: 56 MiB for a 1 GiB image, 512 MiB from 10 GiB on.  The flusher begins a new cycle before
    the FIFO is half full, so a smaller FIFO means more cycles, not less safety.
    """
    original = min(max(_bigblocks(-(-buffer_area_size // _UNDO_SHARE)), MIN_UNDO_BIGBLOCKS), MAX_UNDO_BIGBLOCKS)
    small = max(_bigblocks(-(-buffer_area_size // SMALL_UNDO_SHARE)), SMALL_UNDO_BIGBLOCKS)
    return min(original, small)


def plan_format(request: FormatRequest, volume_sizes: Sequence[int]) -> FormatPlan:
    """Check a request against the sizes of its volumes (bytes, volume 0 first); UsageError says what cannot be."""
    label = _checked_label(request.label)
    if not VOLUME_VERSION_MIN <= request.version <= VOLUME_VERSION_MAX:
        known = f"{VOLUME_VERSION_MIN} to {VOLUME_VERSION_MAX}"
        raise UsageError(f"HAMMER version {request.version} is unknown, versions {known} can be made")
    if not 1 <= len(volume_sizes) <= MAX_VOLUMES:
        raise UsageError(f"a file system has 1 to {MAX_VOLUMES} volumes, not {len(volume_sizes)}")
    warnings = _check_areas(request)
    parameters = FormatParameters(
        label=label,
        volume_sizes=tuple(volume_sizes),
        version=request.version,
        undo_bigblocks=0,
        boot_area_size=BOOT_AREA_MIN if request.boot_area_size is None else request.boot_area_size,
        memory_log_size=MEMORY_LOG_MIN if request.memory_log_size is None else request.memory_log_size,
        fsid=uuid.uuid4() if request.fsid is None else request.fsid,
        time_us=_checked_time_us(request.time_ns),
    )
    layout = _with_undo(parameters, request.undo_size)
    _check_volumes(layout, forced=request.force)
    return FormatPlan(layout, tuple(warnings), undo_chosen=not request.undo_size)


def write_file_system(layout: FormatLayout, devices: Sequence[Device], progress: Progress | None = None) -> None:
    """Write a planned file system to its devices, volume 0 first among them; durable on return."""
    report = SilentProgress() if progress is None else progress
    assert tuple(device.size for device in devices) == layout.parameters.volume_sizes, "planned for other devices"
    for device in devices:
        if is_formatted(device):
            device.write(0, bytes(BUFSIZE))
            device.barrier()
    report.phase("formatting", layout.contents_size)
    for extent in layout.contents():
        _write(devices, extent)
        report.advance(len(extent.data))
    for device in devices:
        device.barrier()
    for extent in layout.headers():
        _write(devices, extent)
        devices[extent.volume].barrier()


def is_formatted(device: Device) -> bool:
    """Whether a device carries a HAMMER volume header, of either byte order."""
    return device.size >= BUFSIZE and _header(device).vol_signature in _SIGNATURES


def label_of(device: Device) -> str:
    """The label in a device's HAMMER header."""
    return _header(device).label


def _header(device: Device) -> VolumeHeader:
    return VolumeHeader(device.read(0, BUFSIZE))


def _write(devices: Sequence[Device], extent: Extent) -> None:
    devices[extent.volume].write(extent.offset, extent.data)


def _bigblocks(size: int) -> int:
    return -(-size // BIGBLOCK_SIZE)


def _with_undo(parameters: FormatParameters, undo_size: int | None) -> FormatLayout:
    """The layout with its UNDO FIFO: as large as asked, in whole big-blocks, or as the default rule says.

    Asking for 0 leaves the choice open, as it does in newfs_hammer.
    """
    root = FormatLayout(parameters).volumes[ROOT_VOLNO]
    area = max(0, root.buffer_end - root.buffer_begin)
    bigblocks = _bigblocks(undo_size) if undo_size else default_undo_bigblocks(area)
    return FormatLayout(replace(parameters, undo_bigblocks=bigblocks))


def _checked_label(label: str) -> bytes:
    raw = label.encode("utf-8", "surrogateescape")
    if not raw:
        raise UsageError("a file system must have a label that is not empty")
    if len(raw) >= LABEL_SIZE or b"\0" in raw:
        raise UsageError(f"a label has at most {LABEL_SIZE - 1} bytes and no NUL, this one has {len(raw)} bytes")
    return raw


def _checked_time_us(time_ns: int | None) -> int:
    moment = time.time_ns() if time_ns is None else time_ns
    if not 0 <= moment < 1_000_000_000 << 32:
        raise UsageError(f"{moment} ns since 1970 cannot be stored: create_ts holds seconds in 32 bits")
    return moment // 1000


def _check_areas(request: FormatRequest) -> list[str]:
    """The limits of newfs_hammer's -b, -m and -u; returns the warnings that -f turned refusals into."""
    undo_min, undo_max = MIN_UNDO_BIGBLOCKS * BIGBLOCK_SIZE, MAX_UNDO_BIGBLOCKS * BIGBLOCK_SIZE
    areas = (
        ("boot area", request.boot_area_size, BOOT_AREA_MIN, BOOT_AREA_MAX),
        ("memory log", request.memory_log_size, MEMORY_LOG_MIN, MEMORY_LOG_MAX),
        ("UNDO/REDO FIFO", request.undo_size, undo_min, undo_max),
    )
    warnings: list[str] = []
    for name, size, smallest, largest in areas:
        if size is None:
            continue
        if size < 0 or size % BUFSIZE:
            raise UsageError(f"the size of the {name} must be a multiple of {_plain(BUFSIZE)}, not {size} bytes")
        if size > largest:
            raise UsageError(f"the {name} has at most {_plain(largest)}")
        if size < smallest and not request.force:
            raise UsageError(f"the {name} should have at least {_plain(smallest)}; -f makes it smaller")
        if size < smallest:
            warnings.append(f"the {name} has less than {_plain(smallest)}, as -f permits")
    return warnings


def _check_volumes(layout: FormatLayout, *, forced: bool) -> None:
    for volume, size in zip(layout.volumes, layout.parameters.volume_sizes, strict=True):
        if volume.buffer_end - volume.buffer_begin > SHORT_MASK:
            raise UsageError(f"volume {volume.number} is too large: {size} bytes, HAMMER addresses {SHORT_MASK + 1}")
        if volume.bigblocks <= volume.freemap_bigblocks:
            raise UsageError(f"volume {volume.number} is too small: {size} bytes leave no big-block for data")
    root = layout.volumes[ROOT_VOLNO]
    if root.bigblocks < layout.root_bigblocks_needed:
        needed = root.device_offset(layout.root_bigblocks_needed)
        raise UsageError(f"volume 0 is too small: its UNDO FIFO, freemap and root directory need {_plain(needed)}")
    missing = MIN_FREE_BIGBLOCKS - layout.free_bigblocks
    if missing > 0:
        total = sum(layout.parameters.volume_sizes) + missing * BIGBLOCK_SIZE
        raise UsageError(f"the file system would be full from the start: it needs about {_plain(total)}")
    if (root.bigblocks - root.freemap_bigblocks) * BIGBLOCK_SIZE < UNFORCED_MIN and not forced:
        raise UsageError(f"volume 0 would have less than {_plain(UNFORCED_MIN)} of space; -f makes it nevertheless")


def _plain(size: int) -> str:
    """A size in its largest unit that leaves at least two of it, rounded up: enough for a sentence."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 2 << shift or size == 1 << shift:
            return f"{-(-size >> shift)} {unit}"
    return f"{size} bytes"
