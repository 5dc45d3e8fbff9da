"""Live deduplication: what is shared, what is not, and that what is held stays until it is referred to."""

from __future__ import annotations

import os

import pytest
from small_filesystem import FILE, assert_clean, assert_settled, fresh, make, mount, read, walk

from hammerfs.errors import UsageError
from hammerfs.fs.filedata import lay_down_full
from hammerfs.fs.livededup import LiveDedup
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import bigblock_of
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, BUFSIZE, RECTYPE_DATA, ZONE_LARGE_DATA, ZONE_SMALL_DATA
from hammerfs.ondisk.element import unpack_leaf
from hammerfs.ops.record_range import RecordRange

MIB = 1024 * 1024
CONTENT = os.urandom(2 * MIB)


def flush(fs: FileSystem) -> None:
    assert fs.flusher is not None
    fs.flusher.flush_now()


def dedup_of(fs: FileSystem) -> LiveDedup:
    assert fs.ctx.live_dedup is not None
    return fs.ctx.live_dedup


def stored(fs: FileSystem) -> int:
    """Bytes of large data as the freemap counts them, shared ones for each record."""
    return sum(
        BIGBLOCK_SIZE - fs.ctx.freemap.layer2(bigblock).bytes_free
        for bigblock, zone in fs.ctx.freemap.owned()
        if zone == ZONE_LARGE_DATA
    )


def places(fs: FileSystem) -> list[int]:
    """Where the large data of all records lies."""
    reach = RecordRange(0)
    elements = [unpack_leaf(raw) for raw in fs.ctx.tree.scan(reach.low, reach.high)]
    return [element.data_offset for element in elements if element.rec_type == RECTYPE_DATA]


def test_a_copy_takes_no_space() -> None:
    fs = mount(devices := fresh(), dedup=True)
    make(fs, fs.root, b"a", CONTENT)
    flush(fs)
    taken = places(fs)
    for name in (b"b", b"c"):
        make(fs, fs.root, name, CONTENT)
        flush(fs)
    assert set(places(fs)) == set(taken)
    assert dedup_of(fs).found == 2 * len(taken)
    assert stored(fs) == 3 * len(CONTENT)
    assert_settled(fs)
    fs.write(walk(fs, b"b"), 0, b"other")
    fs.close_now()
    assert_clean(devices)
    again = mount(devices)
    assert [read(again, name) for name in (b"a", b"c")] == [CONTENT] * 2
    assert read(again, b"b") == b"other" + CONTENT[5:]


def test_what_was_only_read_since_the_mount_is_known() -> None:
    fs = mount(devices := fresh())
    make(fs, fs.root, b"a", CONTENT)
    fs.close_now()
    fs = mount(devices, dedup=True)
    make(fs, fs.root, b"copy", read(fs, b"a"))
    flush(fs)
    assert len(set(places(fs))) * 2 == len(places(fs))
    fs.close_now()
    assert_clean(devices)


def test_without_the_option_nothing_is_shared_and_before_version_5_it_is_refused() -> None:
    fs = mount(fresh())
    assert fs.ctx.live_dedup is None
    with pytest.raises(UsageError, match="needs version 5"):
        mount(fresh(4), dedup=True)


def test_equal_checksums_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = mount(fresh(), dedup=True)
    monkeypatch.setattr(fs.ctx, "checksum", lambda _data: 7)
    contents = {b"%d" % number: os.urandom(4 * 16384) for number in range(3)}
    for name, content in contents.items():
        make(fs, fs.root, name, content)
        flush(fs)
    assert dedup_of(fs).compared > 0
    assert len(set(places(fs))) == len(places(fs))
    assert {name: read(fs, name) for name in contents} == contents


def test_what_waits_to_be_written_is_not_relied_on() -> None:
    """Its own record may be given up, and then nobody writes it."""
    fs = mount(devices := fresh(), dedup=True)
    first = make(fs, fs.root, b"a", CONTENT)
    lay_down_full(fs.ctx, first)
    second = make(fs, fs.root, b"b", CONTENT)
    lay_down_full(fs.ctx, second)
    assert not dedup_of(fs).found
    fs.setattr(first, size=0)
    fs.close_now()
    assert_clean(devices)
    assert read(mount(devices), b"b") == CONTENT


@pytest.mark.parametrize("nohistory", [True, False])
def test_what_is_held_stays_though_everybody_else_lets_go(nohistory: bool) -> None:
    fs = mount(devices := fresh(), dedup=True, nohistory=nohistory)
    original = os.urandom(8 * MIB)
    make(fs, fs.root, b"a", original)
    flush(fs)
    copy = fs.create(fs.root, b"b", FILE, 0o644, 0, 0)
    fs.write(copy, 0, original)
    lay_down_full(fs.ctx, copy)
    held = {record.data_offset for record in copy.records.values()}
    assert dedup_of(fs).found == len(held) > 0
    records, copy.records = copy.records, {}
    del fs.ctx.dirty.setup[copy]
    fs.unlink(fs.root, b"a")
    for number in range(40):
        make(fs, fs.root, b"other%d" % number, os.urandom(MIB))
        flush(fs)
    copy.records = records
    fs.ctx.dirty.mark(copy, 4 | 32)
    flush(fs)
    assert held <= set(places(fs))
    assert_settled(fs)
    fs.close_now()
    assert_clean(devices)
    assert read(mount(devices), b"b") == original


def test_what_is_given_up_is_let_go() -> None:
    fs = mount(devices := fresh(), dedup=True)
    make(fs, fs.root, b"a", CONTENT)
    flush(fs)
    free = fs.ctx.space.available
    copy = make(fs, fs.root, b"b", CONTENT)
    lay_down_full(fs.ctx, copy)
    assert copy.records
    fs.setattr(copy, size=0)
    flush(fs)
    assert_settled(fs)
    assert fs.ctx.space.available == free
    fs.close_now()
    assert_clean(devices)


def test_memory_is_bounded_and_reused_bigblocks_are_forgotten() -> None:
    fs = mount(fresh(), dedup=True)
    dedup = LiveDedup(fs.ctx.blockmap, fs.ctx.blocks, limit=4)
    place = fs.ctx.blockmap.alloc(ZONE_LARGE_DATA, 16384)
    for number in range(10):
        dedup.remember(number, 16384, place + number * 16384)
    assert len(dedup) == 4
    dedup.remember(9, 100, place)
    assert len(dedup) == 4
    dedup.forget(bigblock_of(place))
    assert len(dedup) == 0
    assert dedup.hold_equal(9, bytes(16384)) is None
    fs.close_now()


def test_a_place_that_was_written_anew_is_not_taken_for_what_it_was() -> None:
    fs = mount(devices := fresh(), dedup=True, nohistory=True)
    content = os.urandom(9 * MIB)
    make(fs, fs.root, b"a", content)
    flush(fs)
    fs.unlink(fs.root, b"a")
    contents = {}
    for number in range(70):
        name = b"other%d" % number
        contents[name] = os.urandom(5 * MIB)
        make(fs, fs.root, name, contents[name])
        flush(fs)
        if number % 9:
            fs.unlink(fs.root, name)
            del contents[name]
    make(fs, fs.root, b"again", content)
    fs.close_now()
    assert_clean(devices)
    again = mount(devices)
    assert read(again, b"again") == content
    assert {name: read(again, name) for name in contents} == contents


def test_what_lay_in_a_bigblock_that_may_be_written_anew_is_forgotten() -> None:
    """A part of it may be reserved and not written yet: what is read there is not what will be there."""
    fs = mount(devices := fresh(), dedup=True, nohistory=True)
    make(fs, fs.root, b"a", os.urandom(20 * MIB))
    flush(fs)
    known = len(dedup_of(fs))
    fs.unlink(fs.root, b"a")
    flush(fs)
    for number in range(4):
        make(fs, fs.root, b"%d" % number, b"small")
        flush(fs)
    assert len(dedup_of(fs)) < known // 2
    fs.close_now()
    assert_clean(devices)


@pytest.mark.parametrize("odd", [8, BUFSIZE - 16, ((ZONE_SMALL_DATA ^ ZONE_LARGE_DATA) << 60)])
def test_a_block_where_none_can_lie_is_not_shared(odd: int) -> None:
    """A damaged record may say so; another one of that kind would not be counted right."""
    fs = mount(fresh(), dedup=True)
    make(fs, fs.root, b"a", CONTENT)
    flush(fs)
    known = len(dedup_of(fs))
    dedup_of(fs).remember(1234, BUFSIZE, places(fs)[0] ^ odd)
    assert len(dedup_of(fs)) == known
