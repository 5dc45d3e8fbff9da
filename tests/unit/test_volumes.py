"""Volumes make up a file system in any order or not at all, and one sentence says why not."""

from __future__ import annotations

import itertools
import threading
import uuid

import pytest
from fifo_volumes import FSID, META_START, make_device, open_fifo, patched

from hammerfs.device.base import Device
from hammerfs.device.faulty import FaultyDevice
from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import CorruptionError, DeviceError, HammerError, NotHammerError
from hammerfs.ondisk.address import encode
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, VOL_JUNK_SIZE, VOLUME_SIGNATURE_REVERSED, ZONE_UNDO
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.store.volumes import VolumeSet


def three() -> list[MemoryDevice]:
    return [make_device(number=number, count=3) for number in range(3)]


def sentence(devices: list[MemoryDevice], kind: type[HammerError]) -> str:
    with pytest.raises(kind) as caught:
        VolumeSet.open(devices)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_volumes_does_not_matter(order: tuple[int, ...]) -> None:
    devices = three()
    volumes = VolumeSet.open([devices[number] for number in order])
    assert list(volumes.volumes) == [0, 1, 2]
    assert volumes.root.device is devices[0]
    assert volumes.fsid == FSID
    assert volumes.version == 7
    assert volumes.writable


def test_one_device_that_cannot_be_written_makes_the_set_read_only() -> None:
    devices = three()
    content = devices[1].read(0, devices[1].size)
    devices[1] = MemoryDevice(0, content, writable=False)
    assert not VolumeSet.open(devices).writable


def test_what_is_no_volume_is_named() -> None:
    assert "volume0.img is not a HAMMER volume: it has only 100 bytes" in sentence(
        [MemoryDevice(100, name="volume0.img")], NotHammerError
    )
    assert "its signature is 0000000000000000" in sentence([MemoryDevice(1 << 20)], NotHammerError)
    reversed_one = patched(make_device(), vol_signature=VOLUME_SIGNATURE_REVERSED)
    assert "reversed byte order" in sentence([reversed_one], NotHammerError)
    other = patched(make_device(), vol_fstype=uuid.UUID(int=5))
    assert "its file system type is 00000000-0000" in sentence([other], NotHammerError)
    assert sentence([], NotHammerError) == "no volume was given"


@pytest.mark.parametrize("version", [0, 8, 0xFFFFFFFF])
def test_an_unknown_version_is_named(version: int) -> None:
    text = sentence([patched(make_device(), vol_version=version)], NotHammerError)
    assert text == f"volume0.img has HAMMER version {version}; versions 1 to 7 are supported"


@pytest.mark.parametrize(
    ("given", "numbers"), [([0], "volumes 1, 2"), ([0, 2], "volume 1"), ([1, 2], "volume 0"), ([2], "volumes 0, 1")]
)
def test_missing_volumes_are_counted_by_number(given: list[int], numbers: str) -> None:
    devices = three()
    text = sentence([devices[number] for number in given], NotHammerError)
    assert text.startswith(f"{numbers} of 3 missing")


def test_volumes_that_do_not_belong_are_named() -> None:
    devices = three()
    devices[2] = patched(devices[2], vol_fsid=uuid.UUID(int=9))
    assert sentence(devices, NotHammerError).startswith("volume2.img belongs to another file system (00000000-")
    twice = [*three(), make_device(number=1, count=3, name="copy.img")]
    assert sentence(twice, NotHammerError) == "volume1.img and copy.img are both volume 1"
    more = [make_device(number=0, count=1), make_device(number=1, count=1)]
    assert "says the file system has 1 volumes, but 2 were given" in sentence(more, NotHammerError)


def test_a_truncated_image_is_named_with_both_ends() -> None:
    whole = make_device()
    end = VOL_JUNK_SIZE + 2 * BIGBLOCK_SIZE
    cut = MemoryDevice(0, whole.read(0, end - 1), name="cut.img")
    assert sentence([cut], NotHammerError) == (
        f"cut.img is truncated: the volume ends at byte {end}, the device at {end - 1}"
    )
    assert VolumeSet.open([cut], check_size=False).root.number == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"vol_buf_beg": 0},
        {"vol_buf_beg": -(1 << 62)},
        {"vol_buf_end": 100},
        {"vol_buf_end": (1 << 62)},
        {"vol_no": 256},
        {"vol_no": -1},
        {"vol_rootvol": 1},
        {"vol_count": 0},
        {"vol_count": -5},
        {"vol_count": 257},
    ],
)
def test_impossible_headers_are_corruption(fields: dict[str, int]) -> None:
    assert "volume0.img" in sentence([patched(make_device(), **fields)], CorruptionError)


@pytest.mark.parametrize("alloc", [0, 100, BIGBLOCK_SIZE - 16384, 129 * BIGBLOCK_SIZE, 1 << 61])
def test_an_impossible_fifo_size_is_corruption(alloc: int) -> None:
    device = make_device()
    header = VolumeHeader(bytearray(device.read(0, 16384)))
    header.blockmap(ZONE_UNDO).alloc_offset = ((ZONE_UNDO << 60) + alloc) & 0xFFFFFFFFFFFFFFFF
    device.write(0, header.raw)
    assert "size of the UNDO FIFO" in sentence([device], CorruptionError)


@pytest.mark.parametrize("place", [0, encode(2, 0, 512), encode(4, 0, 0), encode(2, 5, 0), encode(2, 0, 1 << 40)])
def test_an_impossible_fifo_bigblock_is_corruption(place: int) -> None:
    device = make_device()
    header = VolumeHeader(bytearray(device.read(0, 16384)))
    header.set_undo_bigblock(0, place)
    device.write(0, header.raw)
    assert f"{place:016x} of UNDO FIFO big-block 0" in sentence([device], CorruptionError)


@pytest.mark.parametrize("zone", [2, 4, 8, 9, 10, 11])
def test_every_direct_zone_names_the_same_bytes(zone: int) -> None:
    devices = three()
    volumes = VolumeSet.open(devices)
    volumes.write(encode(2, 1, 5000), b"here")
    assert volumes.read(encode(zone, 1, 5000), 4) == b"here"
    assert devices[1].read(VOL_JUNK_SIZE + 5000, 4) == b"here"
    volumes.write_vector(encode(zone, 2, 100), [b"ab", b"cd"])
    assert devices[2].read(VOL_JUNK_SIZE + 100, 4) == b"abcd"


@pytest.mark.parametrize(
    ("offset", "size"), [(2 * BIGBLOCK_SIZE - 3, 4), (2 * BIGBLOCK_SIZE, 1), ((1 << 52) - 1, 1), (0, 3 * BIGBLOCK_SIZE)]
)
def test_references_beyond_a_volume_are_corruption(offset: int, size: int) -> None:
    volumes = VolumeSet.open(three())
    place = encode(8, 2, offset)
    for action in (
        lambda: volumes.read(place, size),
        lambda: volumes.write(place, bytes(size)),
        lambda: volumes.write_vector(place, [bytes(size)]),
        lambda: volumes.prefetch(place, size),
        lambda: volumes.begin_writing(place, size),
    ):
        with pytest.raises(CorruptionError, match=f"{place:016x}"):
            action()
    assert not volumes.covers(place, size)


def test_a_reference_to_a_volume_that_does_not_exist_is_corruption() -> None:
    volumes = VolumeSet.open(three())
    with pytest.raises(CorruptionError, match="reference to volume 3, which does not exist, at 8030000000000000"):
        volumes.read(encode(8, 3, 0), 16)
    with pytest.raises(CorruptionError, match="volume 255"):
        volumes.write(0xFFFFFFFFFFFFFFFF, b"x")
    assert not volumes.covers(encode(2, 3, 0), 1)
    assert volumes.covers(encode(2, 2, 0), 2 * BIGBLOCK_SIZE)


def test_a_header_is_written_with_its_checksum() -> None:
    devices = three()
    volumes = VolumeSet.open(devices)
    volumes.root.header.vol0_stat_inodes = 77
    volumes.volumes[2].header.vol_flags = 1
    volumes.write_header()
    volumes.write_header(volumes.volumes[2])
    again = VolumeSet.open(devices)
    assert again.root.header.vol0_stat_inodes == 77
    assert again.root.header.crc_ok()
    assert again.volumes[2].header.vol_flags == 1


def test_only_devices_written_to_are_settled() -> None:
    devices = [FaultyDevice(device, "read", 0, 5) for device in three()]
    volumes = VolumeSet.open(devices)
    volumes.barrier()
    volumes.write(encode(2, 1, 0), b"x")
    volumes.barrier()
    volumes.barrier()
    assert [device.counts["barrier"] for device in devices] == [0, 1, 0]


@pytest.mark.parametrize("latched", [True, False])
def test_a_failed_barrier_is_not_forgotten_by_the_next(latched: bool) -> None:
    """INV-11: not even where the device itself forgets, as Linux does."""
    devices: list[Device] = [FaultyDevice(make_device(), "barrier", 1, 5, latched=latched)]
    volumes = VolumeSet.open(devices)
    volumes.write(META_START, b"x")
    for _ in range(3):
        with pytest.raises(DeviceError):
            volumes.barrier()


def test_undo_space_is_given_back_only_by_a_durable_header() -> None:
    volumes, fifo = open_fifo(make_device())
    fifo.log(META_START, b"x" * 400)
    used = fifo.used
    assert used > 0
    volumes.root.header.blockmap(ZONE_UNDO).first_offset = fifo.next_offset
    assert fifo.used == used
    volumes.write_header()
    assert fifo.used == used, "a power cut may bring the old header back"
    volumes.barrier()
    assert fifo.used == 0


class SlowBarrier(MemoryDevice):
    """A device whose barrier waits until it is let go."""

    def __init__(self, content: MemoryDevice) -> None:
        super().__init__(content.size)
        self._pages = dict(content._pages)
        self.begun = threading.Event()
        self.go = threading.Event()
        self.barriers = 0

    def barrier(self) -> None:
        self.begun.set()
        assert self.go.wait(10)
        self.barriers += 1


def test_a_second_barrier_waits_for_the_first() -> None:
    """Otherwise it would find nothing to settle, and return before what it was asked for is durable."""
    device = SlowBarrier(make_device())
    volumes = VolumeSet.open([device])
    volumes.write(META_START, b"x")
    first = threading.Thread(target=volumes.barrier)
    first.start()
    assert device.begun.wait(10)
    finished: list[int] = []

    def finish() -> None:
        volumes.barrier()
        finished.append(device.barriers)

    second = threading.Thread(target=finish)
    second.start()
    assert finished == []
    device.go.set()
    first.join()
    second.join()
    assert finished == [1]


def test_close_closes_every_device_though_one_fails() -> None:
    closed: list[str] = []

    class Closing(MemoryDevice):
        def close(self) -> None:
            closed.append(self.name)
            if self.name == "volume1.img":
                raise DeviceError("close", self.name, 0, 0, "for the test")

    devices = []
    for device in three():
        closing = Closing(device.size, name=device.name)
        closing._pages = dict(device._pages)
        devices.append(closing)
    volumes = VolumeSet.open(devices)
    with pytest.raises(DeviceError):
        volumes.close()
    assert sorted(closed) == ["volume0.img", "volume1.img", "volume2.img"]
