"""A slave that is mirrored to while the power fails: where its changes come from, and whether it can go on.

The source is another file system, changed at random before anything is recorded.  Of some of its moments it is known
what it looked like then: readers of the slave have to see one of those, whatever the power did, and a whole batch that
comes afterwards has to bring the slave to the last one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

from crash_lib.operations import OPERATIONS, WEIGHTS, carry_out, random_step
from crash_lib.small import RECOVERY_US, fresh, mount
from crash_lib.twin import State, Twin, view
from hammerfs.device.base import Device
from hammerfs.device.overlay import OverlayDevice
from hammerfs.errors import HammerError
from hammerfs.fs import pfs, rootrecords
from hammerfs.fs.mirrorread import changes
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Receive, Work, run_work
from hammerfs.ondisk.address import Tid, pfs_localization
from hammerfs.ondisk.constants import MAX_TID, OBJID_ROOT, PFSD_SLAVE
from hammerfs.ondisk.mirror import Sync, packed
from hammerfs.ondisk.pfs import PFS_DATA_SIZE, PfsData
from hammerfs.ops.check import check_devices
from hammerfs.ops.check_freemap import check_freemap
from hammerfs.ops.operation import Call, Result
from hammerfs.ops.registry import begin, find

SLAVE = 1
PIECE_BYTES = 20_001
"""What arrives at once; hardly ever where a record ends."""
STEPS = 24
"""Operations between two moments of the source."""


@dataclass(frozen=True)
class Moment:
    """A state of the source: its TID, what it looks like, and the batch that leads there from the moment before."""

    tid: Tid
    state: State
    stream: bytes


class MirrorSource:
    """A file system that nobody changes any more, every second one without history, and its moments, oldest first."""

    def __init__(self, seed: int, moments: int) -> None:
        source = random.Random(f"source {seed}")
        nohistory = bool(seed % 2)
        self._fs = mount(fresh(), xattr=True, nohistory=nohistory)
        twin = Twin(self._fs)
        drawn = [name for name in OPERATIONS for _ in range(WEIGHTS.get(name, 1))]
        flusher = self._fs.flusher
        assert flusher is not None
        self.moments: list[Moment] = []
        tid = 0
        for _ in range(moments):
            for _ in range(STEPS):
                carry_out(twin, random_step(source, drawn))
            twin.release_all()
            flusher.flush_now()
            since, tid = tid, flusher.cycle.flush_tid1
            self.moments.append(Moment(tid, twin.root.state(), self._stream(since, tid)))

    def make_slave(self, twin: Twin) -> None:
        """A slave beside the twin's root, that is where the source was at its first moment."""
        self._twin = twin
        data = PfsData(bytearray(PFS_DATA_SIZE))
        data.sync_beg_tid = 1
        data.mirror_flags = PFSD_SLAVE
        rootrecords.save_pfs(twin.fs.ctx, SLAVE, data)
        first = self.moments[0]
        run_work(twin.fs, _mirrored(twin.fs, first.tid, first.stream))
        twin.slave = first.state

    def next_batch(self, fs: FileSystem) -> Work[None]:
        """What brings the slave to the moment after the one that it shows, if there is one."""
        synced = _synced(fs)
        for moment in self.moments:
            if moment.tid > synced:
                yield from _written(fs, moment.tid, moment.stream)
                # From now on readers may see it, and after a crash they do or do not.
                self._twin.slave = moment.state
                yield from _operation(fs, "mirror-synced", pfs=SLAVE, tid=moment.tid)
                return

    def complaints(self, devices: Sequence[Device]) -> Iterator[str]:
        """What keeps the slave of a recovered image from going on; the devices stay as they are."""
        overlays = [OverlayDevice(device) for device in devices]
        last = self.moments[-1]
        try:
            fs = mount(overlays, start_us=RECOVERY_US, xattr=True)
            run_work(fs, _mirrored(fs, last.tid, self._stream(_synced(fs), last.tid)))
            if slave_state(fs) != last.state:
                yield "the slave cannot be brought to where its source is"
            fs.close_now()
        except HammerError as error:
            yield f"the slave cannot go on: {error}"
            return
        # What an exploration knows of freemaps is about images of its own.
        with mock.patch("hammerfs.ops.check.check_freemap", check_freemap):
            yield from (f"after the slave went on: {problem}" for problem in check_devices(overlays).problems)

    def _stream(self, since: Tid, end: Tid) -> bytes:
        """The batch of what happened after `since`, up to `end`."""
        records = [record for record in changes(self._fs.ctx, 0, since + 1, end) if record is not None]
        return b"".join(map(packed, [*records, Sync()]))


def slave_state(fs: FileSystem) -> State | None:
    """What readers of the slave see; None when there is none, or nothing in it."""
    localization = pfs_localization(SLAVE)
    if pfs.load_pfs(fs.ctx, localization) is None or not _synced(fs):
        return None
    return view(fs, fs.inode(localization, OBJID_ROOT, pfs.view_of(fs.ctx, localization, MAX_TID)))


def _synced(fs: FileSystem) -> Tid:
    data = pfs.load_pfs(fs.ctx, pfs_localization(SLAVE))
    assert data is not None
    return data.sync_end_tid


def _mirrored(fs: FileSystem, end: Tid, stream: bytes) -> Work[None]:
    yield from _written(fs, end, stream)
    yield from _operation(fs, "mirror-synced", pfs=SLAVE, tid=end)


def _written(fs: FileSystem, end: Tid, stream: bytes) -> Work[Result]:
    """Apply a batch as it arrives, in pieces."""
    return (yield from _fed(_operation(fs, "mirror-write", pfs=SLAVE, begin=1, end=end), stream))


def _operation(fs: FileSystem, name: str, **arguments: int) -> Work[Result]:
    return begin(find(name), Call(fs, fs.root, arguments))


def _fed(work: Work[Result], stream: bytes) -> Work[Result]:
    """The work, with its questions for bytes answered from a stream."""
    at = 0
    try:
        step = next(work)
        while True:
            if isinstance(step, Receive):
                piece = stream[at : at + min(step.limit, PIECE_BYTES)]
                at += len(piece)
                step = work.send(piece) if piece else next(work)
            else:
                yield step
                step = next(work)
    except StopIteration as end:
        result: Result = end.value
        return result
    finally:
        work.close()
