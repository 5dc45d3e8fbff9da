"""fsync of one small file: durable when it returns, shared when there is company, loud when it fails."""

from __future__ import annotations

from unittest import mock

import pytest
import trio
from flusher_control import running
from small_filesystem import fresh, make, mount

from hammerfs.device.recording import RecordingDevice, RecordingLog, drop_all
from hammerfs.errors import DeviceError, HammerError
from hammerfs.fs.options import MountOptions


@pytest.mark.trio
async def test_an_append_with_fsync_alone_takes_the_short_way_and_survives_a_power_cut() -> None:
    log = RecordingLog()
    fs = mount([RecordingDevice(device, log) for device in fresh()])
    async with running(fs) as flusher:
        inode = make(fs, fs.root, b"journal", b"begin")
        await fs.sync()
        before = flusher._quick.count
        fs.write(inode, 5, b" and end")
        await fs.fsync(inode)
        assert flusher._quick.count == before + 1
        assert flusher.durable == flusher.done
        cut = log.power_cut(len(log.entries), drop_all)
    after = mount(cut)
    assert after.read(after.lookup(after.root, b"journal"), 0, 100) == b"begin and end"
    after.close_now()


@pytest.mark.trio
async def test_a_new_name_goes_the_long_way() -> None:
    fs = mount(fresh())
    async with running(fs) as flusher:
        inode = make(fs, fs.root, b"new", b"x")
        await fs.fsync(inode)
        assert flusher._quick.count == 0
        assert not inode.links


@pytest.mark.trio
async def test_several_clients_share_groups() -> None:
    fs = mount(fresh())
    async with running(fs) as flusher:
        inodes = [make(fs, fs.root, b"%d" % number, b"x") for number in range(4)]
        await fs.sync()
        groups = flusher.statistics_groups

        async def append(index: int) -> None:
            fs.write(inodes[index], 1, b"y")
            await trio.lowlevel.checkpoint()
            await fs.fsync(inodes[index])

        async with trio.open_nursery() as nursery:
            for index in range(4):
                nursery.start_soon(append, index)
        assert flusher.statistics_groups - groups < 4


@pytest.mark.expect_log("read-only from now on")
@pytest.mark.trio
async def test_a_barrier_that_fails_on_the_short_way_turns_the_mount_read_only() -> None:
    fs = mount(fresh())
    async with running(fs) as flusher:
        inode = make(fs, fs.root, b"journal", b"begin")
        await fs.sync()
        fs.write(inode, 5, b"!")
        broken = DeviceError("flush", "disk", 0, 0, "worn out")
        with mock.patch.object(fs.ctx.volumes, "barrier", side_effect=broken), pytest.raises(HammerError):
            await fs.fsync(inode)
        assert flusher.failure is not None
        assert fs.read_only


def test_the_options_name_the_modes_as_dragonfly_does() -> None:
    assert MountOptions().fsync_mode == 2
