"""The checker on crafted images: an intact one is clean, and each thing that may not be is found and named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crafted_image import NEXT_TID, TID, CraftedImage, sample

from hammerfs.ondisk.constants import (
    BUFSIZE,
    LOCALIZE_INODE,
    LOCALIZE_MISC,
    OBJID_ROOT,
    OBJTYPE_DIRECTORY,
    OBJTYPE_FIFO,
    OBJTYPE_REGFILE,
    OBJTYPE_SOFTLINK,
    PFSD_DELETED,
    PFSD_SLAVE,
    RECTYPE_CONFIG,
    RECTYPE_DATA,
    RECTYPE_DIRENTRY,
    RECTYPE_FIX,
    RECTYPE_INODE,
)
from hammerfs.ondisk.direntry import pack_entry
from hammerfs.ondisk.element import LeafElement
from hammerfs.ondisk.inode import InodeData
from hammerfs.ops.check import Report, check_devices

Change = Callable[[CraftedImage], object]


def check(image: CraftedImage) -> Report:
    return check_devices([image.finish()])


def found(report: Report) -> str:
    return "\n".join(map(str, report.problems))


def pick(image: CraftedImage, rec_type: int, obj_id: int, at: int = 0) -> LeafElement:
    return [r for r in image.records if r.rec_type == rec_type and r.obj_id == obj_id][at]


def link_to_pfs(image: CraftedImage, pfs: int = 1) -> None:
    symlink = b"@@PFS%05d" % pfs
    inode = InodeData(obj_type=OBJTYPE_SOFTLINK, nlinks=1, size=len(symlink), symlink=symlink)
    image.inode(0x5000 + pfs, inode)
    image.entry(OBJID_ROOT, b"pfs%d" % pfs, 0x5000 + pfs, OBJTYPE_SOFTLINK)


def inode_of(image: CraftedImage, obj_id: int) -> InodeData:
    element = pick(image, RECTYPE_INODE, obj_id)
    return InodeData.unpack(image.device.read(image.device_offset(element.data_offset), element.data_len))


def set_inode(image: CraftedImage, obj_id: int, **fields: int) -> None:
    inode = inode_of(image, obj_id)
    for name, value in fields.items():
        setattr(inode, name, value)
    image.rewrite(pick(image, RECTYPE_INODE, obj_id), inode.pack())


@pytest.mark.parametrize("version", range(2, 8))
def test_an_intact_image_is_clean(version: int) -> None:
    image = sample(version)
    link_to_pfs(image)
    report = check(image)
    assert not report.problems
    assert not report.notes
    assert report.counts["inodes"] == 67
    assert report.counts["entries"] == 66
    assert report.counts["PFSs"] == 2
    assert report.counts["bytes of file data"] == 2 * BUFSIZE + 112


def test_data_can_be_left_out() -> None:
    image = sample()
    element = pick(image, RECTYPE_DATA, 0x2001)
    image.device.write(image.device_offset(element.data_offset) + 5000, b"!?")
    device = image.finish()
    assert "data CRC mismatch" in found(check_devices([device]))
    assert check_devices([device], data=False).clean


# --- names -------------------------------------------------------------------------------------------

NAMES: dict[str, tuple[Change, str]] = {
    "entry without inode": (
        lambda i: i.entry(0x1000, b"nobody", 0x9999, OBJTYPE_REGFILE),
        "'nobody' refers to object 0000000000009999, which does not exist",
    ),
    "entry of another type": (
        lambda i: i.change(pick(i, RECTYPE_DIRENTRY, OBJID_ROOT), obj_type=OBJTYPE_FIFO),
        "says object type 4, its inode says",
    ),
    "key outside of the hash": (
        lambda i: i.change(pick(i, RECTYPE_DIRENTRY, 0x1000), key=0x123400000000),
        "has the key 0000123400000000, its hash is",
    ),
    "name twice": (
        lambda i: _entry_again(i),
        "'small' exists twice",
    ),
    "impossible name": (
        lambda i: i.entry(0x1000, b"a/b", 0x2000, OBJTYPE_REGFILE),
        "the name 'a/b' is not possible",
    ),
    "other localization": (
        lambda i: i.change(pick(i, RECTYPE_DIRENTRY, 0x1000), localization=LOCALIZE_MISC),
        "is not where its directory's flags 05 say",
    ),
    "entry in a file": (
        lambda i: i.entry(0x3000, b"inside", 0x2000, OBJTYPE_REGFILE),
        "'inside' is in an object of type 2",
    ),
    "entry in nothing": (
        lambda i: i.entry(0x8888, b"inside", 0x2000, OBJTYPE_REGFILE),
        "'inside' is in a directory without inode",
    ),
    "entry in a deleted directory": (
        lambda i: (i.change(i.directory(0x1500, OBJID_ROOT), delete_tid=TID + 16), i.entry(0x1500, b"x", 0x2000, 2)),
        "'x' is in a deleted directory",
    ),
    "entry of another PFS": (
        lambda i: i.rewrite(pick(i, RECTYPE_DIRENTRY, 0x1000), _entry_elsewhere(i)),
        "refers to localization 00010000",
    ),
    "reserved hash": (
        lambda i: set_inode(i, 0x1000, cap_flags=7),
        "directory hash algorithm 3 is reserved",
    ),
    "parent": (
        lambda i: set_inode(i, 0x1000, parent_obj_id=0x77),
        "gives 0000000000000077 as its parent",
    ),
}


def _entry_again(image: CraftedImage) -> None:
    """A second entry of one name, at the next key of its hash."""
    entry = image.entry(0x1000, b"small", 0x2000, OBJTYPE_REGFILE)
    image.change(entry, key=entry.key + 1)
    set_inode(image, 0x2000, nlinks=2)


def _entry_elsewhere(image: CraftedImage) -> bytes:
    old = pick(image, RECTYPE_DIRENTRY, 0x1000)
    raw = image.device.read(image.device_offset(old.data_offset), old.data_len)
    return pack_entry(int.from_bytes(raw[:8], "little"), 1 << 16, raw[16:])


@pytest.mark.parametrize(("change", "words"), NAMES.values(), ids=NAMES.keys())
def test_a_wrong_name_is_found(change: Change, words: str) -> None:
    image = sample()
    change(image)
    assert words in found(check(image))


# --- inodes ------------------------------------------------------------------------------------------

INODES: dict[str, tuple[Change, str]] = {
    "too many links": (lambda i: set_inode(i, 0x2001, nlinks=3), "nlinks is 3, 2 entries lead to it"),
    "too few links": (lambda i: set_inode(i, 0x2001, nlinks=0), "nlinks is 0, 2 entries lead to it"),
    "directory with links": (lambda i: set_inode(i, 0x1000, nlinks=2), "a directory with nlinks 2 and 1 entries"),
    "directory twice": (
        lambda i: i.entry(0x1000, b"again", 0x1000, OBJTYPE_DIRECTORY),
        "a directory with nlinks 1 and 2 entries",
    ),
    "orphan": (lambda i: i.file(0x7000), "no directory entry leads to it, nlinks is 1"),
    "loop": (
        lambda i: (
            i.directory(0x7000, 0x7001),
            i.directory(0x7001, 0x7000),
            i.entry(0x7000, b"a", 0x7001, OBJTYPE_DIRECTORY),
            i.entry(0x7001, b"b", 0x7000, OBJTYPE_DIRECTORY),
        ),
        "a directory that is its own ancestor, not reached from the root",
    ),
    "root linked": (
        lambda i: i.entry(0x1000, b"up", OBJID_ROOT, OBJTYPE_DIRECTORY),
        "the root is of type 1, 1 links, 1 entries",
    ),
    "type": (lambda i: set_inode(i, 0x2000, obj_type=5), "object type 5, its element says 2"),
    "key": (lambda i: i.change(pick(i, RECTYPE_INODE, 0x2000), key=3), "its key is 0000000000000003, not 0"),
    "long symlink": (
        lambda i: (
            i.inode(0x7000, InodeData(obj_type=OBJTYPE_SOFTLINK, nlinks=1, size=25)),
            i.entry(0x1000, b"link", 0x7000, OBJTYPE_SOFTLINK),
        ),
        "a symlink of 25 bytes has no record with its target",
    ),
    "fix without inode": (
        lambda i: i.add(_record(LOCALIZE_MISC, 0x7000, RECTYPE_FIX, 1), b"target"),
        "a live record of type 14 has no inode",
    ),
    "count in the header": (lambda i: i.records.remove(pick(i, RECTYPE_INODE, 0x303B)), "which does not exist"),
    "no root": (lambda i: i.records.remove(pick(i, RECTYPE_INODE, OBJID_ROOT, 1)), "its root directory does not exist"),
    "no PFS record": (
        lambda i: i.records.remove(next(r for r in i.records if r.key == 1 << 16 and r.obj_id == OBJID_ROOT)),
        "it has inodes but no PFS record",
    ),
}


def _record(localization: int, obj_id: int, rec_type: int, key: int) -> LeafElement:
    return LeafElement(obj_id, key, TID, 0, rec_type, 0, ord("R"), localization, 1, 0, 0, 0, 0)


@pytest.mark.parametrize(("change", "words"), INODES.values(), ids=INODES.keys())
def test_a_wrong_inode_is_found(change: Change, words: str) -> None:
    image = sample()
    change(image)
    assert words in found(check(image))


def test_an_inode_waiting_for_deletion_is_a_note() -> None:
    image = sample()
    image.file(0x7000, nlinks=0)
    report = check(image)
    assert report.clean
    assert any("waits for its deletion" in note.text for note in report.notes)


def test_the_past_is_no_concern_of_link_counts() -> None:
    image = sample()
    image.change(image.file(0x7000, nlinks=5), delete_tid=TID + 16)
    image.change(image.entry(0x1000, b"gone", 0x7000, OBJTYPE_REGFILE), delete_tid=TID + 16)
    image.change(image.data(0x7000, 0, bytes(64)), delete_tid=TID + 16)
    assert not check(image).problems


# --- PFSs --------------------------------------------------------------------------------------------


def test_a_slave_is_seen_as_of_its_last_complete_mirroring() -> None:
    image = sample()
    image.pfs_record(2, PFSD_SLAVE, sync_end_tid=TID + 32)
    image.directory(OBJID_ROOT, 0, pfs=2)
    image.change(image.file(0x7000, pfs=2), delete_tid=TID + 48)
    image.change(image.entry(OBJID_ROOT, b"still there", 0x7000, OBJTYPE_REGFILE, pfs=2), delete_tid=TID + 48)
    image.change(image.entry(OBJID_ROOT, b"not yet", 0x7001, OBJTYPE_REGFILE, pfs=2), create_tid=TID + 48)
    assert not check(image).problems  # the counter in the header is of what is live now, not as of then


def test_a_slave_that_its_first_batch_is_arriving_at_has_no_root_yet() -> None:
    image = sample()
    image.pfs_record(2, PFSD_SLAVE, sync_end_tid=0)
    image.directory(OBJID_ROOT, 0, pfs=2)
    image.file(0x7000, pfs=2)
    assert not check(image).problems


def test_a_slave_of_the_root_pfs_holds_copies_of_its_pfs_records() -> None:
    image = sample()
    image.pfs_record(2, PFSD_SLAVE, sync_end_tid=TID + 32)
    image.directory(OBJID_ROOT, 0, pfs=2)
    copy = image.pfs_record(3, PFSD_DELETED)
    image.change(copy, localization=copy.localization | 2 << 16)
    assert not check(image).problems


def test_a_fresh_slave_and_a_destroyed_pfs_have_no_root() -> None:
    image = sample()
    image.pfs_record(2, PFSD_SLAVE)
    image.pfs_record(3, PFSD_DELETED)
    link_to_pfs(image, 2)
    assert not check(image).problems


def test_pfs_links_and_records_that_do_not_match_are_notes() -> None:
    image = sample()
    link_to_pfs(image, 9)
    report = check(image)
    assert report.clean
    assert {note.text for note in report.notes} == {
        "no link @@PFS00001 leads to it",
        "a link leads to it, but it does not exist",
    }


# --- records -----------------------------------------------------------------------------------------


def _second_version(image: CraftedImage, first: dict[str, int], second: dict[str, int]) -> None:
    old = pick(image, RECTYPE_INODE, 0x2000)
    inode = inode_of(image, 0x2000)
    new = image.inode(0x2000, inode, tid=TID + 32)
    image.change(old, **first)
    image.change(new, **second)


RECORDS: dict[str, tuple[Change, str]] = {
    "visible twice": (lambda i: _second_version(i, {}, {}), "visible together with its earlier version of TID"),
    "overlapping lives": (
        lambda i: _second_version(i, {"delete_tid": TID + 48}, {}),
        "which lives until 0000000100000040",
    ),
    "deleted before created": (
        lambda i: i.change(pick(i, RECTYPE_INODE, 0x2000), delete_tid=TID),
        "not after its creation",
    ),
    "no create TID": (lambda i: i.change(pick(i, RECTYPE_INODE, 0x2000), create_tid=0), "it has no create TID"),
    "TID of the future": (
        lambda i: i.change(pick(i, RECTYPE_INODE, 0x2000), create_tid=NEXT_TID + 16),
        "is below TID 0000000100001010 of a record",
    ),
    "unknown type": (lambda i: i.change(pick(i, RECTYPE_INODE, 0x2000), rec_type=0x77), "unknown record type 0x0077"),
    "localization": (
        lambda i: i.change(pick(i, RECTYPE_INODE, 0x2000), localization=LOCALIZE_MISC),
        "localization 00000002 is wrong for a record of type inode",
    ),
    "length": (
        lambda i: i.change(pick(i, RECTYPE_INODE, 0x2000), data_len=64),
        "inode record of 64 bytes, 128 to 128 are possible",
    ),
    "zone": (
        lambda i: i.change(pick(i, RECTYPE_DATA, 0x2000), data_offset=pick(i, RECTYPE_INODE, 0x2000).data_offset),
        "not in zone 11",
    ),
    "alignment": (
        lambda i: i.change(pick(i, RECTYPE_INODE, 0x2000), data_offset=pick(i, RECTYPE_INODE, 0x2000).data_offset + 8),
        "not aligned to 16 bytes",
    ),
    "boundary": (
        lambda i: i.change(pick(i, RECTYPE_INODE, 0x2000), data_offset=(9 << 60) | (4 << 23) | (BUFSIZE - 64)),
        "crosses a boundary of 16384 bytes",
    ),
    "outside": (
        lambda i: i.change(pick(i, RECTYPE_INODE, 0x2000), data_offset=(9 << 60) | (3 << 52)),
        "reference to volume 3",
    ),
    "CRC": (lambda i: i.change(pick(i, RECTYPE_INODE, 0x2000), data_crc=1), "data CRC mismatch at 9"),
    "beyond the size": (lambda i: i.data(0x2000, 4096, bytes(16)), "lie beyond the size 100"),
    "overlapping data": (lambda i: i.data(0x2001, 8192, bytes(BUFSIZE)), "overlap others"),
    "data of nothing": (lambda i: i.data(0x7777, 0, bytes(16)), "a live record of type 10 has no inode"),
    "data outside": (
        lambda i: i.change(pick(i, RECTYPE_DATA, 0x2001), data_offset=(10 << 60) | (1 << 40)),
        "beyond the",
    ),
}


@pytest.mark.parametrize(("change", "words"), RECORDS.values(), ids=RECORDS.keys())
def test_a_wrong_record_is_found(change: Change, words: str) -> None:
    image = sample()
    change(image)
    assert words in found(check(image))


def test_a_record_that_needs_no_inode_is_let_pass() -> None:
    image = sample()
    image.add(_record(LOCALIZE_INODE, OBJID_ROOT, RECTYPE_CONFIG, 0), b"snapshots 1d 60d\n")
    assert not check(image).problems


def test_versions_that_follow_each_other_are_let_pass() -> None:
    image = sample()
    _second_version(image, {"delete_tid": TID + 32}, {})
    assert not check(image).problems
