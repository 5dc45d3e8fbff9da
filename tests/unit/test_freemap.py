"""The freemap: entries verified when read, changed as objects, written back with their CRCs under UNDO."""

from __future__ import annotations

import pytest
from small_filesystem import fresh, make, mount

from hammerfs.errors import CorruptionError
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import Offset, encode, layer1_offset, short_of
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, LAYER2_ENTRY_SIZE, ZONE_META, ZONE_RAW_BUFFER, ZONE_UNDO
from hammerfs.ondisk.freemap import layer1_crc_ok, layer2_crc_ok
from hammerfs.store.freemap import FreeMap


def bigblock(number: int, volume: int = 0) -> Offset:
    return encode(ZONE_RAW_BUFFER, volume, number * BIGBLOCK_SIZE)


def free_bigblock(fs: FileSystem) -> Offset:
    return next(fs.ctx.freemap.candidates(bigblock(0), 99))


def test_taking_from_a_free_big_block_makes_it_the_zone_s() -> None:
    fs = mount(fresh())
    freemap = fs.ctx.freemap
    place = free_bigblock(fs)
    free_before = freemap.layer1(place).blocks_free
    assert freemap.take(place, ZONE_META, 4096, 4096)
    assert not freemap.take(place, ZONE_META, 4112, 16)
    entry = freemap.layer2(place)
    assert (entry.zone, entry.append_off, entry.bytes_free) == (ZONE_META, 4112, BIGBLOCK_SIZE - 4112)
    assert freemap.layer1(place).blocks_free == free_before - 1
    assert freemap.dirty_entries == 2


def test_giving_everything_back_makes_a_big_block_free() -> None:
    fs = mount(fresh())
    freemap = fs.ctx.freemap
    place = free_bigblock(fs)
    free_before = freemap.layer1(place).blocks_free
    freemap.take(place, ZONE_META, 4096, 4096)
    assert not freemap.give(place, ZONE_META, 2048)
    assert freemap.give(place, ZONE_META, 2048)
    entry = freemap.layer2(place)
    assert (entry.zone, entry.append_off, entry.bytes_free) == (0, 0, BIGBLOCK_SIZE)
    assert freemap.layer1(place).blocks_free == free_before


@pytest.mark.parametrize(("zone", "size"), [(10, 16), (ZONE_META, BIGBLOCK_SIZE), (ZONE_META, 4112)])
def test_giving_back_what_a_zone_does_not_own_is_damage(zone: int, size: int) -> None:
    fs = mount(fresh())
    place = free_bigblock(fs)
    fs.ctx.freemap.take(place, ZONE_META, 4096, 4096)
    with pytest.raises(CorruptionError, match=f"does not own at {place:016x}"):
        fs.ctx.freemap.give(place, zone, size)


def test_taking_from_another_zone_s_big_block_is_damage() -> None:
    fs = mount(fresh())
    place = free_bigblock(fs)
    fs.ctx.freemap.take(place, ZONE_META, 4096, 4096)
    with pytest.raises(CorruptionError, match=f"allocated in zone 10 at {place:016x}"):
        fs.ctx.freemap.take(place, 10, 8192, 4096)


def test_sync_writes_entries_with_right_crcs_and_logs_what_stood_there() -> None:
    fs = mount(fresh())
    freemap, undo = fs.ctx.freemap, fs.ctx.undo
    assert undo is not None
    place = free_bigblock(fs)
    before = undo.next_offset
    freemap.take(place, ZONE_META, 4096, 4096)
    assert undo.next_offset == before, "nothing is logged until the entries are written"
    freemap.sync()
    assert undo.next_offset > before
    assert freemap.dirty_entries == 0
    where = freemap._layer2_address(place)
    assert layer2_crc_ok(7, fs.ctx.buffers.read(where, LAYER2_ENTRY_SIZE))
    assert layer1_crc_ok(7, fs.ctx.buffers.read(freemap._layer1_base + layer1_offset(place), 32))
    reread = FreeMap(fs.ctx.volumes, fs.ctx.buffers).layer2(place)
    assert (reread.zone, reread.append_off) == (ZONE_META, 4096)


@pytest.mark.parametrize("layer", [1, 2])
def test_a_bad_crc_is_told_with_its_place(layer: int) -> None:
    devices = fresh()
    fs = mount(devices)
    place = free_bigblock(fs)
    freemap = fs.ctx.freemap
    address = freemap._layer1_base + layer1_offset(place) if layer == 1 else freemap._layer2_address(place)
    at = fs.ctx.volumes.root.header.vol_buf_beg + short_of(address) + 8
    devices[0].write(at, bytes([devices[0].read(at, 1)[0] ^ 1]))
    with pytest.raises(CorruptionError, match=f"layer-{layer} entry with a bad CRC at {address:016x}"):
        mount(devices).ctx.freemap.layer2(place)


def test_candidates_come_from_the_start_on_once_around_all_volumes() -> None:
    fs = mount(fresh(count=2))
    freemap = fs.ctx.freemap
    everywhere = list(freemap.candidates(bigblock(0), ZONE_META))
    assert len(everywhere) == len(set(everywhere)) > 60
    assert {freemap.layer2(place).zone for place in everywhere} == {0, ZONE_META}
    middle = everywhere[len(everywhere) * 2 // 3]
    assert middle > bigblock(0, volume=1)
    rotated = list(freemap.candidates(middle, ZONE_META))
    assert rotated[0] == middle
    assert sorted(rotated) == everywhere
    split = rotated.index(everywhere[0])
    assert rotated == [*everywhere[everywhere.index(middle) :], *everywhere[: len(everywhere) - split]]


def test_candidates_are_free_or_the_zone_s_own_with_room() -> None:
    fs = mount(fresh())
    freemap = fs.ctx.freemap
    first, second = list(freemap.candidates(bigblock(0), 99))[:2]
    freemap.take(first, ZONE_META, BIGBLOCK_SIZE, BIGBLOCK_SIZE)
    freemap.take(second, 10, 4096, 4096)
    found = list(freemap.candidates(bigblock(0), ZONE_META))
    assert first not in found
    assert second not in found
    assert second in list(freemap.candidates(bigblock(0), 10))


def test_the_fifo_and_the_freemap_itself_are_nobody_s_candidates() -> None:
    fs = mount(fresh())
    header = fs.ctx.volumes.root.header
    found = set(fs.ctx.freemap.candidates(bigblock(0), ZONE_UNDO))
    assert fs.ctx.freemap._layer1_base - fs.ctx.freemap._layer1_base % BIGBLOCK_SIZE not in found
    assert header.undo_bigblock(0) not in set(fs.ctx.freemap.candidates(bigblock(0), ZONE_META))


def test_many_clean_entries_are_forgotten_and_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hammerfs.store.freemap._CLEAN_LIMIT", 2)
    fs = mount(fresh())
    for number in range(5):
        make(fs, fs.root, b"%d" % number, b"x" * 3_000_000)
    assert fs.flusher is not None
    fs.flusher.flush_now()
    assert not fs.ctx.freemap._layer2
    make(fs, fs.root, b"one more", b"x" * 3_000_000)
    fs.close_now()
