"""Work beside requests: what it may ask for at its steps, and how it ends."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import trio
from flusher_control import running, until
from small_filesystem import assert_clean, fresh, make, mount, read

from hammerfs.errors import DeviceError, FlushFailedError, UsageError
from hammerfs.fs.metadata import insert_record
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.rootrecords import add_snapshot, snapshots
from hammerfs.fs.work import META_BYTES, Data, Done, Emit, Phase, Receive, Step, Want, Work, carry_out, run_work
from hammerfs.ondisk.constants import LOCALIZE_INODE, OBJID_ROOT, RECTYPE_CONFIG

pytestmark = pytest.mark.trio


class Memory:
    """A listener, asynchronous or not, that remembers what it was told and gives what it was given."""

    def __init__(self, *supplies: bytes) -> None:
        self.told: list[Phase | Done | Emit | Data] = []
        self._supplies = list(supplies)

    async def tell(self, step: Phase | Done | Emit | Data) -> None:
        self.told.append(step)

    async def receive(self, limit: int) -> bytes:
        return self._supplies.pop(0)[:limit] if self._supplies else b""


class LocalMemory(Memory):
    def tell(self, step: Phase | Done | Emit | Data) -> None:  # type: ignore[override]
        self.told.append(step)

    def receive(self, limit: int) -> bytes:  # type: ignore[override]
        return self._supplies.pop(0)[:limit] if self._supplies else b""


def talkative() -> Work[list[bytes]]:
    yield Phase("talking", 2)
    yield Done(1)
    yield Emit({"a": 1})
    yield Data(b"bytes")
    received = []
    while content := (yield Receive(3)):
        received.append(content)
    yield Done(1)
    return received


SAID = [Phase("talking", 2), Done(1), Emit({"a": 1}), Data(b"bytes"), Done(1)]


async def test_work_talks_to_whoever_asked_for_it() -> None:
    fs = mount(fresh())
    async with running(fs):
        memory = Memory(b"onetoolong", b"two")
        assert await carry_out(fs, talkative(), memory) == [b"one", b"two"]
        assert memory.told == SAID
    local = LocalMemory(b"x")
    assert run_work(fs, talkative(), local) == [b"x"]
    assert local.told == SAID


class Lost(Memory):
    """A listener whose client goes away."""

    async def tell(self, step: Phase | Done | Emit | Data) -> None:
        raise trio.BrokenResourceError


async def test_a_listener_that_is_lost_ends_the_work_and_nothing_else() -> None:
    fs = mount(fresh())
    async with running(fs):
        with pytest.raises(trio.BrokenResourceError):
            await carry_out(fs, talkative(), Lost())
        assert fs.failure is None
        assert fs.works == 0
        make(fs, fs.root, b"file", b"content")
        await fs.sync()


async def test_what_was_accepted_before_a_durable_step_survives() -> None:
    devices = fresh()
    fs = mount(devices)

    def work() -> Work[bool]:
        yield Want.DURABLE
        assert fs.flusher is not None
        return not fs.flusher.haswork()

    async with running(fs):
        make(fs, fs.root, b"name", b"content")
        assert await carry_out(fs, work(), Memory())
        assert read(mount([device.copy() for device in devices], read_only=True), b"name") == b"content"


def many_snapshots(fs: FileSystem, count: int) -> Work[int]:
    """Changes far beyond what one cycle can take."""
    for number in range(count):
        add_snapshot(fs.ctx, (number % 7) << 16, number + 1, 0, b"label")
        yield Want.PAUSE
    yield Want.DURABLE
    return count


def scattered(fs: FileSystem) -> Generator[Step, bytes, int]:
    """One change in each of very many nodes, so that UNDO piles up, and nodes with it."""
    yield from many_snapshots(fs, 20_000)
    for number in range(0, 20_000, 50):
        add_snapshot(fs.ctx, (number % 7) << 16, 100_000 + number, 0, b"")
        yield Want.PAUSE
    return len(snapshots(fs.ctx, 0))


@pytest.mark.parametrize("live", [False, True])
async def test_changes_without_end_never_exhaust_the_log(live: bool) -> None:
    devices = fresh()
    fs = mount(devices)
    assert fs.flusher is not None
    if live:
        async with running(fs) as flusher:
            assert await carry_out(fs, scattered(fs), Memory()) > 2_000
            await flusher.sync()
    else:
        assert run_work(fs, scattered(fs)) > 2_000
        fs.flusher.flush_now()
    assert fs.flusher.durable > 2, "it all went in one cycle, so nothing was proved"
    fs.close_now()
    assert_clean(devices)


async def test_requests_run_between_two_steps() -> None:
    fs = mount(fresh())
    turns = 0

    def work() -> Work[None]:
        while turns < 5:
            yield Done(1)

    async def request() -> None:
        nonlocal turns
        for number in range(5):
            make(fs, fs.root, b"%d" % number, b"x")
            turns += 1
            await trio.lowlevel.checkpoint()

    async with running(fs), trio.open_nursery() as nursery:
        assert fs.quiet
        nursery.start_soon(carry_out, fs, work(), Memory())
        nursery.start_soon(request)
    assert turns == 5
    assert fs.quiet


async def test_cancelled_work_ends_at_a_step() -> None:
    fs = mount(fresh())
    steps = 0
    ended: list[str] = []

    def work() -> Work[None]:
        nonlocal steps
        try:
            while True:
                steps += 1
                yield Done(1)
        finally:
            ended.append("at a step")

    async with running(fs), trio.open_nursery() as nursery:
        nursery.start_soon(carry_out, fs, work(), Memory())
        await until(lambda: steps > 1)
        nursery.cancel_scope.cancel()
    assert ended == ["at a step"]
    assert not fs.works


def failing(error: Exception) -> Work[Any]:
    yield Want.PAUSE
    raise error


async def test_a_refusal_hurts_nobody() -> None:
    fs = mount(fresh())
    async with running(fs) as flusher:
        with pytest.raises(UsageError):
            await carry_out(fs, failing(UsageError("no")), Memory())
        assert flusher.failure is None
    with pytest.raises(UsageError):
        run_work(fs, failing(UsageError("no")))
    assert not fs.read_only


@pytest.mark.expect_log("read-only from now on")
async def test_a_defect_ends_the_writing() -> None:
    fs = mount(fresh())
    async with running(fs) as flusher:
        with pytest.raises(ZeroDivisionError):
            await carry_out(fs, failing(ZeroDivisionError()), Memory())
        assert flusher.failure is not None
        with pytest.raises(FlushFailedError):
            await carry_out(fs, many_snapshots(fs, 1), Memory())
    assert fs.read_only


@pytest.mark.expect_log("read-only from now on")
async def test_a_device_that_takes_nothing_ends_the_writing() -> None:
    fs = mount(fresh())
    with pytest.raises(DeviceError):
        run_work(fs, failing(DeviceError("write", "x", 0, 1, "no")))
    assert fs.read_only


async def test_damage_that_only_reading_met_does_not() -> None:
    fs = mount(fresh())
    with pytest.raises(DeviceError):
        run_work(fs, failing(DeviceError("read", "x", 0, 1, "no")))
    assert not fs.read_only


async def test_a_read_only_file_system_has_nothing_to_wait_for() -> None:
    fs = mount(fresh(), read_only=True)

    def work() -> Work[int]:
        yield Want.DURABLE
        yield Want.PAUSE
        return 1

    assert run_work(fs, work()) == 1


def growing(fs: FileSystem, count: int, peaks: list[int]) -> Work[None]:
    """Adds meta-data, and never asks for anything but a pause."""
    assert fs.flusher is not None
    for number in range(count):
        for key in range(64):
            tid = fs.ctx.alloc_tid()
            insert_record(fs.ctx, tid, LOCALIZE_INODE, OBJID_ROOT, RECTYPE_CONFIG, number * 64 + key, 0, bytes(1000))
        peaks.append(fs.flusher.cycle.dirty_meta())
        yield Want.PAUSE


async def test_what_a_work_changes_is_written_before_it_has_become_much() -> None:
    """A flush of tens of megabytes would hold up everybody at once."""
    fs = mount(devices := fresh(), cache_bytes=256 * 1024 * 1024)
    peaks: list[int] = []
    async with running(fs):
        await carry_out(fs, growing(fs, 200, peaks), Memory())
    assert max(peaks) < 2 * META_BYTES
    assert_clean(devices)


async def test_and_so_it_is_offline() -> None:
    fs = mount(devices := fresh(), cache_bytes=256 * 1024 * 1024)
    peaks: list[int] = []
    run_work(fs, growing(fs, 200, peaks))
    assert max(peaks) < 2 * META_BYTES
    fs.close_now()
    assert_clean(devices)
