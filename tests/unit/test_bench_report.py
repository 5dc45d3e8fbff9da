"""What `scripts/bench` makes of its numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_lib.chart import chart_rows, draw
from bench_lib.main import BY_NAME, WORKLOADS, parse_arguments, read_json
from bench_lib.measure import Row
from bench_lib.peers import BenchError
from bench_lib.report import Repetition, Report


def repetition(peer: str, number: int, *rows: Row) -> Repetition:
    return Repetition(peer, number, load=0.5, peak_kib=10 * 1024 * (number + 1), rows=list(rows))


def rate(value: float, cpu_us: float | None = None) -> Row:
    return Row("create", value, "/s", 100, cpu_us)


def seconds(value: float) -> Row:
    return Row("untar", value, "s", 1)


def test_a_ratio_is_the_median_of_those_within_each_round() -> None:
    ours = [repetition("hammerfs", number, rate(value)) for number, value in enumerate((50, 400, 90))]
    base = [repetition("fuse2fs", number, rate(value)) for number, value in enumerate((100, 100, 100))]
    assert Report([*ours, *base]).ratio("hammerfs", "create") == pytest.approx(0.9)


def test_a_shorter_time_is_a_higher_ratio() -> None:
    report = Report([repetition("fuse2fs", 0, seconds(3)), repetition("hammerfs", 0, seconds(2))])
    assert report.ratio("hammerfs", "untar") == pytest.approx(1.5)


def test_a_multiple_is_better_when_it_is_larger_and_a_difference_that_is_not_positive_has_no_ratio() -> None:
    ours = repetition("hammerfs", 0, Row("threads", 6, "times", 1), Row("beyond", -2, "us", 1))
    base = repetition("fuse2fs", 0, Row("threads", 3, "times", 1), Row("beyond", 5, "us", 1))
    report = Report([ours, base])
    assert report.ratio("hammerfs", "threads") == pytest.approx(2)
    assert report.ratio("hammerfs", "beyond") is None


def test_a_round_in_which_one_failed_does_not_count() -> None:
    rows = [repetition("fuse2fs", 0), repetition("hammerfs", 0, rate(7)), repetition("fuse2fs", 1, rate(50))]
    assert Report(rows).ratio("hammerfs", "create") is None
    assert Report([*rows, repetition("hammerfs", 1, rate(100))]).ratio("hammerfs", "create") == pytest.approx(2)


def test_the_tables_have_medians_ratios_cpu_memory_and_failures() -> None:
    broken = repetition("hammerfs", 1, rate(300, cpu_us=250))
    broken.failures.append("git: no")
    report = Report(
        [
            repetition("hammerfs", 0, rate(100, cpu_us=150), seconds(0.25)),
            repetition("fuse2fs", 0, rate(400, cpu_us=90), seconds(0.5)),
            broken,
        ]
    )
    text = report.markdown()
    assert "| create (/s) | 200 | 400 | 0.25 |" in text
    assert "| untar (s) | 0.25 | 0.5 | 2.00 |" in text
    assert "| create | 200 | 90 |" in text
    assert "| peak memory, MiB | 20 | 10 |" in text
    assert "hammerfs, round 2: git: no" in text
    assert "2 interleaved rounds" in text


def test_without_the_base_there_are_no_ratios() -> None:
    text = Report([repetition("hammerfs", 0, rate(100))]).markdown()
    assert "| workload | hammerfs |\n|---|---|" in text


def test_what_takes_long_runs_when_it_is_named() -> None:
    usual = parse_arguments([]).workloads
    assert {*usual, *BY_NAME} == {*WORKLOADS}
    assert "history" not in usual
    assert parse_arguments(["--workloads", "small,history"]).workloads == ["small", "history"]


def test_results_survive_the_way_through_a_file(tmp_path: Path) -> None:
    ours = [repetition("hammerfs", number, rate(50 + number, 12.5)) for number in range(2)]
    file = tmp_path / "numbers.json"
    file.write_text(json.dumps([one.as_json() for one in ours]))
    assert read_json(file) == ours


@pytest.mark.parametrize("text", ["", "{}", "7", "[1]", '[{"peer": "hammerfs"}]', '[{"rows": [{}]}]'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "numbers.json"
    file.write_text(text)
    with pytest.raises(BenchError, match=r"holds no results of scripts/bench --json"):
        read_json(file)


def test_the_chart_has_a_line_for_each_workload_and_none_for_its_details() -> None:
    ours = repetition("hammerfs", 0, rate(50), seconds(1), Row("create, until unmounted", 9, "/s", 1))
    base = repetition("fuse2fs", 0, rate(100), seconds(3), Row("create, until unmounted", 9, "/s", 1))
    assert chart_rows(Report([ours, base])) == ["untar", "create"]
    assert chart_rows(Report([ours])) == []


def test_the_same_numbers_draw_the_same_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the chart is drawn by matplotlib, which is not installed")
    peers = [repetition(peer, 0, rate(value), seconds(1)) for peer, value in (("hammerfs", 300), ("fuse2fs", 100))]
    report = Report([*peers, repetition("ext4", 0, rate(9e6))])
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for picture in pictures:
        draw(report, picture)
    text = pictures[0].read_text()
    assert text == pictures[1].read_text()
    for word in ("create", "untar", "ext4", "times as fast as fuse2fs", ">3<"):
        assert word in text, word
