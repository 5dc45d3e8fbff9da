"""Volumes that come and go: space, numbers, refusals, interruptions, and power cuts at any moment."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from administration import ask, steps_of
from small_filesystem import assert_clean, fresh, make, mount, names, read, recorded, walk

from hammerfs.device.base import Device
from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import drop_all, keep_all
from hammerfs.errors import BusyError, CorruptionError, DeviceError, NoSpaceError, NotHammerError, UsageError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Want
from hammerfs.ondisk.address import volume_of
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, BUFSIZE, RECORD_ZONES
from hammerfs.ops.mkfs import is_formatted
from hammerfs.store.volumes import VolumeSet

MIB = 1024 * 1024
SIZE = 256 * MIB


def blank(name: str = "new.img", size: int = SIZE) -> MemoryDevice:
    """A device that holds something, but no file system."""
    device = MemoryDevice(size, name=name)
    device.write(0, b"\xa5" * 64 * 1024)
    return device


def giving(fs: FileSystem, *devices: Device) -> FileSystem:
    """The same, which may open these."""
    known = {device.name: device for device in devices}

    def open_device(name: str) -> Device:
        return known[name]

    fs.open_device = open_device
    return fs


def flush(fs: FileSystem) -> None:
    assert fs.flusher is not None
    fs.flusher.flush_now()


def fill(fs: FileSystem, parent: Inode, count: int, size: int, seed: int = 1) -> dict[bytes, bytes]:
    """Files of random content; their names and contents."""
    source = random.Random(seed)
    contents = {}
    for number in range(count):
        name = b"%d-%d" % (seed, number)
        contents[name] = source.randbytes(size)
        make(fs, parent, name, contents[name])
    return contents


def carry_on(fs: FileSystem, running: Iterator[object]) -> None:
    """Let a work come to its end."""
    for step in running:
        if step in (Want.DURABLE, Want.PAUSE):
            flush(fs)


def bigblocks_on(fs: FileSystem, volume: int) -> int:
    """Big-blocks of a volume in which something is stored."""
    return sum(zone in RECORD_ZONES for _, zone in fs.ctx.freemap.owned(volume))


def contents_of(fs: FileSystem) -> dict[bytes, bytes]:
    return {name: read(fs, name) for name in names(fs, fs.root) if not walk(fs, name).is_directory}


# --- adding -------------------------------------------------------------------------------------
def test_an_added_volume_is_used_and_all_headers_count_it() -> None:
    devices: list[Device] = [*fresh(size=SIZE), new := blank()]
    fs = giving(mount(devices[:1]), new)
    before = fs.statfs()
    told = ask(fs, "volume-add", device="new.img")
    assert (told["number"], told["interrupted"]) == (1, False)
    assert [volume["device"] for volume in told["volumes"]] == ["volume0.img", "new.img"]
    gained = (fs.statfs().blocks - before.blocks) * BUFSIZE
    assert gained == SIZE // BIGBLOCK_SIZE * BIGBLOCK_SIZE - 2 * BIGBLOCK_SIZE, "all but layer 2 and what is left over"
    contents = fill(fs, fs.root, 270, MIB)
    fs.close_now()
    assert_clean(devices)
    again = mount(devices[::-1])
    assert bigblocks_on(again, 1) > 5
    assert contents_of(again) == contents
    headers = [volume.header for volume in again.ctx.volumes.volumes.values()]
    assert [(header.vol_no, header.vol_count, header.crc_ok()) for header in headers] == [(0, 2, True), (1, 2, True)]
    assert headers[0].vol_label == headers[1].vol_label
    again.close_now()


def test_the_lowest_free_number_is_given_and_the_headers_of_others_follow() -> None:
    devices: list[Device] = [*fresh(count=3, size=SIZE)]
    fs = giving(mount(devices), new := blank())
    assert ask(fs, "volume-del", device="volume1.img", reblock=True)["removed"]
    assert ask(fs, "volume-add", device="new.img")["number"] == 1
    fs.close_now()
    devices[1] = new
    assert_clean(devices)
    assert [volume.header.vol_count for volume in VolumeSet.open(devices).volumes.values()] == [3, 3, 3]


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (MemoryDevice(BIGBLOCK_SIZE, name="new.img"), "too small"),
        (fresh()[0].copy(name="new.img"), "holds a HAMMER volume already"),
    ],
    ids=["small", "formatted"],
)
def test_a_device_that_cannot_be_added_is_left_alone(device: MemoryDevice, reason: str) -> None:
    fs = giving(mount(devices := fresh(count=2)), device)
    before = device.copy()
    with pytest.raises(UsageError, match=reason):
        ask(fs, "volume-add", device="new.img")
    assert device.same_bytes(before)
    fs.close_now()
    assert_clean(devices)


def test_a_device_that_fails_while_it_is_formatted_does_not_end_the_writing() -> None:
    class Refusing(MemoryDevice):
        def barrier(self) -> None:
            raise DeviceError("barrier", self.name, 0, 0, "cable pulled")

    fs = giving(mount(devices := fresh()), Refusing(SIZE, name="new.img"))
    with pytest.raises(UsageError, match="cable pulled"):
        ask(fs, "volume-add", device="new.img")
    make(fs, fs.root, b"file", b"content")
    fs.close_now()
    assert_clean(devices)


def test_without_anybody_who_opens_devices_none_can_be_added() -> None:
    fs = mount(fresh())
    with pytest.raises(UsageError, match="cannot be added here"):
        ask(fs, "volume-add", device="new.img")
    fs.close_now()


def test_an_interrupted_addition_adds_nothing_and_may_be_repeated() -> None:
    fs = giving(mount(devices := fresh()), new := blank())
    before = fs.statfs()
    assert ask(fs, "volume-add", device="new.img", interrupted=lambda: True)["interrupted"]
    assert fs.statfs() == before
    assert is_formatted(new)
    assert not ask(fs, "volume-add", device="new.img")["interrupted"]
    fs.close_now()
    assert_clean([*devices, new])


def test_a_volume_whose_addition_nobody_waited_for_is_not_used_before_it_is_durable() -> None:
    """A power cut may still take the addition back, and what lies there then is lost."""
    fs = giving(mount(devices := fresh()), new := blank(), other := blank("other.img"))
    joined = 1
    running = steps_of(fs, "volume-add", device="new.img")
    while joined not in fs.ctx.volumes.volumes:
        next(running)
    running.close()  # type: ignore[attr-defined]
    contents = fill(fs, fs.root, 20, MIB)
    assert bigblocks_on(fs, joined) == 0
    assert fs.ctx.freemap.withheld == joined
    assert not ask(fs, "volume-add", device="other.img")["interrupted"]
    assert fs.ctx.freemap.withheld is None
    assert contents_of(fs) == contents
    fs.close_now()
    assert_clean([*devices, new, other])


def test_a_volume_that_was_left_withheld_is_used_once_two_cycles_are_closed() -> None:
    fs = giving(mount(devices := fresh()), new := blank())
    running = steps_of(fs, "volume-add", device="new.img")
    while 1 not in fs.ctx.volumes.volumes:
        next(running)
    running.close()  # type: ignore[attr-defined]
    for number in range(3):
        make(fs, fs.root, b"%d" % number, b"content")
        assert (fs.ctx.freemap.withheld is None) == (number == 2)
        flush(fs)
    fs.close_now()
    assert_clean([*devices, new])


def test_one_change_at_a_time() -> None:
    fs = giving(mount(devices := fresh(count=2)), blank(), other := blank("other.img"))
    running = steps_of(fs, "volume-del", device="volume1.img", reblock=True)
    next(running)
    with pytest.raises(BusyError, match="another volume"):
        ask(fs, "volume-add", device="other.img")
    running.close()  # type: ignore[attr-defined]
    assert not ask(fs, "volume-add", device="other.img")["interrupted"]
    fs.close_now()
    assert_clean([*devices, other])


# --- removing -----------------------------------------------------------------------------------
def test_everything_moves_away_from_a_removed_volume_beside_changes() -> None:
    devices = fresh(count=2, size=SIZE)
    fs = mount(devices)
    contents = fill(fs, fs.root, 40, MIB)
    contents |= fill(fs, fs.root, 3000, 100, seed=2)
    flush(fs)
    old = fs.ctx.root.next_tid
    for number in range(0, 40, 2):
        fs.unlink(fs.root, b"1-%d" % number)
        del contents[b"1-%d" % number]
    flush(fs)
    assert bigblocks_on(fs, 1) > 3
    before = fs.statfs()
    running = steps_of(fs, "volume-del", device="volume1.img", reblock=True)
    for count, step in enumerate(running):
        if step is Want.DURABLE or count % 40 == 0:
            flush(fs)
        elif count % 7 == 0:
            name = b"beside-%d" % count
            contents[name] = os.urandom(20_000)
            make(fs, fs.root, name, contents[name])
        elif callable(getattr(step, "call", None)):
            step.call()  # type: ignore[attr-defined]
    assert list(fs.ctx.volumes.volumes) == [0]
    assert not is_formatted(devices[1])
    assert fs.statfs().blocks < before.blocks
    fs.close_now()
    assert_clean(devices[:1])
    again = mount(devices[:1])
    assert contents_of(again) == contents
    assert len(read(again, b"@@0x%016x" % old, b"1-0")) == MIB
    again.close_now()


def test_what_is_not_empty_is_told_and_left_unless_it_may_be_moved() -> None:
    fs = mount(devices := fresh(count=2, size=SIZE))
    contents = fill(fs, fs.root, 8, MIB)
    flush(fs)
    told = ask(fs, "volume-del", device="volume1.img")
    assert not told["removed"]
    assert told["used"] > 4 * MIB
    assert len(told["volumes"]) == 2
    assert ask(fs, "volume-del", device="volume1.img", reblock=True)["removed"]
    assert contents_of(fs) == contents
    fs.close_now()
    assert_clean(devices[:1])


def test_the_root_volume_and_strange_devices_cannot_be_removed() -> None:
    fs = mount(devices := fresh(count=2))
    with pytest.raises(UsageError, match="is the root volume"):
        ask(fs, "volume-del", device="volume0.img", reblock=True)
    with pytest.raises(UsageError, match="no volume of this file system"):
        ask(fs, "volume-del", device="volume2.img", reblock=True)
    fs.close_now()
    assert_clean(devices)


def test_a_volume_stays_when_the_others_have_no_space_for_what_it_holds() -> None:
    fs = mount(devices := fresh(count=2, size=SIZE))
    contents = fill(fs, fs.root, 250, MIB)
    flush(fs)
    before = fs.statfs()
    with pytest.raises(NoSpaceError, match="cannot be removed: it holds"):
        ask(fs, "volume-del", device="volume1.img", reblock=True)
    assert fs.statfs() == before
    contents |= fill(fs, fs.root, 10, MIB, seed=2)
    assert contents_of(fs) == contents
    fs.close_now()
    assert_clean(devices)


def test_space_that_others_take_meanwhile_ends_a_removal() -> None:
    fs = mount(devices := fresh(count=2, size=SIZE))
    contents = fill(fs, fs.root, 30, MIB)
    flush(fs)
    running = steps_of(fs, "volume-del", device="volume1.img", reblock=True)
    next(running)
    with pytest.raises(NoSpaceError):
        contents |= fill(fs, fs.root, 250, MIB, seed=2)
    flush(fs)
    with pytest.raises(NoSpaceError, match="no space left to move anything to"):
        carry_on(fs, running)
    make(fs, fs.root, b"last", b"offered again")
    fs.close_now()
    assert_clean(devices)


def test_what_many_records_share_moves_away_from_a_removed_volume() -> None:
    """Where data is shared fewer bytes than none may be free (docs/format.md)."""
    fs = mount(devices := fresh(count=2, size=SIZE))
    contents = fill(fs, fs.root, 200, MIB)
    block = random.Random(7).randbytes(65536)
    for number in range(20):
        contents[b"equal-%d" % number] = block * 16
        make(fs, fs.root, b"equal-%d" % number, block * 16)
    flush(fs)
    ask(fs, "dedup")
    assert any(fs.ctx.freemap.layer2(bigblock).bytes_free < 0 for bigblock, zone in fs.ctx.freemap.owned(1) if zone), (
        "nothing on the volume is shared"
    )
    for name in [name for name in contents if name.startswith(b"1-")][::2]:
        fs.unlink(fs.root, name)
        del contents[name]
    flush(fs)
    ask(fs, "prune", everything=True)
    assert ask(fs, "volume-del", device="volume1.img", reblock=True)["removed"]
    assert contents_of(fs) == contents
    fs.close_now()
    assert_clean(devices[:1])


@pytest.mark.parametrize("steps", range(1, 6))
def test_a_removal_whose_client_goes_away_anywhere_can_be_asked_for_again(steps: int) -> None:
    fs = mount(devices := fresh(count=2, size=SIZE))
    running = steps_of(fs, "volume-del", device="volume1.img")
    for _ in range(steps):
        step = next(running, None)
        if step is Want.DURABLE:
            flush(fs)
    running.close()  # type: ignore[attr-defined]
    contents = fill(fs, fs.root, 3, MIB)
    if 1 in fs.ctx.volumes.volumes:
        told = ask(fs, "volume-del", device="volume1.img", reblock=True)
        assert (told["removed"], len(told["volumes"])) == (True, 1)
    assert contents_of(fs) == contents
    fs.close_now()
    assert_clean(devices[:1])


@pytest.mark.parametrize("after", [0, 1, 5, 20])
def test_an_interrupted_removal_leaves_the_volume_in_use(after: int) -> None:
    fs = mount(devices := fresh(count=2, size=SIZE))
    contents = fill(fs, fs.root, 30, MIB)
    flush(fs)
    looks = iter(range(1000))
    told = ask(fs, "volume-del", device="volume1.img", reblock=True, interrupted=lambda: next(looks) >= after)
    assert (told["removed"], told["interrupted"]) == (False, True)
    contents |= fill(fs, fs.root, 250, MIB, seed=2)
    assert contents_of(fs) == contents
    fs.close_now()
    assert_clean(devices)


def test_damaged_data_keeps_a_volume() -> None:
    fs = mount(devices := fresh(count=2, size=SIZE))
    make(fs, fs.root, b"file", os.urandom(MIB))
    flush(fs)
    place = fs.ctx.volumes.volumes[1].header.vol_buf_beg + 3 * BIGBLOCK_SIZE
    devices[1].write(place, bytes(16))
    with pytest.raises(CorruptionError, match="1 damaged data elements"):
        ask(fs, "volume-del", device="volume1.img", reblock=True)
    fs.close_now()
    assert len(mount(devices).ctx.volumes.volumes) == 2


def test_a_number_that_is_used_again_shows_nothing_of_the_old_volume() -> None:
    """Buffers and freemap entries of the removed volume must be forgotten."""
    fs = giving(mount(devices := fresh(count=2, size=SIZE)), new := blank())
    contents = fill(fs, fs.root, 20, MIB)
    contents |= fill(fs, fs.root, 2000, 10, seed=2)
    flush(fs)
    assert ask(fs, "volume-del", device="volume1.img", reblock=True)["removed"]
    assert ask(fs, "volume-add", device="new.img")["number"] == 1
    contents |= fill(fs, fs.root, 240, MIB, seed=3)
    flush(fs)
    assert bigblocks_on(fs, 1)
    assert contents_of(fs) == contents
    fs.close_now()
    assert_clean([devices[0], new])


# --- allocation meanwhile -----------------------------------------------------------------------
def test_what_is_withheld_is_not_promised_to_anybody() -> None:
    fs = mount(fresh(count=2, size=SIZE))
    blockmap, free = fs.ctx.blockmap, fs.ctx.freemap.free_bigblocks
    before = blockmap.allocatable_bigblocks
    blockmap.withhold(1)
    assert blockmap.allocatable_bigblocks == free(0)
    offset = blockmap.reserve(RECORD_ZONES[0], 4096)
    assert volume_of(offset) == 0
    blockmap.release(offset, 4096)
    blockmap.offer()
    assert before - 1 <= blockmap.allocatable_bigblocks <= before
    fs.close_now()


# --- power cuts ---------------------------------------------------------------------------------
class Cuts:
    """A change of the set of volumes, recorded, and every image that a power cut leaves of it."""

    def __init__(self, *, adding: bool) -> None:
        self.devices: list[MemoryDevice] = fresh(count=1 if adding else 2, size=SIZE)
        fs = mount(self.devices)
        self.contents = fill(fs, fs.root, 6, MIB // 2)
        fs.close_now()
        if adding:
            self.devices.append(blank())
        recording, self.log = recorded(self.devices)
        fs = giving(mount(recording[:1] if adding else recording), *recording)
        name = recording[1].name
        told = ask(fs, "volume-add" if adding else "volume-del", device=name, reblock=True)
        assert told.get("removed", True)
        self.done = len(self.log.entries)
        make(fs, fs.root, b"after", b"later")
        fs.close_now()

    def images(self, seed: int) -> Iterator[tuple[int, list[MemoryDevice]]]:
        for position in range(len(self.log.entries) + 1):
            yield position, self.log.power_cut(position, keep_all)
            yield position, self.log.power_cut(position, drop_all)
        yield from self.log.random_power_cuts(seed, 60)


def whole(contents: dict[bytes, bytes], devices: list[MemoryDevice]) -> int:
    """Mount, compare, check; how many volumes it has."""
    fs = mount(devices)
    found = contents_of(fs)
    found.pop(b"after", None)
    assert found == contents
    make(fs, fs.root, b"after recovery", b"x" * 100_000)
    count = len(fs.ctx.volumes.volumes)
    fs.close_now()
    members = devices[:count]
    assert_clean(members)
    assert [volume.header.vol_count for volume in VolumeSet.open(members).volumes.values()] == [count] * count
    return count


def why_not(devices: list[MemoryDevice]) -> str | None:
    """Why these cannot be mounted, None when they can."""
    try:
        mount([device.copy() for device in devices], read_only=True).close_now()
    except NotHammerError as refusal:
        return str(refusal)
    return None


@pytest.mark.parametrize("adding", [True, False], ids=["add", "del"])
def test_a_power_cut_leaves_the_old_volumes_or_the_new_ones(adding: bool) -> None:
    cuts = Cuts(adding=adding)
    old, new = (1, 2) if adding else (2, 1)
    counts = set()
    for position, images in cuts.images(seed=1):
        given = [image for image in images if is_formatted(image)]
        alone = [images[0].copy()]
        count = whole(cuts.contents, given)
        counts.add(count)
        assert count == (new if position >= cuts.done else count)
        refusal = why_not(alone)
        if refusal is None:
            assert whole(cuts.contents, alone) == 1
        else:
            assert len(given) == 2
            assert "volumes of volume0.img" in refusal or "missing (volume0.img was given)" in refusal
    assert counts == {old, new}


def test_a_stranger_in_the_place_of_a_volume_is_not_mistaken_for_it() -> None:
    """The count is right, the set is not."""
    fs = giving(mount(devices := fresh(count=2, size=SIZE)), blank())
    ask(fs, "volume-add", device="new.img", interrupted=lambda: True)
    stranger = fs.open_device("new.img")  # type: ignore[misc]
    fs.close_now()
    with pytest.raises(NotHammerError, match=r"only 1 of the 2 volumes of volume0.img were given \(new.img is none"):
        mount([devices[0], stranger])
