"""`.hammer` in the roots of PFSs: what is in it, that it is fresh, that nothing can be changed, when there is none."""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pyfuse3
import pytest
import trio
from handlers import USER, errno_of
from mirror_pair import make_slave, mirror, synced
from small_filesystem import fresh, make, mount

from hammerfs.cli.mount_options import parse_mount_options
from hammerfs.errors import UsageError
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.rootrecords import add_snapshot, remove_snapshot
from hammerfs.ondisk.address import pfs_localization
from hammerfs.ondisk.constants import OBJID_ROOT
from hammerfs.vfs.nodeids import ROOT_NODE_ID
from hammerfs.vfs.operations import HammerOperations
from hammerfs.vfs.xattroperations import operations_for

pytestmark = pytest.mark.usefixtures("utc")

ROOT = pyfuse3.InodeT(ROOT_NODE_ID)
START = 1_700_000_000
"""Seconds; each state of `made` is ten later."""


def flushed(fs: FileSystem) -> int:
    assert fs.flusher is not None
    fs.flusher.flush_now()
    return fs.flusher.cycle.flush_tid1


def made(**options: Any) -> tuple[FileSystem, list[int]]:
    """A file system in whose root one file is added at a time, and the TIDs of its states."""
    fs = mount(fresh(), **options)
    tids = []
    for number in range(3):
        fs.ctx.clock = lambda number=number: (START + number * 10) * 1_000_000
        make(fs, fs.root, b"%d" % number)
        tids.append(flushed(fs))
    return fs, tids


def look(operations: HammerOperations, *path: bytes) -> pyfuse3.EntryAttributes:
    """What the kernel is told of a path; an absent one is a FUSEError or an entry without an inode."""
    node = ROOT
    entry: pyfuse3.EntryAttributes | None = None
    for name in path:
        entry = trio.run(operations.lookup, node, pyfuse3.FileNameT(name), USER)
        node = entry.st_ino
    assert entry is not None
    return entry


def refusal(operations: HammerOperations, *path: bytes) -> int:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        look(operations, *path)
    return caught.value.errno


def listed(operations: HammerOperations, node: int) -> list[bytes]:
    """All names of a directory, asked for two at a time, sorted."""
    names: list[bytes] = []
    cookie, found = 0, True
    while found:
        taken: list[tuple[bytes, int]] = []

        def reply(_token: object, name: bytes, _entry: object, next_id: int, taken: list[Any] = taken) -> bool:
            if len(taken) == 2:
                return False
            taken.append((name, next_id))
            return True

        with mock.patch.object(pyfuse3, "readdir_reply", reply):
            trio.run(operations.readdir, pyfuse3.FileHandleT(node), cookie, mock.Mock())
        names += [name for name, _ in taken]
        found = bool(taken)
        cookie = taken[-1][1] if taken else cookie
    assert len(names) == len(set(names))
    return sorted(name for name in names if name not in (b".", b".."))


def test_what_is_in_it() -> None:
    fs, tids = made()
    operations = operations_for(fs)
    top = look(operations, b".hammer")
    assert listed(operations, top.st_ino) == [b"latest", b"snapshots", b"tid", b"time"]
    assert (top.st_mode & 0o7777, top.entry_timeout) == (0o555, 0)
    for number, tid in enumerate(tids):
        names = [b"%d" % name for name in range(number + 1)]
        assert listed(operations, look(operations, b".hammer", b"tid", b"0x%016x" % tid).st_ino) == names
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(START + number * 10 + 9)).encode()
        for moment in (seconds, seconds + b"Z"):
            assert listed(operations, look(operations, b".hammer", b"time", moment).st_ino) == names
    assert look(operations, b".hammer", b"time", b"2023-11-14T22:13:25").st_ino == (
        look(operations, b".hammer", b"time", b"2023-11-14T22:13:21").st_ino
    )


def test_the_latest_state_is_always_that() -> None:
    fs, _ = made()
    operations = operations_for(fs)
    before = look(operations, b".hammer", b"latest")
    assert listed(operations, before.st_ino) == [b"0", b"1", b"2"]
    make(fs, fs.root, b"3")
    assert look(operations, b".hammer", b"latest").st_ino == before.st_ino
    flushed(fs)
    after = look(operations, b".hammer", b"latest")
    assert listed(operations, after.st_ino) == [b"0", b"1", b"2", b"3"]
    assert listed(operations, before.st_ino) == [b"0", b"1", b"2"]
    assert after.entry_timeout == 0


def test_snapshots_by_label_or_date() -> None:
    fs, tids = made()
    operations = operations_for(fs)
    snapshots = look(operations, b".hammer", b"snapshots").st_ino
    assert listed(operations, snapshots) == []
    for tid, label in zip(tids, (b"nightly", b"", b"nightly"), strict=True):
        assert add_snapshot(fs.ctx, 0, tid, START * 1_000_000, label)
    names = [b"nightly", b"2023-11-14T22:13:20", b"nightly.0x%016x" % tids[2]]
    assert listed(operations, snapshots) == sorted(names)
    for tid, label in zip(tids, names, strict=True):
        assert look(operations, b".hammer", b"snapshots", label).st_ino == look(operations, b"@@0x%016x" % tid).st_ino
    assert listed(operations, look(operations, b".hammer", b"tid").st_ino) == [b"0x%016x" % tid for tid in tids]
    remove_snapshot(fs.ctx, 0, tids[0])
    assert listed(operations, snapshots) == [names[1], b"nightly"]


@pytest.mark.parametrize(
    "path",
    [
        [b"absent"],
        [b"snapshots", b"absent"],
        [b"tid", b"0x1"],
        [b"tid", b"0xffffffffffffffff"],
        [b"tid", b"0x7fffffffffffffff"],
        [b"tid", b"-1"],
        [b"tid", b"0x0000000100000000:00001"],
        [b"time", b"noon"],
        [b"time", b"1999-12-31"],
        [b"time", b"2999-12-31"],
        [b"time", b"\xff"],
    ],
)
def test_what_is_not_in_it(path: list[bytes]) -> None:
    fs, _ = made()
    assert refusal(operations_for(fs), b".hammer", *path) == errno.ENOENT


# --- on a slave ---------------------------------------------------------------------------------


def mirrored() -> tuple[FileSystem, FileSystem, list[int]]:
    """A master of two states, a slave that was brought to each of them, and the TIDs that it was shown as of."""
    source, target = mount(fresh()), mount(fresh())
    for fs in (source, target):
        fs.ctx.clock = lambda: START * 1_000_000
    make_slave(target)
    tids = []
    for number in range(2):
        source.ctx.clock = lambda number=number: (START + number * 10) * 1_000_000
        make(source, source.root, b"%d" % number)
        mirror(source, target)
        tids.append(synced(target))
    return source, target, tids


def test_a_slave_s_latest_state_is_a_link_to_its_root() -> None:
    _, target, tids = mirrored()
    operations = operations_for(target)
    slave = b"@@-1:00001"
    top = look(operations, slave, b".hammer")
    assert listed(operations, top.st_ino) == [b"latest", b"snapshots", b"tid", b"time"]
    latest = look(operations, slave, b".hammer", b"latest")
    assert (stat.S_IFMT(latest.st_mode), latest.entry_timeout, latest.st_size) == (stat.S_IFLNK, 0, 2)
    assert trio.run(operations.readlink, latest.st_ino, USER) == b".."
    now = look(operations, slave, b".hammer", b"tid", b"0x%016x" % tids[1])
    assert trio.run(operations.readlink, now.st_ino, USER) == b"../.."
    before = look(operations, slave, b".hammer", b"tid", b"0x%016x" % tids[0])
    assert listed(operations, before.st_ino) == [b"0"]
    then = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(START + 9)).encode()
    assert listed(operations, look(operations, slave, b".hammer", b"time", then).st_ino) == [b"0"]
    assert refusal(operations, slave, b".hammer", b"tid", b"0x7fffffffffffffff") == errno.ENOENT


def test_a_slave_s_snapshots_are_there_up_to_what_was_mirrored_last() -> None:
    _, target, tids = mirrored()
    operations = operations_for(target)
    localization = pfs_localization(1)
    for tid, label in zip(tids, (b"older", b"newest"), strict=True):
        assert add_snapshot(target.ctx, localization, tid, START * 1_000_000, label)
    slave = b"@@-1:00001"
    assert listed(operations, look(operations, slave, b".hammer", b"snapshots").st_ino) == [b"newest", b"older"]
    assert listed(operations, look(operations, slave, b".hammer", b"snapshots", b"older").st_ino) == [b"0"]
    newest = look(operations, slave, b".hammer", b"snapshots", b"newest")
    assert trio.run(operations.readlink, newest.st_ino, USER) == b"../.."


def test_a_mounted_slave_finds_what_was_mirrored_since() -> None:
    source, target, _ = mirrored()
    target.root = target.inode(pfs_localization(1), OBJID_ROOT, synced(target))
    operations = operations_for(target)
    assert listed(operations, ROOT) == [b"0", b"1"]
    assert stat.S_ISLNK(look(operations, b".hammer", b"latest").st_mode)
    make(source, source.root, b"2")
    mirror(source, target)
    assert listed(operations, ROOT) == [b"0", b"1"]
    latest = look(operations, b".hammer", b"latest")
    assert listed(operations, latest.st_ino) == [b"0", b"1", b"2"]
    assert trio.run(operations.lookup, latest.st_ino, pyfuse3.FileNameT(b".hammer"), USER).st_ino == 0


FIELDS = SimpleNamespace(
    update_mode=True, **{f"update_{name}": False for name in ("uid", "gid", "size", "atime", "mtime", "ctime")}
)
CHANGES: list[Callable[[HammerOperations, int], Any]] = [
    lambda ops, node: ops.mkdir(node, b"new", 0o755, USER),
    lambda ops, node: ops.create(node, b"new", 0o644, 0, USER),
    lambda ops, node: ops.symlink(node, b"new", b"target", USER),
    lambda ops, node: ops.unlink(node, b"latest", USER),
    lambda ops, node: ops.rmdir(node, b"tid", USER),
    lambda ops, node: ops.rename(node, b"tid", ROOT, b"tid", 0, USER),
    lambda ops, node: ops.rename(ROOT, b"0", node, b"new", 0, USER),
    lambda ops, node: ops.setattr(node, mock.Mock(st_mode=0o777), FIELDS, None, USER),
]


@pytest.mark.parametrize("change", CHANGES)
def test_it_cannot_be_changed(change: Callable[[HammerOperations, int], Any]) -> None:
    fs, _ = made()
    operations = operations_for(fs)
    top = look(operations, b".hammer").st_ino
    assert errno_of(change(operations, top)) == errno.EROFS


def test_it_is_listed_only_where_that_is_asked_for() -> None:
    hidden, visible, off = (operations_for(made(snapdir=word)[0]) for word in ("hidden", "visible", "off"))
    assert listed(hidden, ROOT) == listed(off, ROOT) == [b"0", b"1", b"2"]
    assert listed(visible, ROOT) == [b".hammer", b"0", b"1", b"2"]
    assert look(off, b".hammer").st_ino == 0
    past = look(visible, b".hammer", b"latest")
    assert b".hammer" not in listed(visible, past.st_ino)
    assert trio.run(visible.lookup, past.st_ino, pyfuse3.FileNameT(b".hammer"), USER).st_ino == 0


def test_a_directory_of_that_name_stands_before_it() -> None:
    fs, _ = made(snapdir="visible")
    own = make(fs, fs.root, b".hammer")
    operations = operations_for(fs)
    assert look(operations, b".hammer").st_ino == own.obj_id
    assert listed(operations, ROOT).count(b".hammer") == 1


def test_only_roots_have_it() -> None:
    fs, _ = made()
    folder = make(fs, fs.root, b"folder")
    operations = operations_for(fs)
    assert trio.run(operations.lookup, pyfuse3.InodeT(folder.obj_id), pyfuse3.FileNameT(b".hammer"), USER).st_ino == 0


def test_the_kernel_s_references_are_given_back() -> None:
    fs, tids = made()
    operations = operations_for(fs)
    entries = [look(operations, b".hammer", b"tid", b"0x%016x" % tid) for tid in tids]
    assert len(operations.node_ids) == len(tids) + 2
    folders = {look(operations, b".hammer").st_ino, look(operations, b".hammer", b"tid").st_ino}
    nodes = {entry.st_ino for entry in entries} | folders
    trio.run(operations.forget, [(node, 99) for node in nodes])
    assert len(operations.node_ids) == 0


def test_the_mount_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_mount_options(["snapdir=visible"]).filesystem.snapdir == "visible"
    assert parse_mount_options([]).filesystem.snapdir == "hidden"
    with pytest.raises(UsageError, match="one of hidden, visible, off"):
        parse_mount_options(["snapdir=on"])
    assert OBJID_ROOT == ROOT_NODE_ID
