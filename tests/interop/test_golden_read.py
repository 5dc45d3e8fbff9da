"""Every golden image, read through the whole stack: what the manifests say of it, to the last field and byte.

The images are never written to.  A mount for writing gets an overlay in memory, so it costs no copy; where a mount must
not write, it gets a writable device over a copy, and the copy's SHA-256 tells.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from judge import (
    CRASHED,
    READ_ONLY,
    WITH_REDO,
    Golden,
    Manifest,
    Tree,
    as_tree,
    closing,
    contents,
    differences,
    digest,
    find,
    observe,
    problems,
    raw,
    sha256,
    view,
)

from hammerfs.device.file import FileDevice
from hammerfs.errors import FileOperationError, NotHammerError, ReadOnlyError
from hammerfs.fs.metadata import read_record
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import REDO_SKIPPED, MountOptions
from hammerfs.ondisk.constants import (
    LOCALIZE_INODE,
    LOCALIZE_MISC,
    MAX_KEY,
    MAX_TID,
    MIN_KEY,
    OBJID_ROOT,
    RECTYPE_DATA,
    RECTYPE_INODE,
    RECTYPE_SNAPSHOT,
)
from hammerfs.ondisk.direntry import name_key
from hammerfs.ondisk.element import LeafElement, pack_key, unpack_leaf
from hammerfs.ondisk.pfs import SnapshotData

CLEAN = {
    "g1-basic": "tree",
    "g2-history": "current_tree",
    "g5-pfs": "tree_root",
    "g5-slave": "tree_root",
    "g6-v1": "tree",
    "g6-v2": "tree",
    "g6-v4": "tree",
    "g6-v5": "tree",
    "g6-v6": "tree",
    "g7-dedup": "tree",
    "g8-twovol": "tree",
    "g10-upgrade-v1to7": "tree",
    "g10-upgrade-v6to7": "tree",
    "g11-nohistory": "tree",
}
FRESH = [*(f"n0-mkfs-v{version}" for version in range(1, 8)), "n0-mkfs-multi"]
VIEWS = ["s1", "s2", "s3", "s4", "s5", "s6"]
PFS_TREES = [
    ("g5-pfs", 1, "tree_m1"),
    ("g5-pfs", 2, "tree_s1"),
    ("g5-pfs", 3, "tree_m2"),
    ("g5-slave", 1, "tree_slave"),
]
SHOWN_TIME = ["stat_mtime_us"]
"""What stat(2) shows depends on the kind of mount; manifests of crashes say it for mounts of both kinds."""
WHEN_REDO_RAN = ["mtime_us", "stat_mtime_us", "ctime_us", "inode_create_tid"]
"""What REDO sets to the moment of recovery in the files that it writes to."""


# --- clean images -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLEAN)
def test_a_read_only_mount_shows_all_that_the_manifest_lists(name: str, images: Golden) -> None:
    with closing(images.mount(name)) as fs:
        assert differences(as_tree(images.manifest(name)[CLEAN[name]]), view(fs)) == []


@pytest.mark.parametrize("name", CLEAN)
def test_a_mount_for_writing_shows_the_same_and_writes_nothing_by_itself(name: str, images: Golden) -> None:
    devices = images.devices(name)
    with closing(FileSystem.open(devices, MountOptions())) as fs:
        seen = view(fs)
    assert differences(as_tree(images.manifest(name)[CLEAN[name]]), seen, SHOWN_TIME) == []
    assert all(entry["stat_mtime_us"] == entry["mtime_us"] for entry in seen.values())
    assert [device.page_bytes for device in devices] == [0] * len(devices)
    assert problems(devices) == []


@pytest.mark.parametrize("name", FRESH)
def test_a_fresh_file_system_holds_its_root_alone(name: str, images: Golden) -> None:
    with closing(images.mount(name)) as fs:
        seen = view(fs)
    root = seen.pop("/")
    assert seen == {}
    made = images.manifest(name)["root_inode_ctime_us"]
    assert (root["ctime_us"], root["mtime_us"], root["mode"], root["entries"]) == (made, made, "0755", 0)
    assert problems(images.devices(name)) == []


def test_every_golden_image_is_read(golden: Path) -> None:
    named = {path.stem for path in golden.glob("*.json")} - {"index"}
    assert named == {*CLEAN, *FRESH, *CRASHED, *WITH_REDO}


def test_volumes_may_come_in_any_order(images: Golden) -> None:
    devices = images.devices("g8-twovol")
    with closing(FileSystem.open(devices[::-1], READ_ONLY)) as fs:
        assert differences(as_tree(images.manifest("g8-twovol")["tree"]), view(fs)) == []
        assert {volume: device.size for volume, device in enumerate(devices)} == {
            number: volume.device.size for number, volume in fs.ctx.volumes.volumes.items()
        }


@pytest.mark.parametrize(("name", "suffix"), [("g1-basic", b"-"), ("g6-v1", b"?"), ("g6-v6", b"-")])
def test_names_of_one_hash_are_told_apart(name: str, suffix: bytes, images: Golden) -> None:
    """Appended to a name, a separator leaves algorithm 1's upper word as it is, so the lookup meets neighbours."""
    with closing(images.mount(name)) as fs:
        directory = find(fs, "/collide")
        entries = list(fs.readdir(directory, 0))
        assert len({entry.key for entry in entries}) == len(entries)
        for entry in entries:
            assert fs.lookup(directory, entry.name).obj_id == entry.obj_id
            with pytest.raises(FileOperationError) as refusal:
                fs.lookup(directory, entry.name + suffix)
            assert refusal.value.errno == errno.ENOENT


def test_the_collisions_of_the_images_are_real(images: Golden) -> None:
    with closing(images.mount("g1-basic")) as fs:
        directory = find(fs, "/collide")
        hashes = Counter(name_key(directory.data.cap_flags, entry.name)[0] >> 32 for entry in fs.readdir(directory, 0))
    assert max(hashes.values()) > 1


@pytest.mark.parametrize("name", ["g1-basic", "g6-v1"])
def test_a_cookie_continues_after_its_entry(name: str, images: Golden) -> None:
    with closing(images.mount(name)) as fs:
        for path in ("/", "/collide", "/names"):
            directory = find(fs, path)
            entries = list(fs.readdir(directory, 0))
            assert [entry.key for entry in entries] == sorted(entry.key for entry in entries)
            for index, entry in enumerate(entries):
                assert list(fs.readdir(directory, entry.key)) == entries[index + 1 :]


def test_reads_may_begin_and_end_anywhere(images: Golden) -> None:
    with closing(images.mount("g1-basic")) as fs:
        for path, entry in as_tree(images.manifest("g1-basic")["tree"]).items():
            if entry["type"] != "file" or not 0 < entry["size"] < 4 << 20:
                continue
            inode = find(fs, path)
            whole = b"".join(contents(fs, inode, 1 << 20))
            size = len(whole)
            assert size == entry["size"]
            for at in (0, 1, 16383, 16384, 65535, (1 << 20) - 1, 1 << 20, (1 << 20) + 65535, size - 1, size):
                for length in (1, 17, 16384, 70000):
                    assert fs.read(inode, at, length) == whole[at : at + length], f"{path} at {at}"
            assert fs.read(inode, size, 1) == b""
            assert fs.read(inode, size + 1_000_000, 1) == b""


# --- history ------------------------------------------------------------------------------------


def view_of_manifest(manifest: Manifest, label: str) -> tuple[int, Tree]:
    return int(manifest[f"view_{label}"]["tid"], 16), as_tree(manifest[f"tree_asof_{label}"])


@pytest.mark.parametrize("label", VIEWS)
def test_the_past_can_be_mounted(label: str, images: Golden) -> None:
    tid, expected = view_of_manifest(images.manifest("g2-history"), label)
    with closing(images.mount("g2-history", MountOptions(as_of=tid))) as fs:
        assert differences(expected, view(fs)) == []
        assert fs.read_only
        with pytest.raises(ReadOnlyError):
            fs.create(fs.root, b"new", 2, 0o644, 0, 0)


@pytest.mark.parametrize("options", [READ_ONLY, MountOptions()], ids=["ro", "rw"])
def test_the_past_can_be_entered_by_name(options: MountOptions, images: Golden) -> None:
    manifest = images.manifest("g2-history")
    with closing(images.mount("g2-history", options)) as fs:
        for label in VIEWS:
            tid, expected = view_of_manifest(manifest, label)
            top = fs.lookup(fs.root, b"@@0x%016x" % tid)
            assert differences(expected, view(fs, top)) == []
            for path, entry in expected.items():
                name = raw(path[1:])
                if name and b"/" not in name:
                    inode = fs.lookup(fs.root, b"%s@@0x%016x" % (name, tid))
                    assert observe(fs, inode, path) == entry
            with pytest.raises(ReadOnlyError):
                fs.unlink(top, raw(next(path for path in expected if path != "/")[1:]))
        assert differences(as_tree(manifest["current_tree"]), view(fs), SHOWN_TIME) == []
        assert fs.lookup(fs.root, b"@@-1") is fs.root


def test_every_version_of_a_file_can_be_read(images: Golden) -> None:
    manifest = images.manifest("g2-history")
    with closing(images.mount("g2-history")) as fs:
        for version in manifest["file_versions"]:
            inode = find(fs, version["path"])
            assert inode.data.size == version["size"], version["path"]
            assert digest(fs, inode) == version["sha256"], version["path"]
            assert f"{inode.obj_id:#018x}" == version["objid"]


def records(fs: FileSystem, localization: int, obj_id: int, rec_type: int, low: int, high: int) -> list[LeafElement]:
    """All versions of an object's records with keys from `low` to `high`."""
    first = pack_key(localization, obj_id, rec_type, low, 1)
    last = pack_key(localization, obj_id, rec_type, high, MAX_TID)
    return [unpack_leaf(element) for element in fs.ctx.tree.scan(first, last)]


def test_the_original_s_history_lists_are_in_the_tree(images: Golden) -> None:
    manifest = images.manifest("g2-history")
    with closing(images.mount("g2-history")) as fs:
        for path, history in manifest["inode_history"].items():
            versions = records(fs, LOCALIZE_INODE, int(history["objid"], 16), RECTYPE_INODE, 0, 0)
            moments = {tid for version in versions for tid in (version.create_tid, version.delete_tid) if tid}
            assert {int(entry["tid"], 16) for entry in history["entries"]} <= moments, path
        for history in manifest["key_history"]:
            obj_id = find(fs, history["path"]).obj_id
            key = history["key"]
            versions = records(fs, LOCALIZE_MISC, obj_id, RECTYPE_DATA, key + 1, key + 65536)
            moments = {tid for version in versions for tid in (version.create_tid, version.delete_tid) if tid}
            assert {int(tid, 16) for tid in history["tids"]} <= moments, history


def test_snapshots_lead_into_the_past(images: Golden) -> None:
    manifest = images.manifest("g2-history")
    with closing(images.mount("g2-history")) as fs:
        listed = []
        for element in records(fs, LOCALIZE_INODE, OBJID_ROOT, RECTYPE_SNAPSHOT, MIN_KEY, MAX_KEY):
            snapshot = SnapshotData(read_record(fs.ctx, element))
            label = bytes(snapshot.label).rstrip(b"\0").decode()
            listed.append({"tid": f"{snapshot.tid:#018x}", "ts_us": snapshot.ts, "label": label})
        assert listed == manifest["snapshots"]
        for snapshot_of in listed:
            _, expected = view_of_manifest(manifest, str(snapshot_of["label"]))
            top = fs.lookup(fs.root, b"@@" + str(snapshot_of["tid"]).encode())
            assert differences(expected, view(fs, top)) == []


# --- PFSs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "pfs", "tree"), PFS_TREES)
def test_a_pfs_can_be_mounted(name: str, pfs: int, tree: str, images: Golden) -> None:
    with closing(images.mount(name, MountOptions(read_only=True, pfs=pfs))) as fs:
        assert differences(as_tree(images.manifest(name)[tree]), view(fs)) == []


@pytest.mark.parametrize(("name", "pfs", "tree"), PFS_TREES)
def test_a_pfs_can_be_entered_by_name(name: str, pfs: int, tree: str, images: Golden) -> None:
    with closing(images.mount(name)) as fs:
        top = fs.lookup(fs.root, b"@@-1:%05d" % pfs)
        assert differences(as_tree(images.manifest(name)[tree]), view(fs, top)) == []


def test_the_link_to_a_pfs_leads_into_it(images: Golden) -> None:
    manifest = images.manifest("g5-pfs")
    with closing(images.mount("g5-pfs")) as fs:
        for link, tree in (("/pfs/m1", "tree_m1"), ("/pfs/s1", "tree_s1"), ("/pfs/m2", "tree_m2")):
            target = fs.readlink(find(fs, link))
            top = fs.lookup(find(fs, "/pfs"), target)
            assert differences(as_tree(manifest[tree]), view(fs, top)) == []


@pytest.mark.parametrize("how", ["option", "name"])
def test_a_slave_is_read_only_on_a_mount_for_writing(how: str, images: Golden) -> None:
    options = MountOptions(pfs=2) if how == "option" else MountOptions()
    with closing(images.mount("g5-pfs", options)) as fs:
        top = fs.root if how == "option" else fs.lookup(fs.root, b"@@-1:00002")
        assert differences(as_tree(images.manifest("g5-pfs")["tree_s1"]), view(fs, top)) == []
        big = fs.lookup(top, b"big")
        for change in (
            lambda: fs.create(top, b"new", 2, 0o644, 0, 0),
            lambda: fs.unlink(top, b"big"),
            lambda: fs.rename(top, b"big", top, b"small"),
            lambda: fs.write(big, 0, b"x"),
            lambda: fs.setattr(big, mode=0o600),
        ):
            with pytest.raises(ReadOnlyError):
                change()


@pytest.mark.parametrize("how", ["option", "name"])
def test_a_slave_can_be_seen_as_of_an_earlier_stream(how: str, images: Golden) -> None:
    """The first of the two streams that g5-slave was fed with ended at this TID."""
    tid = 0x100020210
    expected = as_tree(images.manifest("g5-slave")["tree_slave_after_stream1"])
    options = MountOptions(pfs=1, as_of=tid) if how == "option" else READ_ONLY
    with closing(images.mount("g5-slave", options)) as fs:
        top = fs.root if how == "option" else fs.lookup(fs.root, b"@@0x%016x:00001" % tid)
        assert differences(expected, view(fs, top)) == []


def test_a_pfs_that_is_not_there_is_refused(images: Golden) -> None:
    devices = images.devices("g5-pfs")
    with pytest.raises(NotHammerError, match="no PFS 7"):
        FileSystem.open(devices, MountOptions(pfs=7))
    with closing(FileSystem.open(devices, READ_ONLY)) as fs:
        with pytest.raises(FileOperationError) as refusal:
            fs.lookup(fs.root, b"@@-1:00007")
        assert refusal.value.errno == errno.ENOENT


# --- crashes ------------------------------------------------------------------------------------


UNDO_ONLY = MountOptions(read_only=True, skip_redo=REDO_SKIPPED)
"""As the original mounts read-only: what only fsync made durable is left out."""


def undone(manifest: Manifest) -> Tree:
    """The tree after recovery stage 1."""
    return as_tree(manifest.get("tree_ro") or manifest["tree_rw"])


SKIPPED = pytest.mark.expect_log("recovery redo skipped")


@pytest.mark.parametrize("name", [*CRASHED, *(pytest.param(name, marks=SKIPPED) for name in WITH_REDO)])
def test_a_read_only_mount_recovers_in_memory_alone(
    name: str, images: Golden, golden_volumes: Callable[[str], list[Path]]
) -> None:
    manifest = images.manifest(name)
    [path] = golden_volumes(name)
    with closing(FileSystem.open([FileDevice(str(path), writable=True)], UNDO_ONLY)) as fs:
        seen = view(fs)
    assert differences(undone(manifest), seen, SHOWN_TIME) == []
    assert all(entry["stat_mtime_us"] == entry["ctime_us"] for entry in seen.values())
    assert sha256(path) == manifest["volumes"][0]["image_sha256"]


@pytest.mark.parametrize("name", CRASHED)
def test_a_mount_for_writing_recovers_for_good(name: str, images: Golden) -> None:
    expected = as_tree(images.manifest(name)["tree_rw"])
    devices = images.devices(name)
    with closing(FileSystem.open(devices, MountOptions())) as fs:
        assert differences(expected, view(fs), SHOWN_TIME) == []
    assert problems(devices) == []
    with closing(FileSystem.open(devices, READ_ONLY)) as fs:
        assert differences(expected, view(fs), SHOWN_TIME) == []


@pytest.mark.parametrize("name", WITH_REDO)
def test_a_mount_for_writing_runs_redo_as_the_original_does(name: str, images: Golden) -> None:
    manifest = images.manifest(name)
    devices = images.devices(name)
    for tree in ("tree_rw", "tree_remount"):
        with closing(FileSystem.open(devices, MountOptions())) as fs:
            assert differences(as_tree(manifest[tree]), view(fs), WHEN_REDO_RAN) == []
        assert problems(devices) == []
