"""The checker on crafted images: B-tree nodes, freemap, accounting, UNDO FIFO and volume header."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crafted_image import NEXT_TID, CraftedImage, sample

from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import NotHammerError
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BTREE_LEAF,
    BUFSIZE,
    ELEMENT_SIZE,
    INODE_CRC_SIZE,
    NODE_HEADER_SIZE,
    RECTYPE_DATA,
    RECTYPE_INODE,
    UNDO_ALIGN,
    ZONE_BTREE,
    ZONE_LARGE_DATA,
    ZONE_META,
    ZONE_UNDO,
)
from hammerfs.ondisk.element import unpack_internal, unpack_leaf
from hammerfs.ondisk.fifo import dummy_record, undo_record
from hammerfs.ondisk.freemap import Layer1, Layer2
from hammerfs.ops.check import Report, check_devices, check_volumes
from hammerfs.store.volumes import VolumeSet

BUFFERS = 1 << 20
LAYER1 = BUFFERS
LAYER2 = BUFFERS + BIGBLOCK_SIZE
FIFO = BUFFERS + 2 * BIGBLOCK_SIZE


def found(report: Report) -> str:
    return "\n".join(map(str, report.problems))


def check(image: CraftedImage) -> str:
    return found(check_devices([image.device]))


@pytest.fixture
def image() -> CraftedImage:
    crafted = sample()
    crafted.finish()
    return crafted


# --- single flipped bits -----------------------------------------------------------------------------


def _data_place(image: CraftedImage, rec_type: int, at: int = 0) -> int:
    records = [record for record in image.records if record.rec_type == rec_type]
    return image.device_offset(records[at].data_offset)


FLIPS: dict[str, tuple[Callable[[CraftedImage], int], str]] = {
    "root node header": (lambda i: i.device_offset(i.root) + 9, "B-tree node at 8"),
    "root node CRC": (lambda i: i.device_offset(i.root), "CRC mismatch"),
    "leaf header": (lambda i: i.device_offset(i.leaves[1]) + 16, "B-tree node at 8"),
    "leaf element": (lambda i: i.device_offset(i.leaves[1]) + 64 + 64 * 5 + 17, "CRC mismatch"),
    "unused element": (lambda i: i.device_offset(i.leaves[-1]) + 4095, "CRC mismatch"),
    "inode data": (lambda i: _data_place(i, 1), "data CRC mismatch"),
    "inode data, last byte": (lambda i: _data_place(i, 1) + INODE_CRC_SIZE - 1, "data CRC mismatch"),
    "directory entry": (lambda i: _data_place(i, 0x11) + 17, "data CRC mismatch"),
    "small file data": (lambda i: _data_place(i, RECTYPE_DATA) + 50, "file data at b"),
    "large file data": (lambda i: _data_place(i, RECTYPE_DATA, 2) + BUFSIZE - 1, "file data at a"),
    "PFS record": (lambda i: _data_place(i, 0x15) + 291, "data CRC mismatch"),
    "layer 1": (lambda i: LAYER1, "freemap layer 1 at 2000000000000000: CRC mismatch"),
    "layer 1 beyond": (lambda i: LAYER1 + 32 * 5000, "freemap layer 1"),
    "layer 1 CRC": (lambda i: LAYER1 + 28, "freemap layer 1"),
    "layer 2": (lambda i: LAYER2 + 16 * 4 + 8, "freemap layer 2 at 2000000000800040: CRC mismatch"),
    "layer 2 free": (lambda i: LAYER2 + 16 * 20, "freemap layer 2"),
    "layer 2 beyond": (lambda i: LAYER2 + BIGBLOCK_SIZE - 1, "freemap layer 2"),
    "FIFO head": (lambda i: FIFO + 3 * UNDO_ALIGN + 8, "UNDO FIFO at 3000000000000600: a record with a damaged frame"),
    "FIFO body": (lambda i: FIFO + 300, "UNDO FIFO at 3000000000000000"),
    "FIFO tail": (lambda i: FIFO + BIGBLOCK_SIZE - 1, "UNDO FIFO at 30000000007ffe00"),
}


@pytest.mark.parametrize(("place", "words"), FLIPS.values(), ids=FLIPS.keys())
def test_a_flipped_bit_is_found(image: CraftedImage, place: Callable[[CraftedImage], int], words: str) -> None:
    offset = place(image)
    for bit in (0, 7):
        byte = image.device.read(offset, 1)[0]
        image.device.write(offset, bytes([byte ^ (1 << bit)]))
        assert words in check(image)
        image.device.write(offset, bytes([byte]))
    assert not check(image)


@pytest.mark.parametrize("offset", [40, 100, 156, 190, 600, 1900])
def test_a_flipped_bit_in_the_header_is_noted(image: CraftedImage, offset: int) -> None:
    byte = image.device.read(offset, 1)[0]
    image.device.write(offset, bytes([byte ^ 4]))
    report = check_devices([image.device])
    assert any("stale" in note.text for note in report.notes)


@pytest.mark.parametrize("offset", [0, 64])
def test_a_header_that_is_no_header_cannot_be_checked(image: CraftedImage, offset: int) -> None:
    image.device.write(offset, b"\xff\xff")
    with pytest.raises(NotHammerError):
        check_devices([image.device])


# --- the B-tree's rules, with matching CRCs ----------------------------------------------------------


def _patch_node(image: CraftedImage, offset: int, at: int, data: bytes) -> None:
    raw = bytearray(image.node(offset))
    raw[at : at + len(data)] = data
    image.write_node(offset, bytes(raw))


def _element(index: int) -> int:
    return NODE_HEADER_SIZE + index * ELEMENT_SIZE


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _swap(image: CraftedImage) -> None:
    raw = image.node(image.leaves[1])
    one, two = raw[_element(3) : _element(4)], raw[_element(4) : _element(5)]
    _patch_node(image, image.leaves[1], _element(3), two + one)


def _child_of(image: CraftedImage, index: int, **fields: int) -> None:
    element = unpack_internal(image.node(image.root), _element(index))._replace(**fields)
    _patch_node(image, image.root, _element(index), element.pack())


def _leaf_element(image: CraftedImage, index: int, **fields: int) -> None:
    element = unpack_leaf(image.node(image.leaves[1]), _element(index))._replace(**fields)
    _patch_node(image, image.leaves[1], _element(index), element.pack())


NODES: dict[str, tuple[Callable[[CraftedImage], object], str]] = {
    "parent": (lambda i: _patch_node(i, i.leaves[1], 8, _u64(5)), "parent is 0000000000000005"),
    "type": (lambda i: _patch_node(i, i.leaves[1], 20, b"X"), "type 0x58 is neither internal nor leaf"),
    "other type": (lambda i: _child_of(i, 1, btype=ord("I")), "its parent's element says 0x49"),
    "count": (lambda i: _patch_node(i, i.leaves[1], 16, b"\x40"), "64 elements, at most 63 are possible"),
    "empty": (lambda i: _patch_node(i, i.leaves[1], 16, b"\x00"), "it is empty and not its parent's only child"),
    "mirror TID never given out": (
        lambda i: _patch_node(i, i.leaves[1], 56, _u64(NEXT_TID + 16)),
        "is above its parent element's",
    ),
    "element's mirror TID": (lambda i: _child_of(i, 1, mirror_tid=NEXT_TID + 16), "is above its node's"),
    "no mirror TID": (lambda i: _patch_node(i, i.leaves[1], 56, _u64(0)), "has no mirror TID"),
    "TID above the mirror TID": (lambda i: _patch_node(i, i.leaves[1], 56, _u64(1)), "above its node's mirror TID"),
    "order": (_swap, "key is not above the one before it"),
    "bounds": (lambda i: _leaf_element(i, 0, localization=0), "key is outside of its node's bounds"),
    "no record": (lambda i: _leaf_element(i, 2, btype=BTREE_LEAF), "type 0x4c in a leaf is no record"),
    "boundary": (lambda i: _child_of(i, len(i.leaves), subtree_offset=i.root), "the right boundary refers to a child"),
    "low boundary": (lambda i: _child_of(i, len(i.leaves), localization=0), "the right boundary is outside"),
    "shared": (lambda i: _child_of(i, 1, subtree_offset=i.leaves[0]), "two parents share it"),
    "loop": (lambda i: _child_of(i, 1, subtree_offset=i.root), "two parents share it"),
    "no node": (lambda i: _child_of(i, 1, subtree_offset=ZONE_META << 60), "no place for a node"),
    "misplaced": (lambda i: _child_of(i, 1, subtree_offset=i.leaves[1] + 16), "no place for a node"),
    "outside": (lambda i: _child_of(i, 1, subtree_offset=(ZONE_BTREE << 60) | (1 << 45)), "beyond the"),
}


@pytest.mark.parametrize(("change", "words"), NODES.values(), ids=NODES.keys())
def test_a_wrong_node_is_found(image: CraftedImage, change: Callable[[CraftedImage], object], words: str) -> None:
    change(image)
    assert words in check(image)


MIRROR_TIDS: list[Callable[[CraftedImage], object]] = [
    lambda i: _child_of(i, 1, mirror_tid=NEXT_TID - 16),
    lambda i: _patch_node(i, i.root, 56, _u64(NEXT_TID - 16)),
]


@pytest.mark.parametrize("change", MIRROR_TIDS)
def test_what_a_nomirror_mount_leaves_is_a_note(image: CraftedImage, change: Callable[[CraftedImage], object]) -> None:
    change(image)
    report = check_devices([image.device])
    assert report.clean
    assert any("as after a nomirror mount" in note.text for note in report.notes)
    strict = check_devices([image.device], mirrored=True)
    assert any("is above its" in problem.text for problem in strict.problems)


def test_what_needs_the_whole_tree_is_left_out_when_part_of_it_is_lost(image: CraftedImage) -> None:
    image.device.write(image.device_offset(image.leaves[1]), b"lost")
    report = check_devices([image.device])
    assert [problem.kind for problem in report.problems] == ["B-tree node"]
    assert any("were not compared" in note.text for note in report.notes)


# --- freemap and accounting --------------------------------------------------------------------------


def _set_layer2(image: CraftedImage, number: int, **fields: int) -> None:
    offset = LAYER2 + 16 * number
    entry = Layer2.unpack(image.device.read(offset, 16))
    for name, value in fields.items():
        setattr(entry, name, value)
    image.device.write(offset, entry.pack(image.version))


def _set_layer1(image: CraftedImage, index: int, blocks_free: int, phys_offset: int) -> None:
    image.device.write(LAYER1 + 32 * index, Layer1(blocks_free, phys_offset).pack(image.version))


def _owned(image: CraftedImage, zone: int) -> int:
    return next(number for number, entry in image.layer2.items() if entry.zone == zone)


def _set_header(image: CraftedImage, field: str, value: int) -> None:
    header = image.header()
    setattr(header, field, value)
    image.write_header(header)


FREEMAP: dict[str, tuple[Callable[[CraftedImage], object], str]] = {
    "too much free": (lambda i: _set_layer2(i, _owned(i, 9), bytes_free=BIGBLOCK_SIZE - 16), "bytes free, use leaves"),
    "short append": (lambda i: _set_layer2(i, _owned(i, 8), append_off=4096), "append_off 4096 lies before the end"),
    "other zone": (lambda i: _set_layer2(i, _owned(i, 9), zone=11), "in a big-block that is owned by zone 11"),
    "free in use": (
        lambda i: _set_layer2(i, _owned(i, 9), zone=0, append_off=0, bytes_free=BIGBLOCK_SIZE),
        "in a big-block that is free",
    ),
    "leak": (
        lambda i: _set_layer2(i, 20, zone=10, append_off=BUFSIZE, bytes_free=BIGBLOCK_SIZE - BUFSIZE),
        "but nothing uses the big-block",
    ),
    "impossible counts": (lambda i: _set_layer2(i, _owned(i, 9), bytes_free=BIGBLOCK_SIZE + 16), "impossible append"),
    "free with bytes used": (lambda i: _set_layer2(i, 20, bytes_free=0), "a free big-block has append_off 0"),
    "unavailable": (lambda i: _set_layer2(i, 20, zone=15), "within the volume are marked unavailable"),
    "beyond": (lambda i: _set_layer2(i, 24, zone=0), "beyond the volume's end have zone 0"),
    "zone 5": (lambda i: _set_layer2(i, 20, zone=5), "zone 5 cannot own a big-block"),
    "undo zone": (lambda i: _set_layer2(i, 2, zone=10), "the UNDO FIFO lies in this big-block"),
    "stray freemap": (lambda i: _set_layer2(i, 20, zone=4), "but the freemap does not use it"),
    "layer 1 count": (lambda i: _set_layer1(i, 0, 5, (2 << 60) | BIGBLOCK_SIZE), "says 5 free big-blocks, layer 2 has"),
    "layer 1 address": (lambda i: _set_layer1(i, 0, 17, 12345), "the impossible address"),
    "layer 1 elsewhere": (
        lambda i: _set_layer1(i, 9, 0, (2 << 60) | BIGBLOCK_SIZE),
        "describes space of volume 0 that is not there",
    ),
    "layer 1 without volume": (lambda i: _set_layer1(i, 9, 3, (1 << 64) - 1), "3 free big-blocks where there is no"),
    "header free": (lambda i: _set_header(i, "vol0_stat_freebigblocks", 1), "says 1 free big-blocks, the freemap has"),
    "header total": (lambda i: _set_header(i, "vol0_stat_bigblocks", 24), "says 24 big-blocks for data"),
    "header inodes": (lambda i: _set_header(i, "vol0_stat_inodes", 3), "says 3 inodes, there are 66"),
    "header areas": (lambda i: _set_header(i, "vol_mem_beg", 1 << 30), "areas overlap"),
    "header alignment": (lambda i: _set_header(i, "vol_buf_end", i.device.size - 8), "is not a multiple of 16384"),
    "header root": (lambda i: _set_header(i, "vol0_btree_root", 9 << 60), "is not in zone 8"),
}


@pytest.mark.parametrize(("change", "words"), FREEMAP.values(), ids=FREEMAP.keys())
def test_a_wrong_account_is_found(image: CraftedImage, change: Callable[[CraftedImage], object], words: str) -> None:
    change(image)
    assert words in check(image)


def _share_data(image: CraftedImage) -> None:
    """A second file with the first one's data, as dedup leaves it."""
    original = next(r for r in image.records if r.rec_type == RECTYPE_DATA and r.data_len == BUFSIZE)
    image.file(0x7000, size=BUFSIZE)
    image.entry(0x1000, b"shares", 0x7000, 2)
    image.records.append(original._replace(obj_id=0x7000, key=BUFSIZE))
    image.layer2[_owned(image, ZONE_LARGE_DATA)].bytes_free -= BUFSIZE


def test_shared_data_counts_as_often_as_it_is_referred_to() -> None:
    image = sample()
    _share_data(image)
    image.finish()
    assert not check(image)


def test_dedup_may_overdraw_a_bigblock() -> None:
    image = sample(5)
    whole = BIGBLOCK_SIZE // BUFSIZE + 1
    image.file(0x7000, size=whole * BUFSIZE)
    image.entry(0x1000, b"overdrawn", 0x7000, 2)
    original = next(r for r in image.records if r.rec_type == RECTYPE_DATA and r.data_len == BUFSIZE)
    for index in range(1, whole + 1):
        image.records.append(original._replace(obj_id=0x7000, key=index * BUFSIZE))
    image.layer2[_owned(image, ZONE_LARGE_DATA)].bytes_free -= whole * BUFSIZE
    image.finish()
    assert not check(image)


# --- the FIFO ----------------------------------------------------------------------------------------


def _write_fifo(image: CraftedImage, at: int, records: list[bytes]) -> None:
    image.device.write(FIFO + at, b"".join(record.ljust(UNDO_ALIGN, b"\0") for record in records))


def _undo_sector(image: CraftedImage, seq: int, offset: int, data: bytes) -> bytes:
    """An UNDO record that fills a sector with the beginning of `data`."""
    room = UNDO_ALIGN - len(undo_record(image.version, seq, offset, b""))
    assert len(data) >= room
    return undo_record(image.version, seq, offset, data[:room])


def _pend(image: CraftedImage, target: int, old: bytes) -> None:
    """Make one sector of the FIFO active: first_offset behind sector 0, and UNDO numbered 1 in sector 1."""
    _write_fifo(image, UNDO_ALIGN, [_undo_sector(image, 1, target, old), dummy_record(image.version, 0x40000002)])
    header = image.header()
    entry = header.blockmap(ZONE_UNDO)
    entry.first_offset = entry.next_offset = (ZONE_UNDO << 60) | UNDO_ALIGN
    entry.update_crc(image.version)
    image.write_header(header)


def test_pending_recovery_is_told_and_looked_behind(image: CraftedImage) -> None:
    leaf = image.leaves[1]
    start = image.node(leaf)
    _pend(image, (2 << 60) | (leaf & ((1 << 60) - 1)), start)
    image.device.write(image.device_offset(leaf), b"half of a flush")
    before = image.device.copy()
    report = check_devices([image.device])
    assert report.clean, found(report)
    assert report.recovery_pending
    assert report.counts["FIFO bytes active"] == UNDO_ALIGN
    assert image.device.same_bytes(before)


def test_open_volumes_are_checked_as_they_are(image: CraftedImage) -> None:
    leaf = image.leaves[1]
    _pend(image, (2 << 60) | (leaf & ((1 << 60) - 1)), image.node(leaf))
    image.device.write(image.device_offset(leaf), b"half of a flush")
    report = check_volumes(VolumeSet.open([image.device]))
    assert report.recovery_pending
    assert "CRC mismatch" in found(report)


def test_an_undo_record_for_nowhere_is_found(image: CraftedImage) -> None:
    _pend(image, 9 << 60, bytes(UNDO_ALIGN))
    assert "which is neither zone 1 nor zone 2" in check(image)


def test_a_gap_within_a_sector_is_found(image: CraftedImage) -> None:
    half = UNDO_ALIGN // 2
    _write_fifo(image, 4096, [dummy_record(7, 8, half) + dummy_record(7, 10, half)])
    assert "sequence number 0000000a after 00000008 in one sector" in check(image)


def test_before_version_4_only_the_active_range_counts() -> None:
    image = sample(3)
    image.finish()
    image.device.write(FIFO + 4096, b"junk from long ago")
    assert not check(image)
    header = image.header()
    header.blockmap(ZONE_UNDO).next_offset = (ZONE_UNDO << 60) | 8192
    image.write_header(header)
    assert "cannot be followed to its end" in check(image)


# --- what cannot be read -----------------------------------------------------------------------------


class _BadSpot(MemoryDevice):
    """A device that cannot be read at one place."""

    spot = 0

    def read(self, offset: int, size: int) -> bytes:
        if offset <= self.spot < offset + size:
            raise self._latch.fail("read", offset, size, "medium error")
        return super().read(offset, size)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (lambda i: LAYER1 + 100, "freemap layer 1"),
        (lambda i: LAYER2 + 100, "freemap layer 2"),
        (lambda i: FIFO + 100, "UNDO FIFO"),
        (lambda i: i.device_offset(i.root), "B-tree node"),
        (lambda i: _data_place(i, RECTYPE_INODE), "record"),
        (lambda i: _data_place(i, RECTYPE_DATA, 1) + 5, "file data"),
    ],
)
def test_a_place_that_cannot_be_read_is_found(
    image: CraftedImage, place: Callable[[CraftedImage], int], kind: str
) -> None:
    device = _BadSpot(image.device.size, image.device.read(0, image.device.size))
    device.spot = place(image)
    report = check_devices([device])
    assert any(problem.kind == kind and "medium error" in problem.text for problem in report.problems)


def test_findings_are_bounded(image: CraftedImage) -> None:
    image.device.write(FIFO, bytes(BIGBLOCK_SIZE))
    report = check_devices([image.device])
    assert report.problem_total >= BIGBLOCK_SIZE // UNDO_ALIGN
    assert len(report.problems) < 2000
