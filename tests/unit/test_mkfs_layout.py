"""A fresh file system's bytes: every field of the header, a freemap that adds up, records that verify.

Equality with newfs_hammer is `tests/interop/test_mkfs_golden.py`; here is what must hold for any size and version.
"""

from __future__ import annotations

import itertools
import uuid
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hammerfs.ondisk import crc, fifo, node
from hammerfs.ondisk.address import encode, layer1_offset, to_zone2
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BLOCKMAP_UNAVAIL,
    BUFSIZE,
    CAP_DIR_LOCAL_INO,
    CAP_DIRHASH_ALG1,
    LAYER1_ENTRY_SIZE,
    LAYER1_RADIX,
    LAYER2_ENTRY_SIZE,
    LAYER2_RADIX,
    RECTYPE_INODE,
    RECTYPE_PFS,
    ZONE_BTREE,
    ZONE_FREEMAP,
    ZONE_META,
    ZONE_UNAVAIL,
    ZONE_UNDO,
)
from hammerfs.ondisk.element import unpack_leaf
from hammerfs.ondisk.freemap import Layer1, Layer2, layer1_crc_ok, layer2_crc_ok
from hammerfs.ondisk.inode import InodeData
from hammerfs.ondisk.pfs import PfsData
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.ops.mkfs_layout import CREATE_TID, FIRST_TID, Extent, FormatLayout, FormatParameters

MIB = 1 << 20
TIB = 1 << 40
FSID = uuid.UUID("428e7f4e-f07e-614a-9eb5-e707305a8205")


def parameters(*sizes: int, version: int = 7, undo_bigblocks: int = 3) -> FormatParameters:
    return FormatParameters(
        label=b"TEST",
        volume_sizes=sizes,
        version=version,
        undo_bigblocks=undo_bigblocks,
        boot_area_size=32 << 10,
        memory_log_size=256 << 10,
        fsid=FSID,
        time_us=1_600_000_000_123_456,
    )


def by_place(layout: FormatLayout) -> dict[tuple[int, int], bytes]:
    """All extents by volume and offset; they must not overlap."""
    extents: list[Extent] = sorted([*layout.contents(), *layout.headers()])
    for one, two in itertools.pairwise(extents):
        assert one.volume < two.volume or one.offset + len(one.data) <= two.offset
    for extent in extents:
        assert extent.offset + len(extent.data) <= layout.parameters.volume_sizes[extent.volume]
    return {(extent.volume, extent.offset): extent.data for extent in extents}


def at(layout: FormatLayout, zone2_offset: int) -> tuple[int, int]:
    """Volume and device offset of a zone-2 address."""
    number = zone2_offset >> 52 & 0xFF
    return number, layout.volumes[number].buffer_begin + (zone2_offset & ((1 << 52) - 1))


@pytest.mark.parametrize("version", range(1, 8))
def test_the_header_says_where_everything_is(version: int) -> None:
    layout = FormatLayout(parameters(1024 * MIB, version=version))
    places = by_place(layout)
    header = VolumeHeader(places[0, 0])
    assert len(places[0, 0]) == BUFSIZE
    assert header.label == "TEST"
    assert (header.vol_no, header.vol_count, header.vol_version) == (0, 1, version)
    assert header.vol_fsid == FSID
    assert header.vol0_next_tid == FIRST_TID
    assert header.vol0_stat_inodes == 1
    assert header.vol0_stat_freebigblocks == header.vol0_stat_bigblocks - 2
    assert header.blockmap(ZONE_UNDO).alloc_offset == encode(ZONE_UNDO, 0, 3 * BIGBLOCK_SIZE)
    assert header.undo_bigblock(3) == BLOCKMAP_UNAVAIL
    for zone in (ZONE_UNDO, ZONE_FREEMAP, 10, 11):
        assert header.blockmap(zone).crc_ok(version)


@pytest.mark.parametrize("version", range(1, 8))
def test_the_root_directory_verifies(version: int) -> None:
    layout = FormatLayout(parameters(1024 * MIB, version=version))
    places = by_place(layout)
    header = VolumeHeader(places[0, 0])
    raw = places[at(layout, to_zone2(header.vol0_btree_root))]
    assert node.crc_ok(version, raw)
    assert node.unpack_header(raw).element_count == 2
    inode_element, pfs_element = (unpack_leaf(node.element_at(raw, index)) for index in range(2))
    assert (inode_element.rec_type, pfs_element.rec_type) == (RECTYPE_INODE, RECTYPE_PFS)
    assert inode_element.packed_key() < pfs_element.packed_key()
    meta = places[at(layout, to_zone2(inode_element.data_offset))]
    for element in (inode_element, pfs_element):
        start = element.data_offset - inode_element.data_offset
        data = meta[start : start + element.data_len]
        assert crc.record_matches(version, element.data_crc, element.rec_type, data)
        assert element.create_tid == CREATE_TID
        assert element.create_ts == 1_600_000_000
    inode = InodeData.unpack(meta)
    assert (inode.mode, inode.nlinks, inode.ctime) == (0o755, 1, 1_600_000_000_123_456)
    wanted = (CAP_DIR_LOCAL_INO if version >= 2 else 0) | (CAP_DIRHASH_ALG1 if version >= 6 else 0)
    assert inode.cap_flags == wanted
    pfs = PfsData(meta, pfs_element.data_offset - inode_element.data_offset)
    assert (pfs.shared_uuid, pfs.unique_uuid, pfs.label[:5]) == (FSID, FSID, b"TEST\0")
    assert not pfs.is_slave


def test_the_fifo_is_written_whole_and_numbered_from_zero() -> None:
    layout = FormatLayout(parameters(512 * MIB, undo_bigblocks=2))
    begin = layout.volumes[0].device_offset(layout.undo_bigblock)
    whole = b"".join(
        data for (_, offset), data in sorted(by_place(layout).items()) if begin <= offset < begin + 2 * BIGBLOCK_SIZE
    )
    assert len(whole) == 2 * BIGBLOCK_SIZE
    for sector in (0, 1, 31, 32, 16384, 32767):
        record = fifo.parse(7, whole, sector * 512, (sector + 1) * 512)
        assert record is not None
        assert record.seq == sector


def check_freemap(layout: FormatLayout) -> None:
    """Layer 1 and layer 2 tell of every big-block, verify, and add up to the header's counters."""
    version = layout.parameters.version
    places = by_place(layout)
    header = VolumeHeader(places[0, 0])
    layer1 = places[at(layout, header.blockmap(ZONE_FREEMAP).phys_offset)]
    assert len(layer1) == LAYER1_RADIX * LAYER1_ENTRY_SIZE
    available = [i for i in range(LAYER1_RADIX) if Layer1.unpack(layer1, i * LAYER1_ENTRY_SIZE).available]
    expected = [
        layer1_offset(encode(2, volume.number, index * LAYER2_RADIX * BIGBLOCK_SIZE)) // LAYER1_ENTRY_SIZE
        for volume in layout.volumes
        for index in range(volume.layer2_bigblocks)
    ]
    assert available == expected
    owners: Counter[int] = Counter()
    free_by_layer1 = 0
    for index in available:
        raw = layer1[index * LAYER1_ENTRY_SIZE : (index + 1) * LAYER1_ENTRY_SIZE]
        assert layer1_crc_ok(version, raw)
        entry = Layer1.unpack(raw)
        layer2 = places[at(layout, entry.phys_offset)]
        # Layer 2 has few distinct entries: verify and count those.
        kinds = Counter(layer2[i : i + LAYER2_ENTRY_SIZE] for i in range(0, len(layer2), LAYER2_ENTRY_SIZE))
        assert all(layer2_crc_ok(version, kind) for kind in kinds)
        here: Counter[int] = Counter()
        for kind, amount in kinds.items():
            here[Layer2.unpack(kind).zone] += amount
        assert here.total() == LAYER2_RADIX
        assert entry.blocks_free == here[0]
        free_by_layer1 += entry.blocks_free
        owners += here
    total = sum(volume.bigblocks for volume in layout.volumes)
    assert owners.total() - owners[ZONE_UNAVAIL] == total
    assert owners[ZONE_UNDO] == layout.parameters.undo_bigblocks
    assert owners[ZONE_BTREE] == owners[ZONE_META] == 1
    assert owners[ZONE_FREEMAP] == 1 + len(available)
    assert free_by_layer1 == owners[0] == header.vol0_stat_freebigblocks
    assert header.vol0_stat_bigblocks == owners[0] + 2


@pytest.mark.parametrize(
    "sizes",
    [
        (512 * MIB,),
        (1536 * MIB + 3 * 1024,),
        (4 * TIB,),
        (4 * TIB + 9 * MIB,),
        (600 * MIB, 20 * MIB),
        (600 * MIB, 5 * TIB, 300 * MIB + 1),
    ],
    ids=lambda sizes: "+".join(map(str, sizes)),
)
def test_the_freemap_adds_up(sizes: tuple[int, ...]) -> None:
    check_freemap(FormatLayout(parameters(*sizes)))


@settings(max_examples=8)
@given(
    st.lists(st.integers(96 * MIB, 6 * TIB), min_size=1, max_size=2),  # `plan_format` refuses what holds no FIFO
    st.integers(1, 4),
    st.integers(1, 7),
)
def test_the_freemap_adds_up_for_any_size(sizes: list[int], undo_bigblocks: int, version: int) -> None:
    check_freemap(FormatLayout(parameters(*sizes, version=version, undo_bigblocks=undo_bigblocks)))


def test_meta_data_leaves_the_rest_of_its_bigblocks_alone() -> None:
    """newfs_hammer writes no more, and neither do we: what a device held there before stays."""
    layout = FormatLayout(parameters(512 * MIB))
    places = by_place(layout)
    assert len(places[0, layout.volumes[0].device_offset(layout.btree_bigblock)]) == 4096
    assert len(places[0, layout.volumes[0].device_offset(layout.meta_bigblock)]) == 128 + 292


def test_a_volume_too_small_for_its_areas_has_no_bigblocks() -> None:
    geometry = FormatLayout(parameters(64 * 1024)).volumes[0]
    assert geometry.buffer_end < geometry.buffer_begin
    assert geometry.bigblocks == 0
