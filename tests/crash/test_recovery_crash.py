"""Power cuts at every point of flushing and of recovering: what comes back is always one of the states that were."""

from __future__ import annotations

import random

import pytest
from cycling_store import BUFFERS, CyclingStore, fingerprint, meta_offset, recover
from fifo_volumes import (
    CAPACITY,
    FIFO_START,
    META_START,
    close_cycle,
    make_device,
    open_fifo,
)

from hammerfs.device.faulty import FaultyDevice
from hammerfs.device.memory import MemoryDevice
from hammerfs.device.overlay import OverlayDevice
from hammerfs.device.recording import RecordingDevice, RecordingLog, drop_all, keep_all
from hammerfs.errors import CorruptionError, DeviceError
from hammerfs.ondisk.constants import BUFSIZE, HEAD_TYPE_UNDO, UNDO_ALIGN, VOL_JUNK_SIZE, ZONE_UNDO
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.store import recovery
from hammerfs.store.fiforeader import FifoReader
from hammerfs.store.volumes import VolumeSet

VERSIONS = [1, 3, 4, 6, 7]


def run(version: int, count: int, seed: int, cycles: int = 6) -> CyclingStore:
    store = CyclingStore(version, count, seed)
    for _ in range(cycles):
        store.cycle()
    return store


def oldest_possible(store: CyclingStore, position: int) -> int:
    """A cycle whose meta-data was complete two cycles ago can no longer be rolled back."""
    complete = sum(mark <= position for mark in store.marks) - 1
    return max(0, complete - 2)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_cut_while_flushing_gives_the_state_of_some_cycle(version: int, count: int) -> None:
    store = run(version, count, seed=version * 10 + count)
    seen = set()
    for position, images in store.log.random_power_cuts(seed=version, count=120):
        volumes, _ = recover(images)
        index = store.states.index(fingerprint(volumes))
        assert index >= oldest_possible(store, position)
        seen.add(index)
    assert len(seen) >= 5, "cuts were spread over the cycles"


@pytest.mark.parametrize("version", [3, 7])
def test_a_killed_process_loses_no_more_than_a_power_cut(version: int) -> None:
    """Without a power cut everything written is there; recovery still rolls the last cycles back."""
    store = run(version, 1, seed=5)
    for position in range(len(store.log.entries) + 1):
        volumes, _ = recover(store.log.power_cut(position, keep_all))
        assert store.states.index(fingerprint(volumes)) >= oldest_possible(store, position)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_settled_cycle_is_kept_whatever_is_lost(version: int) -> None:
    store = run(version, 1, seed=6, cycles=3)
    store.settle()
    volumes, result = recover(store.log.power_cut(len(store.log.entries), drop_all))
    assert fingerprint(volumes) == store.states[-1]
    assert result.fifo.length == 0


@pytest.mark.parametrize("collapse", [True, False])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("version", [3, 4, 7])
def test_cuts_during_recovery_change_nothing_about_its_result(version: int, count: int, collapse: bool) -> None:
    """Three crashes in a row: while flushing, while recovering, and while recovering from that."""
    store = run(version, count, seed=77 + version, cycles=4)
    for _, images in store.log.random_power_cuts(seed=version + count, count=12):
        expected = fingerprint(recover([image.copy() for image in images])[0])
        recover_cut_again(images, expected, depth=2, seed=version, collapse=collapse)


def recover_cut_again(images: list[MemoryDevice], expected: str, depth: int, seed: int, collapse: bool) -> None:
    log = RecordingLog()
    volumes, _ = recover([RecordingDevice(image.copy(), log) for image in images], collapse=collapse)
    assert fingerprint(volumes) == expected
    if depth == 0:
        return
    for position, cut in log.random_power_cuts(seed, count=5):
        assert position <= len(log.entries)
        recover_cut_again(cut, expected, depth - 1, seed + 1, collapse)


def test_every_combination_of_lost_writes_in_a_small_recovery() -> None:
    store = CyclingStore(7, 1, seed=3)
    store.cycle(changes=2)
    images = store.log.power_cut(len(store.log.entries), keep_all)
    log = RecordingLog()
    volumes, result = recover([RecordingDevice(images[0].copy(), log)])
    assert result.undone_records > 0
    assert fingerprint(volumes) == store.states[0]
    combinations = 0
    for position in range(len(log.entries) + 1):
        for cut in log.all_power_cuts(position):
            assert fingerprint(recover(cut)[0]) == store.states[0]
            combinations += 1
    assert combinations > 50


@pytest.mark.parametrize("seed", range(6))
def test_life_goes_on_after_many_crashes(seed: int) -> None:
    """Flush, crash, recover, flush on the recovered devices, and so on; the FIFO wraps meanwhile."""
    source = random.Random(seed)
    store = CyclingStore(7, 1, seed)
    for generation in range(25):
        for _ in range(source.randint(1, 4)):
            store.cycle(changes=60)
        position = source.randint(len(store.log.entries) * 3 // 4, len(store.log.entries))
        images = store.log.power_cut(position, lambda write: [source.random() < 0.7] * write.sectors)
        volumes, _ = recover([image.copy() for image in images])
        assert fingerprint(volumes) in store.states
        store = CyclingStore(7, 1, seed * 1000 + generation, images)


def test_next_tids_are_never_taken_back() -> None:
    store = run(7, 1, seed=9)
    for _, images in store.log.random_power_cuts(seed=2, count=100):
        written = VolumeSet.open(images).root.header.vol0_next_tid
        volumes, _ = recover(images)
        assert volumes.root.header.vol0_next_tid == written


def test_an_undo_that_covers_the_next_tid_does_not_roll_it_back() -> None:
    """No writer makes such a record on purpose; a TID given out twice would be worse than one lost."""
    device = make_device()
    volumes, fifo = open_fifo(device)
    fifo.log((1 << 60) | 240, volumes.root.header.copy()[240:256])
    fifo.flush()
    volumes.root.header.vol0_btree_root = 0x8000000000C00000
    volumes.root.header.vol0_next_tid += 0x1000
    volumes.write_header()
    header = recover([device])[0].root.header
    assert header.vol0_btree_root == 0
    assert header.vol0_next_tid == 0x100001000


# ------------------------------------------------------------------------------------------------
# remnants of a crash in the FIFO


def crash_that_keeps_later_sectors() -> MemoryDevice:
    """A crash that lost the second half of the first FIFO buffer and kept the next one, which restores zeros."""
    device = make_device()
    _, fifo = open_fifo(device)
    half = VOL_JUNK_SIZE + 16 * UNDO_ALIGN
    kept = device.read(half, 16 * UNDO_ALIGN)
    for step in range(40):
        fifo.log(META_START + step * UNDO_ALIGN, bytes(472))
    fifo.flush()
    device.write(half, kept)
    return device


def reach_the_remnant(device: MemoryDevice) -> tuple[int, bytes]:
    """Recover, work on, lay down just as many records as the crash lost, die and recover.

    Returns how many records too many were undone, and a piece of meta-data written in between.
    """
    volumes, fifo = open_fifo(device)
    start = fifo.next_offset
    volumes.write(META_START + BUFSIZE, b"news")
    close_cycle(volumes, fifo)
    while fifo.next_offset % BUFSIZE or fifo.next_offset == start:
        fifo.log(META_START + (1 << 20) + fifo.seq % 1000 * UNDO_ALIGN, bytes(472))
    fifo.flush()
    laid_down = (fifo.next_offset - start) // UNDO_ALIGN
    volumes, result = recover([device])
    return result.undone_records - laid_down, volumes.read(META_START + BUFSIZE, 4)


def test_remnants_of_a_crash_are_never_taken_for_a_continuation() -> None:
    assert reach_the_remnant(crash_that_keeps_later_sectors()) == (0, b"news")


def test_the_remnants_would_be_taken_without_new_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above guards against is real."""
    monkeypatch.setattr(recovery, "_is_renumbering_needed", lambda *_: False)
    assert reach_the_remnant(crash_that_keeps_later_sectors()) == (8, bytes(4))


def test_a_crash_that_left_only_remnants_is_noticed() -> None:
    """Nothing to undo, since the first sector was lost; what came after it is still a danger."""
    device = make_device()
    _, fifo = open_fifo(device)
    first = device.read(VOL_JUNK_SIZE, BUFSIZE)
    for step in range(64):
        fifo.log(META_START + step * UNDO_ALIGN, bytes(472))
    fifo.flush()
    device.write(VOL_JUNK_SIZE, first)
    recording = RecordingDevice(device)
    _, result = recover([recording])
    assert result.fifo.length == 0
    assert result.seq > fifo.seq
    assert recording.log.entries, "the FIFO was given a new start"


# ------------------------------------------------------------------------------------------------
# damage


def crashed() -> tuple[MemoryDevice, int, int]:
    """A crash with UNDO on the device that no header knows of; where that begins and ends in the FIFO."""
    device = make_device()
    volumes, fifo = open_fifo(device)
    start = fifo.next_offset
    for step in range(30):
        fifo.log(META_START + step * BUFSIZE, bytes([step]) * 700)
    fifo.flush()
    volumes.barrier()
    return device, start - FIFO_START, fifo.next_offset - FIFO_START


def with_hint(device: MemoryDevice, next_offset: int) -> None:
    header = VolumeHeader(bytearray(device.read(0, BUFSIZE)))
    header.blockmap(ZONE_UNDO).next_offset = FIFO_START + next_offset
    device.write(0, header.raw)


@pytest.mark.parametrize("tail", [b"\0", b"\xff", b"\x4e\xc8"])
def test_a_fifo_cut_anywhere_ends_earlier(tail: bytes) -> None:
    device, start, end = crashed()
    lengths = set()
    for cut in range(start, end, 328):
        image = device.copy()
        image.write(VOL_JUNK_SIZE + cut, (tail * CAPACITY)[: end + BUFSIZE - cut])
        found = recover([image])[1].fifo
        assert found.length <= cut
        lengths.add(found.length)
    assert len(lengths) > 20


def test_a_flipped_bit_behind_the_header_s_end_is_damage() -> None:
    """The sectors behind it go on counting, so this is no place where a crash cut."""
    device, start, end = crashed()
    places = FifoReader(VolumeSet.open([device])).scan(FIFO_START + start, end - start - 2 * UNDO_ALIGN)
    records = [place for place in places if place.kind == HEAD_TYPE_UNDO]
    assert len(records) > 30
    for place in records:
        at = place.offset - FIFO_START + place.seq % place.size
        image = device.copy()
        byte = image.read(VOL_JUNK_SIZE + at, 1)[0]
        image.write(VOL_JUNK_SIZE + at, bytes([byte ^ 0x10]))
        untouched = image.copy()
        with pytest.raises(CorruptionError, match=f"UNDO FIFO: damaged record at {place.offset:016x}"):
            recover([image])
        assert image.same_bytes(untouched)


@pytest.mark.parametrize("version", [1, 3, 4, 7])
def test_damage_before_the_header_s_end_is_refused_and_nothing_written(version: int) -> None:
    store = CyclingStore(version, 1, seed=11)
    store.cycle()
    [image] = store.log.power_cut(len(store.log.entries), keep_all)
    image.write(VOL_JUNK_SIZE + 3 * UNDO_ALIGN + 20, b"\xa5\xa5\xa5")
    untouched = image.copy()
    with pytest.raises(CorruptionError, match="UNDO FIFO: damaged record at 3000000000000600"):
        recover([image])
    assert image.same_bytes(untouched)


def test_no_record_before_the_range_is_damage() -> None:
    device = make_device()
    device.write(VOL_JUNK_SIZE + CAPACITY - 8, bytes(8))
    with pytest.raises(CorruptionError, match="no valid record before this place at 3000000000000000"):
        recover([device])


@pytest.mark.parametrize("field", ["first_offset", "next_offset"])
@pytest.mark.parametrize("value", [0, FIFO_START - 8, FIFO_START + CAPACITY + 8, FIFO_START + 4, 1 << 63])
def test_impossible_indices_are_refused(field: str, value: int) -> None:
    device = make_device()
    header = VolumeHeader(bytearray(device.read(0, BUFSIZE)))
    setattr(header.blockmap(ZONE_UNDO), field, value)
    device.write(0, header.raw)
    with pytest.raises(CorruptionError, match=f"impossible {field} at {value:016x}"):
        recover([device])


@pytest.mark.parametrize(
    "target", [(2 << 60) | (1 << 52), (2 << 60) | (2 * CAPACITY), (1 << 60) | (1 << 52), (1 << 60) | BUFSIZE]
)
def test_an_undo_of_something_impossible_is_refused(target: int) -> None:
    device = make_device()
    _, fifo = open_fifo(device)
    fifo.log(META_START, b"fine" * 4)
    fifo.log(target, b"what" * 4)
    fifo.flush()
    untouched = device.copy()
    with pytest.raises(CorruptionError, match="restores something impossible at 3000000000000038"):
        recover([device])
    assert device.same_bytes(untouched)


def test_a_range_ends_where_it_would_meet_its_own_beginning() -> None:
    """mkfs numbers the whole ring; a range that begins behind its first sector runs to the end and no further."""
    device = make_device()
    header = VolumeHeader(bytearray(device.read(0, BUFSIZE)))
    entry = header.blockmap(ZONE_UNDO)
    entry.first_offset = entry.next_offset = FIFO_START + UNDO_ALIGN
    device.write(0, header.raw)
    found = recover([device.copy()])[1].fifo
    assert found.length == CAPACITY - UNDO_ALIGN


# ------------------------------------------------------------------------------------------------
# failing devices, read-only mounts


@pytest.mark.parametrize("action", ["read", "write", "barrier"])
def test_a_device_that_fails_during_recovery_can_be_recovered_later(action: str) -> None:
    store = run(7, 1, seed=21, cycles=3)
    [image] = store.log.power_cut(len(store.log.entries), keep_all)
    expected = fingerprint(recover([image.copy()])[0])
    failures = 0
    for nth in range(1, 200):
        device = image.copy()
        faulty = FaultyDevice(device, action, nth, 5, short=True)  # type: ignore[arg-type]
        try:
            recover([faulty])
        except DeviceError:
            failures += 1
        assert fingerprint(recover([device])[0]) == expected
        if faulty.counts[faulty._action] < nth:
            break
    assert failures == nth - 1
    assert failures >= 2


def test_an_overlay_recovers_without_a_write_below() -> None:
    store = run(7, 2, seed=31)
    images = store.log.power_cut(len(store.log.entries), keep_all)
    untouched = [image.copy() for image in images]
    volumes, _ = recover([OverlayDevice(image) for image in images])
    state = fingerprint(volumes)
    assert all(a.same_bytes(b) for a, b in zip(images, untouched, strict=True))
    assert state == fingerprint(recover(images)[0])


def test_more_buffers_than_fit_are_written_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_IMAGES_MAX", 3)
    store = run(7, 1, seed=41)
    for _, images in store.log.random_power_cuts(seed=4, count=40):
        assert fingerprint(recover(images)[0]) in store.states
    assert meta_offset(0, BUFFERS) == META_START + BUFFERS * BUFSIZE
