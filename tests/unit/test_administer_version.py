"""The format version, told and raised: live from 4 on, offline from any."""

from __future__ import annotations

import itertools
from unittest import mock

import pytest
from administration import ask, steps_of
from flusher_control import running
from small_filesystem import FIFO_SIZE, assert_clean, fresh, make, mount, names, read, recorded, walk

from hammerfs.device.recording import Write, drop_all, keep_all
from hammerfs.errors import UsageError
from hammerfs.fs.work import Aside, Want, carry_out
from hammerfs.ondisk.constants import (
    CAP_DIRHASH_ALG1,
    UNDO_ALIGN,
    VERSION_DIRHASH_ALG1,
    VERSION_UNDO_SEQUENCED,
    VOLUME_VERSION_MAX,
)
from hammerfs.ops.operation import Call
from hammerfs.ops.registry import begin, find


@pytest.mark.parametrize("before", range(1, VOLUME_VERSION_MAX))
@pytest.mark.parametrize("step", ["one", "all"])
def test_what_earlier_versions_wrote_is_read_and_written_on(before: int, step: str) -> None:
    after = before + 1 if step == "one" else VOLUME_VERSION_MAX
    devices = fresh(before)
    fs = mount(devices)
    old = make(fs, fs.root, b"old")
    make(fs, old, b"file", b"content")
    tid = ask(fs, "synctid")["tid"]
    assert ask(fs, "version-upgrade", version=after) == {"before": before, "version": after}
    assert ask(fs, "version-get")["current"] == after
    make(fs, old, b"later", b"later content" * 1000)
    new = make(fs, fs.root, b"new")
    assert bool(new.data.cap_flags & CAP_DIRHASH_ALG1) == (after >= VERSION_DIRHASH_ALG1)
    make(fs, new, b"file", b"new content")
    fs.unlink(old, b"file")
    fs.close_now()
    assert_clean(devices)
    again = mount(devices)
    assert again.ctx.version == after
    assert read(again, b"old", b"later") == b"later content" * 1000
    assert read(again, b"new", b"file") == b"new content"
    assert read(again, b"old@@0x%016x" % tid, b"file") == b"content"
    make(again, again.root, b"more", b"content")
    again.close_now()
    assert_clean(devices)


@pytest.mark.parametrize(("before", "after"), [(3, 4), (6, 7), (1, 7), (4, 7)])
def test_a_power_cut_at_any_write_leaves_one_version_or_the_other(before: int, after: int) -> None:
    devices = fresh(before)
    fs = mount(devices)
    make(fs, fs.root, b"file", b"content")
    fs.close_now()
    recording, log = recorded(devices)
    fs = mount(recording)
    ask(fs, "version-upgrade", version=after)
    make(fs, fs.root, b"later", b"content")
    fs.close_now()
    seen = set()
    barriers = {at for at, entry in enumerate(log.entries) if not isinstance(entry, Write)}
    positions = {len(log.entries), *range(0, len(log.entries), max(1, len(log.entries) // 20)), *barriers}
    for position, choose in itertools.product(sorted(positions), (drop_all, keep_all)):
        images = log.power_cut(position, choose)
        again = mount(images)
        seen.add(again.ctx.version)
        assert read(again, b"file") == b"content"
        make(again, again.root, b"again", b"content")
        again.close_now()
        assert_clean(images)
    assert seen == {before, after}


def test_the_fifo_becomes_a_ring_of_numbered_records() -> None:
    devices = fresh(3)
    fs = mount(devices)
    ask(fs, "version-upgrade", version=VERSION_UNDO_SEQUENCED)
    assert fs.ctx.undo is not None
    assert fs.ctx.undo.seq == FIFO_SIZE // UNDO_ALIGN
    for number in range(50):
        make(fs, fs.root, b"%d" % number, b"content")
        ask(fs, "synctid")
    fs.close_now()
    assert_clean(devices)
    assert len(names(mount(devices, read_only=True), mount(devices, read_only=True).root)) == 50


@pytest.mark.trio
@pytest.mark.parametrize("before", [1, 3])
async def test_fsync_is_fast_from_then_on(before: int) -> None:
    devices = fresh(before)
    fs = mount(devices)
    make(fs, fs.root, b"old", b"content")
    fs.close_now()
    recording, log = recorded(devices)
    fs = mount(recording)
    old = walk(fs, b"old")
    async with running(fs) as flusher:
        assert fs._fsync is not None
        await fs.fsync(old)
        assert fs._fsync.fast is None
        raised = Call(fs, fs.root, {"version": VOLUME_VERSION_MAX})
        await carry_out(fs, begin(find("version-upgrade"), raised), mock.AsyncMock())
        fs.write(old, 0, b"C")
        await fs.fsync(old)  # notes operations from here on
        groups = flusher.statistics_groups
        fs.write(old, 1, b"O")
        await fs.fsync(old)
        await fs.fsync(make(fs, fs.root, b"new", b"content"))
        assert (fs._fsync.fast.count, flusher.statistics_groups) == (2, groups)
        position = len(log.entries)
    for choose in (drop_all, keep_all):
        again = mount(log.power_cut(position, choose))
        assert (read(again, b"old"), read(again, b"new")) == (b"COntent", b"content")


def test_there_is_no_way_back() -> None:
    fs = mount(fresh(5))
    for version in (4, 1, 0, 8, -1):
        with pytest.raises(UsageError):
            ask(fs, "version-upgrade", version=version)
    assert ask(fs, "version-upgrade", version=5) == {"before": 5, "version": 5}


@pytest.mark.parametrize("after", [4, 7])
def test_the_fifo_is_laid_out_while_it_is_used(after: int) -> None:
    """What is written in between makes parts of it used that were laid out already."""
    devices = fresh(3)
    fs = mount(devices)
    assert fs.flusher is not None
    count = 0
    for step in steps_of(fs, "version-upgrade", version=after):
        for _ in range(20):
            make(fs, fs.root, b"%d" % count, b"content %d" % count)
            count += 1
        if isinstance(step, Aside):
            step.call()
        elif step is Want.DURABLE or count % 60 == 0:
            fs.flusher.flush_now()
    assert fs.ctx.version == after
    make(fs, fs.root, b"later", b"content")
    fs.close_now()
    assert_clean(devices)
    again = mount(devices)
    assert len(names(again, again.root)) == count + 1
    assert read(again, b"7") == b"content 7"
    again.close_now()


def test_an_interrupted_layout_leaves_the_version_as_it_is() -> None:
    devices = fresh(3)
    fs = mount(devices)
    looks = iter(range(100))
    told = ask(fs, "version-upgrade", version=4, interrupted=lambda: next(looks) > 3)
    assert told == {"before": 3, "version": 3}
    for number in range(200):
        make(fs, fs.root, b"%d" % number, b"content")
        ask(fs, "synctid")
    fs.close_now()
    assert_clean(devices)
    fs = mount(devices)
    assert ask(fs, "version-upgrade", version=4)["version"] == 4
    fs.close_now()
    assert_clean(devices)


def test_from_version_4_on_nothing_is_laid_out() -> None:
    live = mount(fresh(4))
    assert list(steps_of(live, "version-upgrade", version=7)) == [Want.DURABLE]
    assert live.ctx.version == 7


def test_what_is_in_memory_goes_out_as_the_new_version_wants_it() -> None:
    """Nodes, freemap and REDO that were dirty when the version changed."""
    devices = fresh(6)
    fs = mount(devices)
    steps = steps_of(fs, "version-upgrade", version=7)
    assert next(steps) is Want.DURABLE
    for number in itertools.islice(itertools.count(), 200):
        make(fs, fs.root, b"%d" % number, b"content %d" % number)
    assert next(steps, None) is None
    fs.close_now()
    assert_clean(devices)
    assert read(mount(devices, read_only=True), b"150") == b"content 150"
