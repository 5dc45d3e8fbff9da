"""Changes that meet damage on their way: all or nothing, in memory as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
from small_filesystem import assert_clean, fresh, make, mount, names, read, walk

from hammerfs.errors import CorruptionError
from hammerfs.fs import directory, filedata
from hammerfs.fs.context import Context
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.constants import BUFSIZE
from hammerfs.ondisk.element import LeafElement

EXCHANGE = 2
FIRST_KEY = 1 << 33


@contextmanager
def one_hash() -> Iterator[None]:
    """All names have the same hash, so that their entries lie side by side."""
    with mock.patch.object(directory, "_hash_range", return_value=(FIRST_KEY, FIRST_KEY + 1000)):
        yield


@contextmanager
def damaged(key: int) -> Iterator[None]:
    """The entry with this key cannot be read."""
    original = directory.read_entry

    def unpack(ctx: Context, element: LeafElement) -> tuple[int, int, bytes]:
        if element.key == key:
            raise CorruptionError("a damaged entry")
        return original(ctx, element)

    with mock.patch.object(directory, "read_entry", unpack):
        yield


@pytest.mark.parametrize("flags", [0, EXCHANGE], ids=["replace", "exchange"])
@pytest.mark.parametrize("is_new", [False, True], ids=["old source", "new source"])
def test_a_rename_that_meets_a_damaged_neighbour_changes_nothing(flags: int, is_new: bool) -> None:
    """The names themselves are found before it; the key of the new entry is looked for behind it, too."""
    devices = fresh()
    fs = mount(devices)
    with one_hash():
        for name in (b"target", b"source", b"neighbour"):
            make(fs, fs.root, name, name)
        fs.close_now()
        fs = mount(devices)
        if is_new:
            make(fs, fs.root, b"new", b"new")
        source = b"new" if is_new else b"source"
        before = state(fs)
        with damaged(FIRST_KEY + 2), pytest.raises(CorruptionError):
            fs.rename(fs.root, source, fs.root, b"target", flags)
        assert state(fs) == before
        fs.rename(fs.root, source, fs.root, b"target", flags)
        assert read(fs, b"target") == source
        fs.close_now()
        again = mount(devices)
        assert read(again, b"target") == source


def state(fs: FileSystem) -> dict[bytes, tuple[int, bytes]]:
    return {name: (walk(fs, name).data.nlinks, read(fs, name)) for name in names(fs, fs.root)}


@pytest.mark.parametrize("kept", [b"y", b"\0"], ids=["data", "zeros"])
def test_a_truncation_that_cannot_read_changes_nothing(kept: bytes) -> None:
    """Of a tail of zeros it has to know, too, whether it is a hole."""
    devices = fresh()
    content = kept * (2 * BUFSIZE) + b"x" * (3 * BUFSIZE)
    fs = mount(devices)
    make(fs, fs.root, b"f", content)
    fs.close_now()
    fs = mount(devices)
    inode = walk(fs, b"f")
    original, calls, failing = filedata._extents, [], 0

    def extents(ctx: Context, inode: Inode, offset: int, end: int) -> list[tuple[int, int, int, int]]:
        calls.append(offset)
        if len(calls) == failing:
            raise CorruptionError("a node that cannot be read")
        return original(ctx, inode, offset, end)

    for failing in range(1, 3 if kept == b"\0" else 2):  # noqa: B007 -- `extents` looks at it
        calls.clear()
        with mock.patch.object(filedata, "_extents", extents), pytest.raises(CorruptionError):
            fs.setattr(inode, size=BUFSIZE + 100)
        assert fs.read(inode, 0, len(content)) == content
    fs.setattr(inode, size=BUFSIZE + 100)
    fs.close_now()
    assert read(mount(devices), b"f") == content[: BUFSIZE + 100]
    assert_clean(devices)
