"""REDO that is laid ahead of an fsync, where one is likely to come: when, what it changes, and power cuts around it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import pytest
import trio
from flusher_control import running
from small_filesystem import fresh, make, mount, read, recorded
from test_filesystem_crash import checked, every_power_cut

from hammerfs.device.recording import RecordingLog, Write, drop_all
from hammerfs.errors import DeviceError, FlushFailedError
from hammerfs.fs.barrier import SHORT_SECONDS, BarrierRunner
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import FSYNC_DURABLE
from hammerfs.store.volumes import VolumeSet


class Regular:
    """A mount, and a file on it that has been written `writes` times before each of its last two fsyncs."""

    def __init__(self, writes: int = 1) -> None:
        recording, self.log = recorded(fresh())
        self.fs = mount(recording)
        self.inode = make(self.fs, self.fs.root, b"f", b"old")
        self.writes = writes

    async def settle(self) -> None:
        await self.fs.fsync(self.inode)
        for _ in range(2):
            self.write(self.writes)
            await self.fs.fsync(self.inode)

    def write(self, times: int = 1) -> None:
        for _ in range(times):
            self.fs.write(self.inode, self.inode.data.size, b"more")

    def logged(self, action: Callable[[], object]) -> list[type]:
        """What an action sent to the disk."""
        before = len(self.log.entries)
        action()
        return [type(entry) for entry in self.log.entries[before:]]


def under_way(test: Callable[[Regular], None], regular: Regular) -> None:
    """Run a test once the file is in its habit, with the flusher running."""

    async def main() -> None:
        async with running(regular.fs):
            await regular.settle()
            test(regular)
            if regular.fs.failure is None:
                await regular.fs.sync()

    trio.run(main)


@pytest.mark.parametrize("writes", [1, 3])
@pytest.mark.trio
async def test_the_write_after_which_an_fsync_came_before_is_laid_at_once(writes: int) -> None:
    regular = Regular(writes)
    async with running(regular.fs):
        await regular.settle()
        assert regular.logged(lambda: regular.write(writes - 1)) == []
        with mock.patch.object(VolumeSet, "begin_writing") as begin:
            assert regular.logged(regular.write) == [Write]
        begin.assert_called_once()
        before = len(regular.log.entries)
        await regular.fs.fsync(regular.inode)
        assert [type(entry).__name__ for entry in regular.log.entries[before:]] == ["BarrierBegin", "BarrierEnd"]
        content = regular.fs.read(regular.inode, 0, 100)
    assert read(checked(regular.log.power_cut(len(regular.log.entries), drop_all)), b"f") == content


def test_what_is_written_beyond_the_habit_waits_for_its_fsync() -> None:
    def test(regular: Regular) -> None:
        assert regular.logged(regular.write) == [Write]
        assert regular.logged(lambda: regular.write(5)) == []

    under_way(test, Regular())


def test_a_file_without_a_habit_is_not_laid_ahead() -> None:
    def test(regular: Regular) -> None:
        fs = regular.fs
        other = make(fs, fs.root, b"g", b"x")
        assert regular.logged(lambda: fs.write(other, 0, b"never fsynced")) == []

    under_way(test, Regular())


def test_nothing_is_laid_while_others_wait_or_lead() -> None:
    """They will share a barrier, which finds everything in one piece."""

    def test(regular: Regular) -> None:
        regular.fs.know_waiting_requests(lambda: True)
        assert regular.logged(regular.write) == []

    def test_leading(regular: Regular) -> None:
        assert regular.fs._fsync is not None
        fast = regular.fs._fsync.fast
        assert fast is not None
        fast.leading = True
        assert regular.logged(regular.write) == []
        fast.leading = False

    under_way(test, Regular())
    under_way(test_leading, Regular())


@pytest.mark.trio
async def test_a_disk_that_lets_wait_when_it_is_to_begin_counts_as_slow() -> None:
    """What the barrier behind it no longer takes must not look like a short one."""
    regular = Regular()
    async with running(regular.fs) as flusher:
        await regular.settle()
        barriers = flusher.barriers
        assert barriers.is_short()
        plain = regular.fs.ctx.volumes.barrier
        begun: list[bool] = []

        def begin_writing(*_range: object) -> None:
            begun.append(True)
            time.sleep(2 * SHORT_SECONDS)

        def barrier() -> None:
            if not begun or not begun[-1]:
                time.sleep(2 * SHORT_SECONDS)
            begun.append(False)
            plain()

        with (
            mock.patch.object(regular.fs.ctx.volumes, "begin_writing", begin_writing),
            mock.patch.object(regular.fs.ctx.volumes, "barrier", barrier),
        ):
            for _ in range(12):
                regular.write()
                await regular.fs.fsync(regular.inode)
        assert 3 <= begun.count(True) < 12, "it is learned, and then nothing is laid ahead any more"
        assert not barriers.is_short()


def test_nothing_is_laid_where_barriers_are_long() -> None:
    def test(regular: Regular) -> None:
        with mock.patch.object(BarrierRunner, "is_short", return_value=False):
            assert regular.logged(regular.write) == []

    under_way(test, Regular())


@pytest.mark.parametrize("mode", [0, 1, 3, 4])
def test_the_other_modes_lay_nothing_ahead(mode: int) -> None:
    def test(regular: Regular) -> None:
        fs = regular.fs
        fs.options = replace(fs.options, fsync_mode=mode)
        assert regular.logged(regular.write) == []
        fs.options = replace(fs.options, fsync_mode=FSYNC_DURABLE)
        regular.inode.redo.writes = 0
        assert regular.logged(regular.write) == [Write]

    under_way(test, Regular())


def test_nothing_is_laid_while_a_cycle_is_written_but_not_closed() -> None:
    """The header that closes it would give the records up, or they would run on top of it."""

    def test(regular: Regular) -> None:
        flusher = regular.fs.flusher
        assert flusher is not None
        flusher.cycle.undo_dirty = True
        assert regular.logged(regular.write) == []
        flusher.cycle.undo_dirty = False

    under_way(test, Regular())


def test_what_redo_cannot_say_is_not_laid_ahead() -> None:
    def test(regular: Regular) -> None:
        regular.fs.setattr(regular.inode, mode=0o600)
        assert regular.logged(regular.write) == []

    under_way(test, Regular())


def test_a_power_cut_leaves_what_was_laid_ahead_as_a_whole_or_not_at_all() -> None:
    """Without an fsync, before, during and after a flush of it, and with one."""
    for flushed in (False, True):
        regular = Regular()
        fs, inode = regular.fs, regular.inode
        versions: list[tuple[int, bytes]] = []

        def note(fs: FileSystem, inode: Inode, log: RecordingLog, versions: list[tuple[int, bytes]]) -> None:
            versions.append((len(log.entries), fs.read(inode, 0, 10_000)))

        async def main(flushed: bool, regular: Regular, versions: list[tuple[int, bytes]]) -> None:
            fs, inode, log = regular.fs, regular.inode, regular.log
            async with running(fs):
                await regular.settle()
                note(fs, inode, log, versions)
                fs.write(inode, 0, b"A" * 2000)
                note(fs, inode, log, versions)
                if flushed:
                    await fs.sync()
                else:
                    await fs.fsync(inode)
                note(fs, inode, log, versions)

        trio.run(main, flushed, regular, versions)
        (start, old), (_, new), (acknowledged, _) = versions
        assert old != new
        seen = set()
        for image in every_power_cut(regular.log, start):
            content = read(checked(image), b"f")
            assert content in (old, new)
            seen.add(content)
        assert seen == {old, new}
        assert read(checked(regular.log.power_cut(acknowledged, drop_all)), b"f") == new
        assert fs.read(inode, 0, 10_000) == new


def test_of_an_fsync_that_was_laid_in_two_steps_the_first_may_come_back_alone() -> None:
    """One write where the habit is one, then another: as of any two writes that nobody has fsynced yet."""
    regular = Regular()
    old, new = b"o" * 4096, b"N" * 4096
    start = 0

    async def main() -> None:
        nonlocal start
        async with running(regular.fs):
            await regular.settle()
            regular.fs.write(regular.inode, 0, old + old)
            await regular.fs.fsync(regular.inode)
            start = len(regular.log.entries)
            regular.fs.write(regular.inode, 0, new)
            regular.fs.write(regular.inode, 4096, new)
            await regular.fs.fsync(regular.inode)

    trio.run(main)
    contents = {read(checked(image), b"f") for image in every_power_cut(regular.log, start)}
    assert contents == {old + old, new + old, new + new}
    assert read(checked(regular.log.power_cut(len(regular.log.entries), drop_all)), b"f") == new + new


@pytest.mark.expect_log("read-only from now on")
def test_a_disk_that_refuses_what_is_laid_ahead_turns_the_mount_read_only() -> None:
    def test(regular: Regular) -> None:
        broken = DeviceError("write", "disk", 0, 512, "worn out")
        with (
            mock.patch.object(VolumeSet, "write_vector", side_effect=broken),
            pytest.raises(FlushFailedError, match="worn out"),
        ):
            regular.write()
        assert regular.fs.read_only

    under_way(test, Regular())
