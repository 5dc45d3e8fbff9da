"""Paths of objects for the log: found from below, at a bounded cost, and never an error."""

from __future__ import annotations

import pytest
from small_filesystem import fresh, make, mount, walk

from hammerfs.errors import DeviceError, HammerError
from hammerfs.fs import directory as names_in_directories
from hammerfs.fs import paths
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.constants import MAX_TID
from hammerfs.ondisk.direntry import PATH_MAX, path_text


@pytest.fixture
def fs() -> FileSystem:
    return mount(fresh())


def path(fs: FileSystem, inode: Inode) -> tuple[bytes, ...] | None:
    return fs.path_of(inode.localization, inode.obj_id, inode.as_of)


def flush(fs: FileSystem) -> None:
    assert fs.flusher is not None
    fs.flusher.flush_now()


def test_a_path_is_found_in_memory_and_on_disk(fs: FileSystem) -> None:
    top = make(fs, fs.root, b"top")
    below = make(fs, top, b"below")
    file = make(fs, below, b"file", b"content")
    for _ in range(2):
        assert path(fs, fs.root) == ()
        assert path(fs, top) == (b"top",)
        assert path(fs, file) == (b"top", b"below", b"file")
        flush(fs)


def test_a_rename_moves_the_path(fs: FileSystem) -> None:
    top, other = make(fs, fs.root, b"top"), make(fs, fs.root, b"other")
    file = make(fs, top, b"file", b"content")
    flush(fs)
    fs.rename(top, b"file", other, b"moved")
    assert path(fs, file) == (b"other", b"moved")
    flush(fs)
    assert path(fs, file) == (b"other", b"moved")


def test_another_hard_link_elsewhere_is_not_searched_for(fs: FileSystem) -> None:
    top = make(fs, fs.root, b"top")
    file = make(fs, top, b"file", b"content")
    fs.link(file, fs.root, b"link")
    fs.unlink(top, b"file")
    assert path(fs, file) is None
    fs.link(file, top, b"again")
    assert path(fs, file) == (b"top", b"again")


def test_the_past_is_reached_through_its_name(fs: FileSystem) -> None:
    top = make(fs, fs.root, b"top")
    file = make(fs, top, b"file", b"content")
    flush(fs)
    then = fs.ctx.root.next_tid
    fs.unlink(top, b"file")
    flush(fs)
    names = fs.path_of(file.localization, file.obj_id, then)
    assert names == (b"@@0x%016x" % then, b"top", b"file")
    assert walk(fs, *names).obj_id == file.obj_id


def test_circles_and_what_is_not_there_have_no_path(fs: FileSystem) -> None:
    one = make(fs, fs.root, b"one")
    two = make(fs, one, b"two")
    assert fs.path_of(one.localization, 0x7777, MAX_TID) is None
    record = one.links.copy().popitem()[0]
    names_in_directories.add(fs.ctx, two, b"one", record.key, one)
    one.data.parent_obj_id = two.obj_id
    assert path(fs, one) is None
    one.data.parent_obj_id = make(fs, fs.root, b"file", b"").obj_id
    assert path(fs, two) is None


def test_a_path_that_nobody_can_use_is_none(fs: FileSystem) -> None:
    inode = fs.root
    for _ in range(PATH_MAX // 256):
        inode = make(fs, inode, b"n" * 255)
    assert path(fs, inode) is not None
    assert path(fs, make(fs, inode, b"n")) is None


@pytest.mark.parametrize("flushed", [False, True])
def test_the_search_ends_when_it_has_looked_at_enough(
    fs: FileSystem, monkeypatch: pytest.MonkeyPatch, flushed: bool
) -> None:
    """Entries of the past count, too: a directory may hold millions of them."""
    for number in range(20):
        make(fs, fs.root, b"old %d" % number, b"")
        flush(fs)
        fs.unlink(fs.root, b"old %d" % number)
    last = [make(fs, fs.root, b"%d" % number, b"") for number in range(20)]
    if flushed:
        flush(fs)
    monkeypatch.setattr(paths, "ELEMENTS_MAX", 100)
    assert all(path(fs, made) for made in last)
    monkeypatch.setattr(paths, "ELEMENTS_MAX", 15)
    assert not all(path(fs, made) for made in last)


def test_a_device_that_fails_meanwhile_leaves_no_path(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make(fs, fs.root, b"file", b"content")
    flush(fs)

    def failing(*_: object) -> bytes:
        raise DeviceError("read", "disk", 0, 1, "gone")

    monkeypatch.setattr(names_in_directories, "read_record", failing)
    assert path(fs, file) is None
    assert issubclass(DeviceError, HammerError)


def test_names_that_are_not_utf_8_are_shown() -> None:
    assert path_text((b"caf\xc3\xa9", b"\xff")) == "/caf\u00e9/\\xff"
    assert path_text(()) == "/"
