"""A volume joins a mounted file system, or leaves it (`hammer_volume.c: hammer_ioc_volume_add, hammer_ioc_volume_del`).

Either is one change of layer 1 and of the root's header, under UNDO like any other: the cycle that writes it makes the
new set of volumes the file system's, or recovery makes the old one.  Nothing is allocated on a volume that joins before
that cycle is closed, nor on one that leaves from long before it, so recovery needs the volume in neither case.  Only
then its header may be taken away, and the other headers learn the new count (`membership.settle_counts`).

Back-end code, for works (`work.py`), which call these between two `yield`s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hammerfs.errors import BusyError, UsageError
from hammerfs.ondisk.constants import MAX_VOLUMES

if TYPE_CHECKING:
    from hammerfs.fs.context import Context
    from hammerfs.ondisk.address import Offset
    from hammerfs.ondisk.freemap import Layer1
    from hammerfs.store.volumes import Volume


def begin(ctx: Context) -> None:
    """Have the set of volumes to oneself until `end`; BusyError when somebody else has."""
    if ctx.volumes_changing:
        raise BusyError("another volume is being added or removed")
    ctx.volumes_changing = True


def offer_what_joined(ctx: Context) -> None:
    """All until now is durable: a volume whose addition nobody waited for is used from now on.

    What is withheld for another reason stays so.
    """
    if ctx.blockmap.offers_later:
        ctx.blockmap.offer()


def end(ctx: Context, *, durable: bool = True) -> None:
    """Let others; what was withheld is offered, a volume whose joining is not `durable` only when that is."""
    if durable:
        ctx.blockmap.offer()
    else:
        ctx.blockmap.offer_later()
    ctx.space.adapt()
    ctx.volumes_changing = False


def unused_number(ctx: Context) -> int:
    """The number that the next volume gets, the lowest there is."""
    taken = ctx.volumes.volumes
    number = next((number for number in range(MAX_VOLUMES) if number not in taken), None)
    if number is None:
        raise UsageError(f"the file system has {MAX_VOLUMES} volumes already")
    return number


def join(ctx: Context, volume: Volume, entries: Sequence[tuple[Offset, Layer1]]) -> None:
    """Make a formatted volume, durable as it is, one of the file system; `end` follows when that is durable, too.

    entries -- its layer-1 entries, each with the offset that its reach begins at
    """
    header = volume.header
    ctx.volumes.add(volume)
    ctx.freemap.begin_volume(volume.number, header.vol_buf_end - header.vol_buf_beg, entries)
    ctx.blockmap.withhold(volume.number)
    free = ctx.freemap.free_bigblocks(volume.number)
    ctx.root.total_bigblocks += free
    ctx.root.free_bigblocks += free
    ctx.root.volume_count += 1


def part(ctx: Context, number: int) -> None:
    """Make a withheld volume that nothing refers to no longer one of the file system."""
    assert not ctx.blockmap.holds(number), "something waits on a volume that leaves"
    free = ctx.freemap.free_bigblocks(number)
    ctx.freemap.end_volume(number)
    ctx.blockmap.offer()
    ctx.root.total_bigblocks -= free
    ctx.root.free_bigblocks -= free
    ctx.root.volume_count -= 1
