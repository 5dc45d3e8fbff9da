"""A volume header that is wrong where no checksum tells: nothing that was accepted later may be lost by it."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from small_filesystem import FSID, assert_clean, fresh, make, mount

from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import CorruptionError, NoSpaceError
from hammerfs.ondisk.address import encode
from hammerfs.ondisk.constants import BUFSIZE, RECORD_ZONES, ZONE_BTREE, ZONE_FREEMAP, ZONE_SMALL_DATA
from hammerfs.ondisk.volume import VolumeHeader


def used() -> MemoryDevice:
    """A volume with a file on it."""
    [device] = fresh()
    fs = mount([device])
    make(fs, fs.root, b"file", b"content")
    fs.close_now()
    return device


def patched(device: MemoryDevice, change: dict[str, int]) -> MemoryDevice:
    """The volume with other values in its header's fields, and a checksum that fits them."""
    header = VolumeHeader(bytearray(device.read(0, BUFSIZE)))
    assert header.vol_fsid == FSID
    for field, value in change.items():
        setattr(header, field, value)
    header.update_crc()
    device.write(0, header.raw)
    return device


def header_of(device: MemoryDevice) -> VolumeHeader:
    return VolumeHeader(bytearray(device.read(0, BUFSIZE)))


def write_and_check(device: MemoryDevice) -> None:
    """Contents of all kinds land, and nothing is wrong afterwards."""
    fs = mount([device])
    source = random.Random(1)
    contents = {
        name: source.randbytes(size) for name, size in ((b"small", 100), (b"large", 3 * BUFSIZE), (b"file", 5000))
    }
    for name, data in contents.items():
        inode = fs.lookup(fs.root, name) if name == b"file" else make(fs, fs.root, name, b"")
        fs.write(inode, 0, data)
    for number in range(80):  # more than a leaf has room for
        make(fs, fs.root, b"%d" % number, b"")
    fs.close_now()
    assert_clean([device])
    fs = mount([device], read_only=True)
    for name, data in contents.items():
        assert fs.read(fs.lookup(fs.root, name), 0, len(data)) == data
    fs.close_now()


@pytest.mark.parametrize("tid", [0, 1, 0x100000000])
def test_a_next_tid_that_was_given_out_before_is_refused(tid: int) -> None:
    device = patched(used(), {"vol0_next_tid": tid})
    before = device.read(0, 64 << 20)
    with pytest.raises(CorruptionError, match=r"next TID 0+1?0* is below TID [0-9a-f]{16} .* at 0{14}f8 of volume0"):
        mount([device])
    assert device.read(0, 64 << 20) == before
    fs = mount([device], read_only=True)
    assert fs.read(fs.lookup(fs.root, b"file"), 0, 10) == b"content"
    fs.close_now()


@pytest.mark.parametrize("wrong", [0, -1, 1, 12])
@pytest.mark.expect_log("counts -?\\d+ free big-blocks, the freemap \\d+")
def test_free_space_is_what_the_freemap_has(wrong: int) -> None:
    device = used()
    right = header_of(device).vol0_stat_freebigblocks
    patched(device, {"vol0_stat_freebigblocks": wrong and right + wrong})
    fs = mount([device])
    assert fs.ctx.root.free_bigblocks == right
    fs.close_now()
    write_and_check(device)


@pytest.mark.parametrize("wrong", [0, 12])
@pytest.mark.expect_log("counts -?\\d+ free big-blocks, the freemap \\d+")
def test_a_wrong_count_cannot_make_the_disk_overflow(wrong: int) -> None:
    device = used()
    right = header_of(device).vol0_stat_freebigblocks
    patched(device, {"vol0_stat_freebigblocks": right + wrong if wrong else 0})
    fs = mount([device])
    file = make(fs, fs.root, b"filler", b"")
    accepted = 0
    with suppress(NoSpaceError):
        while True:
            fs.write(file, accepted, bytes(1 << 20))
            accepted += 1 << 20
    fs.close_now()
    assert accepted > 100 << 20
    assert_clean([device])


def test_a_freemap_that_cannot_be_counted_is_refused_before_anything_is_accepted() -> None:
    device = used()
    header = header_of(device)
    place = header.vol_buf_beg + (header.blockmap(ZONE_FREEMAP).phys_offset & (1 << 52) - 1)
    device.write(place, bytes([device.read(place, 1)[0] ^ 1]))
    with pytest.raises(CorruptionError, match="layer-1 entry with a bad CRC at 2"):
        mount([device])


WRONG_PLACES = {
    "another zone": lambda zone: encode(zone ^ 3, 0, 8 << 20),
    "no volume": lambda zone: encode(zone, 7, 8 << 20),
    "beyond the volume": lambda zone: encode(zone, 0, 1 << 44),
    "not aligned": lambda zone: encode(zone, 0, (39 << 23) + 8),
    "nowhere": lambda zone: 0,
}


@pytest.mark.parametrize("zone", RECORD_ZONES)
@pytest.mark.parametrize("what", WRONG_PLACES)
@pytest.mark.expect_log("zone \\d+ cannot go on at [0-9a-f]{16}")
def test_a_zone_that_cannot_go_on_where_the_header_says_goes_on_elsewhere(what: str, zone: int) -> None:
    device = used()
    header = header_of(device)
    header.blockmap(zone).next_offset = WRONG_PLACES[what](zone)
    header.update_crc()
    device.write(0, header.raw)
    write_and_check(device)


@pytest.mark.parametrize("zone", [ZONE_BTREE, ZONE_SMALL_DATA])
def test_a_zone_may_have_come_to_the_end_of_all_volumes(zone: int) -> None:
    device = used()
    header = header_of(device)
    header.blockmap(zone).next_offset = encode(zone + 1, 0, 0)
    header.update_crc()
    device.write(0, header.raw)
    write_and_check(device)
