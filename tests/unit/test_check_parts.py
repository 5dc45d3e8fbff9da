"""The checker's smaller parts by themselves: reports, buffers, the data sweep, usage."""

from __future__ import annotations

import pytest
from crafted_image import sample
from hypothesis import given, settings
from hypothesis import strategies as st

from hammerfs.errors import CorruptionError
from hammerfs.ondisk import crc
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, BUFSIZE, RECTYPE_DATA
from hammerfs.ondisk.freemap import Layer2
from hammerfs.ops.check_freemap import FreemapState
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.check_records import DataSweep
from hammerfs.ops.check_report import KEPT_PER_KIND, Report
from hammerfs.ops.check_usage import Usage, compare
from hammerfs.store.volumes import VolumeSet


def test_a_report_keeps_so_many_findings_of_a_kind_and_counts_all() -> None:
    report = Report()
    for index in range(KEPT_PER_KIND + 5):
        report.problem("node", index, "bad")
    report.problem("record", "somewhere", "bad, too")
    report.note("node", 1, "odd")
    assert report.problem_total == KEPT_PER_KIND + 6
    assert len(report.problems) == KEPT_PER_KIND + 1
    assert str(report.problems[0]) == "node at 0000000000000000: bad"
    assert str(report.problems[-1]) == "record at somewhere: bad, too"
    assert [note.text for note in report.notes] == ["odd"]
    assert not report.clean


def test_a_reader_keeps_a_bounded_number_of_buffers() -> None:
    image = sample()
    volumes = VolumeSet.open([image.finish()])
    reader = ImageReader(volumes, buffers_kept=3)
    for index in range(10):
        reader.read((8 << 60) | (index * BUFSIZE), 16)
    assert len(reader._buffers) == 3
    with pytest.raises(CorruptionError, match="beyond"):
        reader.read((8 << 60) | (1 << 50), 16)


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([16, 100, BUFSIZE])), max_size=60), st.integers(1, 9))
@settings(max_examples=60)
def test_a_sweep_verifies_every_record_in_whatever_order(places: list[tuple[int, int]], batch: int) -> None:
    image = SWEPT
    reader = ImageReader(VolumeSet.open([image.device]))
    report = Report()
    sweep = DataSweep(reader, report)
    known = next(record for record in image.records if record.rec_type == RECTYPE_DATA)
    wrong = 0
    for index, (block, size) in enumerate(places):
        offset = (10 << 60) | (3 * BIGBLOCK_SIZE + block * BUFSIZE)
        data = reader.read_uncached(offset, size)
        good = index % 3 != 0
        wrong += not good
        checksum = crc.crc32(data) ^ (0 if good else 1)
        sweep.add(known._replace(data_offset=offset, data_len=size, data_crc=checksum, key=size))
        if index % batch == 0:
            sweep.run()
    sweep.run()
    assert report.problem_total == wrong
    assert report.counts.get("bytes of file data", 0) == sum(size for _, size in places)


SWEPT = sample()
SWEPT.finish()


def test_usage_rounds_up_and_remembers_the_end() -> None:
    usage = Usage()
    usage.add((9 << 60) | 32, 17)
    usage.add(9 << 60, 16)
    key = (9 << 60) >> 23
    assert usage.used == {key: 48}
    assert usage.end == {key: 64}


@pytest.mark.parametrize(
    ("version", "free", "append", "words"),
    [
        (7, BIGBLOCK_SIZE - 4096, 4096, None),
        (7, BIGBLOCK_SIZE - 4096, BIGBLOCK_SIZE, None),
        (7, BIGBLOCK_SIZE, 4096, "use leaves"),
        (7, BIGBLOCK_SIZE - 4096, 4080, "append_off 4080 lies before"),
    ],
)
def test_usage_and_freemap_are_compared(version: int, free: int, append: int, words: str | None) -> None:
    usage, report = Usage(), Report()
    usage.add((8 << 60) | (5 * BIGBLOCK_SIZE), 4096)
    compare(usage, FreemapState(owned={5: Layer2(8, append, free)}), version, report)
    assert [words in problem.text for problem in report.problems if words] == ([True] if words else [])
    assert report.clean == (words is None)


def test_a_negative_count_needs_dedup() -> None:
    for version, clean in ((4, False), (5, True)):
        usage, report = Usage(), Report()
        for _ in range(BIGBLOCK_SIZE // BUFSIZE + 1):
            usage.add(10 << 60, BUFSIZE)
        compare(usage, FreemapState(owned={0: Layer2(10, BUFSIZE, -BUFSIZE)}), version, report)
        assert report.clean is clean
