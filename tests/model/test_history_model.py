"""All versions of everything, against a model that was told of each flush.

Random operations, flushed now and then, leave a list of states, each with the TID of its flush.  From the history alone
it has to follow what each name was, which names were deleted, and what lies between any two states; and each moment
that is listed, and no other, is one at which a view differs from the one before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from crash_lib.operations import Step, carry_out
from crash_lib.twin import Twin
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_filesystem import FILE, fresh, mount
from twin_machine import EXAMPLES, STEPS, THOROUGH

from hammerfs.errors import FileOperationError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import OBJID_ROOT, OBJTYPE_SOFTLINK
from hammerfs.ondisk.inode import uuid_to_id
from hammerfs.ops.check import MKFS_TID
from hammerfs.ops.name_history import deleted_names, name_history, name_log
from hammerfs.ops.pace import at_once
from hammerfs.ops.tree_diff import tree_diff

BATCHES = st.lists(st.lists(STEPS, min_size=1, max_size=8), min_size=2, max_size=8)

Path = tuple[bytes, ...]


@dataclass(frozen=True)
class Seen:
    """What a difference may be told of an object."""

    obj_id: int
    obj_type: int
    mode: int
    owner: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    content: bytes


def snapshot(fs: FileSystem, inode: Inode, path: Path = ()) -> Iterator[tuple[Path, Seen]]:
    """A whole view by path."""
    data = inode.data
    content = b""
    if data.obj_type == FILE:
        content = fs.read(inode, 0, data.size)
    elif data.obj_type == OBJTYPE_SOFTLINK:
        content = fs.readlink(inode)
    xattrs = tuple(sorted((name, fs.getxattr(inode, name)) for name in fs.listxattr(inode)))
    owner = uuid_to_id(data.uid), uuid_to_id(data.gid)
    yield path, Seen(inode.obj_id, data.obj_type, data.mode, owner, xattrs, content)
    if inode.is_directory:
        for entry in list(fs.readdir(inode, 0)):
            yield from snapshot(fs, fs.lookup(inode, entry.name), (*path, entry.name))


class Past:
    """A file system with states of its past: what it looked like at the TID of each flush."""

    def __init__(self, batches: list[list[Step]]) -> None:
        self.devices = fresh()
        self.fs = mount(self.devices, xattr=True)
        twin = Twin(self.fs)
        self.states: dict[Tid, dict[Path, Seen]] = {}
        for batch in batches:
            for step in batch:
                carry_out(twin, step)
            assert self.fs.flusher is not None
            self.fs.flusher.flush_now()
            tid = self.fs.ctx.root.next_tid
            if tid > MKFS_TID:
                self.states[tid] = dict(snapshot(self.fs, self.top(tid)))
        twin.release_all()
        self.fs.flusher.flush_now()

    def top(self, tid: Tid) -> Inode:
        return self.fs.inode(0, OBJID_ROOT, tid)

    def find(self, tid: Tid, path: Path) -> Inode:
        inode = self.top(tid)
        for name in path:
            inode = self.fs.lookup(inode, name)
        return inode


@settings(THOROUGH, max_examples=EXAMPLES)
@given(batches=BATCHES)
def test_a_difference_leads_from_one_state_to_another(batches: list[list[Step]]) -> None:
    past = Past(batches)
    pairs = list(itertools.permutations(past.states.items(), 2))
    for (old_tid, old), (new_tid, new) in pairs[:20]:
        changes = at_once(tree_diff(past.fs.ctx, past.top(old_tid), past.top(new_tid)))
        removed = {change.path for change in changes if change.kind == "removed"}
        added = {change.path for change in changes if change.kind == "added"}
        renamed = {change.old_path: change.path for change in changes if change.old_path is not None}
        told = {change.path: set(change.what) for change in changes}

        def moved(path: Path, renamed: dict[Path | None, Path] = renamed) -> Path:
            for length in range(len(path), 0, -1):
                if path[:length] in renamed:
                    return renamed[path[:length]] + path[length:]
            return path

        kept = {path: moved(path) for path in old if path not in removed}
        assert len(set(kept.values())) == len(kept)
        assert not added & set(kept.values())
        assert added | set(kept.values()) == set(new)
        for path, later in kept.items():
            before, after = old[path], new[later]
            differs = {
                "mode": before.mode != after.mode,
                "uid": before.owner[0] != after.owner[0],
                "gid": before.owner[1] != after.owner[1],
                "xattrs": before.xattrs != after.xattrs,
                "data" if before.obj_type == FILE else "target": before.content != after.content,
            }
            assert told.get(later, set()) == {word for word, different in differs.items() if different}, later


@settings(THOROUGH, max_examples=EXAMPLES)
@given(batches=BATCHES)
def test_deleted_names_are_those_that_an_earlier_state_had(batches: list[list[Step]]) -> None:
    past = Past(batches)
    assume(past.states)
    last_tid, last = list(past.states.items())[-1]
    for directory in [path for path, seen in last.items() if past.find(last_tid, path).is_directory]:
        inode = past.find(last_tid, directory)
        gone = {name.name: name for name in at_once(deleted_names(past.fs.ctx, inode))}
        had = set()
        for tid in past.states:
            try:
                then = past.fs.inode(0, inode.obj_id, tid)
            except FileOperationError:
                continue
            had |= {entry.name for entry in past.fs.readdir(then, 0)}
        present = {path[-1] for path in last if path and path[:-1] == directory}
        assert had - present <= gone.keys()
        assert not gone.keys() & present
        for name, told in gone.items():
            then = past.fs.inode(0, inode.obj_id, told.last_tid)
            assert past.fs.lookup(then, name).obj_id == told.obj_id
            after = past.fs.inode(0, inode.obj_id, told.end.tid)
            with suppress(FileOperationError):
                assert past.fs.lookup(after, name).obj_id != told.obj_id


@settings(THOROUGH, max_examples=EXAMPLES)
@given(batches=BATCHES)
def test_a_name_changes_at_its_moments_and_at_no_other(batches: list[list[Step]]) -> None:
    """For names in the root: what a state shows under a name is what the newest moment not after it shows."""
    past = Past(batches)
    fs = past.fs
    for name in {path[0] for state in past.states.values() for path in state if path}:
        now = fs.root
        history = at_once(name_history(fs.ctx, now, name, None))
        log = at_once(name_log(fs.ctx, now, name))
        assert [entry.tid for entry in log] == sorted((entry.tid for entry in log), reverse=True)
        for tid, state in past.states.items():
            seen = state.get((name,))
            entry = next((entry for entry in log if entry.tid <= tid), None)
            exists = entry is not None and entry.event not in ("removed", "moved away")
            assert exists == (seen is not None)
            if seen is None or entry is None:
                continue
            assert (entry.obj_id, entry.mode, entry.uid) == (seen.obj_id, seen.mode, seen.owner[0])
            if seen.obj_type == FILE:
                assert entry.size == len(seen.content)
                moment = max((moment.tid for moment in history.moments if moment.tid <= tid), default=0)
                assert contents_at(fs, seen.obj_id, moment).rstrip(b"\0") == seen.content.rstrip(b"\0")


def contents_at(fs: FileSystem, obj_id: int, tid: Tid) -> bytes:
    """A file as of a moment; one that did not exist then has none."""
    try:
        inode = fs.inode(0, obj_id, tid)
    except FileOperationError:
        return b""
    return fs.read(inode, 0, inode.data.size)
