"""Names that need not be looked for: what is remembered of directories, and when it is forgotten."""

from __future__ import annotations

import random

import pytest
from small_filesystem import DIRECTORY, assert_clean, fresh, make, mount, walk

from hammerfs.errors import CorruptionError, FileOperationError
from hammerfs.fs.directory import FIRST_COOKIE, _key_range, entry_localization
from hammerfs.fs.inode import Inode
from hammerfs.fs.metadata import insert_record
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.constants import MAX_KEY, RECTYPE_DIRENTRY
from hammerfs.ondisk.direntry import name_key, pack_entry
from hammerfs.ondisk.element import LeafElement, unpack_leaf


def searches(fs: FileSystem) -> int:
    """How often the B-tree was asked for anything so far."""
    statistics = fs.ctx.tree.statistics()
    return statistics.lookups + statistics.scanned + statistics.descents


def names(fs: FileSystem, directory: Inode, cookie: int = 0) -> list[bytes]:
    return [entry.name for entry in fs.readdir(directory, cookie)]


def filled(count: int) -> tuple[FileSystem, Inode]:
    """A file system with a directory of `count` names on disk, mounted anew, and that directory."""
    image = fresh()
    fs = mount(image)
    folder = make(fs, fs.root, b"folder")
    for number in range(count):
        make(fs, folder, b"%d" % number, b"")
    fs.close_now()
    fs = mount(image)
    return fs, walk(fs, b"folder")


def test_a_new_directory_is_known_to_have_nothing_but_what_it_was_given() -> None:
    fs = mount(fresh())
    folder = make(fs, fs.root, b"folder")
    before = searches(fs)
    assert names(fs, folder) == []
    with pytest.raises(FileOperationError):
        fs.lookup(folder, b"a")
    file = make(fs, folder, b"a", b"")
    assert fs.lookup(folder, b"a") is file
    assert names(fs, folder) == [b"a"]
    fs.rename(folder, b"a", folder, b"b")
    with pytest.raises(FileOperationError):
        fs.lookup(folder, b"a")
    assert fs.lookup(folder, b"b") is file
    fs.unlink(folder, b"b")
    assert searches(fs) == before
    fs.rmdir(fs.root, b"folder")
    assert len(fs.ctx.inodes.names) == 0


def test_a_listing_is_remembered_and_tells_what_is_missing() -> None:
    fs, folder = filled(30)
    listed = names(fs, folder)
    assert sorted(listed) == sorted(b"%d" % number for number in range(30))
    before = searches(fs)
    assert names(fs, folder) == listed
    with pytest.raises(FileOperationError):
        fs.lookup(folder, b"missing")
    assert searches(fs) == before


def test_a_listing_in_pieces_is_as_good_as_one_at_once() -> None:
    """Each piece goes on where the last one ended, and names come and go in between."""
    fs, folder = filled(30)
    expected = {b"%d" % number for number in range(30)}
    cookie = 0
    while piece := [entry for entry, _ in zip(fs.readdir(folder, cookie), range(7), strict=False)]:
        cookie = piece[-1].key
        fs.unlink(folder, piece[3].name)
        make(fs, folder, b"new" + piece[3].name, b"")
        expected ^= {piece[3].name, b"new" + piece[3].name}
    assert folder.known is not None
    assert folder.known.upto == MAX_KEY
    assert set(names(fs, folder)) == expected
    fs.ctx.inodes.names.forget(folder)
    assert set(names(fs, folder)) == expected


def test_a_piece_that_nothing_leads_up_to_tells_of_no_absence() -> None:
    fs, folder = filled(30)
    middle = sorted(entry.key for entry in fs.readdir(folder, 0))[15]
    fs.ctx.inodes.names.forget(folder)
    assert len(names(fs, folder, middle)) == 14
    assert folder.known is not None
    assert folder.known.upto == 0
    assert len(names(fs, folder)) == 30


def test_what_damage_leaves_out_is_not_taken_for_absent() -> None:
    fs, folder = filled(10)
    data_offset = next(
        element.data_offset
        for element in _entries(fs, folder)
        if fs.ctx.buffers.read(element.data_offset, element.data_len).endswith(b"7")
    )
    fs.ctx.buffers.modify(data_offset + 16, b"8")
    errors: list[CorruptionError] = []
    assert len(list(fs.readdir(folder, 0, errors.append))) == 9
    assert len(errors) == 1
    with pytest.raises(CorruptionError):
        fs.lookup(folder, b"7")


@pytest.mark.parametrize("place", ["of another name", "of the same name", "of an entry that is there"])
def test_an_entry_where_it_does_not_belong_is_left_to_the_tree(place: str) -> None:
    """Damage of which the CRC knows nothing: a second entry called `7`."""
    fs, folder = filled(10)
    found = fs.lookup(folder, b"7")
    key, _ = name_key(folder.data.cap_flags, b"77" if place == "of another name" else b"7")
    key += place == "of the same name"
    data = pack_entry(fs.root.obj_id, 0, b"7")
    tid = fs.ctx.alloc_tid()
    insert_record(fs.ctx, tid, entry_localization(folder), folder.obj_id, RECTYPE_DIRENTRY, key, DIRECTORY, data)
    for _ in range(2):
        fs.ctx.inodes.names.forget(folder)
        assert names(fs, folder).count(b"7") == 2
        assert fs.lookup(folder, b"7") is found
        assert names(fs, folder).count(b"7") == 2


def _entries(fs: FileSystem, folder: Inode) -> list[LeafElement]:
    return [unpack_leaf(raw) for raw in fs.ctx.tree.scan(*_key_range(folder, FIRST_COOKIE, MAX_KEY))]


def test_there_is_an_end_to_what_is_remembered() -> None:
    fs, folder = filled(300)
    fs.ctx.inodes.names._limit = 400
    assert len(names(fs, folder)) == 300
    assert folder.known is None, "more than a quarter of all that may be known"
    for number in range(20):
        other = make(fs, fs.root, b"other%d" % number)
        for name in range(50):
            make(fs, other, b"%d" % name, b"")
        assert other.known is not None, "the newest is spared"
        assert len(fs.ctx.inodes.names) <= 400
    assert fs.ctx.inodes.names._count == sum(len(known) for known in _known(fs))
    first = walk(fs, b"other0")
    assert first.known is None
    assert len(names(fs, first)) == 50


def _known(fs: FileSystem) -> list[dict[bytes, object]]:
    return [
        dict(directory.known.by_name) for directory in fs.ctx.inodes.names._directories if directory.known is not None
    ]


def test_an_inode_that_is_forgotten_takes_its_names_along() -> None:
    fs, folder = filled(5)
    names(fs, folder)
    assert len(fs.ctx.inodes.names) > 0
    fs.ctx.inodes.forget(folder)
    assert folder.known is None
    fs.ctx.inodes.forget(fs.root)
    assert len(fs.ctx.inodes.names) == 0


def test_the_past_is_asked_every_time() -> None:
    """Views of it are many and short-lived, and what they show may be pruned."""
    fs, folder = filled(5)
    then = fs.inode(folder.localization, folder.obj_id, fs.ctx.root.next_tid)
    assert len(names(fs, then)) == 5
    assert then.known is None


def test_random_changes_leave_memory_and_tree_agreed() -> None:
    source = random.Random(17)
    fs, folder = filled(20)
    names(fs, folder)
    expected = {b"%d" % number for number in range(20)}
    for step in range(600):
        name = b"%d" % source.randrange(60)
        if name in expected and source.random() < 0.5:
            fs.unlink(folder, name)
            expected.discard(name)
        elif name in expected:
            other = b"%d" % source.randrange(60)
            fs.rename(folder, name, folder, other)
            expected.discard(name)
            expected.add(other)
        else:
            make(fs, folder, name, b"")
            expected.add(name)
        if step % 50 == 0:
            assert fs.flusher is not None
            fs.flusher.flush_now()
        if step % 97 == 0:
            fs.ctx.inodes.names.forget(folder)
        listed = names(fs, folder)
        assert len(listed) == len(expected)
        assert set(listed) == expected
    fs.close_now()
    assert_clean([volume.device for volume in fs.ctx.volumes.volumes.values()])
