"""READDIR: listings in pieces, of what is damaged, and prepared ones, which must show what is there now."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from typing import Any

import pyfuse3
import pytest
from handlers import USER, call, errno_of
from hypothesis import given, settings
from hypothesis import strategies as st
from small_filesystem import fresh, make, mount

from hammerfs.errors import CorruptionError, FileOperationError
from hammerfs.fs import directory as names_in_directories
from hammerfs.fs.context import Context
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.element import LeafElement
from hammerfs.vfs import listing as module
from hammerfs.vfs.nodeids import ROOT_NODE_ID
from hammerfs.vfs.operations import HammerOperations
from hammerfs.vfs.xattroperations import operations_for

ROOT = pyfuse3.InodeT(ROOT_NODE_ID)
ATTRIBUTES = ("st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ctime_ns")


@pytest.fixture
def fs() -> FileSystem:
    return mount(fresh())


@pytest.fixture
def operations(fs: FileSystem) -> HammerOperations:
    return operations_for(fs)


class Listing:
    """What readdir_reply was told, up to a number of entries a request."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.entries: list[tuple[bytes, pyfuse3.EntryAttributes, int]] = []

    def reply(self, _token: object, name: bytes, attributes: pyfuse3.EntryAttributes, cookie: int) -> bool:
        if len(self.entries) == self.room:
            return False
        self.entries.append((name, attributes, cookie))
        return True


def listed(
    operations: HammerOperations, monkeypatch: pytest.MonkeyPatch, node_id: int = ROOT_NODE_ID, room: int = 5
) -> list[tuple[bytes, pyfuse3.EntryAttributes]]:
    """A whole directory, read a few entries at a time."""
    found: list[tuple[bytes, pyfuse3.EntryAttributes]] = []
    cookie = 0
    while True:
        listing = Listing(room)
        monkeypatch.setattr(pyfuse3, "readdir_reply", listing.reply)
        token: Any = None
        call(operations.readdir(pyfuse3.FileHandleT(node_id), cookie, token))
        if not listing.entries:
            return found
        found += [(name, attributes) for name, attributes, _ in listing.entries]
        cookie = listing.entries[-1][2]


@pytest.mark.parametrize("room", [1, 2, 3, 100])
def test_a_listing_in_pieces_has_everything_once(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    directory = make(fs, fs.root, b"d")
    expected = {b"%d" % number for number in range(20)}
    for word in expected:
        make(fs, directory, word, b"")
    found = listed(operations, monkeypatch, directory.obj_id, room)
    assert [word for word, _ in found[:2]] == [b".", b".."]
    assert [entry.st_ino for _, entry in found[:2]] == [directory.obj_id, ROOT_NODE_ID]
    assert sorted(word for word, _ in found[2:]) == sorted(expected)


def test_a_listing_of_the_past_counts_only_what_was_told(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        make(fs, fs.root, b"%d" % number, b"")
    assert fs.flusher is not None
    fs.flusher.flush_now()
    past = call(operations.lookup(ROOT, pyfuse3.FileNameT(b"@@0x%016x" % fs.ctx.root.next_tid), USER)).st_ino
    found = listed(operations, monkeypatch, past, room=3)
    assert len(found) == 9
    told = [entry.st_ino for word, entry in found if word not in (b".", b"..")]
    assert len(operations.node_ids) == 8
    call(operations.forget([(node_id, 1) for node_id in [*told, past]]))
    assert len(operations.node_ids) == 0


@pytest.mark.expect_log(r"^readdir\(0x1, b'bad'\) of '/bad': inode record")
def test_one_unreadable_inode_does_not_hide_the_others(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = make(fs, fs.root, b"bad")
    make(fs, fs.root, b"good", b"")
    load = fs.inode

    def inode(localization: int, obj_id: int, as_of: int) -> Inode:
        if obj_id == bad.obj_id:
            raise CorruptionError("inode record")
        return load(localization, obj_id, as_of)

    monkeypatch.setattr(fs, "inode", inode)
    found = dict(listed(operations, monkeypatch))
    assert set(found) == {b".", b"..", b"bad", b"good"}
    assert stat.S_ISDIR(found[b"bad"].st_mode)
    assert found[b"bad"].entry_timeout == found[b"bad"].attr_timeout == 0


@pytest.mark.expect_log(r"^readdir\(0x[0-9a-f]+\) of '/d': a damaged entry")
@pytest.mark.parametrize("room", [1, 3, 100])
def test_a_damaged_entry_hides_nothing_else_and_is_told_at_the_end(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    directory = make(fs, fs.root, b"d")
    for number in range(5):
        make(fs, directory, b"%d" % number, b"")
    assert fs.flusher is not None
    fs.flusher.flush_now()
    keys = [entry.key for entry in fs.readdir(directory, 0)]
    unpack = names_in_directories.read_entry

    def damaged(ctx: Context, element: LeafElement) -> tuple[int, int, bytes]:
        if element.key == keys[2]:
            raise CorruptionError("a damaged entry")
        return unpack(ctx, element)

    monkeypatch.setattr(names_in_directories, "read_entry", damaged)
    fs.ctx.inodes.names.forget(directory)
    for _ in range(2):
        found: list[bytes] = []
        cookie = 0
        while True:
            listing = Listing(room)
            monkeypatch.setattr(pyfuse3, "readdir_reply", listing.reply)
            token: Any = None
            request = operations.readdir(pyfuse3.FileHandleT(directory.obj_id), cookie, token)
            if len(found) == 6:
                assert errno_of(request) == errno.EIO
                break
            call(request)
            found += [word for word, _, _ in listing.entries]
            cookie = listing.entries[-1][2]


# --- prepared listings --------------------------------------------------------------------------
def shown(found: list[tuple[bytes, pyfuse3.EntryAttributes]]) -> dict[bytes, list[object]]:
    return {word: [getattr(entry, each) for each in ATTRIBUTES] for word, entry in found}


def looked_up(fs: FileSystem, directory: Inode) -> dict[bytes, list[object]]:
    """What a listing has to show, by a server that has not listed anything yet."""
    operations = operations_for(fs)
    names = [pyfuse3.FileNameT(entry.name) for entry in fs.readdir(directory, 0)]
    node_id = pyfuse3.InodeT(directory.obj_id)
    return shown([(word, call(operations.lookup(node_id, word, USER))) for word in names])


@pytest.fixture
def lookups(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The objects whose inodes were asked for."""
    asked: list[int] = []
    find = fs.inode

    def inode(localization: int, obj_id: int, as_of: int) -> Inode:
        asked.append(obj_id)
        return find(localization, obj_id, as_of)

    monkeypatch.setattr(fs, "inode", inode)
    return asked


def filled(fs: FileSystem, count: int) -> Inode:
    directory = make(fs, fs.root, b"d")
    for number in range(count):
        make(fs, directory, b"%d" % number, b"")
    return directory


@pytest.mark.parametrize("room", [1, 7, 100])
def test_what_did_not_change_is_shown_again_without_asking_anybody(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch, lookups: list[int], room: int
) -> None:
    directory = filled(fs, 20)
    first = shown(listed(operations, monkeypatch, directory.obj_id, room))
    assert set(lookups) >= {entry.obj_id for entry in fs.readdir(directory, 0)}
    lookups.clear()
    assert shown(listed(operations, monkeypatch, directory.obj_id, room)) == first
    assert set(lookups) <= {directory.obj_id}


CHANGES: dict[str, Callable[[FileSystem, Inode, Inode], object]] = {
    "write": lambda fs, directory, file: fs.write(file, 0, b"more"),
    "truncate": lambda fs, directory, file: fs.setattr(file, size=77),
    "chmod": lambda fs, directory, file: fs.setattr(file, mode=0o640),
    "chown": lambda fs, directory, file: fs.setattr(file, uid=7, gid=8),
    "times": lambda fs, directory, file: fs.setattr(file, mtime_us=1, ctime_us=2),
    "link": lambda fs, directory, file: fs.link(file, fs.root, b"elsewhere"),
    "xattr": lambda fs, directory, file: fs.setxattr(file, b"user.x", b"y"),
    "create": lambda fs, directory, file: make(fs, directory, b"new", b""),
    "remove": lambda fs, directory, file: fs.unlink(directory, b"5"),
    "rename": lambda fs, directory, file: fs.rename(directory, b"5", directory, b"new"),
    "replace": lambda fs, directory, file: fs.rename(directory, b"4", directory, b"5"),
    "move away": lambda fs, directory, file: fs.rename(directory, b"5", fs.root, b"5"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("flushed", [True, False])
def test_what_changed_is_shown_as_it_is(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch, change: str, flushed: bool
) -> None:
    directory = filled(fs, 10)
    if flushed:
        assert fs.flusher is not None
        fs.flusher.flush_now()
    before = shown(listed(operations, monkeypatch, directory.obj_id))
    CHANGES[change](fs, directory, fs.lookup(directory, b"5"))
    now = shown(listed(operations, monkeypatch, directory.obj_id)[2:])
    assert now == looked_up(fs, directory)
    assert now != {word: row for word, row in before.items() if word not in (b".", b"..")}


def test_a_change_between_two_pieces_is_seen_in_the_second(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = filled(fs, 10)
    listed(operations, monkeypatch, directory.obj_id)
    order = [entry.name for entry in fs.readdir(directory, 0)]
    listing = Listing(7)
    monkeypatch.setattr(pyfuse3, "readdir_reply", listing.reply)
    token: Any = None
    call(operations.readdir(pyfuse3.FileHandleT(directory.obj_id), 0, token))
    assert [word for word, _, _ in listing.entries] == [b".", b"..", *order[:5]]
    fs.setattr(fs.lookup(directory, order[7]), size=99)
    fs.unlink(directory, order[8])
    rest = Listing(100)
    monkeypatch.setattr(pyfuse3, "readdir_reply", rest.reply)
    call(operations.readdir(pyfuse3.FileHandleT(directory.obj_id), listing.entries[-1][2], token))
    assert [word for word, _, _ in rest.entries] == [*order[5:8], order[9]]
    assert rest.entries[2][1].st_size == 99


def test_a_directory_with_more_entries_than_are_kept_is_listed_whole(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch, lookups: list[int]
) -> None:
    monkeypatch.setattr(module, "ROWS_OF_ONE_MAX", 8)
    directory = filled(fs, 20)
    for _ in range(2):
        lookups.clear()
        found = shown(listed(operations, monkeypatch, directory.obj_id)[2:])
        assert found == looked_up(fs, directory)
    keys = [entry.obj_id for entry in fs.readdir(directory, 0)]
    assert not set(lookups) & set(keys[:8])
    assert set(lookups) >= set(keys[8:])


def test_only_so_many_listings_are_kept(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch, lookups: list[int]
) -> None:
    monkeypatch.setattr(module, "ROWS_KEPT_MAX", 30)
    directories = [make(fs, fs.root, b"d%d" % number) for number in range(20)]
    files = {directory: make(fs, directory, b"f", b"").obj_id for directory in directories}
    for directory in directories:
        listed(operations, monkeypatch, directory.obj_id)
    lookups.clear()
    for directory in reversed(directories):
        listed(operations, monkeypatch, directory.obj_id)
    again = [directory for directory in directories if files[directory] in lookups]
    assert again
    assert again == directories[: len(again)]
    assert len(again) <= 10


def test_what_is_outside_of_the_mounted_view_is_counted_each_time(
    fs: FileSystem, operations: HammerOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(fs, 3)
    assert fs.flusher is not None
    fs.flusher.flush_now()
    moment = pyfuse3.FileNameT(b"d@@0x%016x" % fs.ctx.root.next_tid)
    past = call(operations.lookup(ROOT, moment, USER)).st_ino
    for _ in range(2):
        told = [entry.st_ino for _, entry in listed(operations, monkeypatch, past)[2:]]
    call(operations.forget([(pyfuse3.InodeT(node_id), 1) for node_id in told]))
    assert len(operations.node_ids) == 4
    call(operations.forget([(pyfuse3.InodeT(node_id), 1) for node_id in told]))
    assert len(operations.node_ids) == 1


def test_a_pfs_that_was_frozen_may_be_another_one_afterwards(fs: FileSystem) -> None:
    before = fs.changes
    fs.ctx.inodes.freeze(fs.root.localization)
    fs.ctx.inodes.thaw(fs.root.localization)
    assert fs.changes != before


STEPS = st.one_of(
    st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 9)),
    st.tuples(st.just("list"), st.integers(1, 12)),
    st.tuples(st.sampled_from(["flush", "forget names", "forget inodes"]), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=30))
def test_no_listing_shows_what_was(steps: list[tuple[str, int]]) -> None:
    fs = mount(fresh())
    operations = operations_for(fs)
    filled(fs, 10)
    fs.opened(fs.root)  # or it could not be changed any more after all inodes were forgotten
    assert fs.flusher is not None
    for step, number in [*steps, ("list", 4)]:
        directory = fs.lookup(fs.root, b"d")
        if step == "flush":
            fs.flusher.flush_now()
        elif step == "forget names":
            fs.ctx.inodes.names.forget(directory)
        elif step == "forget inodes":
            fs.ctx.inodes.freeze(fs.root.localization)
            fs.ctx.inodes.thaw(fs.root.localization)
        elif step == "list":
            with pytest.MonkeyPatch.context() as patch:
                found = shown(listed(operations, patch, directory.obj_id, number)[2:])
            assert found == looked_up(fs, directory)
        else:
            present = list(fs.readdir(directory, 0))
            if present:
                chosen = fs.inode(directory.localization, present[number % len(present)].obj_id, directory.as_of)
                try_change(fs, directory, step, chosen)


def try_change(fs: FileSystem, directory: Inode, change: str, chosen: Inode) -> None:
    try:
        CHANGES[change](fs, directory, chosen)
    except FileOperationError as error:
        if error.errno not in (errno.ENOENT, errno.EEXIST):
            raise
