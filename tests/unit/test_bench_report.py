"""What `scripts/bench` makes of its numbers."""

from __future__ import annotations

import pytest
from bench_lib.main import BY_NAME, WORKLOADS, parse_arguments
from bench_lib.measure import Row
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
