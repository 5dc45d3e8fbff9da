"""Space that is gained by itself: what goes first, what never goes, and when it is enough."""

from __future__ import annotations

import itertools
import random

import pytest
import trio
from administration import ask
from flusher_control import running
from small_filesystem import assert_clean, fresh, make, mount, read, walk

from hammerfs.cli.mount_options import parse_mount_options
from hammerfs.errors import UsageError
from hammerfs.fs import rootrecords
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import run_work
from hammerfs.ondisk.address import pfs_localization
from hammerfs.ops.keepfree import Relief, relieve
from hammerfs.vfs.spacekeeper import SpaceKeeper

MIB = 1024 * 1024
SIZE = 256 * MIB
REMOVED = "the oldest, was removed"


def history(fs: FileSystem, place: Inode, moments: int, label: bytes = b"", size: int = 16 * MIB) -> list[int]:
    """A file that is written anew for each of some snapshots, and once more; their TIDs."""
    source = random.Random(moments)
    inode = make(fs, place, b"file", b"")
    tids = []
    for number in range(moments + 1):
        fs.write(inode, 0, source.randbytes(size))
        tid = ask(fs, "synctid")["tid"]
        if number < moments:
            rootrecords.add_snapshot(fs.ctx, inode.localization, tid, fs.ctx.clock(), label + b"%d" % number)
            tids.append(tid)
    return tids


def gain(fs: FileSystem, wanted: int) -> Relief:
    relief = run_work(fs, relieve(fs, wanted))
    assert fs.flusher is not None
    fs.flusher.flush_now()
    return relief


def left(fs: FileSystem, pfs: int = 0) -> list[int]:
    return [snapshot.tid for snapshot in rootrecords.snapshots(fs.ctx, pfs_localization(pfs))]


@pytest.mark.expect_log(REMOVED)
def test_the_oldest_snapshots_go_until_it_is_enough() -> None:
    fs = mount(devices := fresh(size=SIZE))
    tids = history(fs, fs.root, 6)
    newest = read(fs, b"@@0x%016x" % tids[-1], b"file")
    before = fs.ctx.space.available
    relief = gain(fs, before + 20 * MIB)
    assert relief.enough
    assert 0 < relief.removed < 5
    assert left(fs) == tids[relief.removed :]
    assert fs.ctx.space.available >= before + 20 * MIB
    assert read(fs, b"@@0x%016x" % tids[-1], b"file") == newest
    fs.close_now()
    assert_clean(devices)


def test_what_no_snapshot_shows_goes_before_any_snapshot_does() -> None:
    fs = mount(devices := fresh(size=SIZE))
    file = make(fs, fs.root, b"file", b"")
    for number in range(5):
        fs.write(file, 0, bytes([number + 1]) * 16 * MIB)
        tid = ask(fs, "synctid")["tid"]
    rootrecords.add_snapshot(fs.ctx, 0, tid, fs.ctx.clock(), b"")
    relief = gain(fs, fs.ctx.space.available + 40 * MIB)
    assert (relief.enough, relief.removed) == (True, 0)
    assert relief.records > 0
    assert left(fs) == [tid]
    fs.close_now()
    assert_clean(devices)


@pytest.mark.expect_log(REMOVED)
def test_the_newest_snapshot_stays_even_if_that_is_not_enough() -> None:
    fs = mount(devices := fresh(size=SIZE))
    tids = history(fs, fs.root, 4)
    relief = gain(fs, 10 * SIZE)
    assert (relief.enough, relief.removed) == (False, 3)
    assert left(fs) == tids[-1:]
    fs.close_now()
    assert_clean(devices)


@pytest.mark.parametrize(
    "text", ["snapshots 1d 60d\n#prune 1d 5m\n", "prune 0d 5m", "snapshots 1d 60d", "prune never"], ids=str
)
def test_a_pfs_that_is_not_to_be_pruned_keeps_everything(text: str) -> None:
    fs = mount(fresh(size=SIZE))
    tids = history(fs, fs.root, 3)
    rootrecords.configure(fs.ctx, 0, text.encode())
    assert gain(fs, 10 * SIZE) == Relief()
    assert left(fs) == tids
    assert all(len(read(fs, b"@@0x%016x" % tid, b"file")) == 16 * MIB for tid in tids)
    fs.close_now()


def test_snapshots_within_prune_min_stay() -> None:
    fs = mount(fresh(size=SIZE))
    record = rootrecords.pfs_record(fs.ctx, 0)
    assert record is not None
    record.prune_min = 86400
    rootrecords.save_pfs(fs.ctx, 0, record)
    tids = history(fs, fs.root, 3)
    assert gain(fs, 10 * SIZE) == Relief()
    assert left(fs) == tids
    fs.close_now()


def test_before_snapshots_were_records_nothing_is_done() -> None:
    fs = mount(fresh(2, size=SIZE))
    file = make(fs, fs.root, b"file", b"1" * MIB)
    ask(fs, "synctid")
    fs.write(file, 0, b"2" * MIB)
    assert gain(fs, 10 * SIZE) == Relief()
    fs.close_now()


@pytest.mark.expect_log(REMOVED)
def test_the_oldest_of_all_pfss_goes_first() -> None:
    fs = mount(devices := fresh(size=SIZE))
    ask(fs, "pfs-create", walk(fs), name="p", slave=False)
    other = fs.lookup(fs.root, b"@@-1:00001")
    old = history(fs, other, 3, b"old", 8 * MIB)
    new = history(fs, fs.root, 3, b"new", 8 * MIB)
    relief = gain(fs, fs.ctx.space.available + 14 * MIB)
    assert (relief.enough, relief.removed) == (True, 2)
    assert (left(fs, 1), left(fs)) == (old[-1:], new)
    fs.close_now()
    assert_clean(devices)


# --- the option, and who watches ------------------------------------------------------------------
def test_the_option_takes_a_size_or_a_percentage() -> None:
    fs = mount(fresh(), keep_free_percent=10)
    assert fs.keep_free == fs.ctx.root.total_bigblocks * 8 * MIB // 10
    for text, shares in (("keepfree=1G", (1 << 30, 0)), ("keepfree=1G,keepfree=5%", (0, 5)), ("", (0, 0))):
        options = parse_mount_options([text]).filesystem
        assert (options.keep_free_bytes, options.keep_free_percent) == shares
    for text in ("keepfree=much", "keepfree="):
        with pytest.raises(UsageError, match="keepfree"):
            parse_mount_options([text])
    for text in ("keepfree=200%", "keepfree=91%", "keepfree=-1%", "keepfree=0x5%", "keepfree=1.5%", "keepfree=%"):
        with pytest.raises(UsageError) as refusal:
            parse_mount_options([text])
        assert str(refusal.value) == f"mount option {text}: a percentage is a whole number from 0% to 90%"


@pytest.mark.trio
@pytest.mark.expect_log(REMOVED)
async def test_the_keeper_acts_when_space_runs_out_and_lets_views_be_forgotten() -> None:
    fs = mount(devices := fresh(size=SIZE))
    history(fs, fs.root, 3)
    fs.close_now()
    fs = mount(devices, keep_free_bytes=fs.ctx.space.available + 10 * MIB)
    forgotten = []

    async def forget() -> None:
        forgotten.append(fs.ctx.space.available)

    async with running(fs), trio.open_nursery() as nursery:
        nursery.start_soon(SpaceKeeper(fs, forget).run)
        for _ in itertools.takewhile(lambda _: not forgotten, range(100_000)):
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert forgotten[0] >= fs.keep_free
    assert_clean(devices)


@pytest.mark.trio
@pytest.mark.expect_log("nothing is left to prune")
async def test_the_keeper_says_when_nothing_is_left(autojump_clock: trio.testing.MockClock) -> None:
    fs = mount(devices := fresh(size=SIZE), keep_free_bytes=10 * SIZE)
    calls = []

    async def forget() -> None:
        calls.append(trio.current_time())

    async with running(fs), trio.open_nursery() as nursery:
        nursery.start_soon(SpaceKeeper(fs, forget).run)
        await trio.sleep(700)
        nursery.cancel_scope.cancel()
    assert len(calls) == 2
    assert calls[1] - calls[0] >= 600
    assert_clean(devices)
