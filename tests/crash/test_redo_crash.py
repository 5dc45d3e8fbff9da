"""Fast fsyncs and power cuts: what REDO promised is there, whatever flushes it met, and nothing older runs over it.

Files are overwritten, extended and truncated in small and large pieces while groups are flushed around them.  For every
power cut each file must hold a version that is not older than the last one acknowledged.  A write that was never
acknowledged is there as a whole, or not at all.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from unittest import mock

import pytest
import trio
from crash_lib.small import RECOVERY_US, START_US
from crash_lib.verdict import stored_times
from crash_mutants import no_checksum
from flusher_control import running, until
from small_filesystem import assert_settled, fresh, make, mount, read, recorded, walk
from test_filesystem_crash import IMAGES, checked, every_power_cut, flush_in_one_cycle, power_cuts

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import Chooser, RecordingLog, Write, drop_all, keep_all
from hammerfs.errors import CorruptionError
from hammerfs.fs.cycle import run_steps
from hammerfs.fs.fsync import FastFsync
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.redolog import RedoJournal
from hammerfs.ondisk import fifo
from hammerfs.ondisk.address import to_zone2
from hammerfs.ondisk.constants import NODE_SIZE, REDO_WRITE, UNDO_ALIGN
from hammerfs.ondisk.fifo import RedoBody
from hammerfs.store.fiforeader import FifoReader
from hammerfs.store.recovery import recover_stage1
from hammerfs.store.undo import UndoFifo
from hammerfs.store.volumes import VolumeSet

SIZES = [1, 40, 400, 448, 449, 2000, 9000, 20_000]
OFFSETS = [0, 0, 30, 448, 4096, 16_000, 16_384, 30_000]


@dataclass
class Tracked:
    """A file's contents over time, and which of them were acknowledged when.

    versions -- (log position, content), oldest first; acknowledged -- (log position, index of the version)
    """

    name: bytes
    versions: list[tuple[int, bytes]]
    acknowledged: list[tuple[int, int]] = field(default_factory=list)

    def accepts(self, content: bytes, position: int) -> bool:
        """Whether a cut before entry `position` may leave this content."""
        oldest = max((index for at, index in self.acknowledged if at <= position), default=0)
        possible = [content for at, content in self.versions[oldest:] if at <= position]
        return content in possible


class Workload:
    """Random changes and fsyncs of a few files, several tasks at a time, with other flushes in between."""

    def __init__(self, seed: int, version: int = 7, files: int = 3) -> None:
        self.source = random.Random(seed)
        recording, self.log = recorded(fresh(version))
        self.fs = mount(recording, nohistory=seed % 2 == 1)
        self.files = []
        self.made = 0
        for number in range(files):
            name = b"f%d" % number
            make(self.fs, self.fs.root, name, b"start")
            self.files.append(Tracked(name, [(0, b""), (0, b"start")]))
        assert self.fs.flusher is not None
        self.fs.flusher.flush_now()
        self.start = len(self.log.entries)
        for file in self.files:
            file.acknowledged.append((self.start, 1))

    def change(self, file: Tracked) -> None:
        source, fs = self.source, self.fs
        inode = walk(fs, file.name)
        content = file.versions[-1][1]
        if source.random() < 0.2:
            size = source.choice([0, 10, 448, 5000, 16_384, 40_000])
            fs.setattr(inode, size=size)
            content = content[:size].ljust(size, b"\0")
        else:
            offset = source.choice([*OFFSETS, len(content), len(content)])
            data = source.randbytes(source.choice(SIZES))
            fs.write(inode, offset, data)
            content = content.ljust(offset, b"\0")
            content = content[:offset] + data + content[offset + len(data) :]
        file.versions.append((len(self.log.entries), content))

    async def fsync(self, file: Tracked) -> None:
        index = len(file.versions) - 1
        await self.fs.fsync(walk(self.fs, file.name))
        file.acknowledged.append((len(self.log.entries), index))

    async def flush(self) -> None:
        """One of the flushes that fsyncs meet: of everything, waited for or not, or a change that REDO cannot say."""
        flusher = self.fs.flusher
        assert flusher is not None
        choice = self.source.randrange(4)
        if choice == 0:
            await self.fs.sync()
        elif choice == 1:
            flusher.async_(flusher.queue(None))
        elif choice == 2:
            self.fs.setattr(walk(self.fs, self.source.choice(self.files).name), mode=self.source.randrange(0o1000))
        else:
            self.made += 1
            make(self.fs, self.fs.root, b"new%d" % self.made, b"x" * 20_000)
            flusher.async_(flusher.queue(None))

    async def main(self, steps: int) -> None:
        async with running(self.fs) as flusher:
            async with trio.open_nursery() as nursery:
                for _ in range(steps):
                    file = self.source.choice(self.files)
                    for _ in range(self.source.randrange(1, 3)):
                        self.change(file)
                    if self.source.random() < 0.7:
                        nursery.start_soon(self.fsync, file)
                    if self.source.random() < 0.25:
                        nursery.start_soon(self.flush)
                    for _ in range(self.source.randrange(8)):
                        await trio.lowlevel.checkpoint()
            await until(lambda: not flusher.running())
        assert self.fs.failure is None

    def run(self, steps: int = 60) -> None:
        with (
            mock.patch("hammerfs.fs.flusher._STRETCH_SECONDS", 0.0),
            mock.patch("hammerfs.fs.sync_inode._RECORDS_PER_STRETCH", 1),
        ):
            trio.run(self.main, steps)

    def verify(self, image: list[MemoryDevice], position: int) -> None:
        recovered = checked(image)
        for file in self.files:
            content = read(recovered, file.name)
            assert file.accepts(content, position), f"{file.name!r} at {position}: {len(content)} bytes"


@pytest.mark.parametrize(("seed", "version"), [(1, 7), (2, 7), (3, 6), (4, 4)])
def test_acknowledged_contents_survive_every_power_cut(seed: int, version: int) -> None:
    """INV-6, with fast fsyncs before, during and after flushes."""
    work = Workload(seed, version)
    counts: Counter[str] = Counter()
    with counting(RedoJournal, "lay", counts), counting(UndoFifo, "begin_range", counts):
        work.run()
    assert counts["lay"] > 10
    for position, image in power_cuts(work.log, seed, IMAGES * 2):
        if position >= work.start:
            work.verify(image, position)


def test_many_fast_fsyncs_hide_what_they_carry_over() -> None:
    """The rare branch: fsyncs during a flush, which are laid again when its cycle is closed."""
    hidden = Counter[bool]()
    original = UndoFifo.begin_range

    def begin_range(fifo: UndoFifo, *, hidden_range: bool) -> None:
        hidden[hidden_range] += 1
        original(fifo, hidden=hidden_range)

    with mock.patch.object(UndoFifo, "begin_range", lambda fifo, *, hidden: begin_range(fifo, hidden_range=hidden)):
        for seed in range(10, 16):
            work = Workload(seed)
            work.run(30)
            if seed == 10:
                for position, image in power_cuts(work.log, seed, IMAGES):
                    if position >= work.start:
                        work.verify(image, position)
    assert hidden[True]
    assert hidden[False]


def counting(owner: type, name: str, counts: Counter[str]) -> mock._patch[Callable[..., object]]:
    original = getattr(owner, name)

    def counted(*arguments: object, **options: object) -> object:
        counts[name] += 1
        return original(*arguments, **options)

    return mock.patch.object(owner, name, counted)


def test_recovery_of_redo_survives_crashes_of_its_own() -> None:
    """INV-6: a crash at any write of recovery, and of the flush of what was redone, and again in that recovery."""
    work = Workload(5)
    work.run(25)
    cuts = [(at, image) for at, image in power_cuts(work.log, 5, 12) if at >= work.start]
    for position, image in cuts:
        recording, log = recorded(image)
        mount(recording).close_now()
        source = random.Random(position)
        for again in range(0, len(log.entries) + 1, 2):
            second = log.power_cut(again, source.choice([keep_all, drop_all, torn(source)]))
            deeper, deeper_log = recorded([device.copy() for device in second])
            work.verify(second, position)
            mount(deeper).close_now()
            third = deeper_log.power_cut(source.randint(0, len(deeper_log.entries)), torn(source))
            work.verify(third, position)


def torn(source: random.Random) -> Chooser:
    """Every sector for itself."""
    return lambda write: [source.random() < 0.5 for _ in range(write.sectors)]


def test_recovery_wipes_what_the_crash_kept_behind_the_range() -> None:
    """Or a second crash could find a new sector in front of an old one with just the number that this one continues."""
    fs, log = begun()
    fs.write(walk(fs, b"f"), 0, b"new")
    fast_fsync(fs, b"f")
    assert fs.ctx.undo is not None
    end, seq = fs.ctx.undo.next_offset, fs.ctx.undo.seq
    acknowledged = len(log.entries)
    for number in range(10):
        fs.write(walk(fs, b"f"), 0, bytes([number]) * 9000)
        fast_fsync(fs, b"f")
    cut = max(at for at, entry in enumerate(log.entries[: acknowledged + 2]) if isinstance(entry, Write)) + 1
    image = log.power_cut(cut, lambda write: [index != 1 for index in range(write.sectors)])
    assert remnants(image, end, seq), "the crash kept some"
    volumes = VolumeSet.open(image)
    result = recover_stage1(volumes, collapse=True, keep_redo=True)
    assert (result.next_offset, result.seq) == (end, seq)
    assert not remnants(image, end, seq)
    assert read(checked(image), b"f") == b"new"


def remnants(image: list[MemoryDevice], end: int, seq: int) -> int:
    """Sectors behind `end` whose numbers could be reached from `seq`."""
    reader = FifoReader(VolumeSet.open(image))
    start = reader.advance(end, -end % UNDO_ALIGN)
    found = 0
    for place, size in reader.extents(start, 1 << 20):
        chunk = reader.read(place, size)
        for at in range(0, size, UNDO_ALIGN):
            record = next(reader.scan_extent(place + at, chunk[at : at + UNDO_ALIGN]), None)
            found += record is not None and (record.seq - seq) % (1 << 32) < 100_000
    return found


# --- the points at which the original loses or damages data -------------------------------------
def fast_file(fs: FileSystem, name: bytes, content: bytes) -> None:
    """A file that the next fsync can treat by REDO."""
    inode = make(fs, fs.root, name, content)
    assert fs.flusher is not None
    fs.flusher.flush_now()
    assert fs._fsync is not None
    assert fs._fsync.fast is not None
    fs._fsync.fast.begin(inode, fs.flusher.durable)


def fast_fsync(fs: FileSystem, name: bytes) -> None:
    """An fsync that does without the flusher, which does not run."""
    trio.run(fs.fsync, walk(fs, name))


def contents_around_an_fsync(old: bytes, change: Callable[[FileSystem, Inode], None]) -> set[bytes]:
    """What power cuts leave of a file with this content while a change of it is fsynced fast.

    What is there when that has returned is what the change made of it.
    """
    recording, log = recorded(fresh())
    fs = mount(recording)
    inode = make(fs, fs.root, b"f", old)
    start = 0

    async def main() -> None:
        nonlocal start
        async with running(fs):
            await fs.fsync(inode)
            start = len(log.entries)
            change(fs, inode)
            await fs.fsync(inode)

    trio.run(main)
    new = fs.read(inode, 0, inode.data.size)
    assert read(mount(log.power_cut(len(log.entries), drop_all)), b"f") == new
    return {read(mount(image), b"f") for image in every_power_cut(log, start)} | {new}


def begun() -> tuple[FileSystem, RecordingLog]:
    recording, log = recorded(fresh())
    fs = mount(recording)
    fast_file(fs, b"f", b"old")
    return fs, log


def test_point_3_an_old_write_does_not_run_over_a_newer_one() -> None:
    """Written and fsynced in pieces, replaced as a whole and flushed, while another file keeps REDO in the FIFO."""
    fs, log = begun()
    fast_file(fs, b"other", b"")
    for number in range(5):
        fs.write(walk(fs, b"f"), number * 700, bytes([number]) * 700)
        fast_fsync(fs, b"f")
        fs.write(walk(fs, b"other"), number * 10, b"0123456789")
        fast_fsync(fs, b"other")
    start = len(log.entries)
    # The first of these is laid ahead of an fsync that never comes, so REDO knows nothing newer of the rest.
    fs.write(walk(fs, b"f"), 0, b"N" * 700)
    fs.write(walk(fs, b"f"), 700, b"N" * 2800)
    flush_in_one_cycle(fs)
    assert fs.flusher is not None
    run_steps(fs.ctx, fs.flusher.cycle.close())
    acknowledged = len(log.entries)
    fs.write(walk(fs, b"other"), 50, b"0123456789")
    fast_fsync(fs, b"other")
    for position in range(start, len(log.entries) + 1):
        for choose in (keep_all, drop_all):
            recovered = checked(log.power_cut(position, choose))
            content = read(recovered, b"f")
            assert content[:1] in (b"\0", b"N")
            assert len(set(content[:700])) == 1
            if position >= acknowledged:
                assert content == b"N" * 3500
            assert read(recovered, b"other")[:50] == b"0123456789" * 5


def test_point_4_a_flush_that_empties_the_range_keeps_what_was_fsynced_during_it() -> None:
    """A fast fsync after the group's capture; then the cycle is closed, and nothing else happens."""
    fs, log = begun()
    flusher = fs.flusher
    assert flusher is not None
    make(fs, fs.root, b"new", b"x")
    group = flusher.queue(None)
    flusher.start_group(group)
    fs.write(walk(fs, b"f"), 0, b"new")
    fast_fsync(fs, b"f")
    assert fs.ctx.redo is not None
    assert fs.ctx.redo.holders
    acknowledged = len(log.entries)
    flusher.sync_group(group)
    run_steps(fs.ctx, flusher.cycle.finalize(final=True))
    flusher.end_group(group)
    flusher.finish(group.seq)
    run_steps(fs.ctx, flusher.cycle.close())
    assert fs.ctx.undo is not None
    assert fs.ctx.undo.first_offset != fs.ctx.undo.next_offset
    for position in range(acknowledged, len(log.entries) + 1):
        for choose in (keep_all, drop_all):
            assert read(checked(log.power_cut(position, choose)), b"f") == b"new"


def test_a_flush_between_two_fast_fsyncs_closes_the_cycle_before_it() -> None:
    """Cycles that nobody waits for stay open; with REDO in the range the next one must not begin on top."""
    fs, log = begun()
    acknowledged = []

    async def main() -> None:
        async with running(fs) as flusher:
            for number in range(6):
                fs.write(walk(fs, b"f"), 0, b"v%d" % number)
                await fs.fsync(walk(fs, b"f"))
                acknowledged.append(len(log.entries))
                make(fs, fs.root, b"new%d" % number, b"x")
                if number % 2:
                    await flusher.wait(flusher.async_(flusher.queue(None)))

    trio.run(main)
    for index, image in enumerate(every_power_cut(log, acknowledged[-1])):
        assert read(checked(image), b"f")[:2] == b"v5", index


def test_what_is_unmounted_leaves_no_redo() -> None:
    work = Workload(7)
    work.run(20)
    work.fs.close_now()
    assert_settled(work.fs)
    assert work.fs.ctx.undo is not None
    assert work.fs.ctx.undo.first_offset == work.fs.ctx.undo.next_offset
    with mock.patch("hammerfs.fs.redo.replay", side_effect=CorruptionError("nothing to redo")):
        mount(work.log.power_cut(len(work.log.entries), drop_all)).close_now()


# --- which fsyncs are fast ----------------------------------------------------------------------
@pytest.mark.trio
async def test_the_second_fsync_of_a_file_takes_one_barrier() -> None:
    recording, log = recorded(fresh())
    fs = mount(recording)
    async with running(fs):
        inode = make(fs, fs.root, b"f", b"x")
        await fs.fsync(inode)
        before = len(log.entries)
        fs.write(inode, 1, b"y" * 4096)
        fs.setattr(inode, mtime_us=5, ctime_us=5)
        await fs.fsync(inode)
        kinds = [type(entry).__name__ for entry in log.entries[before:]]
        assert kinds == ["Write", "BarrierBegin", "BarrierEnd"]
        await fs.fsync(inode)
        assert len(log.entries) == before + 3, "nothing to write, nothing to wait for"


@pytest.mark.trio
async def test_what_redo_cannot_say_is_flushed() -> None:
    fs = mount(fresh(), xattr=True)
    async with running(fs) as flusher:
        inode = make(fs, fs.root, b"f", b"x")
        await fs.fsync(inode)
        for change in (
            lambda: fs.setattr(inode, mode=0o600),
            lambda: fs.setattr(inode, uid=5),
            lambda: fs.link(inode, fs.root, b"g"),
            lambda: fs.rename(fs.root, b"g", fs.root, b"h"),
            lambda: fs.setxattr(inode, b"user.a", b"b"),
            lambda: fs.write(inode, 0, bytes(100_000)),
        ):
            groups = flusher.statistics_groups
            change()
            await fs.fsync(inode)
            assert flusher.statistics_groups == groups + 1
        groups = flusher.statistics_groups
        fs.write(inode, 0, b"again by REDO")
        await fs.fsync(inode)
        assert flusher.statistics_groups == groups


@pytest.mark.parametrize("written", [b"", b"new"])
@pytest.mark.parametrize(
    "times",
    [
        {"mtime_us": 5},
        {"mtime_us": 5, "ctime_us": START_US + 5},
        {"mtime_us": START_US + 5, "ctime_us": START_US + 5},
        {"atime_us": 5},
        {"size": 3, "mtime_us": START_US + 5, "ctime_us": START_US + 5},
    ],
)
@pytest.mark.trio
async def test_times_that_no_redone_write_moves_are_flushed(times: dict[str, int], written: bytes) -> None:
    """REDO knows nothing of times: utimensat(2) and fsync on a file of fast fsyncs left the old mtime after a crash.

    The kernel tells the times of a write as one moment, and so it tells `touch -m`; after a write that is still to be
    redone, the recovery's own time stands for both.
    """
    fs, log = begun()
    async with running(fs) as flusher:
        inode = walk(fs, b"f")
        if written:
            fs.write(inode, 0, written)
        fs.setattr(inode, **times)
        mtime, atime, ctime = inode.data.mtime, inode.data.atime, inode.data.ctime
        before = flusher.statistics_groups
        await fs.fsync(inode)
        is_flushed = flusher.statistics_groups > before
        image = log.power_cut(len(log.entries), drop_all)
    is_of_a_write = times.get("mtime_us") == times.get("ctime_us") and "atime_us" not in times
    assert is_flushed == (not written or not is_of_a_write)
    mount(image, start_us=RECOVERY_US).close_now()
    seen = mount(image, read_only=True)
    found = stored_times(seen, walk(seen, b"f"))
    if is_flushed:
        assert found == (mtime, atime, ctime)
    else:
        assert found[1] == atime
        assert min(found[0], found[2]) >= RECOVERY_US


@pytest.mark.parametrize(
    ("changes", "pieces"),
    [
        ([(3, 12)], [(0, 448)]),
        ([(440, 20)], [(0, 896)]),
        ([(0, 1), (2000, 1)], [(0, 448), (1792, 2240)]),
        ([(4095, 1)], [(4032, 4096)]),
        ([(0, 4096)], [(0, 4096)]),
        ([], [(4032, 4096)]),
    ],
)
def test_of_a_page_only_the_pieces_that_changed_are_laid(
    changes: list[tuple[int, int]], pieces: list[tuple[int, int]]
) -> None:
    """What a database does: it writes whole pages of which a few bytes are new.  Cuts leave whole pages."""
    old = random.Random(1).randbytes(8192)
    page = bytearray(old[:4096])
    for start, length in changes:
        page[start : start + length] = bytes(byte ^ 0xFF for byte in page[start : start + length])

    def change(fs: FileSystem, inode: Inode) -> None:
        fs.write(inode, 0, bytes(page))
        assert inode.redo is not None
        noted = inode.redo.recent[inode.redo.laid :]
        assert [(offset, offset + len(data)) for offset, data, _ in noted] == pieces

    assert contents_around_an_fsync(old, change) == {old, bytes(page) + old[4096:]}


def test_what_is_laid_in_one_step_comes_back_as_a_whole_or_not_at_all() -> None:
    """All that changes a file without a habit between two fsyncs: long writes, a truncation and a short write.

    A cut while their records go out leaves a part of these.
    """
    old = random.Random(1).randbytes(8192)

    def change(fs: FileSystem, inode: Inode) -> None:
        fs.write(inode, 0, b"a" * 3000)
        fs.write(inode, 4000, b"b" * 896)
        fs.setattr(inode, size=4500)
        fs.write(inode, 4490, b"end")

    new = (b"a" * 3000 + old[3000:4000] + b"b" * 500)[:4490] + b"end" + b"b" * 7
    assert contents_around_an_fsync(old, change) == {old, new}


@pytest.mark.parametrize("left", [0x0123456789ABCDEF, fifo.MORE_FOLLOWS ^ 77], ids=["whatever", "a mark of ours"])
def test_redo_of_the_original_counts_record_by_record(left: int) -> None:
    """Its records say nothing of what follows; what an older one has left in the reserved field means nothing."""
    fs, log = begun()
    undo = fs.ctx.undo
    assert undo is not None
    number = walk(fs, b"f").obj_id
    fast_fsync(fs, b"f")
    undo.append_redo_sync()
    with mock.patch.object(fifo, "MORE_FOLLOWS", left ^ undo.seq):
        undo.append_redo(RedoBody(number, 0, 3, REDO_WRITE, 0, b"new", more=True))
    undo.flush()
    assert read(mount(log.power_cut(len(log.entries), keep_all)), b"f") == b"new"


@pytest.mark.trio
async def test_fsyncs_that_arrive_together_share_a_barrier() -> None:
    recording, log = recorded(fresh())
    fs = mount(recording)
    async with running(fs):
        inodes = [make(fs, fs.root, b"%d" % number, b"x") for number in range(8)]
        for inode in inodes:
            await fs.fsync(inode)
        before = len(log.entries)
        begun = 0
        fs.know_waiting_requests(lambda: begun % 8 > 0)

        async def append(index: int) -> None:
            nonlocal begun
            for _ in range(5):
                fs.write(inodes[index], inodes[index].data.size, b"y" * 100)
                begun += 1
                await fs.fsync(inodes[index])

        async with trio.open_nursery() as nursery:
            for index in range(8):
                nursery.start_soon(append, index)
        barriers = sum(type(entry).__name__ == "BarrierEnd" for entry in log.entries[before:])
        assert barriers <= 20, f"{barriers} barriers for 40 fsyncs of 8 clients"


@pytest.mark.expect_log("read-only from now on")
@pytest.mark.trio
async def test_a_barrier_that_fails_turns_the_mount_read_only_and_acknowledges_nothing() -> None:
    fs = mount(fresh())
    async with running(fs):
        inode = make(fs, fs.root, b"f", b"x")
        await fs.fsync(inode)
        fs.write(inode, 0, b"y")
        broken = OSError(5, "worn out")
        with (
            mock.patch.object(type(fs.ctx.volumes), "barrier", side_effect=broken),
            pytest.raises(Exception, match="worn out"),
        ):
            await fs.fsync(inode)
        assert fs.read_only


@pytest.mark.parametrize("mode", [0, 1, 3, 4])
def test_the_other_modes_keep_what_they_promise(mode: int) -> None:
    """0 flushes in any case; 1 and 3 return at once with everything under way; 4 does nothing."""
    recording, log = recorded(fresh())
    fs = mount(recording, fsync_mode=mode)
    lengths = []

    async def main() -> None:
        async with running(fs) as flusher:
            inode = make(fs, fs.root, b"f", b"x")
            await fs.sync()
            for _ in range(3):
                fs.write(inode, 0, b"y")
                before = len(log.entries)
                with mock.patch.object(FastFsync, "commit", side_effect=AssertionError("not in this mode")):
                    await fs.fsync(inode)
                lengths.append(len(log.entries) - before)
                await until(lambda: not flusher.running() and not (mode == 3 and flusher.cycle.undo_dirty))

    trio.run(main)
    if mode == 0:
        assert read(checked(log.power_cut(len(log.entries), drop_all)), b"f") == b"y"
    elif mode == 3:
        assert lengths == [0, 1, 1], "a flush is started once; from then on REDO is written, without a barrier"
    else:
        assert lengths == [0, 0, 0]


def test_a_write_of_nothing_is_none() -> None:
    """It lays no record, so it could not be the one that ends what an fsync laid."""
    fs, log = begun()
    inode = walk(fs, b"f")
    fs.write(inode, 0, b"new" * 300)
    assert fs.write(inode, 5000, b"") == 0
    assert inode.data.size == 900
    fast_fsync(fs, b"f")
    assert read(mount(log.power_cut(len(log.entries), drop_all)), b"f") == b"new" * 300


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_crash_during_a_recovery_redoes_again_however_much_of_the_fifo_is_in_use(share: float) -> None:
    """INV-6: a FIFO that gets short makes flushes close the cycle before them; the one that has REDO waits."""
    fs, log = begun()
    new = random.Random(1).randbytes(900)
    fs.write(walk(fs, b"f"), 0, new)
    fast_fsync(fs, b"f")
    undo = fs.ctx.undo
    assert undo is not None
    root = to_zone2(fs.ctx.root.btree_root)
    node = fs.ctx.volumes.read(root, NODE_SIZE)
    while undo.used < share * undo.capacity:
        undo.clear_history()
        undo.log(root, node)
    undo.flush()
    fs.ctx.volumes.barrier()
    recovery, log = recorded(log.power_cut(len(log.entries), drop_all))
    mount(recovery)
    for position in range(len(log.entries) + 1):
        for choose in (keep_all, drop_all):
            assert read(mount(log.power_cut(position, choose)), b"f") == new, position


@pytest.mark.parametrize("verified", [True, False], ids=["verified", "believed"])
def test_a_record_that_was_torn_within_its_sector_is_none(verified: bool) -> None:
    """Power cuts spare sectors; a medium that tears them, too, is what the CRC of a record is for.

    Its head and tail reached the medium, and some of what stands between did not.
    """
    fs, log = begun()
    new = b"".join(bytes([number]) * 448 for number in range(1, 20))
    start = len(log.entries)
    fs.write(walk(fs, b"f"), 0, new)
    fast_fsync(fs, b"f")
    seen = set()
    for position, entry in enumerate(log.entries[start:], start):
        if not isinstance(entry, Write):
            continue
        for sector in range(0, len(entry.data), UNDO_ALIGN):
            image = log.power_cut(position, keep_all)
            image[entry.device].write(entry.offset, entry.data[: sector + 128])
            last = sector + UNDO_ALIGN - 128
            image[entry.device].write(entry.offset + last, entry.data[last : last + 128])
            with nullcontext() if verified else no_checksum():
                seen.add(read(mount(image), b"f"))
    assert (seen == {b"old"}) == verified, "nothing but the CRC notices"


# --- what the mount may do without --------------------------------------------------------------
def crashed_with_damaged_redo() -> list[MemoryDevice]:
    """A file fsynced twice by REDO; the second time in a record that says more bytes than it holds."""
    fs, log = begun()
    fs.write(walk(fs, b"f"), 0, b"new")
    fast_fsync(fs, b"f")
    assert fs.ctx.undo is not None
    fs.ctx.undo.append_redo(RedoBody(walk(fs, b"f").obj_id, 0, 400, REDO_WRITE, 0, b"NEW"))
    fs.ctx.undo.flush()
    return log.power_cut(len(log.entries), keep_all)


def test_by_default_a_mount_that_cannot_redo_is_refused_and_changes_nothing() -> None:
    image = crashed_with_damaged_redo()
    for _ in range(2):
        with pytest.raises(CorruptionError, match="skip_redo=1"):
            mount(image)


@pytest.mark.expect_log("recovery redo ended after 1 records")
def test_skip_redo_1_redoes_what_can_be() -> None:
    image = crashed_with_damaged_redo()
    fs = mount(image, skip_redo=1)
    assert read(fs, b"f") == b"new"
    fs.close_now()
    assert read(checked(image), b"f") == b"new"


@pytest.mark.expect_log("recovery redo skipped")
def test_skip_redo_2_gives_up_what_only_fsync_made_durable() -> None:
    image = crashed_with_damaged_redo()
    fs = mount(image, skip_redo=2)
    assert read(fs, b"f") == b"old"
    fs.close_now()
    assert read(checked(image), b"f") == b"old", "and for good"


def test_a_read_only_mount_shows_what_was_fsynced_and_writes_nothing() -> None:
    fs, log = begun()
    fs.write(walk(fs, b"f"), 0, b"new")
    fast_fsync(fs, b"f")
    image = log.power_cut(len(log.entries), drop_all)
    recording, after = recorded(image)
    seen = mount(recording, read_only=True)
    assert read(seen, b"f") == b"new"
    times = seen.lookup(seen.root, b"f").data.mtime
    seen.close_now()
    assert not after.entries
    assert mount(image, read_only=True, start_us=2**60).lookup(seen.root, b"f").data.mtime == times
