"""The FUSE handlers without a kernel: a real file system in memory behind them, called as pyfuse3 calls them."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio
import trio.testing
from handlers import USER, call, errno_of
from small_filesystem import assert_clean, fresh, make, mount, names, read, walk

from hammerfs.errors import CorruptionError, DeviceError, FileOperationError, NoSpaceError, ReadOnlyError
from hammerfs.fs import unfinished
from hammerfs.fs.mount import FileSystem
from hammerfs.vfs.attributes import CACHE_SECONDS, OWNERS_REMEMBERED_MAX, OwnerNumbers
from hammerfs.vfs.complaints import LINES_PER_PERIOD, PERIOD_SECONDS, Complaints
from hammerfs.vfs.nodeids import OBJ_ID_MIN, ROOT_NODE_ID
from hammerfs.vfs.operations import HammerOperations
from hammerfs.vfs.xattroperations import XattrOperations, operations_for


def failing(error: Exception) -> Callable[..., Any]:
    def raise_it(*_args: object, **_kwargs: object) -> object:
        raise error

    return raise_it


def node(number: int) -> pyfuse3.InodeT:
    return pyfuse3.InodeT(number)


def name(text: bytes) -> pyfuse3.FileNameT:
    return pyfuse3.FileNameT(text)


ROOT = node(ROOT_NODE_ID)


@pytest.fixture
def fs() -> FileSystem:
    return mount(fresh())


@pytest.fixture
def operations(fs: FileSystem) -> HammerOperations:
    return operations_for(fs)


# --- errors -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FileOperationError(errno.ENOTEMPTY), errno.ENOTEMPTY),
        (NoSpaceError("full"), errno.ENOSPC),
        (ReadOnlyError("read-only"), errno.EROFS),
        (pyfuse3.FUSEError(errno.EXDEV), errno.EXDEV),
    ],
)
def test_refusals_become_errnos_silently(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch, error: Exception, number: int
) -> None:
    monkeypatch.setattr(fs, "readlink", failing(error))
    assert errno_of(operations.readlink(ROOT, USER)) == number


def test_a_name_that_leads_back_to_where_it_is_is_a_link(fs: FileSystem, operations: HammerOperations) -> None:
    """The kernel would answer EIO for its root, and two inodes of one directory would be two of each file in it."""
    directory = node(make(fs, fs.root, b"d").obj_id)
    for parent, word in ((ROOT, b"@@-1"), (ROOT, b"@@-1:00000"), (directory, b"@@-1")):
        link = call(operations.lookup(parent, name(word), USER))
        assert stat.S_ISLNK(link.st_mode)
        assert (link.st_ino not in (parent, ROOT, directory), link.entry_timeout) == (True, 0)
        assert call(operations.readlink(link.st_ino, USER)) == b"."
        assert call(operations.getattr(link.st_ino, USER)).st_size == 1
        call(operations.forget([(link.st_ino, 1)]))
    assert len(operations.node_ids) == 0
    assert errno_of(operations.lookup(directory, name(b"@@-1:00000"), USER)) == errno.ELOOP
    assert errno_of(operations.lookup(ROOT, name(b"@@-1:00001"), USER)) == errno.ENOENT
    assert call(operations.lookup(directory, name(b".."), USER)).st_ino == ROOT
    assert call(operations.lookup(directory, name(b"."), USER)).st_ino == directory
    assert call(operations.lookup(ROOT, name(b"d@@-1"), USER)).st_ino == directory


@pytest.mark.expect_log(r"^readlink\(0x1\) of '/': record at 8000000000004000$")
def test_damage_is_an_io_error_and_one_line_in_the_log(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fs, "readlink", failing(CorruptionError("record", offset=0x8000000000004000)))
    assert errno_of(operations.readlink(ROOT, USER)) == errno.EIO


@pytest.mark.expect_log(
    r"^unlink\(0x1, b'name'\) of '/name': disk: cannot read 5 bytes at offset 4: Input/output error$"
)
def test_a_failing_device_is_an_io_error_and_one_line_in_the_log(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fs, "unlink", failing(DeviceError("read", "disk", 4, 5, OSError(errno.EIO, ""))))
    assert errno_of(operations.unlink(ROOT, name(b"name"), USER)) == errno.EIO


@pytest.mark.expect_log(r"^write\(0x1, 0x10\): unexpected KeyError: 'bug'$")
def test_a_bug_is_an_io_error_with_a_traceback_in_the_log_and_no_contents(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fs, "write", failing(KeyError("bug")))
    assert errno_of(operations.write(pyfuse3.FileHandleT(1), 16, b"secret")) == errno.EIO
    assert "raise_it" in caplog.text
    assert "secret" not in caplog.text


def test_complaints_are_counted_when_there_are_too_many(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    complaints = Complaints(logging.getLogger("test"), clock=lambda: now)
    for number in range(LINES_PER_PERIOD + 7):
        complaints.log(f"line {number}")
    assert len(caplog.records) == LINES_PER_PERIOD
    now = PERIOD_SECONDS
    complaints.log("later")
    complaints.log("and later")
    assert [record.getMessage() for record in caplog.records[-2:]] == [
        "later (7 more messages were not shown)",
        "and later",
    ]


# --- names and attributes -----------------------------------------------------------------------
def test_node_ids_of_the_mounted_view_are_object_ids(fs: FileSystem, operations: HammerOperations) -> None:
    inode = make(fs, fs.root, b"file", b"content")
    entry = call(operations.lookup(ROOT, name(b"file"), USER))
    assert entry.st_ino == inode.obj_id >= OBJ_ID_MIN
    assert entry.entry_timeout == entry.attr_timeout == CACHE_SECONDS
    assert len(operations.node_ids) == 0


def test_an_absent_name_may_be_remembered(operations: HammerOperations) -> None:
    entry = call(operations.lookup(ROOT, name(b"absent"), USER))
    assert entry.st_ino == 0
    assert entry.entry_timeout == CACHE_SECONDS
    assert errno_of(operations.lookup(ROOT, name(b"absent@@0x0000000000000010"), USER)) == errno.ENOENT


def test_attributes_say_what_the_inode_says(fs: FileSystem, operations: HammerOperations) -> None:
    entry = call(operations.mknod(ROOT, name(b"tty"), pyfuse3.ModeT(stat.S_IFCHR | 0o620), os.makedev(4, 300), USER))
    assert stat.S_ISCHR(entry.st_mode)
    assert stat.S_IMODE(entry.st_mode) == 0o620
    assert (entry.st_uid, entry.st_gid, entry.st_nlink) == (1000, 100, 1)
    assert entry.st_rdev == os.makedev(4, 300)
    inode = walk(fs, b"tty")
    inode.data.mtime, inode.data.ctime, inode.data.atime = 1_000_001, 2_000_002, 3_000_003
    entry = call(operations.getattr(entry.st_ino, USER))
    assert (entry.st_mtime_ns, entry.st_ctime_ns, entry.st_atime_ns) == (1_000_001_000, 2_000_002_000, 3_000_003_000)
    assert (entry.st_size, entry.st_blocks) == (0, 0)


def test_owner_numbers_are_remembered_up_to_a_limit() -> None:
    numbers = OwnerNumbers(None)
    for uid in range(OWNERS_REMEMBERED_MAX + 10):
        assert numbers[bytes(12) + uid.to_bytes(4, "little")] == uid
    assert len(numbers) <= OWNERS_REMEMBERED_MAX
    assert OwnerNumbers(5)[bytes(16)] == 5


def test_ids_of_other_views_come_and_go(fs: FileSystem, operations: HammerOperations) -> None:
    make(fs, fs.root, b"file", b"old")
    assert fs.flusher is not None
    fs.flusher.flush_now()
    past = b"@@0x%016x" % fs.ctx.root.next_tid
    entries = [call(operations.lookup(ROOT, name(b"file" + past), USER)) for _ in range(3)]
    node_id = entries[0].st_ino
    assert {entry.st_ino for entry in entries} == {node_id}
    assert node_id < OBJ_ID_MIN
    assert len(operations.node_ids) == 1
    call(operations.forget([(node_id, 2)]))
    assert call(operations.getattr(node_id, USER)).st_size == 3
    call(operations.forget([(node_id, 1)]))
    assert len(operations.node_ids) == 0
    assert errno_of(operations.getattr(node_id, USER)) == errno.ESTALE
    again = call(operations.lookup(ROOT, name(b"file" + past), USER))
    assert again.st_ino != node_id, "an id was used twice"


def test_a_nameless_object_lives_until_it_is_forgotten(fs: FileSystem, operations: HammerOperations) -> None:
    entry = call(operations.mkdir(ROOT, name(b"d"), pyfuse3.ModeT(stat.S_IFDIR | 0o755), USER))
    call(operations.rmdir(ROOT, name(b"d"), USER))
    assert call(operations.getattr(entry.st_ino, USER)).st_nlink == 0
    call(operations.forget([(entry.st_ino, 1)]))
    assert errno_of(operations.getattr(entry.st_ino, USER)) == errno.ENOENT
    assert names(fs, fs.root) == []


def test_at_the_end_of_a_session_nothing_is_held(fs: FileSystem, operations: HammerOperations) -> None:
    held = [make(fs, fs.root, word, b"contents") for word in (b"removed", b"replaced")]
    make(fs, fs.root, b"new", b"contents")
    call(operations.unlink(ROOT, name(b"removed"), USER))
    call(operations.rename(ROOT, name(b"new"), ROOT, name(b"replaced"), pyfuse3.FlagT(0), USER))
    assert [inode.opens for inode in held] == [1, 1]
    operations.session_ended()
    assert [inode.opens for inode in held] == [0, 0]


def test_a_refused_removal_holds_nothing(fs: FileSystem, operations: HammerOperations) -> None:
    directory = make(fs, fs.root, b"d")
    make(fs, directory, b"inside", b"")
    assert errno_of(operations.rmdir(ROOT, name(b"d"), USER)) == errno.ENOTEMPTY
    assert errno_of(operations.unlink(ROOT, name(b"absent"), USER)) == errno.ENOENT
    assert directory.opens == 0


def told(**values: int) -> tuple[pyfuse3.EntryAttributes, Any]:
    """What the kernel tells: `mode`, or times in microseconds."""
    attributes = pyfuse3.EntryAttributes()
    names = ("mode", "uid", "gid", "size", "atime", "mtime", "ctime")
    for field, value in values.items():
        setattr(attributes, f"st_{field}" if field == "mode" else f"st_{field}_ns", value * (field == "mode" or 1000))
    return attributes, SimpleNamespace(**{f"update_{field}": field in values for field in names})


def times_told(time_us: int) -> tuple[pyfuse3.EntryAttributes, Any]:
    """What the kernel tells after a write."""
    return told(mtime=time_us, ctime=time_us)


def test_a_write_of_which_the_kernel_tells_no_time_leaves_the_time_that_it_shows(
    fs: FileSystem, operations: HammerOperations
) -> None:
    file, entry = call(operations.create(ROOT, name(b"f"), pyfuse3.ModeT(0o100644), pyfuse3.FlagT(os.O_RDWR), USER))
    inode = walk(fs, b"f")

    def write_and_close(*told: int) -> None:
        again = call(operations.open(entry.st_ino, pyfuse3.FlagT(os.O_RDWR), USER))
        call(operations.write(again.fh, 0, b"content"))
        for mtime in told:
            call(operations.setattr(entry.st_ino, *times_told(mtime), again.fh, USER))
        call(operations.release(again.fh))

    write_and_close(5_000_000)
    write_and_close()
    assert inode.data.mtime > 5_000_000, "another handle is open, and who holds it may have written, too"
    call(operations.release(file.fh))
    assert (inode.data.mtime, inode.data.ctime) == (5_000_000, 5_000_000)
    write_and_close(6_000_000)
    write_and_close()
    assert (inode.data.mtime, inode.data.ctime) == (6_000_000, 6_000_000)
    write_and_close(7_000_000, 8_000_000)
    assert (inode.data.mtime, inode.data.ctime) == (8_000_000, 8_000_000)
    assert fs.flusher is not None
    fs.flusher.flush_now()
    again = call(operations.open(entry.st_ino, pyfuse3.FlagT(os.O_RDWR), USER))
    call(operations.write(again.fh, 0, b"content"))
    fs.flusher.flush_now()
    call(operations.release(again.fh))
    assert not inode.dirty, "what is on disk is not written again for that"


def test_a_change_between_a_write_and_the_close_keeps_its_time(fs: FileSystem, operations: HammerOperations) -> None:
    file, entry = call(operations.create(ROOT, name(b"f"), pyfuse3.ModeT(0o100644), pyfuse3.FlagT(os.O_RDWR), USER))
    call(operations.setattr(entry.st_ino, *times_told(5_000_000), file.fh, USER))
    call(operations.write(file.fh, 0, b"content"))
    call(operations.setattr(entry.st_ino, *told(mode=0o100600, ctime=9_000_000), file.fh, USER))
    call(operations.release(file.fh))
    assert walk(fs, b"f").data.ctime == 9_000_000


def test_a_time_that_finds_no_space_leaves_that_of_the_write(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, entry = call(operations.create(ROOT, name(b"f"), pyfuse3.ModeT(0o100644), pyfuse3.FlagT(os.O_RDWR), USER))
    call(operations.setattr(entry.st_ino, *times_told(5_000_000), file.fh, USER))
    call(operations.write(file.fh, 0, b"content"))

    async def no_room() -> bool:
        return False

    with monkeypatch.context() as full:
        full.setattr(fs, "make_room", no_room)
        full.setattr(fs, "setattr", failing(NoSpaceError()))
        assert errno_of(operations.setattr(entry.st_ino, *times_told(7_000_000), file.fh, USER)) == errno.ENOSPC
    call(operations.release(file.fh))
    assert walk(fs, b"f").data.mtime > 7_000_000


def test_the_times_of_what_lost_its_name_while_open_are_not_remembered(operations: HammerOperations) -> None:
    file, entry = call(operations.create(ROOT, name(b"f"), pyfuse3.ModeT(0o100644), pyfuse3.FlagT(os.O_RDWR), USER))
    call(operations.write(file.fh, 0, b"content"))
    call(operations.unlink(ROOT, name(b"f"), USER))
    call(operations.release(file.fh))
    call(operations.forget([(entry.st_ino, 1)]))
    assert not operations._told_times._shown


def test_truncating_at_open_clears_suid_for_ordinary_users(fs: FileSystem, operations: HammerOperations) -> None:
    inode = make(fs, fs.root, b"program", b"content")
    fs.setattr(inode, mode=0o6755)
    handle = call(operations.open(node(inode.obj_id), pyfuse3.FlagT(os.O_WRONLY | os.O_TRUNC), USER)).fh
    assert (inode.data.mode, inode.data.size, inode.opens) == (0o755, 0, 1)
    call(operations.release(handle))
    assert inode.opens == 0


def test_reading_moves_atime_when_it_is_not_later_than_the_other_times_or_a_day_old() -> None:
    fs = mount(fresh(), noatime=False)
    operations = operations_for(fs)
    inode = make(fs, fs.root, b"f", b"content")
    assert fs.flusher is not None
    handle = call(operations.open(node(inode.obj_id), pyfuse3.FlagT(os.O_RDONLY), USER)).fh

    def moved() -> bool:
        before = inode.data.atime, inode.data.mtime, inode.data.ctime
        assert call(operations.read(handle, 0, 100)) == b"content"
        assert (inode.data.mtime, inode.data.ctime) == before[1:]
        return inode.data.atime > before[0]

    assert [moved(), moved()] == [True, False]
    fs.setattr(inode, mode=0o600)
    assert [moved(), moved()] == [True, False]
    fs.flusher.flush_now()
    day = 24 * 3600 * 1_000_000
    fs.setattr(inode, atime_us=inode.data.ctime - day, mtime_us=5, ctime_us=6)
    assert [moved(), moved()] == [True, False]


def test_reading_what_has_no_name_leaves_its_record_to_go() -> None:
    devices = fresh()
    fs = mount(devices, noatime=False)
    operations = operations_for(fs)
    inode = make(fs, fs.root, b"f", b"content")
    assert fs.flusher is not None
    fs.flusher.flush_now()
    handle = call(operations.open(node(inode.obj_id), pyfuse3.FlagT(os.O_RDONLY), USER)).fh
    call(operations.unlink(ROOT, name(b"f"), USER))
    fs.flusher.flush_now()
    assert call(operations.read(handle, 0, 100)) == b"content"
    assert not inode.dirty
    operations.session_ended()
    fs.close_now()
    assert_clean(devices)


def test_the_end_of_a_session_closes_what_was_open_and_frees_what_has_no_name(operations: HammerOperations) -> None:
    """After a lazy unmount the last RELEASE is one that the kernel never sends."""
    fs = operations.fs
    make(fs, fs.root, b"kept", b"x")
    inode = make(fs, fs.root, b"f", b"x" * 100_000)
    for node_id in (walk(fs, b"kept").obj_id, inode.obj_id, inode.obj_id):
        call(operations.open(node(node_id), pyfuse3.FlagT(os.O_RDWR), USER))
    call(operations.unlink(ROOT, name(b"f"), USER))
    assert fs.flusher is not None
    fs.flusher.flush_now()
    operations.session_ended()
    fs.flusher.flush_now()
    assert fs.ctx.root.inode_count == 2
    assert not list(unfinished.scan(fs.ctx))


# --- options and waiting ------------------------------------------------------------------------
def test_xattrs_are_answered_only_when_asked_for(operations: HammerOperations) -> None:
    assert errno_of(operations.getxattr(ROOT, pyfuse3.XAttrNameT(b"user.x"), USER)) == errno.ENOSYS
    with_xattrs = operations_for(mount(fresh(), xattr=True))
    assert isinstance(with_xattrs, XattrOperations)
    call(with_xattrs.setxattr(ROOT, pyfuse3.XAttrNameT(b"user.x"), b"value", USER))
    assert call(with_xattrs.getxattr(ROOT, pyfuse3.XAttrNameT(b"user.x"), USER)) == b"value"
    assert call(with_xattrs.listxattr(ROOT, USER)) == [b"user.x"]
    call(with_xattrs.removexattr(ROOT, pyfuse3.XAttrNameT(b"user.x"), USER))
    assert errno_of(with_xattrs.getxattr(ROOT, pyfuse3.XAttrNameT(b"user.x"), USER)) == errno.ENODATA


def test_changes_wait_for_a_congested_flusher_and_questions_do_not(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(fs), "congested", property(lambda self: True))
    may_go_on = trio.Event()
    monkeypatch.setattr(fs, "throttle", may_go_on.wait)
    call(operations.getattr(ROOT, USER))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(operations.symlink, ROOT, b"link", b"target", USER)
            await trio.testing.wait_all_tasks_blocked()
            assert names(fs, fs.root) == []
            may_go_on.set()
        assert names(fs, fs.root) == [b"link"]

    trio.run(main)


def test_what_was_removed_makes_room_at_once() -> None:
    fs = mount(fresh(), nohistory=True)
    operations = operations_for(fs)
    piece = bytes(1 << 20)
    mode, flags = pyfuse3.ModeT(stat.S_IFREG | 0o644), pyfuse3.FlagT(os.O_RDWR)

    async def write_until_refused(text: bytes) -> int:
        info, entry = await operations.create(ROOT, name(text), mode, flags, USER)
        size = 0
        with pytest.RaisesExc(pyfuse3.FUSEError, check=lambda error: error.errno == errno.ENOSPC):
            while True:
                size += await operations.write(info.fh, size, piece)
        await operations.release(info.fh)
        await operations.unlink(ROOT, name(text), USER)
        await operations.forget([(entry.st_ino, 1)])
        return size

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(fs.run)
            first, second = [await write_until_refused(text) for text in (b"first", b"second")]
            await fs.sync()
            assert second >= first - len(piece)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_who_writes_into_the_cache_of_a_full_file_system_is_told_once(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    inode = make(fs, fs.root, b"file", b"x")
    node_id = node(inode.obj_id)
    told: list[tuple[int, bool]] = []
    monkeypatch.setattr(pyfuse3, "invalidate_inode", lambda inode, attr_only: told.append((inode, attr_only)))
    monkeypatch.setattr(fs, "write", failing(NoSpaceError("full")))
    monkeypatch.setattr(fs.flusher, "haswork", lambda: False)
    for _ in range(2):
        assert errno_of(operations.write(pyfuse3.FileHandleT(node_id), 0, b"y")) == errno.ENOSPC
        assert errno_of(operations.getattr(node_id, USER)) == errno.ENOSPC
        assert call(operations.getattr(node_id, USER)).st_size == 1
    assert told == [(node_id, True)] * 2
    fs.opened(inode)
    assert errno_of(operations.write(pyfuse3.FileHandleT(node_id), 0, b"y")) == errno.ENOSPC
    call(operations.release(pyfuse3.FileHandleT(node_id)))
    assert call(operations.getattr(node_id, USER)).st_size == 1, "whoever wrote is gone"


def test_what_handlers_did_is_on_disk_after_fsync() -> None:
    devices = fresh()
    fs = mount(devices)
    operations = operations_for(fs)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(fs.run)
            mode, flags = pyfuse3.ModeT(stat.S_IFREG | 0o644), pyfuse3.FlagT(os.O_RDWR)
            info, _ = await operations.create(ROOT, name(b"file"), mode, flags, USER)
            assert await operations.write(info.fh, 0, b"content") == 7
            await operations.fsync(info.fh, datasync=False)
            nursery.cancel_scope.cancel()

    trio.run(main)
    again = mount([device.copy() for device in devices])
    assert read(again, b"file") == b"content"
    assert_clean(devices)
