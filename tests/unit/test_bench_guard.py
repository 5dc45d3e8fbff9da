"""What `scripts/bench --quick` says of operations that cost more than was recorded."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from bench_lib import guard
from bench_lib.measure import Row


def row(cpu_us: float | None, requests: float | None, name: str = "create") -> Row:
    return Row(name, 1000.0, "/s", 100, cpu_us, requests)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    file = tmp_path / "recorded.json"
    with mock.patch.object(guard, "yardstick_us", return_value=1000.0):
        guard.record([row(200.0, 6.0), row(210.0, 6.0), row(900.0, 6.02)], file)
    return file


@pytest.mark.parametrize(
    ("yardstick_us", "measured", "said"),
    [
        (1000.0, row(210.0, 6.0), []),
        (1000.0, row(700.0, 7.4), []),
        (1000.0, row(740.0, 6.0), ["create: 740 us of the server's CPU, 210 were recorded, at most 730 may be"]),
        (2000.0, row(740.0, 6.0), []),
        (500.0, row(740.0, 6.0), ["create: 740 us of the server's CPU, 210 were recorded, at most 730 may be"]),
        (9000.0, row(200.0, 8.0), ["create: 8 requests, 6 were recorded, at most 7.5 may be"]),
        (1000.0, row(99_999.0, 99.0, "something new"), []),
        (1000.0, row(None, None), []),
    ],
)
def test_only_what_costs_much_more_is_told(recorded: Path, yardstick_us: float, measured: Row, said: list[str]) -> None:
    with mock.patch.object(guard, "yardstick_us", return_value=yardstick_us):
        assert list(guard.complaints([measured], recorded)) == said


def test_recording_some_rows_keeps_the_others(recorded: Path) -> None:
    guard.record([row(50.0, 2.0, "stat")], recorded)
    assert list(guard.complaints([row(210.0, 6.0), row(60.0, 2.0, "stat")], recorded)) == []
    assert "create" in recorded.read_text()


def test_the_yardstick_measures_something() -> None:
    assert guard.yardstick_us() > 0


def test_what_is_recorded_covers_what_ci_measures() -> None:
    rows = guard.RECORDED.read_text()
    for name in ("create 4 KiB", "rename", "unlink", "mkdir", "fsync append", "sequential write 1 MiB"):
        assert f'"{name}"' in rows
