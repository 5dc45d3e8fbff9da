"""The queue of file data: what is read from it, what is written, and by whom."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest
from small_filesystem import fresh, mount

from hammerfs.device.faulty import FaultyDevice
from hammerfs.errors import DeviceError
from hammerfs.ondisk.address import Offset
from hammerfs.ondisk.constants import ZONE_LARGE_DATA
from hammerfs.store.datablocks import OVERFULL_BYTES, SPILL_BYTES, DataBlocks
from hammerfs.store.volumes import VolumeSet

SIZE = 16384


def blocks_of(faulty: bool = False) -> tuple[DataBlocks, VolumeSet, list[Offset]]:
    """An empty queue, its volumes, and places of their own in a file system that is not used otherwise."""
    devices = fresh()
    fs = mount([FaultyDevice(devices[0], "write", 1, errno.EIO)] if faulty else list(devices))
    places = [fs.ctx.blockmap.reserve(ZONE_LARGE_DATA, SIZE) for _ in range(3)]
    return DataBlocks(fs.ctx.volumes), fs.ctx.volumes, places


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_what_is_handed_over_is_readable_and_in_the_end_written() -> None:
    blocks, volumes, places = blocks_of()
    for number, place in enumerate(places):
        blocks.put(place, bytes([number + 1]) * SIZE)
    written = volumes.bytes_written
    write = blocks.hand_over()
    assert (blocks.queued_bytes, blocks.pending, blocks.handed_over) == (0, True, True)
    assert all(blocks.holds(place) for place in places)
    assert blocks.read(places[1], 5) == b"\2" * 5
    assert volumes.read(places[1], 5) == bytes(5)
    in_thread(write).join()
    assert volumes.read(places[1], 5) == b"\2" * 5
    blocks.take_back()
    assert not blocks.pending
    assert not any(blocks.holds(place) for place in places)
    assert blocks.read(places[2], 5) == b"\3" * 5
    assert volumes.bytes_written - written == 3 * SIZE


@pytest.mark.parametrize("take_back", ["forget", "flush", "hand_over", "take_back"])
def test_whoever_needs_a_batch_that_no_thread_has_begun_writes_it(take_back: str) -> None:
    """The thread may need him who waits: a trio task that begins one passes through the event loop first."""
    blocks, volumes, places = blocks_of()
    blocks.put(places[0], b"x" * SIZE)
    late = blocks.hand_over()
    getattr(blocks, take_back)(*(places[:1] if take_back == "forget" else ()))
    assert volumes.read(places[0], SIZE) == b"x" * SIZE
    assert not blocks.pending
    volumes.write(places[0], b"of the next owner".ljust(SIZE))
    late()
    assert volumes.read(places[0], 17) == b"of the next owner"


def test_a_place_is_not_given_up_while_a_thread_writes_there(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, volumes, places = blocks_of()
    blocks.put(places[0], b"x" * SIZE)
    write = blocks.hand_over()
    begun, go_on = threading.Event(), threading.Event()
    plain = volumes.write_vector

    def slowly(offset: Offset, chunks: list[bytes], *, counted: bool = True) -> None:
        begun.set()
        assert go_on.wait(60)
        plain(offset, chunks, counted=counted)

    monkeypatch.setattr(volumes, "write_vector", slowly)
    writer = in_thread(write)
    assert begun.wait(60)
    forgotten = threading.Event()

    def forget() -> None:
        blocks.forget(places[0])
        forgotten.set()

    other = in_thread(forget)
    assert not forgotten.wait(0.05)
    go_on.set()
    assert forgotten.wait(60)
    writer.join()
    other.join()


def test_whoever_gives_up_a_place_where_a_thread_may_write_does_not_wait() -> None:
    blocks, volumes, places = blocks_of()
    given_up: list[int] = []
    queued, handed, written = places
    blocks.put(handed, b"x" * SIZE)
    write = blocks.hand_over()
    blocks.put(queued, b"y" * SIZE)
    for number, place in enumerate((queued, handed, written)):
        blocks.give_up(place, lambda number=number: given_up.append(number))  # type: ignore[misc]
    assert given_up == [0, 2], "nobody writes there, or ever will"
    assert not blocks.holds(queued)
    in_thread(write).join()
    assert given_up == [0, 2], "the thread has ended, but that is not known here"
    blocks.take_back()
    assert given_up == [0, 2, 1]
    blocks.put(handed, b"z" * SIZE)
    blocks.hand_over()()
    blocks.take_back()
    assert given_up == [0, 2, 1], "once"
    assert volumes.read(handed, 1) == b"z"


def test_what_is_given_up_to_a_thread_that_fails_stays_reserved() -> None:
    blocks, _, places = blocks_of(faulty=True)
    blocks.put(places[0], b"x" * SIZE)
    in_thread(blocks.hand_over()).join()
    blocks.give_up(places[0], lambda: pytest.fail("who knows what is there"))
    with pytest.raises(DeviceError):
        blocks.take_back()


def test_a_failure_in_the_thread_is_told_to_all_who_ask_and_nothing_is_lost() -> None:
    blocks, _, places = blocks_of(faulty=True)
    blocks.put(places[0], b"x" * SIZE)
    in_thread(blocks.hand_over()).join()
    for ask in (blocks.take_back, blocks.flush, blocks.hand_over):
        with pytest.raises(DeviceError):
            ask()
    blocks.forget(places[0])  # part of a change that must not end half way; the mount fails by those above
    assert blocks.read(places[0], SIZE) == b"x" * SIZE


def test_a_long_queue_is_spilled_by_whoever_there_is() -> None:
    blocks, _, places = blocks_of()
    asked: list[int] = []
    blocks.behind = lambda: asked.append(blocks.queued_bytes)
    blocks.put(places[0], b"x" * SIZE)
    blocks.spill()
    assert not asked
    blocks.queued_bytes = SPILL_BYTES
    blocks.spill()
    assert asked == [SPILL_BYTES]
    assert blocks.pending
    blocks.queued_bytes = 2 * OVERFULL_BYTES
    blocks.spill()
    assert not blocks.pending
    blocks.behind = None
    blocks.put(places[0], b"x" * SIZE)
    blocks.queued_bytes = SPILL_BYTES
    blocks.spill()
    assert not blocks.pending


def test_a_thread_begins_no_write_once_everything_is_to_stop() -> None:
    blocks, volumes, places = blocks_of()
    blocks.put(places[0], b"x" * SIZE)
    write = blocks.hand_over()
    blocks.stop()
    in_thread(write).join()
    blocks.take_back()
    assert volumes.read(places[0], SIZE) == bytes(SIZE)
    assert blocks.read(places[0], SIZE) == b"x" * SIZE
