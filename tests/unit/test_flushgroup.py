"""What one fsync takes along: the closure of an inode over names, directories that are new, and what a rename bound."""

from __future__ import annotations

import pytest
from small_filesystem import FILE, assert_settled, flush_closure, fresh, make, mount, names, walk

from hammerfs.device.memory import MemoryDevice
from hammerfs.fs.flushgroup import DirtyInodes, capture, closure
from hammerfs.fs.inode import Dirty, FlushState, Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.records import RecordState


@pytest.fixture
def devices() -> list[MemoryDevice]:
    return fresh()


@pytest.fixture
def fs(devices: list[MemoryDevice]) -> FileSystem:
    return mount(devices)


def flush(fs: FileSystem) -> None:
    assert fs.flusher is not None
    fs.flusher.flush_now()


def taken_along(inode: Inode) -> set[Inode]:
    return set(closure([inode])) - {inode}


# --- closures -----------------------------------------------------------------------------------
def test_a_new_file_takes_its_new_directories_up_to_one_on_disk(fs: FileSystem) -> None:
    """INV-5: no entry without its inode, no inode that cannot be reached."""
    a = make(fs, fs.root, b"a")
    flush(fs)
    b = make(fs, a, b"b")
    c = make(fs, b, b"c")
    file = make(fs, c, b"f", b"x")
    bystander = make(fs, c, b"bystander", b"x")
    assert taken_along(file) == {b, c}
    assert bystander not in closure([file])


def test_a_file_in_an_old_directory_goes_alone(fs: FileSystem) -> None:
    file = make(fs, fs.root, b"f", b"x")
    make(fs, fs.root, b"g", b"x")
    assert taken_along(file) == set()


def test_every_pending_name_counts_because_the_link_count_counts_them(fs: FileSystem) -> None:
    one, two = make(fs, fs.root, b"one"), make(fs, fs.root, b"two")
    file = make(fs, one, b"f", b"x")
    fs.link(file, two, b"g")
    assert taken_along(file) == {one, two}
    assert taken_along(one) == set()


def test_what_a_rename_replaced_goes_with_it(fs: FileSystem) -> None:
    old = make(fs, fs.root, b"f", b"old")
    flush(fs)
    new = make(fs, fs.root, b"tmp", b"new")
    fs.rename(fs.root, b"tmp", fs.root, b"f")
    assert taken_along(new) == {old}
    assert taken_along(old) == {new}


def test_a_name_given_anew_waits_for_the_removal_of_the_old_one(fs: FileSystem) -> None:
    """Else a crash could show the name twice."""
    old = make(fs, fs.root, b"f", b"old")
    flush(fs)
    fs.unlink(fs.root, b"f")
    new = make(fs, fs.root, b"f", b"new")
    assert taken_along(new) == {old}


def test_both_sides_of_an_exchange_go_together(fs: FileSystem) -> None:
    one, two = make(fs, fs.root, b"one"), make(fs, fs.root, b"two")
    f, g = make(fs, one, b"f", b"1"), make(fs, two, b"g", b"2")
    flush(fs)
    fs.rename(one, b"f", two, b"g", 2)
    assert taken_along(f) == {g}
    assert taken_along(g) == {f}


def test_a_chain_of_renames_stays_together_when_a_link_of_it_never_reached_the_disk(fs: FileSystem) -> None:
    first, second = make(fs, fs.root, b"1", b"1"), make(fs, fs.root, b"2", b"2")
    flush(fs)
    fs.rename(fs.root, b"1", fs.root, b"2")
    fs.rename(fs.root, b"2", fs.root, b"3")
    assert taken_along(first) == {second}


def test_a_directory_that_goes_away_takes_the_removals_inside_along(
    fs: FileSystem, devices: list[MemoryDevice]
) -> None:
    """Else entries would be left in a directory that is no more."""
    directory = make(fs, fs.root, b"d")
    inside = make(fs, directory, b"f", b"x")
    moved = make(fs, directory, b"g", b"x")
    flush(fs)
    fs.unlink(directory, b"f")
    fs.rename(directory, b"g", fs.root, b"g")
    fs.rmdir(fs.root, b"d")
    anew = make(fs, fs.root, b"d")
    file = make(fs, anew, b"h", b"x")
    assert taken_along(file) == {anew, directory, inside, moved}
    flush_closure(fs, file)
    crashed = mount([device.copy() for device in devices])
    assert names(crashed, crashed.root) == [b"d", b"g"]
    assert names(crashed, walk(crashed, b"d")) == [b"h"]


def test_circles_of_directories_end_the_walk(fs: FileSystem) -> None:
    a, b = make(fs, fs.root, b"a"), make(fs, fs.root, b"b")
    a1, b1 = make(fs, a, b"a1"), make(fs, b, b"b1")
    fs.rename(a, b"a1", b1, b"a1")
    fs.rename(fs.root, b"a", a1, b"a")
    assert taken_along(a) == {a1, b1, b}
    assert taken_along(b) == set()
    assert taken_along(a1) == {b1, b}


def test_what_the_running_group_has_captured_is_not_waited_for_again(fs: FileSystem) -> None:
    directory = make(fs, fs.root, b"d")
    first = make(fs, directory, b"1", b"x")
    for inode in (directory, first):
        capture(inode, 1)
    second = make(fs, directory, b"2", b"x")
    assert taken_along(second) == set()


# --- marking and capturing ----------------------------------------------------------------------
def test_marking_and_discarding_move_an_inode_in_and_out_of_setup(fs: FileSystem) -> None:
    dirty = DirtyInodes()
    inode = fs.root
    dirty.mark(inode, Dirty.TIMES)
    dirty.mark(inode, Dirty.INODE)
    assert list(dirty.setup) == [inode]
    assert inode.dirty == Dirty.TIMES | Dirty.INODE
    dirty.discard(inode)
    assert not dirty.setup
    assert (inode.dirty, inode.state) == (0, FlushState.IDLE)


def test_a_capture_takes_everything_and_leaves_an_inode_that_can_change_again(fs: FileSystem) -> None:
    inode = make(fs, fs.root, b"f", b"content")
    record = next(iter(inode.links))
    capture(inode, 1)
    taken = inode.capture
    assert taken is not None
    assert record.state is RecordState.FLUSH
    assert taken.links == [record]
    assert taken.size == 7
    assert bytes(taken.blocks[0]) == b"content"
    assert not inode.links
    assert not inode.blocks
    assert not inode.dirty
    fs.write(inode, 0, b"CON")
    assert bytes(taken.blocks[0]) == b"content"
    assert fs.read(inode, 0, 7) == b"CONtent"


def test_only_times_are_captured_as_such_when_nothing_else_changed(fs: FileSystem) -> None:
    flush(fs)
    make(fs, fs.root, b"f", b"")
    capture(fs.root, 1)
    assert fs.root.capture is not None
    assert fs.root.capture.times_only


def test_an_open_file_without_a_name_is_kept_and_a_closed_one_deleted(fs: FileSystem) -> None:
    inode = make(fs, fs.root, b"f", b"x")
    flush(fs)
    fs.opened(inode)
    fs.unlink(fs.root, b"f")
    capture(inode, 1)
    assert inode.capture is not None
    assert (inode.capture.open_orphan, inode.capture.delete) == (True, False)
    fs.released(inode)
    capture(inode, 1)
    assert (inode.capture.open_orphan, inode.capture.delete) == (False, True)


def test_what_never_reached_the_disk_never_needs_to(fs: FileSystem) -> None:
    for number in range(3):
        make(fs, fs.root, b"%d" % number, b"x" * 100_000)
        fs.unlink(fs.root, b"%d" % number)
    fs.create(fs.root, b"d", FILE, 0o644, 0, 0)
    fs.unlink(fs.root, b"d")
    assert list(fs.ctx.dirty.setup) == [fs.root]
    flush(fs)
    assert_settled(fs)
    assert fs.ctx.root.inode_count == 1
