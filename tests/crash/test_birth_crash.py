"""New files that fsync made durable by REDO alone: created again after every power cut, as the objects that they were.

Which fsyncs take that way, which must not, and what power cuts leave of names that are given up and taken again.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from crash_lib.small import START_US
from flusher_control import running
from original_recovery import OriginalRecovery
from small_filesystem import FILE, assert_settled, fresh, make, mount, names, read, recorded, walk
from test_filesystem_crash import checked, every_power_cut, recover_with_crashes

from hammerfs.device.overlay import OverlayDevice
from hammerfs.device.recording import RecordingLog, drop_all, keep_all
from hammerfs.errors import CorruptionError
from hammerfs.fs import rootrecords
from hammerfs.fs.fsync import FastFsync
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.namespace import RENAME_EXCHANGE
from hammerfs.fs.options import REDO_SKIPPED
from hammerfs.ondisk.constants import REDO_CREATE
from hammerfs.ondisk.creation import Creation, pack_creation, unpack_creation
from hammerfs.ondisk.fifo import RedoBody
from hammerfs.ondisk.inode import InodeData

CONTENT = b"content" * 1000
JOURNAL = b"journal"
CYCLES = ["another's flush", "a work's"]


def begun(**options: bool) -> tuple[FileSystem, RecordingLog]:
    """A recorded file system with a directory `d` that is on disk."""
    bases = fresh()
    fs = mount(bases)
    make(fs, fs.root, b"d")
    fs.close_now()
    devices, log = recorded(bases)
    return mount(devices, xattr=True, **options), log


def groups(fs: FileSystem) -> int:
    assert fs.flusher is not None
    return fs.flusher.statistics_groups


def fast(fs: FileSystem) -> FastFsync:
    assert fs._fsync is not None
    assert fs._fsync.fast is not None
    return fs._fsync.fast


def after_a_cut(log: RecordingLog) -> FileSystem:
    """What is there when nothing but what barriers cover has reached the disk."""
    return checked(log.power_cut(len(log.entries), drop_all))


async def a_cycle(fs: FileSystem, kind: str) -> None:
    """Close one of these `CYCLES`, which have nothing to do with the files that the FIFO tells of."""
    if kind == "a work's":
        assert fs.flusher is not None
        rootrecords.add_snapshot(fs.ctx, 0, fs.ctx.alloc_tid(), 0, b"label")
        fs.flusher.settle_now()
    else:
        await fs.fsync(make(fs, fs.root, b"other"))


# --- what such an fsync costs, and gives --------------------------------------------------------
@pytest.mark.trio
async def test_the_first_fsync_of_a_new_file_takes_one_barrier_and_that_of_its_directory_none() -> None:
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        inode = make(fs, directory, b"f", CONTENT)
        before = len(log.entries)
        await fs.fsync(inode)
        await fs.fsync(directory)
        kinds = [type(entry).__name__ for entry in log.entries[before:]]
        assert kinds == ["Write", "BarrierBegin", "BarrierEnd"]
        assert not groups(fs)
        recovered = after_a_cut(log)
        assert read(recovered, b"d", b"f") == CONTENT
        fs.write(inode, 7, b"more")
        await fs.fsync(inode)
        assert not groups(fs)
        assert read(after_a_cut(log), b"d", b"f") == fs.read(inode, 0, inode.data.size)


@pytest.mark.trio
async def test_a_created_file_is_the_object_that_it_was() -> None:
    """Number, mode, owner, and the times that the file and its directory had when the fsync was asked for."""
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        inode = make(fs, directory, b"f", CONTENT)
        fs.setattr(inode, mode=0o640, uid=7, gid=8, mtime_us=START_US + 5, atime_us=START_US + 6)
        await fs.fsync(inode)
    found = walk(after_a_cut(log), b"d", b"f")
    assert (found.obj_id, found.data.pack()) == (inode.obj_id, inode.data.pack())
    assert walk(after_a_cut(log), b"d").data.mtime == directory.data.mtime


@pytest.mark.trio
async def test_what_was_written_later_has_the_time_of_the_recovery() -> None:
    fs, log = begun()
    async with running(fs):
        inode = make(fs, walk(fs, b"d"), b"f", CONTENT)
        fs.setattr(inode, mtime_us=5)
        await fs.fsync(inode)
        assert walk(after_a_cut(log), b"d", b"f").data.mtime == 5
        fs.write(inode, 0, b"later")
        await fs.fsync(inode)
    assert walk(after_a_cut(log), b"d", b"f").data.mtime >= START_US


@pytest.mark.trio
async def test_no_object_id_is_given_out_twice() -> None:
    """INV-8: the header on disk knows nothing of the new file's."""
    fs, log = begun()
    async with running(fs):
        made = [make(fs, walk(fs, b"d"), b"f%d" % number, b"x") for number in range(3)]
        for inode in made:
            await fs.fsync(inode)
    recovered = after_a_cut(log)
    ids = {inode.obj_id for inode in made}
    assert not ids & {make(recovered, parent, b"g", b"y").obj_id for parent in (recovered.root, walk(recovered, b"d"))}


@pytest.mark.trio
async def test_a_read_only_mount_shows_it_and_writes_nothing() -> None:
    fs, log = begun()
    async with running(fs):
        await fs.fsync(make(fs, walk(fs, b"d"), b"f", CONTENT))
    image = log.power_cut(len(log.entries), drop_all)
    before = [device.copy() for device in image]
    shown = mount(image, read_only=True)
    assert read(shown, b"d", b"f") == CONTENT
    assert all(one.read(0, one.size) == two.read(0, two.size) for one, two in zip(image, before, strict=True))


# --- which are none -----------------------------------------------------------------------------
def renamed_away(fs: FileSystem, directory: Inode) -> None:
    fs.rename(directory, b"old", directory, b"elsewhere")


def linked_away(fs: FileSystem, directory: Inode) -> None:
    fs.link(walk(fs, b"d", b"old"), directory, b"elsewhere")
    fs.unlink(directory, b"old")


def removed(fs: FileSystem, directory: Inode) -> None:
    fs.unlink(directory, b"old")


@pytest.mark.parametrize("on_disk", [True, False], ids=["on disk", "in the FIFO"])
@pytest.mark.parametrize("leave", [renamed_away, linked_away, removed])
@pytest.mark.trio
async def test_a_name_that_another_file_has_left(leave: Callable[[FileSystem, Inode], None], on_disk: bool) -> None:
    """Whatever the power cut, the other file is there by one of its names, unless it was removed."""
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        old = make(fs, directory, b"old", b"of the other")
        await fs.fsync(old)
        if on_disk:
            await fs.sync()
        before = groups(fs)
        start = len(log.entries)
        leave(fs, directory)
        await fs.fsync(make(fs, directory, b"old", CONTENT))
        assert groups(fs) == before + (leave is not removed)
    for image in every_power_cut(log, start):
        recovered = checked(image)
        found = {read(recovered, b"d", name) for name in names(recovered, walk(recovered, b"d"))}
        assert b"of the other" in found or leave is removed
    assert read(after_a_cut(log), b"d", b"old") == CONTENT


@pytest.mark.trio
async def test_a_name_that_changed_hands_on_disk_and_in_the_fifo() -> None:
    """The file on disk is removed, and so is the next one, of which the FIFO tells; the third one has the name."""
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        for name in (b"f", b"second"):
            make(fs, directory, name, b"on disk")
        await fs.sync()
        before, start = groups(fs), len(log.entries)
        for content in (b"in the FIFO", CONTENT):
            fs.unlink(directory, b"f")
            await fs.fsync(make(fs, directory, b"f", content))
            await fs.fsync(directory)
        assert groups(fs) == before
        end = len(log.entries)
    contents = [b"on disk", b"in the FIFO", CONTENT]
    for position in range(start, end + 1):
        recovered = checked(log.power_cut(position, drop_all))
        assert names(recovered, walk(recovered, b"d")) == [b"f", b"second"]
        contents = contents[contents.index(read(recovered, b"d", b"f")) :]
    assert contents == [CONTENT]


def saved_and_removed(fs: FileSystem, directory: Inode) -> None:
    """tmp is renamed over y, which is removed."""
    fs.rename(directory, b"tmp", directory, b"y")
    fs.unlink(directory, b"y")


def saved_twice(fs: FileSystem, directory: Inode) -> None:
    """tmp is renamed over y, and then another file is."""
    fs.rename(directory, b"tmp", directory, b"y")
    make(fs, directory, b"tmp2", b"second")
    fs.rename(directory, b"tmp2", directory, b"y")


def replaced_and_removed(fs: FileSystem, directory: Inode) -> None:
    """A file that was fsynced, too, takes tmp from it, and is removed."""
    fs.rename(directory, b"other", directory, b"tmp")
    fs.unlink(directory, b"tmp")


def exchanged_and_removed(fs: FileSystem, directory: Inode) -> None:
    """The same by an exchange with a file on disk."""
    fs.rename(directory, b"tmp", directory, b"y", RENAME_EXCHANGE)
    for name in (b"tmp", b"y"):
        fs.unlink(directory, name)


@pytest.mark.parametrize("rename", [saved_and_removed, saved_twice, replaced_and_removed, exchanged_and_removed])
@pytest.mark.trio
async def test_a_new_file_where_a_rename_was_shows_all_of_the_rename(
    rename: Callable[[FileSystem, Inode], None],
) -> None:
    """A file of the FIFO was moved, or lost its name to another, and is gone; the next one has its first name."""
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        make(fs, directory, b"y", b"on disk")
        await fs.sync()
        for name in (b"tmp", b"other"):
            await fs.fsync(make(fs, directory, name, b"fsynced"))
        before = groups(fs)
        rename(fs, directory)
        await fs.fsync(make(fs, directory, b"tmp", CONTENT))
        assert groups(fs) == before + 1
        wanted = {name: read(fs, b"d", name) for name in names(fs, directory)}
        recovered = after_a_cut(log)
        assert {name: read(recovered, b"d", name) for name in names(recovered, walk(recovered, b"d"))} == wanted


def over_it(fs: FileSystem, directory: Inode) -> None:
    """A file that nobody fsynced is renamed over the one of the FIFO."""
    make(fs, directory, b"tmp2", b"second")
    fs.rename(directory, b"tmp2", directory, b"tmp")


def over_it_while_open(fs: FileSystem, directory: Inode) -> None:
    fs.opened(walk(fs, b"d", b"tmp"))
    over_it(fs, directory)


def over_it_from_the_disk(fs: FileSystem, directory: Inode) -> None:
    fs.rename(directory, b"y", directory, b"tmp")


def in_exchange(fs: FileSystem, directory: Inode) -> None:
    make(fs, directory, b"tmp2", b"second")
    fs.rename(directory, b"tmp2", directory, b"tmp", RENAME_EXCHANGE)
    fs.unlink(directory, b"tmp2")


@pytest.mark.parametrize("cycle", CYCLES)
@pytest.mark.parametrize("replace", [over_it, over_it_while_open, over_it_from_the_disk, in_exchange])
@pytest.mark.trio
async def test_a_cycle_without_the_rename_leaves_one_of_both_files(
    replace: Callable[[FileSystem, Inode], None], cycle: str
) -> None:
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        make(fs, directory, b"y", b"on disk")
        await fs.sync()
        await fs.fsync(make(fs, directory, b"tmp", b"fsynced"))
        replace(fs, directory)
        start = len(log.entries)
        await a_cycle(fs, cycle)
        end = len(log.entries)
    for position in range(start, end + 1):
        recovered = checked(log.power_cut(position, drop_all))
        found = {name: read(recovered, b"d", name) for name in names(recovered, walk(recovered, b"d"))}
        taken = b"on disk" if replace is over_it_from_the_disk else b"second"
        assert found[b"tmp"] in (b"fsynced", taken)
        assert (b"y" in found) == (found[b"tmp"] != b"on disk")


@pytest.mark.parametrize("cycle", CYCLES)
@pytest.mark.trio
async def test_a_removed_file_stays_removed_when_the_one_that_took_its_name_is_gone_too(cycle: str) -> None:
    """A journal on disk, another one of the FIFO by its name: an fsync of that one promised the first one's end."""
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        make(fs, directory, JOURNAL, b"of old")
        await fs.sync()
        fs.unlink(directory, JOURNAL)
        await fs.fsync(make(fs, directory, JOURNAL, b"newer"))
        fs.unlink(directory, JOURNAL)
        start = len(log.entries)
        await a_cycle(fs, cycle)
        end = len(log.entries)
    for position in range(start, end + 1):
        recovered = checked(log.power_cut(position, drop_all))
        assert b"of old" not in [read(recovered, b"d", name) for name in names(recovered, walk(recovered, b"d"))]


@pytest.mark.trio
async def test_what_is_replaced_while_its_fsync_waits_is_there_or_what_replaced_it() -> None:
    """Queued for a group, and gone before that is captured: the fsync returned, and neither file had the name."""
    fs, log = begun()
    async with running(fs) as flusher, trio.open_nursery() as nursery:
        directory = walk(fs, b"d")
        awaited = make(fs, directory, b"f", b"awaited")
        fs.setxattr(awaited, b"user.a", b"for a flush")
        make(fs, directory, b"g", b"second")
        flusher.lock_groups()
        nursery.start_soon(fs.fsync, awaited)
        await trio.testing.wait_all_tasks_blocked()
        fs.rename(directory, b"g", directory, b"f")
        flusher.unlock_groups()
    assert names(after_a_cut(log), walk(after_a_cut(log), b"d")) == [b"f"]


@pytest.mark.trio
async def test_times_set_behind_the_fsync_of_a_new_file_are_flushed() -> None:
    fs, log = begun()
    async with running(fs):
        inode = make(fs, walk(fs, b"d"), b"f", CONTENT)
        await fs.fsync(inode)
        fs.setattr(inode, mtime_us=START_US + 10**12, ctime_us=START_US + 10**12)
        await fs.fsync(inode)
        assert groups(fs) == 1
    assert walk(after_a_cut(log), b"d", b"f").data.mtime == START_US + 10**12


@pytest.mark.trio
async def test_a_directory_whose_time_is_on_disk_is_not_held_for_a_new_file() -> None:
    """Another file's flush had taken its time along: no group would ever take it again."""
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        inode = make(fs, directory, b"f", CONTENT)
        await fs.fsync(make(fs, directory, b"large", bytes(70 * 1024)))
        await fs.fsync(inode)
        await fs.fsync(directory)
        assert groups(fs) == 1
        recovered = walk(after_a_cut(log), b"d")
        assert (names(after_a_cut(log), recovered), recovered.data.mtime) == ([b"f", b"large"], directory.data.mtime)
        await fs.sync()
        assert fs.ctx.redo is not None
        assert not fs.ctx.redo.holders
        assert not fs.ctx.redo.used


@pytest.mark.trio
async def test_a_name_of_a_file_that_has_another_one_on_disk_is_flushed_with_what_takes_it() -> None:
    """Both are removed, but recovery would find the other one, and a file that lives on with a time nobody gave it."""
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        fs.link(make(fs, directory, b"f", b"x"), directory, b"g")
        await fs.sync()
        for name in (b"f", b"g"):
            fs.unlink(directory, name)
        await fs.fsync(make(fs, directory, b"f", CONTENT))
        assert groups(fs) == 2
    assert names(after_a_cut(log), walk(after_a_cut(log), b"d")) == [b"f"]


@pytest.mark.trio
async def test_the_name_of_a_removed_directory_is_flushed_with_what_takes_it() -> None:
    fs, log = begun()
    async with running(fs):
        fs.rmdir(fs.root, b"d")
        await fs.fsync(make(fs, fs.root, b"d", b"a file now"))
        assert groups(fs) == 1
    assert read(after_a_cut(log), b"d") == b"a file now"


@pytest.mark.trio
async def test_a_removal_beside_a_new_file_is_not_taken_for_fsynced() -> None:
    """Another name is gone from the directory that is fsynced."""
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        make(fs, directory, b"g", b"x")
        await fs.sync()
        await fs.fsync(make(fs, directory, b"f", b"x"))
        fs.unlink(directory, b"g")
        await fs.fsync(directory)
        assert groups(fs) == 2
    assert names(after_a_cut(log), walk(after_a_cut(log), b"d")) == [b"f"]


@pytest.mark.trio
async def test_what_the_fifo_cannot_say_of_a_new_file_is_flushed() -> None:
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        new_directory = make(fs, directory, b"new")
        with_xattr = make(fs, directory, b"xattr", b"x")
        fs.setxattr(with_xattr, b"user.a", b"b")
        linked = make(fs, directory, b"linked", b"x")
        fs.link(linked, directory, b"link")
        others = (
            linked,  # first, as any flush takes what got another name
            make(fs, new_directory, b"f", b"x"),
            with_xattr,
            make(fs, directory, b"large", bytes(65 * 1024)),
            fs.symlink(directory, b"symlink", b"target", 0, 0),
            make(fs, directory, b"another"),
        )
        for inode in others:
            before = groups(fs)
            await fs.fsync(inode)
            assert groups(fs) == before + 1
        changed = make(fs, directory, b"changed", b"x")
        await fs.fsync(changed)
        before = groups(fs)
        for change in (
            lambda: fs.setattr(changed, mode=0o600),
            lambda: fs.rename(directory, b"changed", directory, b"renamed"),
        ):
            change()
            await fs.fsync(changed)
        assert groups(fs) == before + 2
    recovered = after_a_cut(log)
    assert names(recovered, walk(recovered, b"d")) == sorted(
        [b"new", b"xattr", b"linked", b"link", b"large", b"symlink", b"another", b"renamed"]
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda fs, directory: fs.unlink(directory, b"f"),
        lambda fs, directory: make(fs, directory, b"unknown", b"x"),
        lambda fs, directory: fs.rename(directory, b"f", directory, b"g"),
        lambda fs, directory: fs.setattr(directory, mode=0o700),
        lambda fs, directory: fs.setattr(directory, mtime_us=5),
        lambda fs, directory: fs.setxattr(directory, b"user.a", b"b"),
        lambda fs, directory: fs.rename(fs.root, b"d", fs.root, b"e"),
    ],
    ids=["unlink", "another", "rename", "mode", "mtime", "xattr", "moved"],
)
@pytest.mark.trio
async def test_a_directory_of_which_more_changed_is_flushed(change: Callable[[FileSystem, Inode], object]) -> None:
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        await fs.fsync(make(fs, directory, b"f", b"x"))
        change(fs, directory)
        before = groups(fs)
        await fs.fsync(directory)
        assert groups(fs) == before + 1
        name = names(fs, fs.root)[0]
        wanted = names(fs, directory), directory.data.mode, directory.data.mtime
    found = walk(after_a_cut(log), name)
    assert (names(after_a_cut(log), found), found.data.mode, found.data.mtime) == wanted


# --- a journal for each transaction -------------------------------------------------------------
async def transaction(fs: FileSystem, number: int) -> None:
    """What a database with a rollback journal does, up to the moment at which the transaction is durable."""
    directory, database = walk(fs, b"d"), walk(fs, b"d", b"database")
    journal = make(fs, directory, JOURNAL, b"%d" % number * 3000)
    await fs.fsync(journal)
    await fs.fsync(directory)
    fs.write(journal, 0, b"header")
    await fs.fsync(journal)
    fs.write(database, 0, b"%d" % number * 5000)
    await fs.fsync(database)


@pytest.mark.trio
async def test_a_transaction_with_a_journal_takes_three_barriers_and_no_flush() -> None:
    """And each is there from when it is durable on, the journal as a whole or not at all."""
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        database = make(fs, directory, b"database", b"0" * 5000)
        await fs.sync()
        await fs.fsync(database)
        done = [(len(log.entries), 0)]
        flushes, barriers = groups(fs), fast(fs).barriers
        for number in range(1, 9):
            await transaction(fs, number)
            done.append((len(log.entries), number))
            fs.unlink(directory, JOURNAL)
        assert groups(fs) == flushes
        assert fast(fs).barriers == barriers + 3 * 8
    journals = {b"%d" % number * 3000 for number in range(1, 9)}
    journals |= {b"header" + content[6:] for content in journals}
    for position in range(done[0][0], len(log.entries) + 1):
        durable = max(number for at, number in done if at <= position)
        for choose in (keep_all, drop_all):
            recovered = checked(log.power_cut(position, choose))
            database = read(recovered, b"d", b"database")
            assert database in {b"%d" % number * 5000 for number in (durable, durable + 1)}
            assert names(recovered, walk(recovered, b"d")) in ([b"database"], [b"database", JOURNAL])
            if JOURNAL in names(recovered, walk(recovered, b"d")):
                assert read(recovered, b"d", JOURNAL) in journals


def test_what_never_reached_the_disk_leaves_nothing_to_flush() -> None:
    """Created, fsynced, removed: no space is held for it, and no group has anything to do with it."""
    fs, _ = begun()

    async def main() -> None:
        async with running(fs):
            for _ in range(5):
                await fs.fsync(make(fs, walk(fs, b"d"), JOURNAL, b"x"))
                fs.unlink(walk(fs, b"d"), JOURNAL)
            assert not groups(fs)
            await fs.sync()
            assert_settled(fs)

    trio.run(main)
    assert fs.ctx.redo is not None
    assert not fs.ctx.redo.holders


# --- and flushes around it ----------------------------------------------------------------------
def test_a_cycle_without_its_file_carries_a_creation_over() -> None:
    """A background work's cycle is closed while the FIFO holds a new file, and another by the name of a removed one."""
    fs, log = begun()
    flusher = fs.flusher
    assert flusher is not None
    directory = walk(fs, b"d")
    for name, content in ((b"f", CONTENT), (JOURNAL, b"old")):
        trio.run(fs.fsync, make(fs, directory, name, content))
    fs.write(walk(fs, b"d", b"f"), 3, b"patched")
    trio.run(fs.fsync, walk(fs, b"d", b"f"))
    fs.unlink(directory, JOURNAL)
    trio.run(fs.fsync, make(fs, directory, JOURNAL, b"new"))
    acknowledged = len(log.entries)
    rootrecords.add_snapshot(fs.ctx, 0, fs.ctx.root.next_tid, 0, b"label")
    assert flusher.settle_now()
    assert len(log.entries) > acknowledged + 5
    for image in every_power_cut(log, acknowledged):
        recovered = checked(image)
        assert names(recovered, walk(recovered, b"d")) == [b"f", JOURNAL]
        assert read(recovered, b"d", b"f") == CONTENT[:3] + b"patched" + CONTENT[10:]
        assert read(recovered, b"d", JOURNAL) == b"new"


def test_a_creation_that_is_carried_over_keeps_the_time_of_what_was_written_since() -> None:
    fs, log = begun()
    assert fs.flusher is not None
    inode = make(fs, walk(fs, b"d"), b"f", CONTENT)
    fs.setattr(inode, mtime_us=5)
    trio.run(fs.fsync, inode)
    for written in (b"", b"later"):
        fs.write(inode, 0, written)
        trio.run(fs.fsync, inode)
        rootrecords.add_snapshot(fs.ctx, 0, fs.ctx.alloc_tid(), 0, b"label")
        fs.flusher.settle_now()
        mtime = walk(after_a_cut(log), b"d", b"f").data.mtime
        assert (mtime == 5) == (not written)


@pytest.mark.trio
async def test_a_removal_that_was_fsynced_is_not_undone() -> None:
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        for name in (b"f", b"g"):
            await fs.fsync(make(fs, directory, name, CONTENT))
        fs.unlink(directory, b"f")
        await fs.fsync(directory)
    assert names(after_a_cut(log), walk(after_a_cut(log), b"d")) == [b"g"]


@pytest.mark.parametrize("cycle", CYCLES)
def test_the_time_of_a_directory_outlives_the_file_that_moved_it(cycle: str) -> None:
    """Fsynced with a new file in it, which is removed; then the FIFO's range begins anew without that file."""
    fs, log = begun()
    directory = walk(fs, b"d")
    fs.setattr(directory, mtime_us=5)

    async def main() -> None:
        async with running(fs):
            await fs.sync()
            await fs.fsync(make(fs, directory, JOURNAL, b"x"))
            await fs.fsync(directory)
            assert groups(fs) == 1
            promised = directory.data.mtime
            assert walk(after_a_cut(log), b"d").data.mtime == promised
            fs.unlink(directory, JOURNAL)
            await a_cycle(fs, cycle)
            assert promised <= walk(after_a_cut(log), b"d").data.mtime <= directory.data.mtime

    trio.run(main)


@pytest.mark.trio
async def test_a_recovery_of_creations_survives_crashes_of_its_own() -> None:
    fs, log = begun()
    async with running(fs):
        directory = walk(fs, b"d")
        for number in range(4):
            await fs.fsync(make(fs, directory, b"f%d" % number, CONTENT))
        fs.unlink(directory, b"f0")
        await fs.fsync(make(fs, directory, b"f0", b"again"))
    count = 0
    for recovered in recover_with_crashes(log.power_cut(len(log.entries), drop_all), seed=5):
        assert [read(recovered, b"d", b"f%d" % number) for number in range(4)] == [b"again", *[CONTENT] * 3]
        count += 1
    assert count > 5


# --- who reads it -------------------------------------------------------------------------------
@pytest.mark.expect_log("recovery redo skipped")
@pytest.mark.trio
async def test_the_original_passes_over_what_it_does_not_know() -> None:
    """Its recovery runs the writes of files that are there; what no flush had written is not."""
    fs, log = begun()
    async with running(fs):
        old = make(fs, walk(fs, b"d"), b"old", b"x")
        await fs.sync()
        await fs.fsync(old)
        await fs.fsync(make(fs, walk(fs, b"d"), b"new", CONTENT))
        fs.write(old, 0, b"y")
        await fs.fsync(old)
    image = log.power_cut(len(log.entries), drop_all)
    operations = OriginalRecovery(image).operations()
    assert any(operation.obj_id == old.obj_id and operation.data == b"y" for operation in operations)
    with_nothing_redone = mount([OverlayDevice(device) for device in image], read_only=True, skip_redo=REDO_SKIPPED)
    assert names(with_nothing_redone, walk(with_nothing_redone, b"d")) == [b"old"]


def sound() -> Creation:
    return Creation(1, b"f", InodeData(obj_type=FILE, nlinks=1, mtime=START_US, ctime=START_US))


def test_a_creation_is_read_as_it_was_written() -> None:
    assert unpack_creation(pack_creation(sound())) == sound()._replace(data=InodeData.unpack(sound().data.pack()))


@pytest.mark.parametrize(
    ("obj_id", "payload"),
    [
        (5000, pack_creation(sound()._replace(name=b""))),
        (5000, pack_creation(sound()._replace(name=b"a/b"))),
        (5000, pack_creation(sound()._replace(name=b".."))),
        (5000, pack_creation(sound()._replace(name=b"x" * 256))),
        (5000, pack_creation(sound()._replace(data=InodeData(obj_type=1, nlinks=1)))),
        (5000, pack_creation(sound()._replace(data=InodeData(obj_type=FILE, nlinks=2)))),
        (5000, pack_creation(sound())[:100]),
        (5000, b""),
        (1, pack_creation(sound())),
        (-5, pack_creation(sound())),
        (1 << 62, pack_creation(sound())),
        (5000, pack_creation(sound()._replace(name=b"d"))),
    ],
)
def test_an_impossible_creation_is_refused_in_a_sentence(obj_id: int, payload: bytes) -> None:
    fs, log = begun()
    fast_file = make(fs, walk(fs, b"d"), b"f", b"x")
    trio.run(fs.fsync, fast_file)
    assert fs.ctx.undo is not None
    fs.ctx.undo.append_redo(RedoBody(obj_id, 0, len(payload), REDO_CREATE, 0, payload))
    fs.ctx.undo.flush()
    with pytest.raises(CorruptionError, match="skip_redo=1"):
        mount(log.power_cut(len(log.entries), keep_all))


def test_a_creation_in_what_is_no_directory_is_refused_too() -> None:
    fs, log = begun()
    file = make(fs, walk(fs, b"d"), b"f", b"x")
    trio.run(fs.fsync, file)
    payload = pack_creation(sound()._replace(directory=file.obj_id))
    assert fs.ctx.undo is not None
    fs.ctx.undo.append_redo(RedoBody(5000, 0, len(payload), REDO_CREATE, 0, payload))
    fs.ctx.undo.flush()
    with pytest.raises(CorruptionError, match="creates object 0x1388, which is impossible"):
        mount(log.power_cut(len(log.entries), keep_all))
