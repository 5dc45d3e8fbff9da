"""The UNDO/REDO FIFO's writing end: layout by the rules, nothing missing, nothing needed overwritten."""

from __future__ import annotations

import random

import pytest
from fifo_volumes import (
    CAPACITY,
    FIFO_START,
    META_START,
    close_cycle,
    make_device,
    open_fifo,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import RecordingDevice, Write
from hammerfs.errors import UndoExhaustedError
from hammerfs.ondisk.address import encode
from hammerfs.ondisk.constants import (
    BUFSIZE,
    HEAD_TYPE_DUMMY,
    HEAD_TYPE_PAD,
    HEAD_TYPE_REDO,
    HEAD_TYPE_UNDO,
    REDO_TERM_WRITE,
    REDO_WRITE,
    UNDO_ALIGN,
    VOL_JUNK_SIZE,
    ZONE_RAW_VOLUME,
    ZONE_UNDO,
)
from hammerfs.ondisk.fifo import REDO_PAYLOAD_MAX, RedoBody, redo_body, redo_record, undo_body
from hammerfs.store.fiforeader import FifoReader, Place
from hammerfs.store.recovery import find_range, recover_stage1
from hammerfs.store.undo import UndoFifo
from hammerfs.store.volumes import VolumeSet

FIRST_SEQ = CAPACITY // UNDO_ALIGN


def places(volumes: VolumeSet, start: int, end: int) -> list[Place]:
    """All records from `start` to `end`, checked to tile the range."""
    reader = FifoReader(volumes)
    length = reader.distance(start, end)
    found = list(reader.scan(start, length))
    assert sum(place.size for place in found) == length
    return found


def restored(volumes: VolumeSet, start: int, end: int) -> list[tuple[int, bytes]]:
    bodies = [undo_body(p.record()) for p in places(volumes, start, end) if p.kind == HEAD_TYPE_UNDO]
    return [(body.offset, body.data) for body in bodies if body is not None]


def joined(pieces: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Neighbouring pieces of one logged range put together again."""
    result: list[tuple[int, bytes]] = []
    for offset, data in pieces:
        if result and result[-1][0] + len(result[-1][1]) == offset:
            result[-1] = (result[-1][0], result[-1][1] + data)
        else:
            result.append((offset, data))
    return result


ranges = st.lists(st.tuples(st.integers(0, 63), st.integers(0, BUFSIZE - 1), st.integers(1, 5000)), max_size=40)


@settings(max_examples=60)
@given(ranges, st.sampled_from([1, 3, 4, 6, 7]), st.randoms(use_true_random=False))
def test_what_was_logged_is_found_in_order(
    wanted: list[tuple[int, int, int]], version: int, source: random.Random
) -> None:
    volumes, fifo = open_fifo(make_device(version))
    start, seq = fifo.next_offset, fifo.seq
    logged: list[tuple[int, bytes]] = []
    for buffer, at, size in wanted:
        data = source.randbytes(min(size, BUFSIZE - at))
        if fifo.log(META_START + buffer * BUFSIZE + at, data):
            logged.append((META_START + buffer * BUFSIZE + at, data))
        if source.random() < 0.3:
            fifo.flush()
    fifo.flush()
    found = places(volumes, start, fifo.next_offset)
    assert b"".join(data for _, data in restored(volumes, start, fifo.next_offset)) == b"".join(d for _, d in logged)
    assert joined(restored(volumes, start, fifo.next_offset)) == joined(logged)
    numbered = [place for place in found if place.kind != HEAD_TYPE_PAD]
    assert [place.seq for place in numbered] == list(range(seq, fifo.seq))
    for place in found:
        assert place.offset // UNDO_ALIGN == (place.offset + place.size - 1) // UNDO_ALIGN, "a record crosses a sector"
        if place.kind == HEAD_TYPE_PAD:
            assert place.offset % UNDO_ALIGN, "a sector begins with a PAD"


def test_the_rest_of_a_sector_is_a_pad_and_the_rest_of_a_buffer_dummies() -> None:
    volumes, fifo = open_fifo(make_device())
    assert fifo.seq == FIRST_SEQ
    fifo.log(META_START, b"x" * 10)
    fifo.flush()
    whole = places(volumes, FIFO_START, FIFO_START + BUFSIZE)
    assert [(place.kind, place.size) for place in whole[:2]] == [(HEAD_TYPE_UNDO, 56), (HEAD_TYPE_PAD, 512 - 56)]
    assert [place.kind for place in whole[2:]] == [HEAD_TYPE_DUMMY] * 31
    flipped = FIRST_SEQ ^ 0x40000000
    assert [place.seq for place in whole[2:]] == [flipped + i for i in range(1, 32)]


@pytest.mark.parametrize(("size", "pad"), [(472, 0), (464, 8), (456, 16), (448, 24), (432, 40)])
def test_what_is_too_small_for_a_record_becomes_a_pad(size: int, pad: int) -> None:
    volumes, fifo = open_fifo(make_device())
    fifo.log(META_START, b"x" * size)
    fifo.log(META_START + BUFSIZE, b"y" * 8)
    fifo.flush()
    found = places(volumes, FIFO_START, fifo.next_offset)
    expected = [(HEAD_TYPE_UNDO, 512 - pad), *([(HEAD_TYPE_PAD, pad)] if pad else []), (HEAD_TYPE_UNDO, 48)]
    assert [(place.kind, place.size) for place in found] == expected


def test_a_range_is_logged_once_in_a_cycle() -> None:
    _, fifo = open_fifo(make_device())
    assert fifo.log(META_START + 64, b"a" * 128)
    used = fifo.used
    assert not fifo.log(META_START + 64, b"b" * 128)
    assert not fifo.log(META_START + 100, b"b" * 20)
    assert fifo.used == used
    fifo.clear_history()
    assert fifo.log(META_START + 64, b"b" * 128)


def test_ranges_that_are_covered_in_part_are_logged() -> None:
    _, fifo = open_fifo(make_device())
    assert fifo.log(META_START + 64, b"a" * 64)
    assert fifo.log(META_START + 56, b"a" * 16)
    assert fifo.log(META_START + 120, b"a" * 16)
    assert not fifo.log(META_START + 56, b"a" * 80), "three records together cover it"
    assert fifo.log(META_START + 200, b"a" * 3), "a part of an 8-byte unit is not remembered as covered"
    assert fifo.log(META_START + 200, b"a" * 8)
    assert fifo.log(encode(ZONE_RAW_VOLUME, 0, 64), b"a" * 64), "zone 1 is not zone 2"


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 100)), min_size=1, max_size=25))
def test_running_the_records_backwards_gives_the_first_state(changes: list[tuple[int, int]]) -> None:
    """Whatever overlaps: what was skipped was covered, and the oldest record of a byte runs last."""
    volumes, fifo = open_fifo(make_device())
    source = random.Random(len(changes))
    original = source.randbytes(400)
    state = bytearray(original)
    for at, size in changes:
        fifo.log(META_START + at, bytes(state[at : at + size]))
        state[at : at + size] = source.randbytes(size)
    fifo.flush()
    for offset, data in reversed(restored(volumes, FIFO_START, fifo.next_offset)):
        at = offset - META_START
        state[at : at + len(data)] = data
    assert state == original


def test_the_fifo_wraps_and_what_is_needed_stays() -> None:
    volumes, fifo = open_fifo(make_device())
    rounds = 0
    first = fifo.next_offset
    while rounds < 2:
        before = fifo.next_offset
        for buffer in range(100):
            assert fifo.log(META_START + buffer * BUFSIZE, bytes([buffer]) * 3000)
        fifo.flush()
        logged = joined(restored(volumes, first, fifo.next_offset))
        assert logged == [(META_START + b * BUFSIZE, bytes([b]) * 3000) for b in range(100)]
        rounds += fifo.next_offset < before
        first = fifo.next_offset
        close_cycle(volumes, fifo)
    assert FIFO_START <= fifo.next_offset < FIFO_START + CAPACITY


def fill(fifo: UndoFifo, size: int) -> int:
    """Log ranges of `size` bytes until the FIFO refuses; returns how many it took."""
    for step in range(100_000):
        fifo.clear_history()
        before = fifo.next_offset, fifo.seq
        try:
            fifo.log(META_START + step % 64 * BUFSIZE, bytes(size))
        except UndoExhaustedError:
            assert (fifo.next_offset, fifo.seq) == before, "something was laid down"
            return step
    raise AssertionError("the FIFO took more than it can hold")


def test_space_still_needed_is_never_overwritten() -> None:
    device = make_device()
    volumes, fifo = open_fifo(device)
    fifo.log(META_START, b"precious".ljust(472))
    fifo.flush()
    precious = device.read(VOL_JUNK_SIZE, UNDO_ALIGN)
    assert fill(fifo, BUFSIZE) > 400
    assert fill(fifo, 8) > 0
    with pytest.raises(UndoExhaustedError, match="bytes left"):
        fifo.append_redo(RedoBody(1, 0, 8, REDO_WRITE, 0, b"x" * 8))
    fifo.flush()
    assert fifo.used > CAPACITY - 4 * BUFSIZE
    assert fifo.space == CAPACITY - fifo.used
    assert device.read(VOL_JUNK_SIZE, UNDO_ALIGN) == precious
    close_cycle(volumes, fifo)
    assert fifo.used == 0
    assert fifo.log(META_START, b"again")


def test_redo_records_lie_between_undos() -> None:
    volumes, fifo = open_fifo(make_device())
    fifo.log(META_START, b"x" * 100)
    body = RedoBody(0x1234, 65536, 300, REDO_WRITE, 0x10000, b"payload!" * 37)
    place = fifo.append_redo(body)
    term = RedoBody(0x1234, 65536, 1 << 20, REDO_TERM_WRITE, 0x10000, b"")
    fifo.append_redo(term)
    full = RedoBody(7, 0, 448, REDO_WRITE, 0, b"z" * 448)
    assert fifo.append_redo(full) % UNDO_ALIGN == 0
    fifo.flush()
    found = [p for p in places(volumes, FIFO_START, fifo.next_offset) if p.kind == HEAD_TYPE_REDO]
    assert found[0].offset == place
    assert [redo_body(p.record()) for p in found] == [body, term, full]


def test_a_hidden_range_is_seen_from_its_own_first_offset_only() -> None:
    """A recovery that starts at the old first_offset must stop in front of it, whatever is laid down there."""
    volumes, fifo = open_fifo(make_device())
    first = fifo.first_offset
    fifo.log(META_START, b"x" * 100)
    end = fifo.next_offset
    fifo.begin_range(hidden=True)
    body = RedoBody(7, 0, 3, REDO_WRITE, 0, b"abc")
    fifo.append_redo(body)
    fifo.flush()
    reader = FifoReader(volumes)
    header = volumes.root.header.blockmap(ZONE_UNDO)
    header.first_offset, header.next_offset = first, end
    old = find_range(volumes, reader)
    assert (old.end, old.records) == (end, 1)
    assert (fifo.first_offset & -UNDO_ALIGN) > end, "the numbers within a sector follow each other"
    header.first_offset = header.next_offset = fifo.first_offset
    new = find_range(volumes, reader)
    assert (new.first, new.end, new.records) == (fifo.first_offset, fifo.next_offset, 0)
    assert new.seq == fifo.seq


def test_recovery_that_keeps_its_range_leaves_no_hidden_one_behind_it() -> None:
    """A later hidden range begins as far ahead, and could be continued by what a crash left of this one."""
    volumes, fifo = open_fifo(make_device())
    fifo.begin_range(hidden=False)
    first = fifo.first_offset
    fifo.append_redo_sync()
    fifo.append_redo_write(7, 0, 0, b"a" * 1000, more=False)
    end = fifo.next_offset
    fifo.begin_range(hidden=True)
    fifo.append_redo_write(7, 0, 0, b"b" * 20_000, more=False)
    fifo.flush()
    header = volumes.root.header.blockmap(ZONE_UNDO)
    header.first_offset, header.next_offset = first, end
    recovered = recover_stage1(volumes, collapse=True, keep_redo=True)
    assert recovered.redo_sync_offset is not None
    kept = places(volumes, first, recovered.next_offset)
    assert kept[-1].seq == recovered.seq - 1
    start = recovered.next_offset + -recovered.next_offset % UNDO_ALIGN
    behind = places(volumes, start, fifo.next_offset + -fifo.next_offset % UNDO_ALIGN)
    assert behind
    assert {place.kind for place in behind} == {HEAD_TYPE_DUMMY}


def test_a_range_that_is_not_hidden_begins_where_the_last_one_ends() -> None:
    _, fifo = open_fifo(make_device())
    fifo.log(META_START, b"x" * 100)
    end = fifo.next_offset
    fifo.begin_range(hidden=False)
    assert fifo.first_offset == fifo.next_offset == end


def test_a_redo_sync_points_to_itself_and_never_to_first_offset() -> None:
    volumes, fifo = open_fifo(make_device())
    fifo.begin_range(hidden=False)
    fifo.append_redo_sync()
    fifo.append_redo_write(7, 0x20000, 1000, b"0123456789" * 100, more=False)
    fifo.append_redo_sync()
    fifo.flush()
    found = [place for place in places(volumes, FIFO_START, fifo.next_offset) if place.kind == HEAD_TYPE_REDO]
    bodies = [redo_body(place.record()) for place in found]
    syncs = [(place.offset, body.offset) for place, body in zip(found, bodies, strict=True) if body and body.size == 0]
    assert len(syncs) == 2
    assert all(where == points for where, points in syncs)
    assert syncs[0][0] > fifo.first_offset
    pieces = [body for body in bodies if body and body.size]
    assert b"".join(body.data[: body.size] for body in pieces) == b"0123456789" * 100
    assert [body.offset for body in pieces] == [1000, 1448, 1896]
    assert {(body.obj_id, body.localization, body.flags) for body in pieces} == {(7, 0x20000, REDO_WRITE)}


def test_sectors_made_in_one_go_are_the_records_made_one_by_one() -> None:
    volumes, fifo = open_fifo(make_device())
    content = random.Random(5).randbytes(4096)
    fifo.append_redo_write(7, 0x20000, 1000, content, more=False)
    fifo.flush()
    found = [place for place in places(volumes, FIFO_START, fifo.next_offset) if place.kind == HEAD_TYPE_REDO]
    assert len(found) == 10
    for number, place in enumerate(found):
        start = number * REDO_PAYLOAD_MAX
        data = content[start : start + REDO_PAYLOAD_MAX]
        body = RedoBody(7, 1000 + start, len(data), REDO_WRITE, 0x20000, data, more=number < 9)
        record = redo_record(volumes.root.header.vol_version, place.seq, body)
        assert place.chunk[place.start : place.start + place.size] == record


def test_only_what_is_new_is_written() -> None:
    recording = RecordingDevice(make_device())
    _, fifo = open_fifo(recording)
    assert fifo.flush() == 0
    fifo.log(META_START, b"x" * 100)
    assert fifo.flush() == BUFSIZE, "a buffer just entered is laid out as a whole"
    fifo.log(META_START + BUFSIZE, b"y" * 8)
    assert fifo.flush() == UNDO_ALIGN
    fifo.log(META_START + 2 * BUFSIZE, b"z" * 900)
    assert fifo.flush() == 3 * UNDO_ALIGN
    assert fifo.flush() == 0
    writes = [entry for entry in recording.log.entries if isinstance(entry, Write)]
    assert [(write.offset - VOL_JUNK_SIZE, len(write.data)) for write in writes] == [(0, 16384), (0, 512), (0, 1536)]


def test_neighbouring_buffers_go_out_in_one_write() -> None:
    recording = RecordingDevice(make_device())
    _, fifo = open_fifo(recording)
    for buffer in range(8):
        fifo.log(META_START + buffer * BUFSIZE, bytes(BUFSIZE))
    assert fifo.dirty_bytes == fifo.flush()
    assert len(recording.log.entries) == 1


def test_a_fifo_taken_over_mid_sector_keeps_what_is_there_and_clears_what_follows() -> None:
    """Numbers of records behind the end might one day continue ours; they must not survive."""
    device = make_device()
    volumes, fifo = open_fifo(device)
    for buffer in range(10):
        fifo.log(META_START + buffer * BUFSIZE, bytes([buffer]) * 472)
    fifo.flush()
    middle = places(volumes, FIFO_START, fifo.next_offset)[3].offset
    taken = UndoFifo(volumes, FIFO_START, middle, FIRST_SEQ + 3)
    taken.log(META_START, b"mine")
    taken.flush()
    whole = places(volumes, FIFO_START, FIFO_START + BUFSIZE)
    assert [place.seq for place in whole[:4]] == [FIRST_SEQ + i for i in range(4)]
    assert all(place.kind in (HEAD_TYPE_DUMMY, HEAD_TYPE_PAD) for place in whole[4:])
    assert all(place.seq & 0x40000000 for place in whole[4:] if place.kind == HEAD_TYPE_DUMMY)


def test_sequence_numbers_wrap() -> None:
    volumes = VolumeSet.open([make_device()])
    fifo = UndoFifo(volumes, FIFO_START, FIFO_START, 0xFFFFFFFE)
    for buffer in range(4):
        fifo.log(META_START + buffer * BUFSIZE, b"x")
    fifo.flush()
    found = [p.seq for p in places(volumes, FIFO_START, fifo.next_offset) if p.kind == HEAD_TYPE_UNDO]
    assert found == [0xFFFFFFFE, 0xFFFFFFFF, 0, 1]
    assert fifo.seq == 2


def test_a_fifo_of_several_scattered_bigblocks_is_one_ring() -> None:
    device = make_device(bigblocks=6)
    volumes = VolumeSet.open([device])
    header = volumes.root.header
    header.blockmap(ZONE_UNDO).alloc_offset = FIFO_START + 3 * CAPACITY
    for index, bigblock in enumerate((0, 4, 2)):
        header.set_undo_bigblock(index, encode(2, 0, bigblock * CAPACITY))
    start = FIFO_START + CAPACITY - BUFSIZE
    fifo = UndoFifo(volumes, start, start, 5)
    assert fifo.capacity == 3 * CAPACITY
    for step in range(40):
        fifo.log(META_START + step * BUFSIZE, bytes([step]) * 1000)
    fifo.flush()
    assert joined(restored(volumes, start, fifo.next_offset)) == [
        (META_START + step * BUFSIZE, bytes([step]) * 1000) for step in range(40)
    ]
    assert device.read(VOL_JUNK_SIZE + 4 * CAPACITY, 16) != bytes(16)
    assert device.read(VOL_JUNK_SIZE + 1 * CAPACITY, 16) == bytes(16)


def test_a_memory_device_holds_what_the_fifo_wrote_after_more_was_logged() -> None:
    """flush hands buffers over without copying them; what is logged later must not show up unflushed."""
    device: MemoryDevice = make_device()
    _, fifo = open_fifo(device)
    fifo.log(META_START, b"x" * 8)
    fifo.flush()
    before = device.read(VOL_JUNK_SIZE, BUFSIZE)
    fifo.log(META_START + 8, b"y" * 8)
    assert device.read(VOL_JUNK_SIZE, BUFSIZE) == before
