"""Meta-data buffers: what is logged before it changes, what is written when, and what is forgotten."""

from __future__ import annotations

import pytest
from fifo_volumes import META_START, make_device
from hypothesis import given
from hypothesis import strategies as st

from hammerfs.device.recording import RecordingDevice, Write
from hammerfs.ondisk.address import Offset
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, BUFSIZE, NODE_SIZE, VOL_JUNK_SIZE
from hammerfs.ondisk.crc import Buffer
from hammerfs.store.buffers import MetaBuffers, differing_range
from hammerfs.store.regions import DENSE_READS, REGION_BYTES
from hammerfs.store.volumes import VolumeSet

PAGE = 4096


class Logged:
    """Stands in for the FIFO: keeps old contents in the order in which they were logged."""

    def __init__(self) -> None:
        self.records: list[tuple[Offset, bytes]] = []

    def log(self, offset: Offset, old: Buffer) -> bool:
        self.records.append((offset, bytes(old)))
        return True


class Setup:
    """Buffers over a recorded device with `content` at the start of the meta-data."""

    def __init__(self, content: bytes = b"", *, limit: int = 100) -> None:
        device = make_device(bigblocks=4)
        device.write(VOL_JUNK_SIZE + BIGBLOCK_SIZE, content)
        self.device = RecordingDevice(device)
        self.undo = Logged()
        self.buffers = MetaBuffers(VolumeSet.open([self.device]), self.undo, limit)

    @property
    def writes(self) -> list[Write]:
        return [entry for entry in self.device.log.entries if isinstance(entry, Write)]


def test_modify_logs_the_old_bytes_and_writes_nothing() -> None:
    """INV-2: the device sees meta-data only when the flusher says so."""
    setup = Setup(b"old content")
    setup.buffers.modify(META_START + 4, b"new")
    assert setup.undo.records == [(META_START + 4, b"con")]
    assert setup.buffers.read(META_START, 11) == b"old newtent"
    assert setup.buffers.dirty_bytes == BUFSIZE
    assert not setup.writes
    assert setup.buffers.flush() == PAGE
    assert setup.buffers.dirty_bytes == 0
    assert setup.writes[0].data == b"old newtent".ljust(PAGE, b"\0")


def test_zones_are_labels_of_the_same_bytes() -> None:
    setup = Setup()
    zone_8 = META_START & ~(0xF << 60) | 8 << 60
    setup.buffers.modify(zone_8, b"x")
    assert setup.undo.records == [(META_START, b"\0")]
    assert setup.buffers.read(META_START, 1) == b"x"


def test_new_space_is_filled_without_undo_and_a_new_buffer_without_reading() -> None:
    setup = Setup(b"left by somebody else")
    setup.buffers.modify_noundo(META_START, b"new")
    assert not setup.undo.records
    assert setup.buffers.read(META_START, 8) == b"new\0\0\0\0\0"


def test_new_space_behind_old_leaves_the_old_in_place() -> None:
    setup = Setup(b"old ")
    setup.buffers.modify_noundo(META_START + 4, b"new")
    assert setup.buffers.read(META_START, 7) == b"old new"
    assert not setup.undo.records


def test_filling_a_dirty_buffer_from_its_start_keeps_what_was_put_behind() -> None:
    """Nodes of one buffer may be written in any order."""
    setup = Setup()
    setup.buffers.modify_noundo(META_START + NODE_SIZE, b"second")
    setup.buffers.modify_noundo(META_START, b"first")
    assert setup.buffers.read(META_START + NODE_SIZE, 6) == b"second"


def test_a_changed_node_logs_only_what_differs() -> None:
    node = bytes(range(256)) * 16
    setup = Setup(bytes(NODE_SIZE) + node)
    place = META_START + NODE_SIZE
    changed = bytearray(node)
    changed[10:12] = b"!!"
    changed[3000] ^= 0xFF
    setup.buffers.modify_node(place, bytes(changed), fresh=False)
    assert setup.undo.records == [(place + 10, node[10:12]), (place + 3000, node[3000:3001])]
    assert setup.buffers.read(place, NODE_SIZE) == changed
    setup.buffers.modify_node(place, bytes(changed), fresh=False)
    assert len(setup.undo.records) == 2


def test_what_moved_within_a_node_is_logged_as_one_range() -> None:
    """An element that is inserted moves all behind it; a record for each piece would cost more than what it holds."""
    node = bytes(number * 7 % 251 for number in range(NODE_SIZE))
    setup = Setup(node)
    changed = b"!" + node[1:700] + bytes(64) + node[700:2936] + node[3000:]
    setup.buffers.modify_node(META_START, changed, fresh=False)
    (_, first), (place, moved) = setup.undo.records
    assert first == node[:1]
    assert (place - META_START, moved) == (700, node[700:3000])
    assert setup.buffers.read(META_START, NODE_SIZE) == changed


def test_a_fresh_node_logs_nothing() -> None:
    setup = Setup()
    setup.buffers.modify_node(META_START, b"n" * NODE_SIZE, fresh=True)
    assert not setup.undo.records


def test_neighbours_are_written_in_one_call_and_in_order() -> None:
    setup = Setup()
    for number in (5, 1, 2, 0, 9):
        setup.buffers.modify(META_START + number * BUFSIZE, bytes([number + 1]) * BUFSIZE)
    setup.buffers.flush()
    start = VOL_JUNK_SIZE + BIGBLOCK_SIZE
    found = [((write.offset - start) // BUFSIZE, len(write.data) // BUFSIZE) for write in setup.writes]
    assert found == [(0, 3), (5, 1), (9, 1)]


def test_only_the_pages_between_the_first_and_the_last_change_are_written() -> None:
    setup = Setup()
    setup.buffers.modify(META_START + PAGE + 5, b"x")
    setup.buffers.modify(META_START + BUFSIZE + 3, b"y")
    setup.buffers.modify(META_START + BUFSIZE + 2 * PAGE - 1, b"z")
    assert setup.buffers.flush() == 3 * PAGE
    start = VOL_JUNK_SIZE + BIGBLOCK_SIZE
    assert [(write.offset - start, len(write.data)) for write in setup.writes] == [(PAGE, PAGE), (BUFSIZE, 2 * PAGE)]
    setup.buffers.modify(META_START, b"w")
    assert setup.buffers.flush() == PAGE, "what was written is not written again"


def test_a_node_written_without_a_change_is_not_written() -> None:
    setup = Setup()
    setup.buffers.modify_node(META_START, bytes(NODE_SIZE), fresh=False)
    assert setup.buffers.flush() == 0
    assert not setup.writes


def test_a_long_run_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hammerfs.store.buffers._MAX_VECTOR", 2)
    setup = Setup()
    for number in range(5):
        setup.buffers.modify(META_START + number * BUFSIZE, b"x" * BUFSIZE)
    setup.buffers.flush()
    assert [len(write.data) // BUFSIZE for write in setup.writes] == [2, 2, 1]


def test_neighbours_are_fetched_until_there_are_so_many_that_the_region_is(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup()
    fetched: list[tuple[int, int]] = []
    monkeypatch.setattr(setup.device, "prefetch", lambda place, size: fetched.append((place, size)))
    for number in range(REGION_BYTES // BUFSIZE):
        setup.buffers.read(META_START + number * BUFSIZE, 1)
    assert [size for _, size in fetched] == [4 * BUFSIZE] * (DENSE_READS - 1) + [REGION_BYTES]
    assert fetched[-1][0] == VOL_JUNK_SIZE + BIGBLOCK_SIZE


def test_a_node_that_is_read_is_read_alone_and_left_to_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(b"1" * NODE_SIZE + b"2" * NODE_SIZE)
    asked: list[int] = []
    read = setup.device.read
    monkeypatch.setattr(setup.device, "read", lambda place, size: asked.append(size) or read(place, size))
    buffers = MetaBuffers(VolumeSet.open([setup.device]), setup.undo, 100)
    asked.clear()
    assert buffers.read_node(META_START + NODE_SIZE) == b"2" * NODE_SIZE
    assert asked == [NODE_SIZE]
    assert not buffers._clean


def test_a_node_is_read_as_it_was_changed_flushed_or_not() -> None:
    setup = Setup(b"1" * NODE_SIZE + b"2" * NODE_SIZE)
    second = META_START + NODE_SIZE
    assert setup.buffers.read_node(second) == b"2" * NODE_SIZE
    setup.buffers.modify_node(second, b"3" * NODE_SIZE, fresh=False)
    assert setup.buffers.read_node(second) == b"3" * NODE_SIZE
    assert setup.buffers.read_node(META_START) == b"1" * NODE_SIZE
    setup.buffers.flush()
    setup.device.write(VOL_JUNK_SIZE + BIGBLOCK_SIZE, b"not asked")
    assert setup.buffers.read_node(second) == b"3" * NODE_SIZE
    assert setup.buffers.read_node(META_START) == b"1" * NODE_SIZE


@pytest.mark.parametrize("node_first", [True, False])
def test_nodes_and_buffers_make_a_region_dense_alike(monkeypatch: pytest.MonkeyPatch, node_first: bool) -> None:
    setup = Setup()
    fetched: list[int] = []
    monkeypatch.setattr(setup.device, "prefetch", lambda _, size: fetched.append(size))
    for number in range(DENSE_READS):
        place = META_START + number * BUFSIZE
        if node_first is (number % 2 == 0):
            setup.buffers.read_node(place)
        else:
            setup.buffers.read(place, 1)
    assert fetched == [4 * BUFSIZE] * (DENSE_READS - 1) + [REGION_BYTES]


def test_clean_buffers_are_forgotten_oldest_first_and_dirty_ones_never() -> None:
    setup = Setup(limit=8)
    for number in range(20):
        setup.buffers.modify(META_START + number * BUFSIZE, bytes([number + 1]))
    assert setup.buffers.dirty_bytes == 20 * BUFSIZE
    setup.buffers.flush()
    assert len(setup.buffers._clean) == 8
    for number in range(20):
        assert setup.buffers.read(META_START + number * BUFSIZE, 1) == bytes([number + 1])
    kept = META_START + 12 * BUFSIZE
    setup.buffers.read(kept, 1)
    for number in range(7):
        setup.buffers.read(META_START + number * BUFSIZE, 1)
    assert kept in setup.buffers._clean, "used again after the others"


@pytest.mark.parametrize("count", [3, 600])
def test_a_big_block_with_a_new_owner_is_forgotten(count: int) -> None:
    setup = Setup(limit=1000)
    for number in range(count):
        setup.buffers.read(META_START + (number % 500) * BUFSIZE + (number // 500) * BIGBLOCK_SIZE, 1)
    other = len([base for base in setup.buffers._clean if base >= META_START + BIGBLOCK_SIZE])
    setup.buffers.invalidate(META_START & ~(0xF << 60) | 9 << 60)
    assert len(setup.buffers._clean) == other


def test_a_mount_that_never_writes_may_not_modify() -> None:
    buffers = MetaBuffers(VolumeSet.open([make_device()]), None, 10)
    with pytest.raises(AssertionError, match="read-only mount"):
        buffers.modify(META_START, b"x")


@given(st.binary(min_size=1, max_size=40), st.data())
def test_the_differing_range_is_the_smallest(old: bytes, data: st.DataObject) -> None:
    new = data.draw(st.binary(min_size=len(old), max_size=len(old)).filter(lambda new: new != old))
    low, high = differing_range(old, new)
    assert old[:low] == new[:low]
    assert old[high:] == new[high:]
    assert old[low] != new[low]
    assert old[high - 1] != new[high - 1]
