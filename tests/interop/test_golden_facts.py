"""What manifests tell beside their trees: counters, TIDs, PFS records, snapshots, where data lies, what REDO did."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge import Golden, Manifest, as_tree, closing, view

from hammerfs.fs.metadata import read_record
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import REDO_SKIPPED, MountOptions
from hammerfs.fs.pfs import load_pfs
from hammerfs.ondisk.address import pfs_localization, volume_of, zone_of
from hammerfs.ondisk.constants import (
    LOCALIZE_INODE,
    MAX_KEY,
    MAX_TID,
    MIN_KEY,
    OBJID_ROOT,
    RECTYPE_CONFIG,
    RECTYPE_DATA,
    RECTYPE_SNAPSHOT,
    ZONE_UNDO,
)
from hammerfs.ondisk.element import LeafElement, pack_key, unpack_leaf
from hammerfs.ondisk.pfs import SnapshotData
from hammerfs.ops.show import show_lines
from hammerfs.store.volumes import VolumeSet

INFORMED = ["g1-basic", "g2-history", "g6-v1", "g6-v2", "g6-v4", "g6-v5", "g6-v6", "g7-dedup", "g8-twovol"]
INFORMED += ["g10-upgrade-v1to7", "g10-upgrade-v6to7", "g11-nohistory"]
SHOWN = [*INFORMED, "g5-pfs", "g5-slave"]
REDONE = ["g4-crash-redo", "g4-crash-redo-ext", "g4-crash-redo-v4"]
READ_HERE = {"oracle_info", "oracle_output", "config_text", "data_records", "distinct_data_extents"}
READ_HERE |= {"data_extents_by_zone_and_volume", "snapshots_output", "pfsinfo_output", "streams", "verified"}
READ_HERE |= {"vol_crc_matches_header", "undo_blockmap_entry_crc_matches", "files_changed_by_redo", "hammer_version"}
READ_HERE |= {"undo_bytes", "ro_tree_equals_rw_tree"}
READ_ELSEWHERE = {"options", "fsid", "root_inode_ctime_us", "show", "volumes", "snapshots", "inode_history"}
READ_ELSEWHERE |= {"key_history", "file_versions", "ro_mount_kernel_messages", "rw_mount_kernel_messages"}
PROSE = {"name", "what", "state", "notes", "crash", "script", "remount_kernel_messages"}
PROSE |= {"rw_mount_kernel_messages_bootverbose", "file_version_lookup_errors"}
"""Words for people, and what the original prints where we print something of our own."""


def words(lines: list[str], first: str) -> list[dict[str, str]]:
    """The lines that begin with a word, as dictionaries of their name=value parts."""
    return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines if line.startswith(first)]


def printed(manifest: Manifest) -> list[str]:
    """All that the original printed about an image."""
    keys = ("oracle_info", "oracle_output", "pfsinfo_output", "snapshots_output")
    return [line for key in keys for line in manifest.get(key, [])]


def scan(fs: FileSystem, *range_of: Any) -> Iterator[LeafElement]:
    """Records of one object and type, or without arguments all that there are."""
    low, high = ((*range_of, MIN_KEY, 1), (*range_of, MAX_KEY, MAX_TID)) if range_of else ((), ())
    lowest, highest = (0, -(1 << 63), 0, MIN_KEY, 0), (0xFFFFFFFF, (1 << 63) - 1, 0xFFFF, MAX_KEY, MAX_TID)
    for element in fs.ctx.tree.scan(pack_key(*(low or lowest)), pack_key(*(high or highest))):
        yield unpack_leaf(element)


@pytest.mark.parametrize("name", INFORMED)
def test_counters_label_and_tids_are_what_the_original_saw(name: str, images: Golden) -> None:
    lines = printed(images.manifest(name))
    with closing(images.mount(name)) as fs:
        root, header = fs.ctx.root, fs.ctx.volumes.root.header
        seen = {
            "label": fs.label,
            "version": str(fs.ctx.version),
            "nvolumes": str(len(fs.ctx.volumes.volumes)),
            "bigblocks": str(root.total_bigblocks),
            "free": str(root.free_bigblocks),
            "inodes": str(root.inode_count),
            "fsid": str(fs.fsid),
        }
        told = words(lines, "INFO")[-1]
        assert told == {**seen, "rsv": told["rsv"]}
        for tids in words(lines, "NEXTTID"):
            assert header.vol0_next_tid == int(tids["flush1"], 16)
        for history in words(lines, "HIST"):
            tids_of = {element.create_tid for element in scan(fs, LOCALIZE_INODE, int(history["objid"], 16), 1)}
            assert int(history["tid"], 16) in tids_of


@pytest.mark.parametrize("name", SHOWN)
def test_show_prints_as_many_sound_elements_as_hammer_did(name: str, images: Golden) -> None:
    volumes = VolumeSet.open(images.devices(name))
    flags = Counter(line[:7] for line in show_lines(volumes) if re.match(r".{8}ELM ", line))
    assert flags == images.manifest(name)["verified"]["result"]["show_elm_flags"]


def test_data_lies_on_the_volumes_where_the_original_put_it(images: Golden) -> None:
    with closing(images.mount("g8-twovol")) as fs:
        places = Counter(
            f"zone{zone_of(element.data_offset)}:vol{volume_of(element.data_offset)}"
            for element in scan(fs)
            if element.data_len
        )
    assert places == images.manifest("g8-twovol")["data_extents_by_zone_and_volume"]


def test_deduplicated_records_share_their_extents(images: Golden) -> None:
    manifest = images.manifest("g7-dedup")
    with closing(images.mount("g7-dedup")) as fs:
        offsets = [element.data_offset for element in scan(fs) if element.rec_type == RECTYPE_DATA]
    [first, _] = re.findall(r"dedup: (\d+) data records, (\d+) deduplicated", " ".join(printed(manifest)))
    assert (len(offsets), len(offsets) - len(set(offsets))) == tuple(map(int, first))
    # The manifest's own numbers count one record more than the original's dedup looked at.
    assert (len(offsets) + 1, len(set(offsets)) + 1) == (manifest["data_records"], manifest["distinct_data_extents"])


def test_the_cleanup_configuration_is_there(images: Golden) -> None:
    with closing(images.mount("g2-history")) as fs:
        [config] = scan(fs, LOCALIZE_INODE, OBJID_ROOT, RECTYPE_CONFIG)
        text = read_record(fs.ctx, config).rstrip(b"\0").decode()
    assert text == images.manifest("g2-history")["config_text"]


@pytest.mark.parametrize("name", ["g5-pfs", "g5-slave"])
def test_pfs_records_say_what_the_original_said(name: str, images: Golden) -> None:
    told = {line["id"]: line for line in words(printed(images.manifest(name)), "PFS id")}
    assert told
    with closing(images.mount(name)) as fs:
        for number, line in told.items():
            record = load_pfs(fs.ctx, pfs_localization(int(number)))
            assert record is not None
            assert record.label.rstrip(b"\0").decode() == line["label"]
            assert record.mirror_flags == int(line["flags"], 16)
            assert (str(record.shared_uuid), str(record.unique_uuid)) == (line["shared"], line["unique"])
            assert record.sync_beg_tid == int(line["sync_beg"], 16)
            if record.is_slave:  # a master's end is the present
                assert record.sync_end_tid == int(line["sync_end"], 16)


def test_a_slave_ends_where_its_stream_did(images: Golden) -> None:
    [end] = [int(s["tid_end"], 16) for s in images.manifest("g5-pfs")["streams"].values() if "tid_end" in s]
    with closing(images.mount("g5-pfs")) as fs:
        slave = load_pfs(fs.ctx, pfs_localization(2))
    assert slave is not None
    assert slave.sync_end_tid == end


@pytest.mark.parametrize(("name", "pfs"), [("g5-pfs", 1), ("g5-pfs", 2), ("g5-slave", 1)])
def test_snapshots_of_a_pfs_are_listed(name: str, pfs: int, images: Golden) -> None:
    lines = printed(images.manifest(name))
    told = {
        (int(re.findall("0x[0-9a-f]+", line)[0], 16), line.split("label=")[1]) for line in lines if "label=ms" in line
    }
    with closing(images.mount(name)) as fs:
        records = [
            SnapshotData(read_record(fs.ctx, element))
            for element in scan(fs, pfs_localization(pfs) | LOCALIZE_INODE, OBJID_ROOT, RECTYPE_SNAPSHOT)
        ]
    listed = {(record.tid, bytes(record.label).rstrip(b"\0").decode()) for record in records}
    assert listed
    assert listed <= told


@pytest.mark.expect_log("recovery redo skipped")
@pytest.mark.parametrize("name", REDONE)
def test_redo_changes_the_files_that_it_changed_in_the_original(name: str, images: Golden) -> None:
    with closing(images.mount(name, MountOptions(read_only=True, skip_redo=REDO_SKIPPED))) as fs:
        before = view(fs)
    with closing(images.mount(name, MountOptions())) as fs:
        after = view(fs)
    changed = [path for path, entry in after.items() if entry.get("sha256") != before[path].get("sha256")]
    changed_size = [path for path, entry in after.items() if entry["size"] != before[path]["size"]]
    assert sorted({*changed, *changed_size}) == sorted(images.manifest(name)["files_changed_by_redo"])


def test_the_header_checksums_of_the_second_crash_are_sound(images: Golden) -> None:
    manifest = images.manifest("g3-crash-twice")
    header = VolumeSet.open(images.devices("g3-crash-twice")).root.header
    assert header.crc_ok() == manifest["vol_crc_matches_header"]
    assert header.blockmap(ZONE_UNDO).crc_ok(header.vol_version) == manifest["undo_blockmap_entry_crc_matches"]


def test_versions_fifos_and_trees_fit_together(golden: Path, images: Golden) -> None:
    for path in golden.glob("g*.json"):
        manifest = images.manifest(path.stem)
        header = VolumeSet.open(images.devices(path.stem)).root.header
        assert header.vol_version == manifest["hammer_version"], path.stem
        if "undo_bytes" in manifest:
            size = int(manifest["undo_bytes"].removesuffix("m")) << 20
            assert header.blockmap(ZONE_UNDO).alloc_offset & (1 << 52) - 1 == size, path.stem
        if "ro_tree_equals_rw_tree" in manifest:
            assert manifest["ro_tree_equals_rw_tree"], "the tests of crashes compare both mounts with tree_rw"
            assert "tree_ro" not in manifest
            assert as_tree(manifest["tree_rw"])


def test_nothing_in_a_manifest_is_left_unread(golden: Path, images: Golden) -> None:
    keys = {key for path in golden.glob("*.json") if path.stem != "index" for key in images.manifest(path.stem)}
    trees = {key for key in keys if re.match("tree|current_tree|view_", key)}
    assert keys - trees == READ_HERE | READ_ELSEWHERE | PROSE
