"""Random histories, mirrored again and again: the slave shows every moment at which it was in sync as the source did.

Streams are cut off at any byte, the slave's host crashes in the middle of batches, the source keeps history or not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mirror_pair import apply, batch, complete, make_slave, settle, slave_root, synced, tree
from small_filesystem import assert_clean, fresh, make, mount

from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import FileOperationError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.constants import OBJID_ROOT
from hammerfs.ondisk.mirror import Pass, Record, Skip, StreamParser, packed

EXAMPLES = int(os.environ.get("HAMMERFS_MODEL_EXAMPLES", "12"))
NAMES = [b"a", b"b", b"c", b"folder"]
Change = tuple[str, int, int, int]

changes = st.tuples(
    st.sampled_from(["make", "write", "cut", "unlink", "rename", "mode", "link", "note", "mkdir", "crowd", "thin"]),
    st.integers(0, 7),
    st.integers(0, 7),
    st.integers(0, 200_000),
)
rounds = st.lists(
    st.tuples(
        st.lists(st.lists(changes, max_size=5), max_size=4), st.floats(0, 1), st.sampled_from(["cut", "crash", "whole"])
    ),
    min_size=1,
    max_size=4,
)


class Source:
    """A file system that changes at random; what cannot be done is left."""

    def __init__(self, fs: FileSystem) -> None:
        self.fs = fs
        self.folders = [fs.root, make(fs, fs.root, b"deep")]

    def change(self, change: Change) -> None:
        what, first, second, size = change
        folder, name = self.folders[first % 2], NAMES[first // 2]
        other, new = self.folders[second % 2], NAMES[second // 2]
        with suppress(FileOperationError):
            self._do(what, folder, name, other, new, size)

    def _do(self, what: str, folder: Inode, name: bytes, other: Inode, new: bytes, size: int) -> None:
        fs = self.fs
        if what == "make":
            make(fs, folder, name, b"m" * (size // 10))
        elif what == "mkdir":
            make(fs, folder, name)
        elif what == "write":
            fs.write(fs.lookup(folder, name), size // 2, b"w" * (size // 20 + 1))
        elif what == "cut":
            fs.setattr(fs.lookup(folder, name), size=size // 3)
        elif what == "unlink":
            fs.unlink(folder, name)
        elif what == "rename":
            fs.rename(folder, name, other, new)
        elif what == "mode":
            fs.setattr(fs.lookup(folder, name), mode=size & 0o777)
        elif what == "link":
            fs.link(fs.lookup(folder, name), other, new)
        elif what == "note":
            fs.setxattr(fs.lookup(folder, name), b"user.note", b"n" * (size % 3000))
        elif what == "crowd":
            for number in range(size % 120):
                make(fs, folder, b"%s-%d-%d" % (name, size, number), b"x")
        else:
            for entry in list(fs.readdir(folder, 0))[:: size % 3 + 1]:
                if b"-" in entry.name:
                    fs.unlink(folder, entry.name)


def arrived(records: Sequence[Record | Pass | Skip], part: float) -> list[Record | Pass | Skip]:
    """What comes through of a stream that is cut off at some byte."""
    raw = b"".join(map(packed, records))
    parser = StreamParser()
    parser.feed(raw[: int(len(raw) * part)])
    found = []
    while (record := parser.next_record()) is not None:
        assert isinstance(record, Record | Pass | Skip)
        found.append(record)
    return found


def interrupted(devices: list[MemoryDevice], target: FileSystem, how: str) -> FileSystem:
    """The target after its stream broke off: as it was, or after a crash without the last cycle."""
    if how == "crash":
        return mount(devices)
    settle(target)
    return target


@given(rounds, st.booleans())
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_slave_shows_what_its_source_showed(
    history: list[tuple[list[list[Change]], float, str]], nohistory: bool
) -> None:
    volumes = fresh(), fresh()
    master, target = mount(volumes[0], nohistory=nohistory), mount(volumes[1])
    make_slave(target)
    source = Source(master)
    shown: dict[int, object] = {}
    for groups, part, how in [*history, ([], 1.0, "whole")]:
        for group in groups:
            for change in group:
                source.change(change)
            settle(master)
        end = settle(master)
        records = batch(master, synced(target) + 1, end)
        if how != "whole":
            before = synced(target)
            apply(target, arrived(records, part), end)
            target = interrupted(volumes[1], target, how)
            assert synced(target) == before
            if before in shown:
                assert tree(target, slave_root(target)) == shown[before]
            records = batch(master, before + 1, end)
        complete(target, records, end)
        shown[end] = tree(master, master.root)
        assert tree(target, slave_root(target)) == shown[end]
    for moment, was in shown.items():
        if not nohistory:
            assert tree(target, target.inode(1 << 16, OBJID_ROOT, moment)) == was
            assert tree(master, master.inode(0, OBJID_ROOT, moment)) == was
    master.close_now()
    target.close_now()
    for devices in volumes:
        assert_clean(devices)
