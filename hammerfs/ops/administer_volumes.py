"""Volumes added to a file system and removed from it, mounted or not (`hammer_volume.c`, `cmd_volume.c`).

`fs/volumechange.py` has the moment in which the set changes; here is what comes before and after: a device is opened,
locked and formatted, or everything is moved away from it, and in the end its header is taken away.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import TypeVar

from hammerfs.device.base import Device
from hammerfs.errors import CorruptionError, DeviceError, NoSpaceError, UsageError
from hammerfs.fs import volumechange
from hammerfs.fs.context import Context
from hammerfs.fs.work import Aside, Done, Phase, Want, Work
from hammerfs.ondisk.address import SHORT_MASK
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, BUFSIZE, LABEL_SIZE, RECORD_ZONES, ROOT_VOLNO, ZONE_UNDO
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.ops.administer_status import volumes_of
from hammerfs.ops.escaping import on_one_line
from hammerfs.ops.mkfs import is_formatted
from hammerfs.ops.mkfs_layout import FormatLayout, FormatParameters, VolumeGeometry, volume_geometry
from hammerfs.ops.operation import Call, Operation, Result
from hammerfs.ops.reblock import Parts, ReblockOutcome, reblock
from hammerfs.ops.record_range import RecordRange
from hammerfs.store.membership import settle_counts
from hammerfs.store.volumes import Volume

log = logging.getLogger(__name__)

T = TypeVar("T")

_WRITE_BYTES = 512 * 1024
"""Of a device being formatted, between two yields."""
_BIGBLOCKS_PER_STRETCH = 500
_MOVE_TRIES = 3
"""Walks through the B-tree until a volume is empty: one is enough unless a node moved from behind to before it."""
_SETTLE_TRIES = 10


# --- adding -------------------------------------------------------------------------------------
def _add(call: Call) -> Work[Result]:
    """Format `device` and make it a volume; whatever ends this early leaves the file system as it is."""
    ctx, path, open_device = call.fs.ctx, call.text("device"), call.fs.open_device
    if open_device is None:
        raise UsageError("volumes cannot be added here")
    yield from _begin(ctx)
    joined = durable = False
    device = None
    try:
        number = volumechange.unused_number(ctx)
        # The path may lead through this very file system, which has to go on answering meanwhile.
        device = yield from _found_aside(partial(open_device, path))
        layout, geometry = _planned(ctx, device, number)
        _refuse_formatted(ctx, device)
        yield from _format(ctx, device, layout, geometry)
        if not call.interrupted():
            joined = True
            volumechange.join(ctx, Volume(device), list(layout.layer1_entries(geometry)))
            yield Want.DURABLE
            durable = True
            settle_counts(ctx.volumes)
            yield Aside(ctx.volumes.barrier)
    finally:
        volumechange.end(ctx, durable=durable or not joined)
        if device is not None and not joined:
            device.close()
    return {"device": path, "number": number, "interrupted": not joined, "volumes": volumes_of(ctx)}


def _found_aside(call: Callable[[], T]) -> Work[T]:
    """What a call finds that may wait for this file system."""
    found: list[T] = []
    yield Aside(lambda: found.append(call()))
    return found[0]


def _begin(ctx: Context) -> Work[None]:
    """Have the set of volumes to oneself, with all that is known to be durable in use; BusyError."""
    if ctx.blockmap.offers_later:
        yield Want.DURABLE
        volumechange.offer_what_joined(ctx)
    volumechange.begin(ctx)


def _planned(ctx: Context, device: Device, number: int) -> tuple[FormatLayout, VolumeGeometry]:
    """Where everything will lie on a new volume, whose areas are as large as those of the root.

    CorruptionError when those cannot be, UsageError when the device does not fit.
    """
    root = ctx.root.header
    boot, memory = root.vol_mem_beg - root.vol_bot_beg, root.vol_buf_beg - root.vol_mem_beg
    if boot < 0 or memory < 0 or (boot | memory) % BUFSIZE:
        raise CorruptionError(
            f"impossible boot area of {boot} or memory area of {memory} bytes in the volume header",
            path=ctx.volumes.root.device.name,
        )
    label = root.vol_label.split(b"\0", 1)[0][: LABEL_SIZE - 1]
    layout = FormatLayout(FormatParameters(label, (), ctx.version, 0, boot, memory, ctx.volumes.fsid, 0))
    geometry = volume_geometry(number, device.size, boot, memory)
    if geometry.bigblocks <= geometry.freemap_bigblocks:
        raise UsageError(f"{device.name} is too small: its {device.size} bytes leave no big-block for data")
    if geometry.buffer_end - geometry.buffer_begin > SHORT_MASK:
        raise UsageError(f"{device.name} is too large: HAMMER addresses {SHORT_MASK + 1} bytes of a volume")
    return layout, geometry


def _refuse_formatted(ctx: Context, device: Device) -> None:
    """What holds a file system is not overwritten, but for what is left of an addition that was cut short."""
    if not is_formatted(device):
        return
    header = VolumeHeader(device.read(0, BUFSIZE))
    if header.vol_fsid == ctx.volumes.fsid and header.vol_no not in ctx.volumes.volumes:
        return
    raise UsageError(
        f"{device.name} holds a HAMMER volume already ({on_one_line(header.label)}); "
        "to use it all the same, erase its beginning first: dd if=/dev/zero bs=16k count=1"
    )


def _format(
    ctx: Context, device: Device, layout: FormatLayout, geometry: VolumeGeometry
) -> Iterator[Want | Phase | Done | Aside]:
    """Write layer 2 and the header, durably, and the header last."""
    yield Phase("formatting", geometry.layer2_bigblocks * BIGBLOCK_SIZE)
    with _of_its_own(device):
        device.write(0, bytes(BUFSIZE))
        for extent in layout.layer2(geometry):
            for start in range(0, len(extent.data), _WRITE_BYTES):
                piece = memoryview(extent.data)[start : start + _WRITE_BYTES]
                device.write(extent.offset + start, piece)
                yield Done(len(piece))
                yield Want.PAUSE
    yield Aside(partial(_settle, device))
    header = VolumeHeader(bytearray(layout.header(geometry, ctx.root.volume_count + 1)))
    header.update_crc()
    with _of_its_own(device):
        device.write(0, header.raw)
    yield Aside(partial(_settle, device))


def _settle(device: Device) -> None:
    """A barrier on a device that is no volume."""
    with _of_its_own(device):
        device.barrier()


@contextmanager
def _of_its_own(device: Device) -> Iterator[None]:
    """What a device does that is no volume is no concern of the file system's."""
    try:
        yield
    except DeviceError as error:
        raise UsageError(f"{device.name} cannot be made a volume: {error}") from None


# --- removing -----------------------------------------------------------------------------------
def _delete(call: Call) -> Work[Result]:
    """Move everything away from `device` if `reblock` says so, and make it no volume.

    What ends this early leaves the file system as it is, but for what was moved.  The result says `removed`, or how
    much (`used`, bytes) keeps it from that.
    """
    ctx, path = call.fs.ctx, call.text("device")
    volume = yield from _volume_called(ctx, path)
    number = volume.number
    if number == ROOT_VOLNO:
        raise UsageError(f"{path} is the root volume, which cannot be removed: it holds the freemap and the UNDO FIFO")
    yield from _begin(ctx)
    outcome = ReblockOutcome()
    used, leaves = 0, True
    try:
        # It may have left already, and whoever had asked for that was gone before it could be let go of.
        if ctx.freemap.describes(number):
            used, leaves = yield from _part(call, volume, outcome)
        if leaves:
            yield Want.DURABLE
            yield from _let_go(ctx, number)
    finally:
        volumechange.end(ctx)
    return {
        "device": path,
        "number": number,
        "removed": leaves,
        "used": used,
        **asdict(outcome),
        "volumes": volumes_of(ctx),
    }


def _part(call: Call, volume: Volume, outcome: ReblockOutcome) -> Work[tuple[int, bool]]:
    """Empty a volume if that is asked for, and make it no longer one of the file system if it is empty.

    The bytes that it held, and whether it leaves.
    """
    ctx, number, may_move = call.fs.ctx, volume.number, call.flag("reblock")
    ctx.blockmap.withhold(number)
    used = yield from _used(ctx, number)
    if not used or may_move:
        _demand_space(ctx, volume, used)
        yield Want.DURABLE
        yield from _empty(call, volume, outcome)
    if outcome.interrupted or (used and not may_move):
        return used, False
    yield from _wait_until_idle(ctx, volume)
    volumechange.part(ctx, number)
    return used, True


def _volume_called(ctx: Context, path: str) -> Work[Volume]:
    """The volume on a device, by its path or another path of the same device."""

    def is_meant(volume: Volume) -> bool:
        with suppress(OSError):
            return os.path.samefile(volume.device.name, path)
        return False

    for volume in ctx.volumes.volumes.values():
        if volume.device.name == path:
            return volume
    for volume in list(ctx.volumes.volumes.values()):
        if (yield from _found_aside(partial(is_meant, volume))):
            return volume
    raise UsageError(f"{path} is no volume of this file system")


def _used(ctx: Context, number: int) -> Work[int]:
    """Bytes that have to be moved away from a volume, data that records share counted for each of them."""
    used = 0
    for count, (bigblock, zone) in enumerate(ctx.freemap.owned(number), 1):
        if zone == ZONE_UNDO:
            raise CorruptionError(f"UNDO FIFO on volume {number}, where only the root has it,", offset=bigblock)
        if zone in RECORD_ZONES:
            used += BIGBLOCK_SIZE - ctx.freemap.layer2(bigblock).bytes_free
        if count % _BIGBLOCKS_PER_STRETCH == 0:
            yield Want.PAUSE
    return used


def _demand_space(ctx: Context, volume: Volume, used: int) -> None:
    available = ctx.space.available
    if used > available:
        raise NoSpaceError(
            f"{volume.device.name} cannot be removed: it holds {used} bytes, "
            f"and the other volumes have {available} to spare"
        )


def _empty(call: Call, volume: Volume, outcome: ReblockOutcome) -> Work[None]:
    """Move until nothing is owned on a volume; adds up what was done."""
    ctx = call.fs.ctx
    reach = RecordRange(0, all_pfs=True)
    for _ in range(_MOVE_TRIES):
        if not (yield from _used(ctx, volume.number)):
            return
        found = yield from reblock(call.fs, reach, Parts.EVERYTHING, 0, call.interrupted, volume.number)
        for name, value in asdict(found).items():
            if type(value) is int:
                setattr(outcome, name, getattr(outcome, name) + value)
        outcome.damaged, outcome.interrupted, outcome.position = found.damaged, found.interrupted, found.position
        yield Want.DURABLE
        if found.interrupted:
            return
    left = yield from _used(ctx, volume.number)
    if left:
        cause = f": {outcome.damaged} damaged data elements, which 'hammerfs check' names" if outcome.damaged else ""
        raise CorruptionError(f"{left} bytes on {volume.device.name} cannot be moved away{cause}")


def _wait_until_idle(ctx: Context, volume: Volume) -> Iterator[Want]:
    """Until no crash can bring back anything that lay on a volume."""
    for _ in range(_SETTLE_TRIES):
        if not ctx.blockmap.holds(volume.number):
            return
        yield Want.DURABLE
    raise NoSpaceError(f"{volume.device.name} is still in use")


def _let_go(ctx: Context, number: int) -> Work[None]:
    """Take the header away from a volume that has left, and close it."""
    settle_counts(ctx.volumes)
    yield Aside(ctx.volumes.barrier)
    while (volume := ctx.volumes.remove(number)) is None:
        yield Want.PAUSE
    try:
        yield Aside(partial(_erase, volume.device))
    finally:
        volume.device.close()


def _erase(device: Device) -> None:
    """Nobody is to take it for a volume; with a header it would be recognized as a stranger all the same."""
    try:
        device.write(0, bytes(BUFSIZE))
        device.barrier()
    except DeviceError as error:
        log.warning("the header of a volume that was removed could not be erased: %s", error)


OPERATIONS = (
    Operation("volume-add", _add, changes=True),
    Operation("volume-del", _delete, changes=True),
)
