"""Regions that are read as a whole: which, when, and how many are remembered."""

from __future__ import annotations

from unittest import mock

import pytest
from small_filesystem import fresh, make, mount, read

from hammerfs.ondisk.address import encode
from hammerfs.ondisk.constants import ZONE_RAW_BUFFER
from hammerfs.store import regions as subject
from hammerfs.store.regions import AGAIN_READS, DENSE_READS, REGION_BYTES, Regions
from hammerfs.store.volumes import VolumeSet

HERE = encode(ZONE_RAW_BUFFER, 0, 5 * REGION_BYTES)


class Listening:
    """Regions of a small volume, and what they had read."""

    def __init__(self) -> None:
        volumes = VolumeSet.open(fresh())
        self.fetched: list[tuple[int, int]] = []
        self.regions = Regions(volumes)
        self._told = mock.patch.object(volumes, "prefetch", lambda place, size: self.fetched.append((place, size)))

    def note(self, *places: int) -> list[tuple[int, int]]:
        """What is fetched for reads at these places."""
        self.fetched.clear()
        with self._told:
            for place in places:
                self.regions.note(place)
        return list(self.fetched)


def test_a_region_is_fetched_once_when_several_places_in_it_were_read() -> None:
    listening = Listening()
    places = [HERE + number * 4096 for number in range(DENSE_READS)]
    assert listening.note(*places[:-1]) == []
    assert listening.note(places[-1]) == [(HERE, REGION_BYTES)]
    assert listening.note(*places * 5) == []


def test_who_asks_learns_whether_all_around_was_fetched() -> None:
    regions = Listening().regions
    sparse = DENSE_READS - 1
    assert [regions.note(HERE) for _ in range(AGAIN_READS)] == [False] * sparse + [True] * (AGAIN_READS - sparse)
    assert not regions.note(HERE)


def test_reads_far_from_each_other_fetch_nothing() -> None:
    places = [encode(ZONE_RAW_BUFFER, 0, number * REGION_BYTES) for number in range(20)]
    assert Listening().note(*places * (DENSE_READS - 1)) == []


def test_a_region_read_for_long_is_fetched_again() -> None:
    fetched = Listening().note(*[HERE] * (AGAIN_READS + DENSE_READS))
    assert fetched == [(HERE, REGION_BYTES)] * 2


def test_a_region_that_reaches_past_the_volume_is_left_alone() -> None:
    volumes = VolumeSet.open(fresh())
    header = volumes.root.header
    size = header.vol_buf_end - header.vol_buf_beg
    last = encode(ZONE_RAW_BUFFER, 0, (size - 1) & -REGION_BYTES)
    assert volumes.covers(last, 1)
    assert not volumes.covers(last, REGION_BYTES)
    assert Listening().note(*[last] * 10) == []


def test_no_more_regions_are_remembered_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_REGIONS_MAX", 2)
    listening = Listening()
    elsewhere = [HERE + number * REGION_BYTES for number in (1, 2)]
    assert listening.note(HERE, HERE, *elsewhere, HERE) == []
    assert len(listening.regions._reads) <= 2


def test_files_that_lie_together_are_fetched_together_and_large_ones_are_not() -> None:
    devices = fresh()
    fs = mount(devices)
    for number in range(10):
        make(fs, fs.root, b"%d" % number, bytes([number]) * 4096)
    make(fs, fs.root, b"large", bytes(range(256)) * 1024)
    fs.close_now()
    fs = mount(devices)
    with mock.patch.object(fs.ctx.volumes, "prefetch", wraps=fs.ctx.volumes.prefetch) as fetch:
        assert [read(fs, b"%d" % number)[:1] for number in range(10)] == [bytes([number]) for number in range(10)]
        sizes = [call.args[1] for call in fetch.call_args_list]
        assert sizes.count(REGION_BYTES) == 1
        fetch.reset_mock()
        large = fs.lookup(fs.root, b"large")
        for offset in range(0, 1 << 18, 16384):
            fs.read(large, offset, 100)
        assert all(call.args[1] != REGION_BYTES for call in fetch.call_args_list)
