"""Pseudo file systems: made, changed, promoted, demoted, destroyed, and interrupted in the middle of it."""

from __future__ import annotations

import uuid

import pytest
from administration import ask, stop_after
from small_filesystem import assert_clean, assert_settled, fresh, make, mount, names, read, recorded, walk

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import Write, drop_all, keep_all
from hammerfs.errors import BusyError, FileOperationError, ReadOnlyError, UsageError
from hammerfs.fs.inode import Inode
from hammerfs.fs.metadata import insert_record
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.pfsremoval import is_empty
from hammerfs.fs.rootrecords import pfs_records
from hammerfs.ondisk.constants import (
    LOCALIZE_INODE,
    OBJTYPE_DIRECTORY,
    RECTYPE_INODE,
)
from hammerfs.ondisk.inode import InodeData
from hammerfs.ops.operation import Call
from hammerfs.ops.registry import begin, find

PFS1 = 1 << 16


def root_of(fs: FileSystem, pfs_id: int = 1) -> Inode:
    """The root of a PFS as its link leads to it now."""
    fs.symlink(fs.root, b"link", b"@@PFS%05d" % pfs_id, 0, 0)
    target = fs.readlink(walk(fs, b"link"))
    fs.unlink(fs.root, b"link")
    return fs.lookup(fs.root, target)


def filled(devices: list[MemoryDevice], files: int = 300) -> FileSystem:
    """A file system with a PFS that holds a tree with history, beside another one and the root."""
    fs = mount(devices)
    make(fs, fs.root, b"outside", b"kept")
    for _ in range(2):
        ask(fs, "pfs-create")
    make(fs, root_of(fs, 2), b"beside", b"kept")
    top = folder = root_of(fs)
    for number in range(files):
        if number % 10 == 0:
            folder = make(fs, top, b"d%d" % number)
        make(fs, folder, b"f%d" % number, b"x" * (100 * number % 40_000))
    assert fs.flusher is not None
    fs.flusher.flush_now()
    for number in range(0, files, 10):
        folder = walk(fs, b"@@-1:00001", b"d%d" % number)
        fs.unlink(folder, b"f%d" % number)
        fs.setattr(folder, mode=0o700)
    fs.flusher.flush_now()
    return fs


def assert_untouched(fs: FileSystem) -> None:
    assert read(fs, b"outside") == b"kept"
    assert read(fs, b"@@-1:00002", b"beside") == b"kept"


def test_a_new_master_has_a_root_and_a_record() -> None:
    devices = fresh()
    fs = mount(devices)
    made = ask(fs, "pfs-create", uid=5, gid=6)
    assert (made["pfs"], made["slave"], made["sync_beg_tid"], made["prune_min"]) == (1, False, 1, 0)
    assert uuid.UUID(made["shared_uuid"]) != uuid.UUID(made["unique_uuid"])
    top = root_of(fs)
    assert (top.data.mode, top.data.nlinks, top.localization) == (0o755, 1, PFS1)
    make(fs, top, b"file", b"content")
    assert ask(fs, "pfs-get", pfs=1)["sync_end_tid"] < ask(fs, "synctid")["tid"]
    fs.close_now()
    assert_clean(devices)
    assert read(mount(devices, read_only=True), b"@@-1:00001", b"file") == b"content"


def test_a_new_slave_waits_for_its_root() -> None:
    devices = fresh()
    fs = mount(devices)
    made = ask(fs, "pfs-create", slave=True)
    assert (made["slave"], made["sync_end_tid"]) == (True, 1)
    with pytest.raises(FileOperationError):
        root_of(fs)
    fs.close_now()
    assert_clean(devices)


@pytest.mark.parametrize("version", range(1, 8))
def test_every_version_has_pfss(version: int) -> None:
    devices = fresh(version)
    fs = mount(devices)
    ask(fs, "pfs-create")
    make(fs, make(fs, root_of(fs), b"d"), b"file", b"content")
    fs.close_now()
    assert_clean(devices)
    assert read(mount(devices, read_only=True), b"@@-1:00001", b"d", b"file") == b"content"


def test_a_pfs_is_not_made_from_inside_another_one() -> None:
    fs = mount(fresh())
    ask(fs, "pfs-create")
    with pytest.raises(UsageError, match="You may only access PFS softlinks via the main"):
        ask(fs, "pfs-create", root_of(fs))


def test_fields_change_one_by_one() -> None:
    devices = fresh()
    fs = mount(devices)
    before = ask(fs, "pfs-create", slave=True)
    shared = str(uuid.uuid4())
    changes = {"label": "ü", "prune_min": 99, "sync_beg_tid": 7, "sync_end_tid": 16, "shared_uuid": shared}
    after = ask(fs, "pfs-update", pfs=1, **changes)
    assert after == {**before, **changes}
    assert ask(fs, "pfs-update", pfs=1, snapshots="/var/x", prune_min=1 << 40)["prune_min"] == (1 << 31) - 1
    fs.close_now()
    assert_clean(devices)
    again = ask(mount(devices, read_only=True), "pfs-get", pfs=1)
    assert (again["label"], again["shared_uuid"], again["snapshots"]) == ("ü", shared, "/var/x")


@pytest.mark.parametrize(
    "changes",
    [{"label": "x" * 64}, {"shared_uuid": "x"}, {"sync_end_tid": -1}, {"sync_beg_tid": 1 << 64}, {"prune_min": "1"}],
)
def test_impossible_fields_are_refused(changes: dict[str, object]) -> None:
    fs = mount(fresh())
    before = ask(fs, "pfs-get")
    with pytest.raises(UsageError):
        ask(fs, "pfs-update", **changes)
    assert ask(fs, "pfs-get") == before


def test_whether_a_pfs_can_be_changed_is_told_before() -> None:
    devices = fresh()
    fs = mount(devices)
    ask(fs, "pfs-create")
    file = make(fs, root_of(fs), b"file", b"content")
    told = ask(fs, "pfs-get", pfs=1, to_change=True)
    assert told == ask(fs, "pfs-get", pfs=1)
    fs.opened(file)
    with pytest.raises(BusyError, match="PFS#1 is in use"):
        ask(fs, "pfs-get", pfs=1, to_change=True)
    fs.released(file)
    fs.close_now()
    with pytest.raises(ReadOnlyError):
        ask(mount(devices, read_only=True), "pfs-get", pfs=1, to_change=True)
    with pytest.raises(BusyError, match="PFS#1 is what is mounted"):
        ask(mount(devices, pfs=1), "pfs-get", pfs=1, to_change=True)


@pytest.mark.parametrize("operation", ["pfs-get", "pfs-update", "pfs-upgrade", "pfs-downgrade", "pfs-destroy"])
@pytest.mark.parametrize("pfs_id", [7, -1, 65536])
def test_what_does_not_exist_is_refused(operation: str, pfs_id: int) -> None:
    with pytest.raises(UsageError):
        ask(mount(fresh()), operation, pfs=pfs_id)


@pytest.mark.parametrize("operation", ["pfs-upgrade", "pfs-downgrade", "pfs-destroy"])
def test_the_root_pfs_stays_what_it_is(operation: str) -> None:
    with pytest.raises(UsageError, match="You cannot"):
        ask(mount(fresh()), operation)


# --- demotion and promotion ---------------------------------------------------------------------


def test_a_demoted_master_is_read_only_and_a_promoted_slave_is_not() -> None:
    devices = fresh()
    fs = filled(devices)
    held = root_of(fs)
    ask(fs, "pfs-downgrade", pfs=1)
    shown = root_of(fs)
    assert shown.as_of == ask(fs, "pfs-get", pfs=1)["sync_end_tid"]
    assert len(names(fs, shown)) == 30
    for top in (held, shown, fs.inode(PFS1, held.obj_id, held.as_of)):
        with pytest.raises(ReadOnlyError):
            make(fs, top, b"new")
    with pytest.raises(UsageError, match="already a slave"):
        ask(fs, "pfs-downgrade", pfs=1)
    ask(fs, "pfs-upgrade", pfs=1)
    make(fs, root_of(fs), b"new", b"content")
    assert len(names(fs, root_of(fs))) == 31
    with pytest.raises(UsageError, match="already a master"):
        ask(fs, "pfs-upgrade", pfs=1)
    assert_untouched(fs)
    fs.close_now()
    assert_clean(devices)


def test_what_was_pending_before_a_demotion_is_in_it() -> None:
    fs = mount(fresh())
    ask(fs, "pfs-create")
    make(fs, root_of(fs), b"pending", b"content")
    ask(fs, "pfs-downgrade", pfs=1)
    assert names(fs, root_of(fs)) == [b"pending"]


def test_promotion_takes_away_what_was_written_after_the_last_synchronization() -> None:
    devices = fresh()
    fs = filled(devices)
    ask(fs, "pfs-downgrade", pfs=1)
    then = ask(fs, "synctid")["tid"]
    folder = walk(fs, b"@@-1:00001", b"d0")
    before = sorted(names(fs, folder))
    # What a mirror would write: a new version of an inode, and a record of its own.
    tid = fs.ctx.alloc_tid()
    data = InodeData(obj_type=OBJTYPE_DIRECTORY, nlinks=1).pack()
    insert_record(fs.ctx, tid, PFS1 | LOCALIZE_INODE, 0x7777, RECTYPE_INODE, 0, OBJTYPE_DIRECTORY, data)
    fs.ctx.root.inode_count += 1
    assert tid > then
    ask(fs, "pfs-upgrade", pfs=1)
    assert sorted(names(fs, walk(fs, b"@@-1:00001", b"d0"))) == before
    with pytest.raises(FileOperationError):
        fs.inode(PFS1, 0x7777, (1 << 64) - 1)
    fs.close_now()
    assert_clean(devices)


def test_promotion_brings_back_what_was_deleted_after_the_last_synchronization() -> None:
    devices = fresh()
    fs = filled(devices)
    tid = ask(fs, "synctid")["tid"]
    folder = walk(fs, b"@@-1:00001", b"d0")
    before = sorted(names(fs, folder))
    for name in before:
        fs.unlink(folder, name)
    fs.rmdir(root_of(fs), b"d0")
    ask(fs, "pfs-downgrade", pfs=1)
    ask(fs, "pfs-update", pfs=1, sync_end_tid=tid)
    ask(fs, "pfs-upgrade", pfs=1)
    assert sorted(names(fs, walk(fs, b"@@-1:00001", b"d0"))) == before
    assert read(fs, b"@@-1:00001", b"d0", b"f9") == b"x" * 900
    fs.close_now()
    assert_clean(devices)


# --- destruction --------------------------------------------------------------------------------


def test_destruction_leaves_nothing_and_frees_the_space() -> None:
    devices = fresh()
    fs = filled(devices)
    inodes = fs.ctx.root.inode_count
    assert ask(fs, "pfs-destroy", pfs=1)["pfs"] == 1
    assert is_empty(fs.ctx, PFS1)
    assert fs.ctx.root.inode_count < inodes - 250
    with pytest.raises(FileOperationError):
        fs.lookup(fs.root, b"@@-1:00001")
    assert_untouched(fs)
    assert_settled(fs)
    fs.close_now()
    assert_clean(devices)
    assert [pfs_id for pfs_id, record in pfs_records(mount(devices, read_only=True).ctx) if record.is_deleted] == [1]


def test_the_id_of_a_destroyed_pfs_is_given_out_again() -> None:
    devices = fresh()
    fs = filled(devices)
    ask(fs, "pfs-destroy", pfs=1)
    assert ask(fs, "pfs-create")["pfs"] == 1
    assert names(fs, root_of(fs)) == []
    make(fs, root_of(fs), b"new", b"content")
    fs.close_now()
    assert_clean(devices)


def test_what_is_in_use_is_not_destroyed() -> None:
    fs = filled(fresh(), files=20)
    file = walk(fs, b"@@-1:00001", b"d0", b"f1")
    fs.opened(file)
    for operation in ("pfs-destroy", "pfs-downgrade"):
        with pytest.raises(BusyError, match="files in it are open"):
            ask(fs, operation, pfs=1)
    fs.write(file, 0, b"still writable")
    fs.released(file)
    ask(fs, "pfs-destroy", pfs=1)


def test_what_is_mounted_is_not_destroyed() -> None:
    devices = fresh()
    fs = mount(devices)
    ask(fs, "pfs-create")
    fs.close_now()
    inside = mount(devices, pfs=1)
    with pytest.raises(BusyError, match="is what is mounted here"):
        ask(inside, "pfs-destroy", pfs=1)


def test_a_client_that_goes_away_at_any_step_leaves_a_sound_file_system() -> None:
    """What is left of a destroyed PFS belongs to nobody, and goes when its id is given out again."""
    count = 0
    going = True
    while going:
        devices = fresh()
        fs = filled(devices, files=120)
        going = stop_after(fs, "pfs-destroy", count, pfs=1)
        fs.close_now()
        assert_clean(devices)
        again = mount(devices)
        assert_untouched(again)
        destroyed = dict(pfs_records(again.ctx))[1].is_deleted
        assert destroyed == (count >= 2)
        if destroyed:
            assert ask(again, "pfs-create")["pfs"] == 1
            assert names(again, root_of(again)) == []
        else:
            make(again, root_of(again), b"new", b"content")
        again.close_now()
        assert_clean(devices)
        count = count + 1 if count < 6 else count * 3
    assert count > 6


def test_changes_that_were_pending_survive_a_client_that_goes_away() -> None:
    devices = fresh()
    fs = filled(devices, files=20)
    make(fs, root_of(fs), b"pending", b"content")
    assert stop_after(fs, "pfs-destroy", 1, pfs=1)
    make(fs, root_of(fs), b"afterwards", b"content")
    fs.close_now()
    assert_clean(devices)
    again = mount(devices, read_only=True)
    assert read(again, b"@@-1:00001", b"pending") == read(again, b"@@-1:00001", b"afterwards") == b"content"


def test_two_cannot_change_the_same_pfs() -> None:
    fs = filled(fresh(), files=20)
    first = begin(find("pfs-destroy"), Call(fs, fs.root, {"pfs": 1}))
    next(first)
    with pytest.raises(BusyError, match="by somebody else"):
        ask(fs, "pfs-downgrade", pfs=1)
    first.close()
    ask(fs, "pfs-downgrade", pfs=1)


def test_a_slave_that_a_batch_is_arriving_at_is_not_converted() -> None:
    """What the rest of the batch brings would land in a master."""
    fs = mount(fresh())
    ask(fs, "pfs-create", slave=True)
    batch = begin(find("mirror-write"), Call(fs, fs.root, {"pfs": 1, "begin": 1, "end": 1 << 32}))
    next(batch)
    for operation in ("pfs-upgrade", "pfs-destroy", "mirror-write"):
        with pytest.raises(BusyError, match="by somebody else"):
            ask(fs, operation, pfs=1, begin=1, end=1 << 32)
    batch.close()
    ask(fs, "pfs-destroy", pfs=1)


@pytest.mark.parametrize("operation", ["pfs-destroy", "pfs-downgrade"])
def test_a_power_cut_at_any_write_leaves_a_pfs_whole_or_to_nobody(operation: str) -> None:
    plain = fresh()
    filled(plain, files=60).close_now()
    devices, log = recorded(plain)
    fs = mount(devices)
    whole = tree_of(fs)
    ask(fs, operation, pfs=1)
    fs.close_now()
    barriers = {at for at, entry in enumerate(log.entries) if not isinstance(entry, Write)}
    cuts = [
        log.power_cut(at, choose) for at in sorted({0, *barriers, len(log.entries)}) for choose in (drop_all, keep_all)
    ]
    cuts += [images for _, images in log.random_power_cuts(7, 12)]
    outcomes = set()
    for images in cuts:
        again = mount(images)
        record = dict(pfs_records(again.ctx))[1]
        outcomes.add((record.is_deleted, record.is_slave))
        if not record.is_deleted:
            assert tree_of(again) == whole
        assert_untouched(again)
        again.close_now()
        assert_clean(images)
    assert outcomes == {(False, False), (True, False) if operation == "pfs-destroy" else (False, True)}


def tree_of(fs: FileSystem) -> dict[bytes, list[bytes]]:
    """The names in each directory of PFS 1, and what the first file of each holds."""
    top = root_of(fs)
    folders = {name: sorted(names(fs, fs.lookup(top, name))) for name in names(fs, top)}
    firsts = {name: fs.lookup(fs.lookup(top, name), inside[0]) for name, inside in folders.items()}
    return {name: [*inside, fs.read(firsts[name], 0, 1 << 20)] for name, inside in folders.items()}


def test_a_snapshot_that_was_acknowledged_survives_every_power_cut() -> None:
    devices, log = recorded(fresh())
    fs = mount(devices)
    make(fs, fs.root, b"file", b"content")
    tid = ask(fs, "snapshot-add", label="kept")["tid"]
    acknowledged = len(log.entries)
    for number in range(5):
        make(fs, fs.root, b"%d" % number, b"content")
        ask(fs, "synctid")
    for at in range(acknowledged, len(log.entries) + 1):
        again = mount(log.power_cut(at, drop_all), read_only=True)
        assert [item["tid"] for item in ask(again, "snapshot-list")["snapshots"]] == [tid]
        assert read(again, b"@@0x%016x" % tid, b"file") == b"content"
