"""Volumes of a file system whose power failed, with UNDO and REDO in the FIFO, and the model of what they hold.

Everything was fsynced by REDO; then a cycle was written and not closed.  So recovery takes the cycle back and runs the
REDO records again, and what comes of it is known to the byte.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import trio
from crash_lib.twin import Node, State, Twin
from flusher_control import running
from small_filesystem import mount, recorded
from test_filesystem_crash import flush_in_one_cycle

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import keep_all
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import short_of
from hammerfs.ondisk.constants import HEAD_TYPE_REDO
from hammerfs.ondisk.fifo import RedoBody, redo_body
from hammerfs.store.fiforeader import FifoReader, Place
from hammerfs.store.recovery import find_range
from hammerfs.store.volumes import VolumeSet

FILES = 3
FSYNCS = 6


class Crashed(NamedTuple):
    """The volumes, the model of what they hold, and its states, from the one before the first fsync on.

    They are those behind each fsync, and behind each write that was laid ahead of one.
    """

    devices: list[MemoryDevice]
    root: Node
    states: list[State]


@lru_cache
def crashed(base: tuple[MemoryDevice, ...], root: Node, *, cycle: bool = True) -> Crashed:
    """A sound file system after all that.

    Without `cycle` the power fails behind the last fsync: no header knows yet how far the FIFO reaches.
    """
    devices, log = recorded([device.copy() for device in base])
    fs = mount(devices, xattr=True)
    twin, source = Twin(fs), random.Random(23)
    twin.root = copy.deepcopy(root)
    files = twin.files()[:FILES]
    assert len(files) == FILES
    states = [twin.root.state()]

    async def main() -> None:
        async with running(fs):
            for node in files:
                await fs.fsync(twin.inode(node))
            for number in range(FSYNCS):
                node = files[number % FILES]
                twin.write(node, source.randrange(20_000), source.randbytes(source.choice((30, 700, 3000))))
                if twin.inode(node) in laid_ahead(fs):
                    states.append(twin.root.state())
                if number % 3 == 2:
                    twin.truncate(node, len(node.content) // 2 + 1)
                await fs.fsync(twin.inode(node))
                states.append(twin.root.state())

    trio.run(main)
    if cycle:
        flush_in_one_cycle(fs)
    found = log.power_cut(len(log.entries), keep_all)
    volumes = VolumeSet.open(found)
    span = find_range(volumes, FifoReader(volumes))
    assert span.redo_sync is not None, "no REDO"
    assert bool(span.records) == cycle, "UNDO"
    return Crashed(found, twin.root, states)


def laid_ahead(fs: FileSystem) -> list[Inode]:
    """Files of which the FIFO holds all that was written since their last fsync."""
    assert fs.ctx.redo is not None
    return [inode for inode in fs.ctx.redo.holders if inode.redo and inode.redo.writes and not inode.redo.unlaid()]


class RedoRecord(NamedTuple):
    """A REDO record of the range: its bytes on the root volume's device, what it says, if its sector is the last."""

    start: int
    size: int
    body: RedoBody
    in_last_sector: bool


def redo_records(devices: Sequence[MemoryDevice]) -> Iterator[RedoRecord]:
    """The REDO records of the active range, in order."""
    volumes = VolumeSet.open(devices)
    reader = FifoReader(volumes)
    header = volumes.root.header
    span = find_range(volumes, reader)
    places: list[Place] = list(reader.scan(span.first, span.length))
    for place in places:
        if place.kind == HEAD_TYPE_REDO:
            body = redo_body(place.record())
            assert body is not None
            start = header.vol_buf_beg + short_of(header.undo_to_zone2(place.offset))
            last = (span.end - 1) // 512 == place.offset // 512
            yield RedoRecord(start, place.size, body, last)
